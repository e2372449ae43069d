"""One training step."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ofa_deploy.errors import TrainingDivergedError
from ofa_deploy.space import Arch
from ofa_deploy.supernet import Supernet, resized
from ofa_deploy.train.distill import DIVERGENCES
from ofa_deploy.train.plan import Pass
from ofa_deploy.train.ranks import ALONE, Ranks

__all__ = ["Gradients", "StepSettings", "build_optimizer", "descend", "train_step"]

T = TypeVar("T")
Gradients = tuple[Tensor | None, ...]


def build_optimizer(
    net: nn.Module, *, lr: float, momentum: float, weight_decay: float, kind: str = "sgd"
) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or RMSProp; no weight decay on BN and biases."""
    decayed = [p for p in net.parameters() if p.ndim > 1]
    free = [p for p in net.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free},
    ]
    if kind == "rmsprop":
        return torch.optim.RMSprop(groups, lr=lr, momentum=momentum, alpha=0.9, eps=1e-3)
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0)


@dataclass(frozen=True)
class StepSettings:
    """What a step's losses are made of.

    Attributes:
        dropout: on the features, for passes that ask for it.
        divergence: a name in ``DIVERGENCES``.
        kd_ratio: the weight of a frozen teacher's soft labels.
        bf16: whether networks compute in bfloat16; losses never do.
    """

    label_smoothing: float = 0.0
    dropout: float = 0.0
    divergence: str = "cross-entropy"
    kd_ratio: float = 1.0
    bf16: bool = False


def train_step(
    net: Supernet,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    passes: Sequence[Pass],
    *,
    settings: StepSettings = StepSettings(),
    frozen: Supernet | None = None,
    generator: torch.Generator | None = None,
    ranks: Ranks = ALONE,
    executor: Executor | None = None,
) -> list[float]:
    """Sum the gradients of all passes, over all ranks, and take one optimizer step.

    The first pass is the teacher of those after it: its detached softmax is their soft label.

    Args:
        images: normalised, shape (batch, 3, r, r); each pass resizes them to its resolution.
        labels: int64, shape (batch,).
        frozen: the teacher of passes with the target ``labels+frozen``.
        generator: for dropout.
        executor: computes several passes side by side; the first one's forward comes before all.
            A single pass is computed here, with all of this thread's threads.

    Returns:
        The unweighted loss of each pass, averaged over ranks.

    Raises:
        TrainingDivergedError: if a loss is not finite; the weights are left as they were.
    """
    parameters = list(net.parameters())
    keeps = [_dropout_mask(net, images, each, settings.dropout, generator) for each in passes]
    losses = _Losses(net, images, labels, settings, frozen)
    pool = executor if len(passes) > 1 else None

    def gradients(each: Pass, loss: Tensor) -> Gradients:
        return torch.autograd.grad(each.weight * loss, parameters, allow_unused=True)

    def whole(each: Pass, keep: Tensor | None, live: Tensor) -> tuple[Tensor, Gradients]:
        loss, _ = losses.of(each, keep, live)
        return loss.detach(), gradients(each, loss)

    loss, logits = losses.of(passes[0], keeps[0], None)
    live = logits.detach().softmax(1)
    first = _start(pool, gradients, passes[0], loss)
    others = [
        _start(pool, whole, each, keep, live)
        for each, keep in zip(passes[1:], keeps[1:], strict=True)
    ]
    found = [(loss.detach(), first()), *(other() for other in others)]
    names = [lambda each=each: f"{each.role} {each.arch}" for each in passes]
    return descend(net, optimizer, parameters, found, names, ranks)


def descend(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[nn.Parameter],
    found: Sequence[tuple[Tensor, Gradients]],
    names: Sequence[Callable[[], str]],
    ranks: Ranks = ALONE,
) -> list[float]:
    """Sum gradients over passes, average them over ranks, and take one optimizer step.

    Args:
        net: what holds the parameters.
        found: of each pass its loss, a scalar, and a gradient for each parameter.
        names: of the passes, for messages.

    Returns:
        The loss of each pass, averaged over ranks.

    Raises:
        TrainingDivergedError: if a loss is not finite; the weights are left as they were.
    """
    # Only now: to read a number from a GPU is to wait for all that it was asked to do.
    values = ranks.means([value.item() for value, _ in found])
    for name, number in zip(names, values, strict=True):
        if not math.isfinite(number):
            raise TrainingDivergedError(f"the loss of {name()} is {number}")
    _set_gradients(parameters, [each for _, each in found])
    ranks.mean_gradients(net)
    optimizer.step()
    return values


class _Losses:
    """The loss of each pass of one step."""

    def __init__(
        self,
        net: Supernet,
        images: Tensor,
        labels: Tensor,
        settings: StepSettings,
        frozen: Supernet | None,
    ) -> None:
        self.net, self.images, self.labels, self.settings = net, images, labels, settings
        self.distance = DIVERGENCES[settings.divergence]
        self.fixed: Tensor | None = None
        if frozen is not None:
            with torch.no_grad():
                self.fixed = self._logits(frozen, frozen.space.largest).softmax(1)

    def _logits(self, net: Supernet, arch: Arch, keep: Tensor | None = None) -> Tensor:
        bf16 = self.settings.bf16
        with torch.autocast(self.images.device.type, torch.bfloat16, enabled=bf16):
            logits = net(resized(self.images, arch.resolution), arch, keep=keep)
        return cast(Tensor, logits.float() if bf16 else logits)

    def of(self, each: Pass, keep: Tensor | None, live: Tensor | None) -> tuple[Tensor, Tensor]:
        """A pass's loss, a scalar, and its logits, shape (batch, classes).

        Args:
            keep: its dropout mask.
            live: the soft labels of the step's first pass; None for that pass itself.
        """
        logits = self._logits(self.net, each.arch, keep)
        if each.target == "teacher":
            assert live is not None, "the first pass must learn from labels"
            return self.distance(logits, live), logits
        smoothing = self.settings.label_smoothing
        loss = F.cross_entropy(logits, self.labels, label_smoothing=smoothing)
        if each.target == "labels+frozen":
            assert self.fixed is not None, "no teacher was frozen"
            loss = loss + self.settings.kd_ratio * self.distance(logits, self.fixed)
        return loss, logits


def _start(executor: Executor | None, function: Callable[..., T], *args: object) -> Callable[[], T]:
    """Begin a call on the executor, or make it at once; the result waits for its outcome."""
    if executor is not None:
        return executor.submit(function, *args).result
    value = function(*args)
    return lambda: value


def _set_gradients(parameters: Sequence[nn.Parameter], passes: Sequence[Gradients]) -> None:
    """The sum over passes, always in their order, laid out as the weights are."""
    for parameter, *parts in zip(parameters, *passes, strict=True):
        parameter.grad = None
        for part in parts:
            if part is None:
                continue
            if parameter.grad is None:
                parameter.grad = torch.empty_like(parameter).copy_(part)
            else:
                parameter.grad += part


def _dropout_mask(
    net: Supernet, images: Tensor, each: Pass, rate: float, generator: torch.Generator | None
) -> Tensor | None:
    if not rate or not each.dropout:
        return None
    kept = torch.rand(len(images), net.feature_count, generator=generator) >= rate
    return (kept.float() / (1 - rate)).to(images.device)
