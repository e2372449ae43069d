"""From a space to a latency table, with real workers and with exact ones."""

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ofa_deploy.errors import InputError, UnknownNameError
from ofa_deploy.hardware import LatencyTable, Measurement, Trace, load_device, processor_name
from ofa_deploy.predict import latency_model
from ofa_deploy.profiling import (
    REFERENCE,
    Protocol,
    Subject,
    Taken,
    conditions_here,
    network_subject,
    profile_space,
    reference_arch,
)
from ofa_deploy.runtimes import get_runtime
from ofa_deploy.space import Arch, Head, SearchSpace, Stage, Stem

QUICK = Protocol(rounds=5, runs=3, processes=2, visit_ms=1e6, tolerance=10)
# The package's function `measure` hides the module of that name.
space_table: Any = importlib.import_module("ofa_deploy.profiling.space_table")
measure_module: Any = importlib.import_module("ofa_deploy.profiling.measure")
TRACE = Trace(temperature_c=(40, 45, 50), clocks_mhz={"cpu0": (1.0, 2.0, 3.0)}, told=True)


@pytest.fixture(scope="module")
def table(tiny_space: SearchSpace) -> LatencyTable:
    """A real one, however busy this machine is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure_module, "_TOO_NOISY", math.inf)
        return profile_space(
            tiny_space, load_device("local"), protocol=QUICK, calibration=6, holdout=9, seed=3
        )


def test_every_block_is_in_the_table(table: LatencyTable, tiny_space: SearchSpace) -> None:
    assert set(table.blocks) == {block.key for block in tiny_space.blocks()}
    for block in tiny_space.blocks():
        entry = table.blocks[block.key]
        assert table.value(block) == entry.ms > 0
        assert (entry.macs, entry.params) == (block.macs, block.params)
        assert entry.bytes_moved == block.bytes_moved
        assert entry.count == QUICK.rounds * QUICK.runs * QUICK.processes


def test_networks_have_roles(table: LatencyTable, tiny_space: SearchSpace) -> None:
    calibration, times = table.archs("calibration")
    holdout, held_times = table.archs("holdout")
    assert (len(calibration), len(holdout)) == (6, 9)
    assert {tiny_space.smallest, tiny_space.largest} <= set(calibration)
    assert len({*calibration, *holdout}) == 15
    assert min(*times, *held_times) > 0
    tiny_space.encode([*calibration, *holdout])


def test_table_says_how_it_was_made(table: LatencyTable, tiny_space: SearchSpace) -> None:
    table.check_for(tiny_space)
    assert (table.space, table.classes) == ("tiny", tiny_space.classes)
    assert table.reference.repeats >= 2 * QUICK.rounds * QUICK.runs * QUICK.processes
    assert table.protocol["rounds"] == QUICK.rounds
    assert table.conditions == conditions_here(
        load_device("local"), runtime="onnxruntime", precision="fp32", batch=1, threads=1
    )
    assert table.conditions.processor == processor_name()
    assert table.conditions.runtime_version == get_runtime("onnxruntime").version


def test_table_survives_its_file(table: LatencyTable, tmp_path: Path) -> None:
    assert LatencyTable.load(table.save(tmp_path / table.file_name)) == table


def test_model_of_the_table_is_plausible(table: LatencyTable, tiny_space: SearchSpace) -> None:
    model = latency_model(tiny_space, table)
    drawn = tiny_space.sample(np.random.default_rng(0), 200)
    assert (model.predict(drawn) > 0).all()
    smallest, largest = model.predict([tiny_space.smallest, tiny_space.largest])
    assert smallest < largest
    assert model.holdout is not None
    assert model.holdout.networks == 9


# -- exact workers --------------------------------------------------------------------------

EMPTY_MS = 0.5


@dataclass
class ExactWorkers:
    """A ``measure`` under which a graph takes 0.5 ms and a millisecond a node.

    Attributes:
        subjects: what it was given.
        options: and how to measure it.
    """

    subjects: dict[str, Subject] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def measure(self, subjects: Mapping[str, Subject], reference: Subject, **options: Any) -> Taken:
        self.subjects.update({**subjects, REFERENCE: reference})
        self.options = options
        made = Taken({name: _taken(subject) for name, subject in self.subjects.items()})
        made.telemetry = TRACE
        made.windows, made.rejected, made.throttled, made.other_load = 40, 3, 2, 0.125
        return made


def _taken(subject: Subject) -> Measurement:
    nodes = [node for node in subject.graph.graph.node if node.op_type != "Identity"]
    ms = EMPTY_MS + len(nodes)
    return Measurement(ms=ms, p10=ms, p50=ms, p90=ms, p99=ms, spread=0.0, repeats=7)


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> ExactWorkers:
    made = ExactWorkers()
    monkeypatch.setattr(space_table, "measure", made.measure)
    return made


def test_blocks_cost_what_they_add_to_an_empty_graph(
    tiny_space: SearchSpace, exact: ExactWorkers
) -> None:
    table = profile_space(tiny_space, load_device("local"), calibration=4, holdout=9)
    assert table.empty_ms == EMPTY_MS
    assert table.reference == _taken(network_subject(tiny_space, reference_arch(tiny_space)))
    for block in tiny_space.blocks():
        nodes = len(exact.subjects[block.key].graph.graph.node)
        assert table.value(block) == pytest.approx(nodes)


def test_exact_times_are_predicted_exactly(tiny_space: SearchSpace, exact: ExactWorkers) -> None:
    table = profile_space(tiny_space, load_device("local"), calibration=8, holdout=9)
    model = latency_model(tiny_space, table)
    drawn = tiny_space.decode(tiny_space.sample(np.random.default_rng(1), 50))
    expected = [_taken(network_subject(tiny_space, arch)).ms for arch in drawn]
    np.testing.assert_allclose(model.predict(drawn), expected, rtol=1e-6)
    assert model.margin == pytest.approx(0.0, abs=1e-6)


def test_table_says_what_the_device_said(
    tiny_space: SearchSpace, exact: ExactWorkers, tmp_path: Path
) -> None:
    device = load_device("local")
    table = profile_space(tiny_space, device, calibration=4, holdout=9)
    assert exact.options["device"] is device
    loaded = LatencyTable.load(table.save(tmp_path / "table.json"))
    assert loaded.telemetry == TRACE
    assert (loaded.windows, loaded.rejected, loaded.throttled) == (40, 3, 2)
    assert loaded.other_load == 0.125


def test_batch_reaches_the_subjects(tiny_space: SearchSpace, exact: ExactWorkers) -> None:
    table = profile_space(
        tiny_space, load_device("local"), calibration=4, holdout=9, batch=3, threads=2
    )
    assert {subject.shape[0] for subject in exact.subjects.values()} == {3}
    assert (table.conditions.batch, table.conditions.threads) == (3, 2)
    for block in tiny_space.blocks():
        entry = table.blocks[block.key]
        assert (entry.macs, entry.bytes_moved) == (3 * block.macs, 3 * block.bytes_moved)
        assert entry.params == block.params


def test_time_or_protocol(tiny_space: SearchSpace, exact: ExactWorkers) -> None:
    """Rounds are cut short after so long, unless it is said how often to time what."""

    def made(**options: Any) -> LatencyTable:
        return profile_space(tiny_space, load_device("local"), calibration=4, holdout=9, **options)

    assert made(minutes=3).protocol["minutes"] == 3
    assert (exact.options["protocol"], exact.options["minutes"]) == (None, 3)
    assert "minutes" not in made(minutes=3, protocol=QUICK).protocol
    assert (exact.options["protocol"], exact.options["minutes"]) == (QUICK, None)


def test_seed_decides_the_networks(tiny_space: SearchSpace, exact: ExactWorkers) -> None:
    def networks(seed: int) -> list[Arch]:
        table = profile_space(tiny_space, load_device("local"), calibration=4, holdout=9, seed=seed)
        return [Arch.from_dict(entry.arch) for entry in table.networks]

    assert networks(1) == networks(1)
    assert networks(1) != networks(2)


def test_reference_is_a_network_in_the_middle(tiny_space: SearchSpace) -> None:
    arch = reference_arch(tiny_space)
    tiny_space.encode([arch])
    assert arch.kernels[0] == 5
    macs = [tiny_space.cost(a).macs for a in (tiny_space.smallest, arch, tiny_space.largest)]
    assert macs == sorted(macs)


# -- what cannot be profiled ----------------------------------------------------------------


@pytest.mark.parametrize(("calibration", "holdout"), [(3, 9), (4, 1), (0, 0)])
def test_too_few_networks_are_refused(
    tiny_space: SearchSpace, exact: ExactWorkers, calibration: int, holdout: int
) -> None:
    with pytest.raises(InputError, match="at least 4"):
        profile_space(tiny_space, load_device("local"), calibration=calibration, holdout=holdout)
    assert not exact.subjects


def test_space_with_too_few_networks_is_refused(exact: ExactWorkers) -> None:
    stage = Stage(channels=8, stride=1, depths=(1, 2), kernels=(3,), expands=(2,))
    space = SearchSpace(
        name="two",
        resolutions=(16,),
        classes=2,
        stem=Stem(channels=8),
        stages=(stage,),
        head=Head(channels=8, features=8),
    )
    with pytest.raises(InputError, match="space two has too few networks"):
        profile_space(space, load_device("local"), calibration=4, holdout=9)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"runtime": "tensorrt"},
            "device local has no runtime 'tensorrt'; it offers: onnxruntime, openvino",
        ),
        ({"precision": "fp16"}, "device local has no precision 'fp16'; it offers: fp32, int8"),
    ],
)
def test_device_offers_only_what_it_lists(
    tiny_space: SearchSpace, exact: ExactWorkers, asked: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        profile_space(tiny_space, load_device("local"), **asked)  # type: ignore[arg-type]
    assert not exact.subjects


def test_device_that_offers_a_runtime_nobody_has_is_refused(tiny_space: SearchSpace) -> None:
    device = load_device("local").model_copy(update={"runtimes": ("abacus",)})
    with pytest.raises(UnknownNameError, match="abacus"):
        profile_space(tiny_space, device, runtime="abacus")
