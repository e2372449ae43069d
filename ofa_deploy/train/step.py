"""One training step."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ofa_deploy.errors import TrainingDivergedError
from ofa_deploy.supernet import Supernet, resized
from ofa_deploy.train.passes import Pass

__all__ = ["build_optimizer", "train_step"]


def build_optimizer(
    net: Supernet, *, lr: float, momentum: float, weight_decay: float
) -> torch.optim.SGD:
    """SGD with Nesterov momentum; no weight decay on BN and biases."""
    decayed = [p for p in net.parameters() if p.ndim > 1]
    free = [p for p in net.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free},
    ]
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
    generator: torch.Generator | None = None,
) -> list[float]:
    """Sum the gradients of all passes and take one optimizer step.

    The first pass is the teacher: its detached softmax is the soft label of those after it.

    Args:
        images: normalised, shape (batch, 3, r, r); each pass resizes them to its resolution.
        labels: int64, shape (batch,).
        generator: for dropout.

    Returns:
        The unweighted loss of each pass.

    Raises:
        TrainingDivergedError: if a loss is not finite; the weights are left as they were.
    """
    optimizer.zero_grad(set_to_none=True)
    soft_labels: Tensor | None = None
    losses = []
    for each in passes:
        keep = _dropout_mask(net, len(images), dropout if each.dropout else 0.0, generator)
        logits = net(resized(images, each.arch.resolution), each.arch, keep=keep)
        if each.target == "labels":
            loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        else:
            assert soft_labels is not None, "the first pass must learn from labels"
            loss = F.cross_entropy(logits, soft_labels)
        if soft_labels is None:
            soft_labels = logits.detach().softmax(1)
        losses.append(loss.item())
        if not torch.isfinite(loss):
            raise TrainingDivergedError(f"the loss of {each.role} {each.arch} is {loss.item()}")
        (each.weight * loss).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return losses


def _dropout_mask(
    net: Supernet, batch: int, rate: float, generator: torch.Generator | None
) -> Tensor | None:
    if not rate:
        return None
    kept = torch.rand(batch, net.feature_count, generator=generator) >= rate
    return kept.float() / (1 - rate)
