"""The adaptive α-divergence against its parts written out, in double precision."""

import pytest
import torch
from torch import Tensor

from ofa_deploy.train.distill import DIVERGENCES, adaptive_alpha, soft_cross_entropy

CLIP = 5.0


def draw(seed: int, images: int, classes: int, spread: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(images, classes, generator=generator, dtype=torch.float64)
    taught = torch.randn(images, classes, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), taught.softmax(1)


def kl(q: Tensor, p: Tensor) -> Tensor:
    """α = 1: Σ p·log(p/q) of each image."""
    return (p * (p / q).log()).sum(1)


def half_chi2(q: Tensor, p: Tensor) -> Tensor:
    """α = -1: (1/(α(α-1)))·Σ q·((p/q)^α - 1) = ½·(Σ q²/p - 1) of each image."""
    return 0.5 * ((q.square() / p).sum(1) - 1)


def value_and_gradient(logits: Tensor, p: Tensor) -> tuple[float, Tensor]:
    loss = adaptive_alpha(logits, p)
    (gradient,) = torch.autograd.grad(loss, logits)
    return float(loss.detach()), gradient


def test_where_the_clip_does_not_bind() -> None:
    logits, p = draw(0, 64, 6, 0.5)
    q = logits.softmax(1)
    bound = (q / p).amax(1) >= CLIP
    logits, p = logits[~bound].detach().requires_grad_(), p[~bound]
    q = logits.softmax(1)
    missing, excess = kl(q, p), half_chi2(q, p)
    wins = excess > missing
    assert 5 < int(wins.sum()) < len(wins) - 5, "both divergences must occur"
    expected = torch.where(wins, excess, missing).mean()
    (gradient,) = torch.autograd.grad(expected, logits)
    found, found_gradient = value_and_gradient(logits, p)
    assert found == pytest.approx(float(expected.detach()), rel=1e-12)
    torch.testing.assert_close(found_gradient, gradient, rtol=1e-10, atol=1e-14)


def by_hand(logit: Tensor, p: Tensor) -> tuple[float, Tensor]:
    """One image; ∂log q_i/∂z_j = [i = j] - q_j, and clipped ratios are constants."""
    q = logit.detach().exp() / logit.detach().exp().sum()
    ratio = [min(float(a / b), CLIP) for a, b in zip(q, p, strict=True)]
    excess = 0.5 * (sum(float(a) * r for a, r in zip(q, ratio, strict=True)) - 1)
    missing = sum(float(b) * float((b / a).log()) for a, b in zip(q, p, strict=True))
    if missing >= excess:
        return missing, q - p
    carried = [float(a) * r for a, r in zip(q, ratio, strict=True)]
    gradient = [carried[j] - float(q[j]) * sum(carried) for j in range(len(p))]
    return excess, torch.tensor(gradient, dtype=torch.float64)


def test_where_the_clip_binds() -> None:
    logits, p = draw(1, 48, 5, 4.0)
    q = logits.detach().softmax(1)
    assert int(((q / p).amax(1) > CLIP).sum()) > 10
    values, gradients = zip(*(by_hand(z, t) for z, t in zip(logits, p, strict=True)), strict=True)
    found, gradient = value_and_gradient(logits, p)
    assert found == pytest.approx(sum(values) / 48, rel=1e-12)
    torch.testing.assert_close(gradient, torch.stack(gradients) / 48, rtol=1e-10, atol=1e-14)


def test_clipped_image_that_says_what_the_teacher_does_not() -> None:
    """q = (0.9, 0.1), p = (0.1, 0.9): the ratio 9 becomes 5, and KL still is the larger."""
    p = torch.tensor([[0.1, 0.9]], dtype=torch.float64)
    logits = torch.tensor([[0.9, 0.1]], dtype=torch.float64).log().requires_grad_()
    found, gradient = value_and_gradient(logits, p)
    assert found == pytest.approx(0.8 * torch.log(torch.tensor(9.0)).item(), rel=1e-6)
    torch.testing.assert_close(gradient, torch.tensor([[0.8, -0.8]], dtype=torch.float64))
    # q = (0.5, 0.5), p = (0.01, 0.99): ½(0.5·5 + 0.5·0.505 - 1) = 0.876; KL is 0.637.
    p = torch.tensor([[0.01, 0.99]], dtype=torch.float64)
    logits = torch.zeros(1, 2, dtype=torch.float64).requires_grad_()
    found, gradient = value_and_gradient(logits, p)
    carried = (2.5, 0.25 / 0.99)
    assert found == pytest.approx(0.5 * (sum(carried) - 1), rel=1e-12)
    steep = carried[0] - 0.5 * sum(carried)
    torch.testing.assert_close(gradient, torch.tensor([[steep, -steep]], dtype=torch.float64))


def test_agreement_costs_nothing() -> None:
    logits, _ = draw(2, 8, 5, 1.0)
    found, gradient = value_and_gradient(logits, logits.detach().softmax(1))
    assert found == pytest.approx(0, abs=1e-12)
    assert float(gradient.abs().max()) < 1e-12


def test_teacher_that_rules_a_class_out_leaves_it_finite() -> None:
    p = torch.tensor([[1.0, 0.0, 0.0]])
    logits = torch.tensor([[0.0, 20.0, -90.0]], requires_grad=True)
    loss = adaptive_alpha(logits, p)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()
    assert logits.grad[0, 1] > 0 > logits.grad[0, 0]


def test_soft_cross_entropy_written_out() -> None:
    logits, p = draw(4, 16, 5, 2.0)
    expected = -(p * logits.log_softmax(1)).sum(1).mean()
    found = soft_cross_entropy(logits, p)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    assert {"cross-entropy": soft_cross_entropy, "alpha": adaptive_alpha} == DIVERGENCES
