"""How few measured subnets an accuracy model needs.

The data are ImageNet top-1, MACs and parameters of 1,229 OFA-MobileNetV3 w1.0 subnets at 224 pixels
as published in DyNAS-T's notebooks (Intel Labs; Apache-2.0), in one CSV. They come from several
searches, one after the other in the file, and some networks come more than once. A model is fitted
to random subsets and judged on all networks that it has not seen; with all, by cross-validation in
tenths. The same again in tenths of the file as it stands: then much of what is judged comes from
searches that the model knows nothing of. Beside it stand ridge regression and a plain Gaussian
process (linear plus one RBF), both on one-hot genes and standardised log MACs and parameters::

    OMP_NUM_THREADS=1 python benchmarks/accuracy_models.py --data DIR [--csv FILE]
"""

import argparse
import csv
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from figures import Figures, spread
from scipy.stats import kendalltau

from ofa_deploy.cost import macs_model, params_model
from ofa_deploy.predict import AccuracyModel, choose_subnets, fit_accuracy, refit_accuracy
from ofa_deploy.space import Arch, Population, SearchSpace, get_space

FILE = "imagenet_accuracy_mbv3_w1.0.csv"
DRAWS = {40: 40, 100: 40, 300: 10}  # random subsets of each number of networks
CHOSEN = (30, 60, 100)
FIRST, STEP = 15, 10  # networks measured before the first model, and between two models
PARTS = 10
ASKED = 100_000  # networks to predict at a time

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]
Predictor = Callable[[Population], Floats]
Fitted = tuple[Predictor, float | None]  # and the margin of its interval, if it has one


@dataclass(frozen=True)
class Data:
    """Different networks in the file's order, and their top-1 in percent."""

    space: SearchSpace
    population: Population
    top1: Floats

    def others(self, rows: Rows) -> Rows:
        return np.setdiff1d(np.arange(len(self.top1)), rows)


@dataclass(frozen=True)
class Judged:
    """One model on networks that it has not seen; the share in its interval, if it has one."""

    rmse: float
    kendall: float
    covered: float | None
    seconds: float


def read(path: Path, figures: Figures) -> Data:
    """The data; costs are compared with the file's on the way."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    space = get_space("ofa-mbv3-w1.0").with_resolutions(*{int(row["resolution"]) for row in rows})
    archs = [
        space.arch(
            resolution=int(row["resolution"]),
            **{key: [int(v) for v in row[key].split()] for key in ("depths", "kernels", "expands")},
        )
        for row in rows
    ]
    population, top1 = space.encode(archs), np.array([float(row["top1"]) for row in rows])
    first = np.sort(np.unique(population, axis=0, return_index=True)[1])
    figures.line("networks in the file, different ones", f"{len(rows)}, {len(first)}")
    for name, model in {"macs": macs_model(space), "params": params_model(space)}.items():
        given = np.array([float(row[name]) for row in rows])
        off = np.abs(model.predict(population) - given)
        figures.line(
            f"{name}: rows that differ from ours, by most", f"{(off > 0).sum()}, {off.max():g}"
        )
    figures.line("top-1 of the different ones, percent", spread(top1[first].tolist()))
    return Data(space, population[first], top1[first])


# -- what is compared -------------------------------------------------------------------------


class OneHot:
    """One-hot genes, and log MACs and parameters standardised by the networks fitted to."""

    def __init__(self, space: SearchSpace, population: Population) -> None:
        self.genes = space.genes
        self.costs = [macs_model(space), params_model(space)]
        logs = self.logs(population)
        self.mean, self.scale = logs.mean(0), logs.std(0)

    def logs(self, population: Population) -> Floats:
        return np.log(np.stack([cost.predict(population) for cost in self.costs], axis=1))

    def __call__(self, population: Population) -> Floats:
        one_hot = [
            population[:, [column]] == np.arange(len(gene.choices))
            for column, gene in enumerate(self.genes)
            if len(gene.choices) > 1
        ]
        return np.concatenate(
            [*one_hot, (self.logs(population) - self.mean) / self.scale], axis=1, dtype=float
        )


def ridge(space: SearchSpace, population: Population, top1: Floats) -> Fitted:
    """Ridge regression, its strength by leave-one-out error."""
    from sklearn.linear_model import RidgeCV

    features = OneHot(space, population)
    model = RidgeCV(np.logspace(-4, 3, 15)).fit(features(population), top1)
    return lambda rows: np.asarray(model.predict(features(rows))), None


def plain_process(space: SearchSpace, population: Population, top1: Floats) -> Fitted:
    """A Gaussian process as scikit-learn has it: linear plus one RBF."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel

    features = OneHot(space, population)
    kernel = (
        ConstantKernel(0.1, (1e-4, 1e2)) * DotProduct(1.0, (1e-3, 1e2))
        + ConstantKernel(0.5, (1e-4, 1e2)) * RBF(3.0, (0.5, 50))
        + WhiteKernel(0.05, (1e-4, 1.0))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
        model.fit(features(population), top1)
    return lambda rows: np.asarray(model.predict(features(rows))), None


def ours(space: SearchSpace, population: Population, top1: Floats) -> Fitted:
    """What is judged."""
    model = fit_accuracy(space, population, top1)
    return model.predict, model.margin


METHODS: dict[str, Callable[[SearchSpace, Population, Floats], Fitted]] = {
    "ours": ours,
    "plain GP": plain_process,
    "ridge": ridge,
}


def judge(data: Data, name: str, rows: Rows, test: Rows) -> Judged:
    """Fit to some networks, and compare with others."""
    started = time.perf_counter()
    fitted = METHODS[name](data.space, data.population[rows], data.top1[rows])
    return compared(data, fitted, test, time.perf_counter() - started)


def compared(data: Data, fitted: Fitted, test: Rows, seconds: float) -> Judged:
    """A fitted model with the truth."""
    predict, margin = fitted
    predicted, truth = predict(data.population[test]), data.top1[test]
    errors = np.abs(predicted - truth)
    return Judged(
        float(np.sqrt((errors**2).mean())),
        float(kendalltau(predicted, truth).statistic),
        None if margin is None else float((errors <= margin).mean()),
        seconds,
    )


def shown(found: Sequence[Judged]) -> str:
    """Medians, with the range over subsets of the first."""
    covered = [each.covered for each in found if each.covered is not None]
    interval = f", interval covers {statistics.mean(covered):.1%}" if covered else ""
    return (
        f"RMSE {spread([each.rmse for each in found])}, tau "
        f"{statistics.median(each.kendall for each in found):.4f}{interval}, fit "
        f"{statistics.median(each.seconds for each in found):.2f} s"
    )


# -- parts of the benchmark ----------------------------------------------------------------------


def subsets(figures: Figures, data: Data) -> None:
    """Random subsets; every method gets the same."""
    for count, draws in DRAWS.items():
        drawn = [
            np.random.default_rng([count, draw]).permutation(len(data.top1))[:count]
            for draw in range(draws)
        ]
        for name in METHODS:
            found = [judge(data, name, rows, data.others(rows)) for rows in drawn]
            figures.line(f"{count} networks, {draws} subsets, {name}", shown(found))


def tenths(figures: Figures, data: Data) -> None:
    """Cross-validation with all networks: random tenths, then tenths in the file's order."""
    n = len(data.top1)
    ways = {
        "random tenths": np.array_split(np.random.default_rng(0).permutation(n), PARTS),
        "tenths of the file": np.array_split(np.arange(n), PARTS),
    }
    for way, parts in ways.items():
        for name in METHODS:
            found = [judge(data, name, data.others(part), part) for part in parts]
            pooled = np.sqrt(np.mean([each.rmse**2 for each in found]))
            figures.line(f"all networks, {way}, {name}", f"{shown(found)}, pooled {pooled:.4f}")


def tenths_from_few(figures: Figures, data: Data) -> None:
    """The file's tenths, judged by models of a hundred networks from the others."""
    parts = np.array_split(np.arange(len(data.top1)), PARTS)
    for name in METHODS:
        found = []
        for draw in range(3):
            for number, part in enumerate(parts):
                rng = np.random.default_rng([draw, number])
                found.append(judge(data, name, rng.choice(data.others(part), 100, False), part))
        pooled = np.sqrt(np.mean([each.rmse**2 for each in found]))
        figures.line(
            f"100 networks of other tenths, {name}", f"{shown(found)}, pooled {pooled:.4f}"
        )


def rates(figures: Figures, data: Data) -> None:
    """Predictions a second on one thread, and how long a model takes to learn a round's worth."""
    asked = data.space.sample(np.random.default_rng(0), ASKED)
    for count in (40, 100, 300, 500, len(data.top1)):
        rows = np.random.default_rng(count).permutation(len(data.top1))[:count]
        model = fit_accuracy(data.space, data.population[rows], data.top1[rows])
        seconds = []
        for _ in range(5):
            started = time.perf_counter()
            model.predict(asked)
            seconds.append(time.perf_counter() - started)
        figures.line(f"predictions a second, fitted to {count}", f"{ASKED / min(seconds):,.0f}")
        new = data.others(rows)[:STEP]
        seconds = []
        for _ in range(3 if len(new) else 0):
            started = time.perf_counter()
            refit_accuracy(model, data.population[new], data.top1[new])
            seconds.append(time.perf_counter() - started)
        if seconds:
            figures.line(f"refit to {STEP} more than {count}, s", spread(seconds))


def choices(figures: Figures, data: Data, draws: int) -> None:
    """Networks chosen to be measured, against random ones, out of half of the file."""
    ways: dict[str, Callable[[Rows, int, np.random.Generator], AccuracyModel]] = {
        "random": lambda pool, count, rng: _fit(data, rng.choice(pool, count, False)),
        "chosen at once": lambda pool, count, rng: _fit(data, _spread(data, pool, count, rng)),
        f"chosen, a model every {STEP}": lambda pool, count, rng: _in_turns(data, pool, count, rng),
    }
    half = len(data.top1) // 2
    for count in CHOSEN:
        found: dict[str, list[Judged]] = {name: [] for name in ways}
        for draw in range(draws):
            order = np.random.default_rng([0xAC, draw]).permutation(len(data.top1))
            for name, way in ways.items():
                started = time.perf_counter()
                model = way(order[:half], count, np.random.default_rng([count, draw]))
                seconds = time.perf_counter() - started
                fitted = model.predict, model.margin
                found[name].append(compared(data, fitted, order[half:], seconds))
        for name, judged in found.items():
            pairs = zip(judged, found["random"], strict=True)
            wins = sum(each.rmse < other.rmse for each, other in pairs)
            beats = f", better than random in {wins} of {draws}" if name != "random" else ""
            figures.line(f"{count} networks, {name}", shown(judged) + beats)


def _fit(data: Data, rows: Rows) -> AccuracyModel:
    return fit_accuracy(data.space, data.population[rows], data.top1[rows])


def _spread(data: Data, pool: Rows, count: int, rng: np.random.Generator) -> Rows:
    chosen = choose_subnets(data.space, count, candidates=data.population[pool], rng=rng)
    return _rows(data, chosen)


def _in_turns(data: Data, pool: Rows, count: int, rng: np.random.Generator) -> AccuracyModel:
    model = _fit(data, _spread(data, pool, FIRST, rng))
    while model.networks < count:
        step = min(STEP, count - model.networks)
        chosen = choose_subnets(model, step, candidates=data.population[pool], rng=rng)
        model = refit_accuracy(model, chosen, data.top1[_rows(data, chosen)])
    return model


def _rows(data: Data, archs: Iterable[Arch]) -> Rows:
    """Where networks stand in the data."""
    place = {row.tobytes(): number for number, row in enumerate(data.population)}
    return np.array([place[row.tobytes()] for row in data.space.encode(list(archs))])


def main() -> None:
    """Fit, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help=f"folder that holds {FILE}")
    parser.add_argument("--csv", type=Path, help="also write the figures there")
    parser.add_argument("--draws", type=int, default=20, help="for the choice of networks")
    given = parser.parse_args()
    if not (given.data / FILE).is_file():
        parser.error(f"no {FILE} in {given.data}")
    figures = Figures()
    data = read(given.data / FILE, figures)
    subsets(figures, data)
    tenths_from_few(figures, data)
    choices(figures, data, given.draws)
    rates(figures, data)
    tenths(figures, data)
    figures.save(given.csv)


if __name__ == "__main__":
    main()
