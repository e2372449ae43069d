"""How good probabilities are: accuracy, calibration, and how much members differ."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ofa_deploy.errors import InputError

__all__ = ["Diversity", "Quality", "diversity", "quality"]

_BINS = 15
_LEAST = 1e-12

Floats = npt.NDArray[np.floating]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Quality:
    """Of predictions on labelled images.

    Attributes:
        top1: images classified right, in percent.
        nll: mean negative log-likelihood of the labels, in nats.
        ece: expected calibration error: the mean distance of confidence from accuracy over 15 bins
            of equal width, weighted by their images (Guo et al. 2017); from 0 to 1.
        brier: mean squared distance of the probabilities from the truth, summed over classes; from
            0 to 2.
    """

    top1: float
    nll: float
    ece: float
    brier: float


@dataclass(frozen=True)
class Diversity:
    """How much members differ, as means over pairs.

    Attributes:
        disagreement: the share of images that two members classify differently, from 0 to 1.
        kl: the Kullback-Leibler divergence of one's probabilities from another's, in nats, both
            ways round.
    """

    disagreement: float
    kl: float


def quality(probabilities: Floats, labels: Labels) -> Quality:
    """Judge probabilities, shape (images, classes), by labels, shape (images,).

    Raises:
        InputError: if there is no image, or not a label for each.
    """
    if not len(labels) or probabilities.shape[:1] != labels.shape:
        raise InputError(
            f"expected probabilities for {len(labels)} labelled images, found shape "
            f"{probabilities.shape}"
        )
    p = probabilities.astype(np.float64)
    rows = np.arange(len(labels))
    right = p.argmax(1) == labels
    truth = np.zeros_like(p)
    truth[rows, labels] = 1
    return Quality(
        top1=100 * int(right.sum()) / len(labels),
        nll=float(-np.log(np.maximum(p[rows, labels], _LEAST)).mean()),
        ece=_ece(p.max(1), right),
        brier=float(np.square(p - truth).sum(1).mean()),
    )


def _ece(confidence: npt.NDArray[np.float64], right: npt.NDArray[np.bool_]) -> float:
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = np.bincount(bins, right - confidence, _BINS)  # accuracy less confidence, times images
    return float(np.abs(gaps).sum() / len(right))


def diversity(members: Floats) -> Diversity:
    """Compare members' probabilities, shape (members, images, classes); 0 for a single one."""
    p = members.astype(np.float64)
    pairs = [(i, j) for i in range(len(p)) for j in range(len(p)) if i != j]
    if not pairs:
        return Diversity(0.0, 0.0)
    classes, logs = p.argmax(2), np.log(np.maximum(p, _LEAST))
    return Diversity(
        disagreement=float(np.mean([(classes[i] != classes[j]).mean() for i, j in pairs])),
        kl=float(np.mean([(p[i] * (logs[i] - logs[j])).sum(1).mean() for i, j in pairs])),
    )
