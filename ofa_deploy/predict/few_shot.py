"""A latency model from a few whole networks and what is known of other devices.

A hierarchical fit. Its mean is a non-negative combination of the priors, MACs, a cost a block and a
constant; what a device does differently is a correction of every block's time that is as large as
the measurements say it is (empirical Bayes; MacKay 1992, "Bayesian interpolation"). Few networks
leave the combination alone, many give every block its own time. Single timings are often far out,
so noise is Student's t, by reweighting (Lange, Little and Taylor 1989).
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ofa_deploy.cost import AdditiveModel, as_population, macs_model
from ofa_deploy.errors import InputError, MismatchError
from ofa_deploy.predict.latency import LatencyModel
from ofa_deploy.space import Arch, Population, SearchSpace
from ofa_deploy.system import one_blas_thread

__all__ = ["fit_latency"]

Floats = npt.NDArray[np.float64]
Table = tuple[tuple[int, ...], Floats]

_SHORTEST_MS, _LONGEST_MS = 1e-9, 1e9  # beyond what any network takes; squares stay finite
_PASSES = 6  # of reweighting: weights hardly move after that
_FREEDOM = 4.0  # degrees of freedom of the noise, usual for t regression
_LEAST_NOISE = 0.003  # relative: no timing is better than that
_NOISE = 0.01  # relative: what is expected of a timing, counted as two measurements
_WHOLE, _STAGE = 3.0, 1.0  # how far a network's and a stage's corrections may go, to each other
_FINE = (0.1, 1.0)  # the same for single blocks: little or as much; the evidence decides
_STRENGTHS = np.logspace(-6, 3, 37)  # variance of corrections over that of noise


@one_blas_thread
def fit_latency(
    space: SearchSpace,
    archs: "Sequence[Arch] | Population",
    ms: "Sequence[float] | Floats",
    priors: Sequence[AdditiveModel] = (),
) -> LatencyModel:
    """A latency model from whole networks, a few or thousands; it minimises relative errors.

    The result is additive. It is positive over the whole space if no prior is negative anywhere.

    Args:
        archs: the measured networks, at least three.
        ms: their latency, shape (n,).
        priors: sums over the blocks of the same space in any unit, such as models of other devices
            or the sum of measured blocks. MACs and the number of blocks always take part.

    Raises:
        InputError: if there are fewer than three networks, a latency is not positive, or a prior
            is not a finite sum.
        MismatchError: if a prior is for another space.
    """
    population = as_population(space, archs)
    measured = np.asarray(ms, float)
    _check(space, population, measured, priors)
    parts = [*priors, *_generic(space)]
    features = np.stack([part.predict(population) for part in parts], axis=1)
    corrections = _Corrections(space, population, measured)
    # A timing far too short would otherwise count as many: errors are relative to it.
    weights = np.minimum(measured / np.median(measured), 1) ** 2
    for _ in range(_PASSES):
        shares, offset = _relative_nnls(features, measured, weights)
        mean = features @ shares + offset
        coefficients = corrections.fit(1 - mean / measured, weights)
        errors = 1 - mean / measured - corrections.design @ coefficients
        noise = max(float(np.median(np.abs(errors))) / 0.6745, _LEAST_NOISE)
        weights = (_FREEDOM + 1) / (_FREEDOM + (errors / noise) ** 2)
    combined = _combination(space, parts, shares, offset)
    return _positive(combined, corrections.tables(coefficients))


def _check(
    space: SearchSpace, population: Population, measured: Floats, priors: Sequence[AdditiveModel]
) -> None:
    if measured.shape != (len(population),) or len(population) < 3:
        raise InputError(
            f"expected at least 3 networks and as many latencies, found {len(population)} and "
            f"{measured.size}"
        )
    if not (np.isfinite(measured) & (measured > 0)).all():
        raise InputError("latencies must be positive and finite, in ms")
    if measured.min() < _SHORTEST_MS or measured.max() > _LONGEST_MS:
        raise InputError(
            f"expected latencies of {_SHORTEST_MS:g} to {_LONGEST_MS:g} ms, found "
            f"{measured.min():.3g} to {measured.max():.3g}"
        )
    for prior in priors:
        if prior.space.fingerprint != space.fingerprint:
            raise MismatchError(f"a prior is for space {prior.space.name}, not {space.name}")
        if prior.reduce != "sum":
            raise InputError(f"a prior must be a sum over blocks, not their {prior.reduce}imum")
        values = [np.array(prior.offset), *(table for _, table in prior.tables)]
        if not all(np.isfinite(each).all() for each in values):
            raise InputError("a prior's values must be finite")


@lru_cache(maxsize=4)
def _generic(space: SearchSpace) -> tuple[AdditiveModel, AdditiveModel]:
    """What any device's latency grows with: MACs, and how many blocks there are."""
    return macs_model(space), AdditiveModel.from_blocks(space, lambda block: 1.0)


# -- the combination of priors ------------------------------------------------------------------


def _relative_nnls(features: Floats, measured: Floats, weights: Floats) -> tuple[Floats, float]:
    """Non-negative shares of the features and an offset: least weighted squared relative error."""
    from scipy.optimize import nnls

    scale = np.abs(features).max(axis=0)
    scale[scale == 0] = 1
    root = np.sqrt(weights)
    design = np.column_stack([features / scale, np.full(len(features), np.median(measured))])
    solution, _ = nnls(design * (root / measured)[:, None], root)
    return solution[:-1] / scale, float(solution[-1] * np.median(measured))


def _combination(
    space: SearchSpace, parts: Sequence[AdditiveModel], shares: Floats, offset: float
) -> LatencyModel:
    tables = [
        (columns, share * table)
        for part, share in zip(parts, shares, strict=True)
        for columns, table in part.tables
    ]
    offset += float(sum(w * part.offset for part, w in zip(parts, shares, strict=True)))
    return LatencyModel(space, tables, offset=offset)


def _positive(model: LatencyModel, corrections: Sequence[Table]) -> LatencyModel:
    """The model corrected, but nowhere in the space to below half of its own least value.

    Where blocks were seldom seen together, their corrections could add up to more than a network
    takes; then all of them are made smaller.
    """
    least = model.bounds()[0]
    least = least / 2 if least >= 0 else -np.inf  # a prior is negative somewhere: nothing to keep
    for part in (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1):
        tables = [*model.tables, *((columns, part * table) for columns, table in corrections)]
        corrected = LatencyModel(model.space, tables, offset=model.offset)
        if corrected.bounds()[0] >= least:
            return corrected
    return model


# -- corrections --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Term:
    """Corrections that reach one table: ``values * coefficients[numbers]``.

    Attributes:
        carrier: which of the generic models they are in proportion to.
        values, numbers: by the genes of ``columns``, as in ``AdditiveModel``'s tables.
        fine: whether they are of single kinds of blocks.
    """

    carrier: AdditiveModel
    columns: tuple[int, ...]
    values: Floats
    numbers: npt.NDArray[np.intp]
    fine: bool


class _Corrections:
    """What blocks take beyond the combination: Gaussian a priori, in units of the typical network.

    A correction is in proportion to MACs, or the same for every block. It is shared by all blocks,
    by those of a stage, of a kernel size or expansion ratio, by those at a resolution, or by equal
    blocks of one place at all resolutions; those shared widely also follow a parabola over
    resolution. So what is known of one block says something about others, and resolutions never
    measured lie between those that were.

    Attributes:
        design: each correction's part in each network, relative to its latency, shape (n, m).
        fine: which corrections are of single kinds of blocks, shape (m,).
    """

    def __init__(self, space: SearchSpace, population: Population, measured: Floats) -> None:
        self.terms = _terms(space)
        self.scales = {
            carrier: float(np.median(measured) / np.median(carrier.predict(population)))
            for carrier in _generic(space)
        }
        m = 1 + max(int(term.numbers.max()) for term in self.terms)
        self.fine = np.zeros(m, bool)
        self.design = np.zeros((len(population), m))
        rows = np.arange(len(population))
        for term in self.terms:
            self.fine[term.numbers] = term.fine
            cells = tuple(population[:, column].astype(np.intp) + 1 for column in term.columns)
            values = self.scales[term.carrier] * term.values[cells]
            self.design[rows, term.numbers[cells]] += values / measured

    def fit(self, missing: Floats, weights: Floats) -> Floats:
        """The most probable corrections, given what is missing relative to the latency."""
        seen = np.flatnonzero(np.abs(self.design).max(axis=0))
        coefficients = np.zeros(self.design.shape[1])
        fits = []
        for size in _FINE:
            scale = np.where(self.fine[seen], size, 1.0)
            evidence, found = _evidence_ridge(self.design[:, seen] * scale, missing, weights)
            fits.append((evidence, found * scale))
        coefficients[seen] = max(fits, key=lambda fit: fit[0])[1]
        return coefficients

    def tables(self, coefficients: Floats) -> list[Table]:
        """The corrections as tables of an ``AdditiveModel``."""
        return [
            (term.columns, self.scales[term.carrier] * term.values * coefficients[term.numbers])
            for term in self.terms
        ]


@lru_cache(maxsize=4)
def _terms(space: SearchSpace) -> tuple[_Term, ...]:
    """All corrections, numbered in the order in which they are met."""
    numbers: dict[Hashable, int] = {}
    terms = []
    for carrier in _generic(space):
        for columns, table in carrier.tables:
            for values, keys, fine in _levels(space, columns, table):
                found = [numbers.setdefault((carrier, key), len(numbers)) for key in keys]
                shaped = np.array(found, np.intp).reshape(table.shape)
                terms.append(_Term(carrier, columns, values, shaped, fine))
    return tuple(terms)


def _levels(
    space: SearchSpace, columns: tuple[int, ...], table: Floats
) -> Iterator[tuple[Floats, list[Hashable], bool]]:
    """Corrections of one table: values, the name of each cell's correction, whether it is fine.

    The first axis is the resolution's, as in every slot.
    """
    cells = list(np.ndindex(table.shape))
    genes = [space.genes[column] for column in columns]
    stage = max(gene.stage for gene in genes)
    place: Hashable = stage if stage >= 0 else columns
    for power in range(3):
        bent = table * _resolution(space, table.ndim) ** power
        yield _WHOLE * bent, [("all", power)] * len(cells), False
        yield _STAGE * bent, [("stage", place, power)] * len(cells), False
    for axis, gene in enumerate(genes):
        kind = gene.name.partition("[")[0]  # "kernel" of "kernel[2.1]"
        choices = (None, *gene.choices)
        yield table, [(kind, choices[cell[axis]]) for cell in cells], True
    yield table, [(columns, *cell[1:]) for cell in cells], True


def _resolution(space: SearchSpace, axes: int) -> Floats:
    """Resolutions from -1 to 1, along the first of a table's axes; 0 where there is one only."""
    pixels = np.array(space.resolutions, float)
    middle, half = (pixels[-1] + pixels[0]) / 2, (pixels[-1] - pixels[0]) / 2
    spread = np.concatenate([[0.0], (pixels - middle) / (half or 1.0)])
    return spread.reshape([-1] + [1] * (axes - 1))


def _evidence_ridge(design: Floats, target: Floats, weights: Floats) -> tuple[float, Floats]:
    """Ridge regression whose strength maximises the evidence: (its logarithm, coefficients).

    Noise has variance ``s²/weights`` and coefficients ``strength·s²``; s² has an inverse-gamma
    prior worth two measurements. One eigendecomposition of the smaller Gram matrix serves all
    strengths (MacKay 1992; scikit-learn's ``BayesianRidge`` decomposes the whole design).
    """
    root = np.sqrt(weights)
    design, target = design * root[:, None], target * root
    n, m = design.shape
    values, vectors = np.linalg.eigh(design @ design.T if m > n else design.T @ design)
    kept = values > 1e-12 * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    # The design's right singular vectors, and the target along its left ones.
    right = design.T @ vectors / np.sqrt(values) if m > n else vectors
    along = right.T @ (design.T @ target) / np.sqrt(values)
    beyond = max(float(target @ target - along @ along), 0.0)
    shrunk = 1 + _STRENGTHS[:, None] * values
    squares = (along**2 / shrunk).sum(axis=1) + beyond + 2 * _NOISE**2
    evidence = -0.5 * (np.log(shrunk).sum(axis=1) + (n + 2) * np.log(squares / (n + 2)))
    best = int(np.argmax(evidence))
    gain = _STRENGTHS[best] * np.sqrt(values) / shrunk[best]
    return float(evidence[best]), right @ (gain * along)
