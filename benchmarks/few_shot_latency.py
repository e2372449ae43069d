"""How few whole-network timings a new device needs, when models of other devices are at hand.

The data are whole-network latencies of 5,000 OFA-MobileNetV3 w1.2 subnets on six devices (two GPUs
at batch 1, 32 and 64), single runs, as published with HELP (Lee et al. 2021; MIT licence), in one
CSV with a column a device. No fit ever sees the 2,000 test networks. Each device in turn is the new
one; models of the others, fitted to their other 3,000 networks, are the priors::

    OMP_NUM_THREADS=1 python benchmarks/few_shot_latency.py --data DIR [--csv FILE]
"""

import argparse
import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from figures import Figures
from scipy.optimize import nnls

from ofa_deploy.cost import AdditiveModel, macs_model
from ofa_deploy.predict import HoldoutError, fit_latency
from ofa_deploy.space import Population, SearchSpace, get_space

FILE = "gpu_latency_mbv3_w1.2.csv"
TEST = 2_000
DRAWS = {10: 30, 30: 20, 100: 20, 1000: 3}  # random sets of each number of networks
Floats = npt.NDArray[np.float64]
Fit = Callable[[Population, Floats, Sequence[AdditiveModel]], AdditiveModel]


def read(path: Path) -> tuple[SearchSpace, Population, dict[str, Floats]]:
    """The space with the resolutions of the file, its networks, and ms by device."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    space = get_space("ofa-mbv3-w1.2").with_resolutions(*(int(row["resolution"]) for row in rows))
    archs = [
        space.arch(
            resolution=int(row["resolution"]),
            **{key: [int(v) for v in row[key].split()] for key in ("depths", "kernels", "expands")},
        )
        for row in rows
    ]
    devices = [key for key in rows[0] if key.endswith("_ms")]
    ms = {key.removesuffix("_ms"): np.array([float(row[key]) for row in rows]) for key in devices}
    return space, space.encode(archs), ms


class Benchmark:
    """Test networks, networks to fit to, and a full model of every device."""

    def __init__(self, space: SearchSpace, population: Population, ms: dict[str, Floats]) -> None:
        order = np.random.default_rng(12345).permutation(len(population))
        self.space, self.population, self.ms = space, population, ms
        self.macs_model = macs_model(space)
        self.test, self.rest = order[:TEST], order[TEST:]
        self.full = {
            device: fit_latency(space, population[self.rest], values[self.rest])
            for device, values in ms.items()
        }

    def error(self, device: str, model: AdditiveModel) -> HoldoutError:
        """On the test networks."""
        predicted = model.predict(self.population[self.test])
        return HoldoutError.of(predicted, self.ms[device][self.test])

    def fits(
        self, device: str, fit: Fit, networks: int, priors: Sequence[str]
    ) -> list[HoldoutError]:
        """Of fits to random networks, one a draw; every method gets the same draws."""
        errors = []
        for draw in range(DRAWS[networks]):
            chosen = np.random.default_rng([networks, draw]).choice(self.rest, networks, False)
            models = [self.full[name] for name in priors]
            model = fit(self.population[chosen], self.ms[device][chosen], models)
            errors.append(self.error(device, model))
        return errors

    # -- methods ----------------------------------------------------------------------------------

    def few_shot(
        self, population: Population, ms: Floats, priors: Sequence[AdditiveModel]
    ) -> AdditiveModel:
        """What is judged."""
        return fit_latency(self.space, population, ms, priors)

    def macs(self, population: Population, ms: Floats, _: Sequence[AdditiveModel]) -> AdditiveModel:
        """A line through MACs."""
        model = self.macs_model
        return _weighted(
            self.space, [model], np.polyfit(model.predict(population), ms, 1, w=1 / ms)
        )

    def combination(
        self, population: Population, ms: Floats, priors: Sequence[AdditiveModel]
    ) -> AdditiveModel:
        """The plain non-negative combination of priors and a constant, by relative error."""
        columns = [*(prior.predict(population) for prior in priors), np.ones(len(ms))]
        return _weighted(self.space, priors, nnls(np.stack(columns, 1) / ms[:, None], ms / ms)[0])


def _weighted(space: SearchSpace, parts: Sequence[AdditiveModel], weights: Floats) -> AdditiveModel:
    """The sum of the parts times their weights, of which the last is the offset."""
    tables = [
        (columns, weight * table)
        for part, weight in zip(parts, weights, strict=False)
        for columns, table in part.tables
    ]
    offsets = [part.offset for part in parts]
    return AdditiveModel(space, tables, offset=float(weights @ [*offsets, 1.0]))


def shown(errors: Sequence[HoldoutError]) -> str:
    """Means over draws, and the spread of the first."""
    mape, within, rank = (
        np.array([getattr(error, name) for error in errors])
        for name in ("mape", "within_10", "spearman")
    )
    spread = f" (sd {mape.std(ddof=1):4.2f})" if len(errors) > 1 else ""
    return (
        f"{mape.mean():5.2f} %{spread}, {within.mean():5.1f} % within 10 %, rank {rank.mean():.3f}"
    )


def compare(figures: Figures, bench: Benchmark) -> None:
    """All methods at all numbers of networks; by device only for what is judged."""
    devices = list(bench.ms)
    others = {device: [name for name in devices if name != device] for device in devices}
    gpu = {device: device.rpartition("_")[0] for device in devices}
    other_gpu = {d: [name for name in devices if gpu[name] != gpu[d]] for d in devices}
    nothing: dict[str, list[str]] = {device: [] for device in devices}
    methods: dict[str, tuple[Fit, dict[str, list[str]]]] = {
        "few-shot, five priors": (bench.few_shot, others),
        "few-shot, other GPU's three priors": (bench.few_shot, other_gpu),
        "few-shot, no priors": (bench.few_shot, nothing),
        "plain combination of five priors": (bench.combination, others),
        "line through MACs": (bench.macs, nothing),
    }
    for networks in DRAWS:
        for name, (fit, priors) in methods.items():
            found = {d: bench.fits(d, fit, networks, priors[d]) for d in devices}
            if name.endswith("five priors") and fit == bench.few_shot:
                for device, errors in found.items():
                    figures.line(f"{networks} networks, {name}, {device}", shown(errors))
            draws = [_mean(errors) for errors in zip(*found.values(), strict=True)]
            figures.line(f"{networks} networks, {name}, mean", shown(draws))


def _mean(errors: Sequence[HoldoutError]) -> HoldoutError:
    """The mean over devices."""
    names = ("mape", "within_5", "within_10", "spearman")
    means = {name: float(np.mean([getattr(error, name) for error in errors])) for name in names}
    return HoldoutError(networks=errors[0].networks, **means)


def main() -> None:
    """Fit, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help=f"folder that holds {FILE}")
    parser.add_argument("--csv", type=Path, help="also write the figures there")
    arguments = parser.parse_args()
    if not (arguments.data / FILE).is_file():
        parser.error(f"no {FILE} in {arguments.data}")
    figures = Figures()
    bench = Benchmark(*read(arguments.data / FILE))
    errors = []
    for device, model in bench.full.items():
        errors.append(bench.error(device, model))
        figures.line(f"all {len(bench.rest)} networks, no priors, {device}", shown(errors[-1:]))
    figures.line(f"all {len(bench.rest)} networks, no priors, mean", shown([_mean(errors)]))
    compare(figures, bench)
    figures.save(arguments.csv)


if __name__ == "__main__":
    main()
