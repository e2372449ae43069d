"""Search by published models: once-for-all's predictor and its Samsung Note10 tables.

For some budgets and seeds, the best predicted top-1 and the time from loaded models, one thread,
against a much longer run, against NSGA-II of pymoo and against an evolutionary search in plain
Python as once-for-all publishes it, all on the same models in the same run. Then a front from 15 to
60 ms with its hypervolume against that of a run 50 times as long, and how many networks a second
the models score. The data are not part of the project::

    python benchmarks/search.py --data DIR [--seeds 10] [--csv FILE]

pymoo comes with ``pip install -e .[bench]``.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from figures import Figures

import ofa_deploy as ofa
from ofa_deploy.predict import MLP_RESOLUTIONS, AccuracyModel, LatencyModel
from ofa_deploy.search import models_of, search
from ofa_deploy.space import Population, SearchSpace

Floats = npt.NDArray[np.float64]
BUDGETS = (16.0, 20.0, 25.0, 30.0, 40.0)
FRONT = (15.0, 60.0)
FRONTS = 5


def load(data: Path) -> tuple[SearchSpace, AccuracyModel, LatencyModel, list[float]]:
    """The space they share, both models, and the seconds that loading took."""
    whole = ofa.get_space("ofa-mbv3-w1.2")
    started = time.perf_counter()
    table = ofa.import_tables(
        "ofa-yaml", data / "note10_lookup_tables", space=whole, device="samsung-note10"
    )
    middle = time.perf_counter()
    accuracy = ofa.import_accuracy_model(
        "ofa-mlp",
        data / "ofa_mbv3_accuracy_predictor.pth",
        space=whole.with_resolutions(*MLP_RESOLUTIONS),
    )
    models = models_of(accuracy, [table])
    assert isinstance(models.latency, LatencyModel)
    seconds = [middle - started, time.perf_counter() - middle]
    return models.space, models.accuracy, models.latency, seconds


def rates(figures: Figures, space: SearchSpace, models: dict[str, object]) -> None:
    """Networks a second through each model, one thread."""
    rows = space.sample(np.random.default_rng(0), 200_000)
    for name, model in models.items():
        part = rows if name == "table" else rows[:40_000]
        seconds = []
        for _ in range(5):
            started = time.perf_counter()
            model.predict(part)  # type: ignore[attr-defined]
            seconds.append(time.perf_counter() - started)
        best = len(part) / statistics.median(seconds)
        figures.line(f"{name}, networks a second", f"{best:,.0f}")


class Counted:
    """An accuracy model that counts what it is asked."""

    def __init__(self, model: AccuracyModel) -> None:
        self.model, self.space, self.rows = model, model.space, 0

    def predict(self, rows: Population) -> Floats:
        self.rows += len(rows)
        return self.model.predict(rows)


def ours(
    space: SearchSpace, accuracy: AccuracyModel, latency: LatencyModel, limit: float, seed: int
) -> tuple[float, float, int]:
    """Best predicted top-1, seconds, networks asked for."""
    counted = Counted(accuracy)
    started = time.perf_counter()
    front = search(
        space,
        accuracy=counted,
        latency=latency,
        constraints=[f"latency <= {limit} ms"],
        seed=seed,
    )
    best = front.best("top1").predicted["top1"]
    return best, time.perf_counter() - started, counted.rows


def published(
    space: SearchSpace, accuracy: AccuracyModel, latency: LatencyModel, limit: float, seed: int
) -> tuple[float, float, int]:
    """The evolutionary search that once-for-all describes, one network at a time (2020).

    A hundred networks, a quarter of them parents, half of the children crossed and half mutated, a
    gene at a time with probability 0.1; 500 generations there, here as many as fit ten seconds.
    """
    rng = random.Random(seed)
    choices = [len(gene.choices) for gene in space.genes]

    def row(genes: list[int]) -> Population:
        return space.mask_inactive(np.array([genes], np.int8))

    def fits(genes: list[int]) -> bool:
        return bool(latency.predict(row(genes))[0] <= limit)

    def drawn() -> list[int]:
        while True:
            genes = [rng.randrange(n) for n in choices]
            if fits(genes):
                return genes

    def child(parents: list[list[int]], cross: bool) -> list[int]:
        while True:
            mother, father = rng.choice(parents), rng.choice(parents)
            if cross:
                genes = [rng.choice(pair) for pair in zip(mother, father, strict=True)]
            else:
                genes = [
                    rng.randrange(n) if rng.random() < 0.1 else gene
                    for gene, n in zip(mother, choices, strict=True)
                ]
            if fits(genes):
                return genes

    started = time.perf_counter()
    scored = [
        (float(accuracy.predict(row(genes))[0]), genes) for genes in (drawn() for _ in range(100))
    ]
    asked = 100
    while time.perf_counter() - started < 10:
        scored = sorted(scored, key=lambda pair: -pair[0])[:100]
        parents = [genes for _, genes in scored[:25]]
        children = [child(parents, cross) for cross in [True] * 50 + [False] * 50]
        scored += [(float(accuracy.predict(row(genes))[0]), genes) for genes in children]
        asked += 100
    return max(value for value, _ in scored), time.perf_counter() - started, asked


def nsga2(
    space: SearchSpace, accuracy: AccuracyModel, latency: LatencyModel, limit: float, seed: int
) -> tuple[float, float, int]:
    """NSGA-II of pymoo over the same genes, vectorised models; 200 networks, 100 generations."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import Problem
    from pymoo.operators.crossover.ux import UniformCrossover
    from pymoo.operators.mutation.pm import PolynomialMutation
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling
    from pymoo.optimize import minimize

    counted = Counted(accuracy)

    class Networks(Problem):  # type: ignore[misc]
        def __init__(self) -> None:
            upper = space.num_choices - 1
            super().__init__(n_var=len(upper), n_obj=2, n_ieq_constr=1, xl=0, xu=upper, vtype=int)

        def _evaluate(self, x: Floats, out: dict[str, Floats], *args: object) -> None:
            rows = space.mask_inactive(x.astype(np.int8))
            ms = latency.predict(rows)
            out["F"] = np.stack([-counted.predict(rows), ms], axis=1)
            out["G"] = (ms - limit)[:, None]

    started = time.perf_counter()
    algorithm = NSGA2(
        pop_size=200,
        sampling=IntegerRandomSampling(),
        crossover=UniformCrossover(prob=1.0, repair=RoundingRepair()),
        mutation=PolynomialMutation(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
    )
    found = minimize(Networks(), algorithm, ("n_gen", 100), seed=seed, verbose=False)
    best = -1.0 if found.F is None else float(-found.F[:, 0].min())
    return best, time.perf_counter() - started, counted.rows


Search = Callable[[SearchSpace, AccuracyModel, LatencyModel, float, int], tuple[float, float, int]]


def budgets(
    figures: Figures, space: SearchSpace, accuracy: AccuracyModel, latency: LatencyModel, seeds: int
) -> None:
    """Every search at every budget."""
    ways: dict[str, tuple[Search, int]] = {"ours": (ours, seeds), "plain Python": (published, 2)}
    try:
        import pymoo  # noqa: F401

        ways["pymoo NSGA-II"] = (nsga2, min(seeds, 3))
    except ImportError:
        figures.line("pymoo", "not installed")
    for limit in BUDGETS:
        for name, (way, tries) in ways.items():
            if name != "ours" and limit != 25.0:
                continue
            found = [way(space, accuracy, latency, limit, seed) for seed in range(tries)]
            top1, seconds, asked = ([each[i] for each in found] for i in range(3))
            figures.line(
                f"latency <= {limit:g} ms, {name}",
                f"top-1 {statistics.median(top1):.3f} (least {min(top1):.3f}, most "
                f"{max(top1):.3f}) in {statistics.median(seconds):.2f} s (most "
                f"{max(seconds):.2f}), {statistics.median(asked):,.0f} networks, {tries} seeds",
            )
        long = search(
            space,
            accuracy=accuracy,
            latency=latency,
            constraints=[f"latency <= {limit} ms"],
            seed=99,
            population=1000,
            generations=500,
            climbs=100,
        )
        best = long.best("top1").predicted["top1"]
        figures.line(f"latency <= {limit:g} ms, a long run of ours", f"top-1 {best:.3f}")


def front(
    figures: Figures, space: SearchSpace, accuracy: AccuracyModel, latency: LatencyModel
) -> None:
    """Whole fronts, and one of a run 50 times as long."""
    import moocore

    least, most = FRONT
    corner = search(
        space, accuracy=accuracy, latency=latency, constraints=[f"latency <= {least} ms"], seed=7
    ).best("top1")
    reference = [most, -corner.predicted["top1"]]

    def whole(name: str, seed: int, **effort: int) -> float:
        started = time.perf_counter()
        found = search(
            space,
            accuracy=accuracy,
            latency=latency,
            constraints=[f"latency <= {most} ms"],
            objectives={"top1": "max", "latency": "min"},
            seed=seed,
            **effort,
        )
        seconds = time.perf_counter() - started
        points = np.array(
            [
                [c.predicted["latency"], -c.predicted["top1"]]
                for c in found
                if c.predicted["latency"] >= least
            ]
        )
        figures.line(
            name, f"{len(points)} networks from {least:g} to {most:g} ms in {seconds:.2f} s"
        )
        return float(moocore.hypervolume(points, ref=reference))

    volumes = [whole(f"front, seed {seed}", seed) for seed in range(FRONTS)]
    effort = {"generations": 15 * 50, "climbs": 50, "ascents": 32 * 50}
    long = whole("front, 50 times as long", FRONTS, **effort)
    shares = [volume / long for volume in volumes]
    figures.line(
        "hypervolume, share of the long run's",
        f"{statistics.median(shares):.2%} ({min(shares):.2%} to {max(shares):.2%})",
    )


def main() -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", choices=("rates", "budgets", "front"), help="a part of it")
    parser.add_argument("--csv", type=Path, help="also write the figures there")
    given = parser.parse_args()
    figures = Figures()
    space, accuracy, latency, seconds = load(given.data)
    sizes = ", ".join(map(str, space.resolutions))
    figures.line("space", f"{space.name} at {sizes}")
    figures.line("import of tables, of the predictor, s", ", ".join(f"{s:.1f}" for s in seconds))
    if given.only in (None, "rates"):
        rates(figures, space, {"table": latency, "predictor": accuracy})
    if given.only in (None, "budgets"):
        budgets(figures, space, accuracy, latency, given.seeds)
    if given.only in (None, "front"):
        front(figures, space, accuracy, latency)
    figures.save(given.csv)


if __name__ == "__main__":
    main()
