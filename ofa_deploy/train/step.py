"""One training step."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ofa_deploy.errors import TrainingDivergedError
from ofa_deploy.supernet import Supernet, resized
from ofa_deploy.train.distill import DIVERGENCES
from ofa_deploy.train.plan import Pass
from ofa_deploy.train.ranks import ALONE, Ranks

__all__ = ["build_optimizer", "train_step"]

T = TypeVar("T")
Gradients = tuple[Tensor | None, ...]


def build_optimizer(
    net: Supernet, *, lr: float, momentum: float, weight_decay: float, kind: str = "sgd"
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


def train_step(
    net: Supernet,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    passes: Sequence[Pass],
    *,
    label_smoothing: float = 0.0,
    dropout: float = 0.0,
    divergence: str = "cross-entropy",
    frozen: Supernet | None = None,
    kd_ratio: float = 1.0,
    bf16: bool = False,
    generator: torch.Generator | None = None,
    ranks: Ranks = ALONE,
    executor: Executor | None = None,
) -> list[float]:
    """Sum the gradients of all passes, over all ranks, and take one optimizer step.

    The first pass is the teacher of those after it: its detached softmax is their soft label.

    Args:
        images: normalised, shape (batch, 3, r, r); each pass resizes them to its resolution.
        labels: int64, shape (batch,).
        divergence: a name in ``DIVERGENCES``.
        frozen: the teacher of passes with the target ``labels+frozen``.
        kd_ratio: the weight of its soft labels.
        generator: for dropout.
        executor: computes the passes side by side; the first one's forward comes before all.

    Returns:
        The unweighted loss of each pass, averaged over ranks.

    Raises:
        TrainingDivergedError: if a loss is not finite; the weights are left as they were.
    """
    parameters = list(net.parameters())
    distance = DIVERGENCES[divergence]
    fixed = _soft_labels(frozen, images, bf16) if frozen is not None else None
    keeps = [
        _dropout_mask(net, images, dropout if each.dropout else 0.0, generator) for each in passes
    ]

    def loss_of(each: Pass, keep: Tensor | None, live: Tensor | None) -> tuple[Tensor, Tensor]:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            logits = net(resized(images, each.arch.resolution), each.arch, keep=keep)
        logits = logits.float() if bf16 else logits
        if each.target == "teacher":
            assert live is not None, "the first pass must learn from labels"
            return distance(logits, live), logits
        loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        if each.target == "labels+frozen":
            assert fixed is not None, "no teacher was frozen"
            loss = loss + kd_ratio * distance(logits, fixed)
        return loss, logits

    def gradients(each: Pass, loss: Tensor) -> Gradients:
        return torch.autograd.grad(each.weight * loss, parameters, allow_unused=True)

    def whole(each: Pass, keep: Tensor | None, live: Tensor) -> tuple[float, Gradients]:
        loss, _ = loss_of(each, keep, live)
        return loss.item(), gradients(each, loss)

    loss, logits = loss_of(passes[0], keeps[0], None)
    live = logits.detach().softmax(1)
    first = _start(executor, gradients, passes[0], loss)
    others = [
        _start(executor, whole, each, keep, live)
        for each, keep in zip(passes[1:], keeps[1:], strict=True)
    ]
    found = [(loss.item(), first()), *(other() for other in others)]
    losses = ranks.means([value for value, _ in found])
    for each, value in zip(passes, losses, strict=True):
        if not math.isfinite(value):
            raise TrainingDivergedError(f"the loss of {each.role} {each.arch} is {value}")
    _set_gradients(parameters, [each for _, each in found])
    ranks.mean_gradients(net)
    optimizer.step()
    return losses


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


@torch.no_grad()
def _soft_labels(teacher: Supernet, images: Tensor, bf16: bool) -> Tensor:
    arch = teacher.space.largest
    with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
        logits = teacher(resized(images, arch.resolution), arch)
    return cast(Tensor, (logits.float() if bf16 else logits).softmax(1))


def _dropout_mask(
    net: Supernet, images: Tensor, rate: float, generator: torch.Generator | None
) -> Tensor | None:
    if not rate:
        return None
    kept = torch.rand(len(images), net.feature_count, generator=generator) >= rate
    return (kept.float() / (1 - rate)).to(images.device)
