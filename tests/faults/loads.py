"""Work that grows: tables, fronts and spaces of a size, measured in a process of its own.

``python -m tests.faults.loads NAME SIZE`` prepares the work, does it, and prints as JSON what it
took: processor seconds of the work alone, and resident memory of the process at its greatest.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from ofa_deploy.cost import AdditiveModel
    from ofa_deploy.space import Population, SearchSpace

__all__ = ["LOADS", "Taken", "exponent", "load"]

ROOT = Path(__file__).resolve().parents[2]
Work = Callable[[], object]


def _table(size: int) -> dict[str, object]:
    """A latency table of so many entries, as a file has it."""
    entry = {"spread": 0.01, "count": 40, "macs": 10**6, "params": 10**3, "bytes_moved": 10**4}
    times = {"ms": 1.0, "p10": 1.0, "p50": 1.0, "p90": 1.1, "p99": 1.2, "spread": 0.01}
    return {
        "schema": "latency-table/1",
        "space": "large",
        "classes": 1000,
        "fingerprint": "0" * 16,
        "conditions": {
            "device": "bench",
            "processor": "made up",
            "runtime": "onnxruntime",
            "runtime_version": "1",
        },
        "protocol": {},
        "date": "2026-01-02T03:04:05+00:00",
        "reference": {**times, "repeats": 20},
        "blocks": {f"block-{i}": {"ms": 0.001 + i % 977 * 1e-3, **entry} for i in range(size)},
    }


def _read_table(folder: Path, size: int) -> Work:
    from ofa_deploy.hardware import LatencyTable

    path = folder / "table.json"
    path.write_text(json.dumps(_table(size)))
    return lambda: LatencyTable.load(path)


def _write_table(folder: Path, size: int) -> Work:
    from ofa_deploy.hardware import LatencyTable

    table = LatencyTable.model_validate(_table(size))
    return lambda: table.save(folder / "table.json")


def _compare_tables(folder: Path, size: int) -> Work:
    from ofa_deploy.hardware import LatencyTable, diff_tables

    table = LatencyTable.model_validate(_table(size))
    other = table.scaled(1.5)
    return lambda: diff_tables(table, other)


def _front(size: int):  # type: ignore[no-untyped-def]
    """So many networks of once-for-all's space, none of which another dominates."""
    from ofa_deploy.pareto import Candidate
    from ofa_deploy.space import get_space

    space = get_space("ofa-mbv3-w1.0")
    rows = np.unique(space.sample(np.random.default_rng(0), size + size // 50 + 100), axis=0)
    archs = space.decode(rows[:size])
    assert len(archs) == size
    return space, [
        Candidate(
            arch, {"top1": 50 + 40 * i / size, "latency": 1 + i / size}, budget="latency <= 2"
        )
        for i, arch in enumerate(archs)
    ]


def _make_front(folder: Path, size: int) -> Work:
    from ofa_deploy.pareto import ParetoFront

    _, candidates = _front(size)

    def work() -> object:
        front = ParetoFront.of(candidates)
        assert len(front) == size
        return front.hypervolume({"top1": 0, "latency": 3}), front.merge(front), front.to_frame()

    return work


def _keep_front(folder: Path, size: int) -> Work:
    from ofa_deploy.pareto import ParetoFront
    from ofa_deploy.search import FrontFile

    space, candidates = _front(size)
    front = ParetoFront.of(candidates)

    def work() -> object:
        file = FrontFile.build("large", "predicted", space, front, conditions=None)
        return len(FrontFile.load(file.save(folder / "large.front.json")).pareto)

    return work


def _space(stages: int) -> "SearchSpace":
    """7,371 choices a stage: eight stages are more than 10^30 networks."""
    from ofa_deploy.space import Head, SearchSpace, Stage, Stem

    choices = {"depths": (2, 3, 4), "kernels": (3, 5, 7), "expands": (3, 4, 6)}
    return SearchSpace(
        name="vast",
        resolutions=(128,),
        classes=10,
        stem=Stem(channels=16),
        stages=tuple(Stage(channels=24, stride=1, **choices) for _ in range(stages)),
        head=Head(channels=64, features=64),
    )


class _Saturating:
    """Top-1 that is no sum over blocks: it rises with one, ever slower."""

    def __init__(self, total: "AdditiveModel") -> None:
        self.total, (self.least, self.greatest) = total, total.bounds()

    def predict(self, rows: "Population") -> "npt.NDArray[np.float64]":
        share = (self.total.predict(rows) - self.least) / (self.greatest - self.least)
        return 60 + 25 * (1 - np.exp(-2 * share))


def _models(stages: int) -> "tuple[SearchSpace, AdditiveModel, AdditiveModel, float]":
    """A space, what accuracy rises with, latency, and a limit on that halfway."""
    from ofa_deploy.cost import AdditiveModel

    space = _space(stages)
    assert space.num_archs > 10 ** (3.8 * stages)
    worth = AdditiveModel.from_blocks(space, lambda b: 0.1 + 1e-3 * b.kernel + 1e-9 * b.macs)
    latency = AdditiveModel.from_blocks(space, lambda b: 0.1 + 1e-9 * b.macs**0.9 * b.kernel)
    return space, worth, latency, sum(latency.bounds()) / 2


def _search_space(folder: Path, stages: int) -> Work:
    from ofa_deploy.search import search

    space, worth, latency, limit = _models(stages)
    top1, texts = _Saturating(worth), [f"latency <= {limit} ms"]

    def work() -> object:
        found = search(space, accuracy=top1, latency=latency, constraints=texts)
        best = found.best("top1")
        assert best.predicted["latency"] <= limit
        return best

    return work


def _search_front(folder: Path, stages: int) -> Work:
    from ofa_deploy.search import search

    space, worth, latency, _ = _models(stages)
    top1, goals = _Saturating(worth), {"top1": "max", "latency": "min"}

    def work() -> object:
        front = search(space, accuracy=top1, latency=latency, objectives=goals)
        assert len(front) > 100
        return front

    return work


def _solve_space(folder: Path, stages: int) -> Work:
    from ofa_deploy.search import Domain, best_within

    space, worth, latency, limit = _models(stages)

    def work() -> object:
        found = best_within(Domain(space), worth, latency, limit)
        assert found is not None and found.value <= found.bound < 1.05 * found.value
        return found

    return work


def _walk_space(folder: Path, stages: int) -> Work:
    from ofa_deploy.cost import macs_model

    def work() -> object:
        space = _space(stages)
        rows = space.sample(np.random.default_rng(0), 5_000)
        archs = space.decode(rows)
        assert np.array_equal(space.encode(archs), rows)
        model = macs_model(space)
        return model.bounds(), model.predict(rows), space.num_archs, len(space.blocks())

    return work


@dataclass(frozen=True)
class _Load:
    """One kind of work.

    Attributes:
        sizes: rising; the last as promised.
        most_exponent: of size, in the time that it takes.
        most_mib: memory that the process may take for the last.
    """

    prepare: Callable[[Path, int], Work]
    what: str
    sizes: tuple[int, ...]
    most_exponent: float = 1.3
    most_mib: int = 4096


_MILLION = (250_000, 500_000, 1_000_000)
_POINTS = (25_000, 50_000, 100_000)
_STAGES = (8, 16, 32)  # of 10^31, 10^62 and 10^124 networks; those published have 5 stages
LOADS = {
    "read-table": _Load(_read_table, "table read, entries", _MILLION),
    "write-table": _Load(_write_table, "table written, entries", _MILLION),
    "compare-tables": _Load(_compare_tables, "tables compared, entries", _MILLION),
    "make-front": _Load(_make_front, "front made, merged and tabulated, points", _POINTS),
    "keep-front": _Load(_keep_front, "front written and read, points", _POINTS),
    "walk-space": _Load(_walk_space, "space sampled, coded and bounded, stages", _STAGES),
    "search-space": _Load(_search_space, "space searched for the best, stages", _STAGES),
    "search-front": _Load(_search_front, "space searched for a front, stages", _STAGES),
    "solve-space": _Load(_solve_space, "optimum of sums bounded, stages", _STAGES),
}


@dataclass(frozen=True)
class Taken:
    """What work took.

    Attributes:
        cpu: processor seconds of the work alone.
        peak_mib: of the whole process.
    """

    size: int
    cpu: float
    seconds: float
    peak_mib: float


def load(name: str, size: int) -> Taken:
    """Do some work in a process of its own."""
    command = [sys.executable, "-m", "tests.faults.loads", name, str(size)]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    calm = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": path}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ | calm
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return Taken(**json.loads(done.stdout))


def exponent(few: Taken, many: Taken) -> float:
    """Of size, in the time that work takes; 1 is linear."""
    return float(np.log(many.cpu / few.cpu) / np.log(many.size / few.size))


def main(name: str, size: int) -> None:
    """Measure one."""
    with tempfile.TemporaryDirectory() as folder:
        work = LOADS[name].prepare(Path(folder), size)
        started, cpu = time.perf_counter(), time.process_time()
        work()
        taken = time.process_time() - cpu, time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"size": size, "cpu": taken[0], "seconds": taken[1], "peak_mib": peak}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
