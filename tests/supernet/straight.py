"""Published once-for-all networks in a straight line: a state dict, a config, torch functions.

A second reading of how the networks are defined. It shares no code with the package: no modules,
no search space, no lowered blocks. Channels are sliced, kernels shrunk and blocks left out here as
the published config says.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.supernet.published_names import divisible

__all__ = ["Config", "evaluate", "recalibrated"]

Config = Mapping[str, Sequence[float]]  # lists d, ks, e or d, e, w, of full length
State = Mapping[str, Tensor]

_EPS = {"mbv3": 1e-5, "proxyless": 1e-3, "resnet50": 1e-5}
_STRIDES = {"mbv3": (2, 2, 2, 1, 2), "proxyless": (2, 2, 2, 1, 2, 1)}
_MULTIPLIERS = (0.65, 0.8, 1.0)
_RESNET_STAGES = ((256, 0, 2), (512, 4, 2), (1024, 8, 4), (2048, 14, 2))  # width, first, base


def evaluate(family: str, state: State, x: Tensor, config: Config) -> Tensor:
    """Logits of a subnet in eval mode, shape (batch, classes).

    Args:
        state: in the newer generation of names, of the dtype of ``x``.
        x: images, shape (batch, 3, r, r).
    """
    return _Network(family, state).logits(x, config)


def recalibrated(
    family: str, state: State, batches: Sequence[Tensor], x: Tensor, config: Config
) -> Tensor:
    """As ``evaluate``, with BN statistics averaged over ``batches`` by their sizes."""
    measuring = _Network(family, state)
    measuring.sums = {}
    for batch in batches:
        measuring.logits(batch, config)
    images = sum(map(len, batches))
    measured = {name: total / images for name, total in measuring.sums.items()}
    return evaluate(family, {**state, **measured}, x, config)


class _Network:
    def __init__(self, family: str, state: State) -> None:
        self.family = family
        self.state = state
        self.sums: dict[str, Tensor] | None = None  # batch statistics, where they are wanted

    def logits(self, x: Tensor, config: Config) -> Tensor:
        return self.resnet50(x, config) if self.family == "resnet50" else self.mobile(x, config)

    # -- parts ------------------------------------------------------------------------------

    def norm(self, x: Tensor, name: str) -> Tensor:
        n = x.shape[1]
        if self.sums is None:
            mean = self.state[f"{name}.running_mean"][:n]
            var = self.state[f"{name}.running_var"][:n]
        else:
            mean = x.mean((0, 2, 3))
            var = (x - mean[:, None, None]).square().mean((0, 2, 3))
            for key, value in ((f"{name}.running_mean", mean), (f"{name}.running_var", var)):
                self.sums[key] = self.sums.get(key, torch.zeros_like(value)) + value * len(x)
        scale = self.state[f"{name}.weight"][:n] / (var + _EPS[self.family]).sqrt()
        shift = self.state[f"{name}.bias"][:n] - mean * scale
        return x * scale[:, None, None] + shift[:, None, None]

    def layer(self, x: Tensor, name: str, outputs: int | None = None, stride: int = 1) -> Tensor:
        """An elastic convolution (names doubled) and its BN."""
        weight = self.state[f"{name}.conv.conv.weight"][:outputs, : x.shape[1]]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        return self.norm(x, f"{name}.bn.bn")

    def static(self, x: Tensor, name: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = self.state[f"{name}.conv.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)
        return self.norm(x, f"{name}.bn")

    def act(self, x: Tensor, stage: int) -> Tensor:
        """The activation of a stage; -1 is the stem, -2 the block after it, 9 the head."""
        if self.family == "proxyless":
            return x.clamp(0, 6)
        return x.clamp(min=0) if stage in (-2, 0, 1) else x * (x + 3).clamp(0, 6) / 6

    def kernel(self, name: str, mid: int, size: int) -> Tensor:
        weight = self.state[f"{name}.conv.weight"][:mid, 0]
        for small in (5, 3):
            if size > small:
                break
            matrix = self.state[f"{name}.{small + 2}to{small}_matrix"]
            centre = weight[:, 1:-1, 1:-1].reshape(mid, small * small)
            weight = torch.einsum("ij,cj->ci", matrix, centre).reshape(mid, small, small)
        return weight[:, None]

    def squeeze(self, x: Tensor, name: str) -> Tensor:
        mid = x.shape[1]
        hidden = divisible(mid // 4)
        reduce, expand = (self.state[f"{name}.{which}.weight"] for which in ("reduce", "expand"))
        y = x.mean((2, 3)) @ reduce[:hidden, :mid, 0, 0].T
        y = (y + self.state[f"{name}.reduce.bias"][:hidden]).clamp(min=0)
        y = y @ expand[:mid, :hidden, 0, 0].T + self.state[f"{name}.expand.bias"][:mid]
        return x * ((y + 3).clamp(0, 6) / 6)[:, :, None, None]

    # -- mobile families --------------------------------------------------------------------

    def mobile(self, x: Tensor, config: Config) -> Tensor:
        x = self.act(self.static(x, "first_conv", stride=2), -1)
        prefix = "blocks.0.conv"
        y = self.act(self.static(x, f"{prefix}.depth_conv", groups=x.shape[1]), -2)
        y = self.static(y, f"{prefix}.point_linear")
        x = x + y if x.shape == y.shape else y
        for stage, stride in enumerate(_STRIDES[self.family]):
            for block in range(int(config["d"][stage])):
                x = self.mobile_block(x, config, stage, block, stride if block == 0 else 1)
        if self.family == "mbv3":
            x = self.act(self.static(x, "final_expand_layer"), 9).mean((2, 3))
            x = self.act(x @ self.state["feature_mix_layer.conv.weight"][:, :, 0, 0].T, 9)
        else:
            x = self.act(self.static(x, "feature_mix_layer"), 9).mean((2, 3))
        return self.classify(x, "classifier.linear")

    def mobile_block(
        self, x: Tensor, config: Config, stage: int, block: int, stride: int
    ) -> Tensor:
        place = 4 * stage + block
        size, prefix = int(config["ks"][place]), f"blocks.{place + 1}.conv"
        mid = divisible(round(x.shape[1] * config["e"][place]))
        y = self.act(self.layer(x, f"{prefix}.inverted_bottleneck", mid), stage)
        weight = self.kernel(f"{prefix}.depth_conv.conv", mid, size)
        y = F.conv2d(y, weight, stride=stride, padding=size // 2, groups=mid)
        y = self.act(self.norm(y, f"{prefix}.depth_conv.bn.bn"), stage)
        if f"{prefix}.depth_conv.se.fc.reduce.weight" in self.state:
            y = self.squeeze(y, f"{prefix}.depth_conv.se.fc")
        y = self.layer(y, f"{prefix}.point_linear")
        return x + y if x.shape == y.shape else y

    # -- ResNet-50 --------------------------------------------------------------------------

    def resnet50(self, x: Tensor, config: Config) -> Tensor:
        width = [_MULTIPLIERS[int(index)] for index in config["w"]]
        middle, outputs = divisible(divisible(64 * width[0]) // 2), divisible(64 * width[1])
        x = self.layer(x, "input_stem.0", middle, stride=2).clamp(min=0)
        if config["d"][0] == 2:
            x = x + self.layer(x, "input_stem.1.conv", middle).clamp(min=0)
        x = self.layer(x, "input_stem.2", outputs).clamp(min=0)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        for stage, (channels, first, base) in enumerate(_RESNET_STAGES):
            outputs = divisible(channels * width[stage + 2])
            for block in range(base + int(config["d"][stage + 1])):
                stride = 2 if stage and block == 0 else 1
                mid = divisible(round(outputs * config["e"][first + block]))
                x = self.bottleneck(x, f"blocks.{first + block}", mid, outputs, stride)
        return self.classify(x.mean((2, 3)), "classifier.linear.linear")

    def bottleneck(self, x: Tensor, prefix: str, mid: int, outputs: int, stride: int) -> Tensor:
        y = self.layer(x, f"{prefix}.conv1", mid).clamp(min=0)
        y = self.layer(y, f"{prefix}.conv2", mid, stride).clamp(min=0)
        y = self.layer(y, f"{prefix}.conv3", outputs)
        if f"{prefix}.downsample.conv.conv.weight" in self.state:
            pooled = F.avg_pool2d(x, stride, ceil_mode=True, count_include_pad=False)
            x = self.layer(pooled, f"{prefix}.downsample", outputs)
        return (x + y).clamp(min=0)

    def classify(self, x: Tensor, name: str) -> Tensor:
        weight = self.state[f"{name}.weight"][:, : x.shape[1]]
        return x @ weight.T + self.state[f"{name}.bias"]
