"""What a subnet minimises towards a teacher's soft labels."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["DIVERGENCES", "adaptive_alpha", "soft_cross_entropy"]

_CLIP = 5.0


def soft_cross_entropy(logits: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy on soft labels, averaged over the batch.

    Args:
        logits: of the student, shape (batch, classes).
        teacher: probabilities, shape (batch, classes).
    """
    return F.cross_entropy(logits, teacher)


def adaptive_alpha(logits: Tensor, teacher: Tensor) -> Tensor:
    """AlphaNet's loss (Wang et al. 2021): for each image the larger of two α-divergences.

    α = 1 is KL(teacher ‖ student), which punishes a student that misses what the teacher says;
    α = -1 is half of the χ² divergence, which punishes one that says what the teacher does not.
    Its importance ratio student / teacher is clipped at 5.

    Returns:
        A scalar whose gradient is that of the larger divergence of each image; its value is the
        mean of them.
    """
    log_student = logits.log_softmax(1)
    student = log_student.detach().exp()
    ratio = (student / teacher.clamp_min(1e-12)).clamp_max(_CLIP)
    missing = (teacher * (teacher.clamp_min(1e-12).log() - log_student)).sum(1)
    excess = 0.5 * ((student * ratio).sum(1) - 1)
    # d excess = Σ student · ratio · d log student: the clipped ratio is held constant.
    carrier = (student * ratio * log_student).sum(1)
    excess = excess + carrier - carrier.detach()
    return torch.where(excess.detach() > missing.detach(), excess, missing).mean()


DIVERGENCES = {"cross-entropy": soft_cross_entropy, "alpha": adaptive_alpha}
