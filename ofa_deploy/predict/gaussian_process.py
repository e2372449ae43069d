"""A Gaussian process of accuracy, and how its numbers are found.

What it sees of accuracy is ``-log(ceiling - top1)``: effects that add up there level off as
accuracy nears a ceiling, which is fitted with the rest (a warped process; Snelson, Rasmussen and
Ghahramani 2004). The covariance of two networks is ``1 + s + q s² + local``: effects of features,
effects of pairs of features, and what only near networks share; ``s`` is the product of their
features, with one variance a group of them. The numbers maximise the marginal likelihood times a
broad prior (Rasmussen and Williams 2006, sections 5.4 and 5.5), which matters while networks are
few.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Numbers", "Process", "Warp", "fit_process", "leave_one_out"]

Floats = npt.NDArray[np.float64]
Groups = npt.NDArray[np.intp]

# Logarithms: mean and standard deviation of their prior, for standardised accuracy.
_VARIANCE = (-6.0, 1.5)  # of a group of features
_OTHERS = (
    (-0.5, 1.0),  # pairs of features, to the product of their variances
    (-5.0, 2.0),  # what near networks share
    (4.0, 1.5),  # how near: the inverse square of the length
    (-6.0, 2.0),  # noise
)
_CEILING = (0.3, 0.4)  # above the best accuracy, to the range of accuracies
_JITTER = 1e-7
_LEAST = 1e-3  # accuracies that differ by less, in points, are as good as equal
_STEPS, _FEWER_STEPS = 30, 5
_MOST = 500  # networks that numbers are fitted to: more hardly move them
_FEW = 250  # with more, what numbers have seen no longer flatters errors
_PARTS = 10


@dataclass(frozen=True)
class Warp:
    """Accuracy in percent to what the process sees, and back."""

    ceiling: float
    mean: float
    spread: float

    def __call__(self, top1: Floats) -> Floats:
        return np.asarray((-np.log(self.ceiling - top1) - self.mean) / self.spread)

    def back(self, seen: Floats) -> Floats:
        """Accuracy in percent."""
        return np.asarray(self.ceiling - np.exp(-(self.mean + self.spread * seen)))


@dataclass(frozen=True)
class Numbers:
    """The numbers of a covariance, as logarithms: a variance a group, then as ``_OTHERS``."""

    logs: Floats
    groups: Groups

    @classmethod
    def prior(cls, groups: Groups) -> "Numbers":
        """The most probable ones before anything was measured."""
        return cls(_prior(groups)[:, 0], groups)

    @property
    def variances(self) -> Floats:
        """Of each feature, shape (m,)."""
        return np.asarray(np.exp(self.logs[self.groups]))

    @property
    def others(self) -> tuple[float, float, float, float]:
        """Pairs, what near networks share, how near, noise."""
        pairs, local, near, noise = np.exp(self.logs[-len(_OTHERS) :]).tolist()
        return pairs, local, near, noise + _JITTER

    def scaled(self, features: Floats) -> Floats:
        """Features as the covariance takes them: times the root of their variance."""
        return features * np.sqrt(self.variances)

    def covariance(self) -> Any:
        """A scikit-learn kernel over scaled features; the noise is its last term."""
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel

        pairs, local, near, noise = self.others
        return (
            DotProduct(1.0, "fixed")
            + ConstantKernel(pairs, "fixed") * DotProduct(0.0, "fixed") ** 2
            + ConstantKernel(local, "fixed") * RBF(near**-0.5, "fixed")
            + WhiteKernel(noise, "fixed")
        )


@dataclass(frozen=True)
class Process:
    """A fitted process; ``regressor`` is scikit-learn's, over scaled features."""

    numbers: Numbers
    warp: Warp
    regressor: Any

    def predict(self, features: Floats) -> Floats:
        """Accuracy in percent, shape (n,)."""
        return self.warp.back(self.regressor.predict(self.numbers.scaled(features)))


def fit_process(features: Floats, groups: Groups, top1: Floats) -> Process:
    """The process with the most probable numbers.

    Args:
        features: shape (n, m).
        groups: which group each feature is of, shape (m,).
        top1: in percent, shape (n,).
    """
    from sklearn.gaussian_process import GaussianProcessRegressor

    some = np.random.default_rng(0).permutation(len(top1))[:_MOST]
    x, y = features[some], top1[some]

    def loss(logs: Floats) -> tuple[float, Floats]:
        warp, change = _warp(top1, float(logs[-1]))
        under, seen = warp.ceiling - y, warp(y)
        value, slopes, pull = _unlikelihood(x, Numbers(logs[:-1], groups), seen)
        moved = -(change.ceiling / under + change.mean + seen * change.spread) / warp.spread
        stretched = change.ceiling / under + change.spread / warp.spread
        value += float(np.log(under * warp.spread).sum())
        return value, np.append(slopes, pull @ moved + stretched.sum())

    mean, deviation = np.vstack([_prior(groups), _CEILING]).T
    logs = _most_probable(loss, mean, deviation, mean, _STEPS)
    numbers, (warp, _) = Numbers(logs[:-1], groups), _warp(top1, float(logs[-1]))
    regressor = GaussianProcessRegressor(numbers.covariance(), alpha=0.0, optimizer=None)
    return Process(numbers, warp, regressor.fit(numbers.scaled(features), warp(top1)))


def leave_one_out(process: Process, features: Floats, top1: Floats) -> Floats:
    """What the process would say of each network had it not seen it, in percent, shape (n,).

    One that was measured more than once is left out with all that was measured of it. Numbers that
    have seen a network flatter its error: they are fitted anew without each tenth of the networks
    in turn, as long as networks are so few that it matters.
    """
    seen, groups = process.warp(top1), process.numbers.groups
    mean, deviation = _prior(groups).T
    same = np.unique(features, axis=0, return_inverse=True)[1].ravel()
    predicted = _without_each(process.numbers, features, seen, same)
    parts = np.random.default_rng(0).permutation(int(same.max()) + 1)[same] % _PARTS
    for part in range(_PARTS) if len(top1) <= _FEW else ():
        own = parts == part
        if own.all() or not own.any():
            continue
        x, z = features[~own], seen[~own]

        def loss(logs: Floats, x: Floats = x, z: Floats = z) -> tuple[float, Floats]:
            return _unlikelihood(x, Numbers(logs, groups), z)[:2]

        logs = _most_probable(loss, mean, deviation, process.numbers.logs, _FEWER_STEPS)
        predicted[own] = _without_each(Numbers(logs, groups), features, seen, same)[own]
    return process.warp.back(predicted)


def _without_each(numbers: Numbers, features: Floats, seen: Floats, same: Groups) -> Floats:
    """Rasmussen and Williams 2006, eq. 5.12, for one or more measurements of a network."""
    inverse = np.linalg.inv(numbers.covariance()(numbers.scaled(features)))
    pull = inverse @ seen
    missed = pull / np.diag(inverse)
    for network in np.flatnonzero(np.bincount(same) > 1):
        rows = np.flatnonzero(same == network)
        missed[rows] = np.linalg.solve(inverse[np.ix_(rows, rows)], pull[rows])
    return np.asarray(seen - missed)


def _prior(groups: Groups) -> Floats:
    """Mean and deviation of every number's logarithm, shape (numbers, 2)."""
    return np.array([*[_VARIANCE] * (int(groups.max(initial=-1)) + 1), *_OTHERS])


def _most_probable(
    loss: Callable[[Floats], tuple[float, Floats]],
    mean: Floats,
    deviation: Floats,
    start: Floats,
    steps: int,
) -> Floats:
    """Where the loss less the logarithm of the prior is least."""
    from scipy.optimize import minimize

    def both(logs: Floats) -> tuple[float, Floats]:
        value, slopes = loss(logs)
        off = (logs - mean) / deviation
        return value + 0.5 * float(off @ off), slopes + off / deviation

    found = minimize(both, start, jac=True, method="L-BFGS-B", options={"maxiter": steps})
    return np.asarray(found.x)


def _warp(top1: Floats, log_gap: float) -> tuple[Warp, Warp]:
    """The warp, and how it changes with the logarithm of the ceiling's gap above the best."""
    reach = max(float(np.ptp(top1)), _LEAST)
    gap = reach * math.exp(log_gap)
    under = float(top1.max()) + gap - top1
    raw, change = -np.log(under), -gap / under
    spread = max(float(raw.std()), _LEAST)
    bent = float(((raw - raw.mean()) / spread * (change - change.mean())).mean())
    warp = Warp(float(top1.max()) + gap, float(raw.mean()), spread)
    return warp, Warp(gap, float(change.mean()), bent)


def _unlikelihood(x: Floats, numbers: Numbers, seen: Floats) -> tuple[float, Floats, Floats]:
    """The negative logarithm of the marginal likelihood but for a constant, and its slopes.

    Returns:
        Value, slope by each of the numbers' logarithms, slope by what is seen, shape (n,).
    """
    from scipy.linalg import lapack

    variances, (pairs, local, near, noise) = numbers.variances, numbers.others
    linear = (x * variances) @ x.T
    norms = np.diag(linear)
    distance = norms[:, None] + norms - 2 * linear
    shared = local * np.exp(-0.5 * near * distance)
    total = 1 + linear + pairs * linear**2 + shared
    total[np.diag_indices_from(total)] += noise
    lower, failed = lapack.dpotrf(total, lower=1)
    if failed:
        return 1e10, np.zeros(len(numbers.logs)), np.zeros(len(seen))
    half, _ = lapack.dpotri(lower, lower=1)
    inverse = np.tril(half) + np.tril(half, -1).T
    pull = inverse @ seen
    value = 0.5 * float(seen @ pull) + float(np.log(np.diag(lower)).sum())
    # Rasmussen and Williams 2006, eq. 5.9: half the trace of this times a covariance's slope
    weights = 0.5 * (inverse - np.outer(pull, pull))
    fading = -0.5 * near * weights * shared
    by_linear = weights * (1 + 2 * pairs * linear) - 2 * fading
    by_feature = variances * (((by_linear @ x) * x).sum(0) + 2 * fading.sum(1) @ x**2)
    slopes = [
        *np.bincount(numbers.groups, by_feature),
        pairs * (weights * linear**2).sum(),
        (weights * shared).sum(),
        (fading * distance).sum(),
        noise * np.trace(weights),
    ]
    return value, np.array(slopes), pull
