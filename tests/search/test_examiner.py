"""What proves candidates: every figure that a limit can be of, in the table's own terms."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from ofa_deploy.export import DeviceExaminer
from ofa_deploy.export.examiner import measurable
from ofa_deploy.hardware import Measurement
from ofa_deploy.profiling import REFERENCE, Protocol, Subject, reference_arch
from ofa_deploy.search import check_provable, parse_constraint
from ofa_deploy.space import Arch, SearchSpace
from tests.tables import SOMEWHERE, measurement, table_of

examiner_module: Any = importlib.import_module("ofa_deploy.export.examiner")


@dataclass
class Bench:
    """A device on which every network takes the same; it notes what it is given."""

    energy_mj: float | None = 3.5
    reference: list[Subject] = field(default_factory=list)

    def measure(
        self, subjects: Mapping[str, Subject], reference: Subject, **options: Any
    ) -> dict[str, Measurement]:
        self.reference.append(reference)
        taken = Measurement(
            ms=2.0,
            p10=2.1,
            p50=2.5,
            p90=3.0,
            p99=4.0,
            spread=0.1,
            repeats=9,
            energy_mj=self.energy_mj,
        )
        return dict.fromkeys([*subjects, REFERENCE], taken)


class Shipped:
    """Subnets as they would ship, without any weights."""

    def __init__(self, *given: Any) -> None: ...

    def validate(self, archs: Sequence[Arch], progress: Any) -> list[float]:
        return [50.0 + i for i in range(len(archs))]

    def subject(self, arch: Arch, *, batch: int) -> Subject:
        return Subject(lambda: None, (batch, 3, arch.resolution, arch.resolution))  # type: ignore[arg-type, return-value]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench()
    monkeypatch.setattr(examiner_module, "measure", lambda *a, **k: made.measure(*a, **k))
    monkeypatch.setattr(examiner_module, "AsShipped", Shipped)
    return made


def examiner(run_space: SearchSpace, **more: Any) -> DeviceExaminer:
    evaluator: Any = SimpleNamespace(
        record=SimpleNamespace(search_space=run_space),
        data=SimpleNamespace(validation=range(500)),
    )
    return DeviceExaminer(evaluator, SOMEWHERE, 2.0, Protocol(), **more)


def test_every_percentile_and_energy_is_given(tiny_space: SearchSpace, bench: Bench) -> None:
    examine = examiner(tiny_space)
    first, second = examine([tiny_space.smallest, tiny_space.largest])
    assert first == {
        "top1": 50.0,
        "top1.images": 500.0,
        "latency": 2.0,
        "latency.p10": 2.1,
        "latency.p50": 2.5,
        "latency.p90": 3.0,
        "latency.p99": 4.0,
        "latency.spread": 0.1,
        "energy": 3.5,
    }
    assert second == {**first, "top1": 51.0}
    beside = {"latency.spread", "top1.images"}  # no limit can be set on those
    assert set(first) - beside == set(examine.metrics)


def test_energy_that_was_not_counted_is_left_out(tiny_space: SearchSpace, bench: Bench) -> None:
    bench.energy_mj = None
    (found,) = examiner(tiny_space)([tiny_space.smallest])
    assert "energy" not in found and "latency.p90" in found


@pytest.mark.parametrize("resolutions", [(16,), (12, 16)])
def test_reference_is_that_of_the_table(
    tiny_space: SearchSpace, bench: Bench, resolutions: tuple[int, ...]
) -> None:
    """A table of fewer resolutions than the run has another middle one."""
    own = tiny_space.with_resolutions(*resolutions)
    assert reference_arch(own).resolution == resolutions[0]
    assert reference_arch(tiny_space).resolution == 12
    examiner(tiny_space, space=own)([tiny_space.smallest])
    (reference,) = bench.reference
    assert reference.shape == (1, 3, resolutions[0], resolutions[0])


@pytest.mark.parametrize("text", ["latency.p90 <= 5 ms", "energy <= 5 mJ", "top1 >= 40"])
def test_what_a_device_can_measure_follows_from_its_table(
    tiny_space: SearchSpace, text: str
) -> None:
    counted = table_of(tiny_space, lambda block: 1.0, reference=measurement(1.0, energy_mj=2.0))
    silent = table_of(tiny_space, lambda block: 1.0)
    check_provable([parse_constraint(text)], measurable(counted))
    assert set(measurable(counted)) - set(measurable(silent)) == {"energy"}
