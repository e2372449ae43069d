"""``Block``: the unit that cost, latency tables, graphs and reports all speak of."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

__all__ = ["ACTIVATIONS", "Activation", "Block", "make_divisible"]

Kind = Literal["conv", "maxpool", "mbconv", "bottleneck", "classifier"]
Activation = Literal["none", "relu", "relu6", "hswish"]
ACTIVATIONS: tuple[str, ...] = get_args(Activation)

_BYTES = 4  # float32


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round channels to a multiple of ``divisor``, at most 10 % down (MobileNetV2's rule)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


@dataclass(frozen=True, kw_only=True)
class Block:
    """One layer group of a lowered network, fully determined.

    Kinds:
        ``conv``: convolution, BN, activation; a residual adds its input to that.
        ``maxpool``: max-pooling.
        ``mbconv``: [1x1 expansion], depthwise, [squeeze-excite], linear 1x1 projection, BN after
            each convolution; there is no expansion when ``mid_channels == in_channels``.
        ``bottleneck``: 1x1, ``kernel`` with the stride, 1x1, BN after each; the input is added
            before the last activation, as it is if ``residual``, else average-pooled by the stride
            and projected by a 1x1 with BN (He et al. 2016 and 2019, ResNet-D).
        ``classifier``: global average pool, [1x1 to ``mid_channels``, activation], linear.

    Attributes:
        size: height and width of the input, in pixels.
        se: hidden units of the squeeze-excite, 0 without one.
        residual: whether the input is added to the output.
    """

    kind: Kind
    in_channels: int
    out_channels: int
    size: int
    mid_channels: int = 0
    kernel: int = 1
    stride: int = 1
    se: int = 0
    activation: str = "none"
    residual: bool = False

    @cached_property
    def key(self) -> str:
        """The block's one name: equal keys are equal blocks."""
        mid = f"-{self.mid_channels}" if self.mid_channels else ""
        parts = [
            self.kind,
            f"{self.size}x{self.size}",
            f"{self.in_channels}{mid}-{self.out_channels}",
            f"k{self.kernel}" if self.kind != "classifier" else "",
            f"s{self.stride}" if self.stride > 1 else "",
            self.activation if self.activation != "none" else "",
            f"se{self.se}" if self.se else "",
            "res" if self.residual else "",
        ]
        return "_".join(part for part in parts if part)

    @property
    def expands(self) -> bool:
        """Whether an mbconv has its 1x1 expansion."""
        return self.mid_channels != self.in_channels

    @property
    def out_size(self) -> int:
        """Height and width of the output (padding is kernel // 2)."""
        return 1 if self.kind == "classifier" else -(-self.size // self.stride)

    @property
    def projects(self) -> bool:
        """Whether a bottleneck has a projected shortcut."""
        return self.kind == "bottleneck" and not self.residual

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of convolutions, SE and linear layers, for one image."""
        area, out_area = self.size**2, self.out_size**2
        match self.kind:
            case "conv":
                return self.in_channels * self.out_channels * self.kernel**2 * out_area
            case "maxpool":
                return 0
            case "bottleneck":
                first = self.in_channels * self.mid_channels * area
                second = (self.mid_channels * self.kernel) ** 2 * out_area
                third = self.mid_channels * self.out_channels * out_area
                shortcut = self.in_channels * self.out_channels * out_area if self.projects else 0
                return first + second + third + shortcut
            case "mbconv":
                expansion = self.in_channels * self.mid_channels * area if self.expands else 0
                depthwise = self.mid_channels * self.kernel**2 * out_area
                projection = self.mid_channels * self.out_channels * out_area
                return expansion + depthwise + 2 * self.mid_channels * self.se + projection
            case "classifier":
                features = self.mid_channels or self.in_channels
                hidden = self.in_channels * self.mid_channels
                return hidden + features * self.out_channels

    @cached_property
    def params(self) -> int:
        """Trained parameters: weights, biases, BN scales and shifts."""
        match self.kind:
            case "conv":
                weights = self.in_channels * self.out_channels * self.kernel**2
                return weights + 2 * self.out_channels
            case "maxpool":
                return 0
            case "bottleneck":
                mid, outputs = self.mid_channels, self.out_channels
                inner = (self.in_channels + 2) * mid + (mid * self.kernel**2 + 2) * mid
                shortcut = (self.in_channels + 2) * outputs if self.projects else 0
                return inner + (mid + 2) * outputs + shortcut
            case "mbconv":
                mid = self.mid_channels
                expansion = (self.in_channels + 2) * mid if self.expands else 0
                depthwise = (self.kernel**2 + 2) * mid
                squeeze = 2 * mid * self.se + self.se + mid if self.se else 0
                return expansion + depthwise + squeeze + (mid + 2) * self.out_channels
            case "classifier":
                features = self.mid_channels or self.in_channels
                return self.in_channels * self.mid_channels + (features + 1) * self.out_channels

    @property
    def weight_bytes(self) -> int:
        """Bytes of float32 weights and biases once BN is folded into the convolutions."""
        match self.kind:
            case "conv":
                folded = self.out_channels
            case "bottleneck":
                folded = 2 * self.mid_channels + (1 + self.projects) * self.out_channels
            case "mbconv":
                folded = (1 + self.expands) * self.mid_channels + self.out_channels
            case _:
                folded = 0
        return _BYTES * (self.params - folded)

    @cached_property
    def activation_bytes(self) -> int:
        """The most bytes of float32 activations alive at once inside the block, for one image."""
        area, out_area = self.size**2, self.out_size**2
        source, target = self.in_channels * area, self.out_channels * out_area
        wide, narrow = self.mid_channels * area, self.mid_channels * out_area
        match self.kind:
            case "bottleneck":
                pooled = self.in_channels * out_area
                steps = [source + wide, source + wide + narrow, source + narrow + target]
                if self.projects:
                    steps += [target + source + pooled, target + pooled + target]
            case "mbconv":
                held = source if self.residual else 0
                steps = [held + wide + narrow, held + narrow + target]
                steps += [source + wide] if self.expands else []
            case _:
                steps = [source + max(target, self.mid_channels)]
        return _BYTES * max(steps)

    @property
    def bytes_moved(self) -> int:
        """Bytes of float32 activations and weights read or written once, for one image."""
        area, out_area = self.size**2, self.out_size**2
        values = self.in_channels * area + self.out_channels * out_area + self.params
        if self.kind == "mbconv":
            values += 2 * self.mid_channels * (out_area + (area if self.expands else 0))
        elif self.kind == "bottleneck":
            values += 2 * self.mid_channels * (out_area + area)
            if self.projects:
                values += 2 * self.in_channels * out_area + 2 * self.out_channels * out_area
        return _BYTES * values
