"""Measuring on another device: as here, what it is asked, and what is kept."""

import importlib
import json
import math
import shutil
import subprocess
import time
from itertools import count
from pathlib import Path
from typing import Any

import onnx
import pytest

from ofa_deploy.errors import DeviceError
from ofa_deploy.hardware import load_device
from ofa_deploy.profiling import (
    REFERENCE,
    Protocol,
    RemoteTarget,
    Subject,
    conditions_here,
    measure,
    open_target,
    profile_space,
)
from ofa_deploy.profiling.protocol import LEAST_ROUNDS
from ofa_deploy.runtimes import get_runtime
from ofa_deploy.space import SearchSpace
from tests.profiling.fakes import HONEST, SERVE, Notes, agent, taken
from tests.profiling.places import QUICK, Direct, interpreter

measure_module: Any = importlib.import_module("ofa_deploy.profiling.measure")
pytestmark = pytest.mark.timeout(60)


# -- as here --------------------------------------------------------------------------------


@pytest.fixture(params=["local", "bare", "ssh"])
def place(request: pytest.FixtureRequest) -> Any:
    """A target: this machine, a bare Python on it, the same behind a real SSH server."""
    if request.param == "local":
        yield None
        return
    if request.param == "bare":
        request.getfixturevalue("agents")
        transport: Any = Direct(request.getfixturevalue("bare_python"))
    else:
        transport = request.getfixturevalue("device")
    with RemoteTarget(transport) as target:
        yield target


def test_every_place_measures_alike(
    tiny_subjects: dict[str, Subject], place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure_module, "_TOO_NOISY", math.inf)  # however busy this machine is
    journal, bar = tmp_path / "journal", Notes()

    def again() -> Any:
        return measure(
            tiny_subjects,
            tiny_subjects["small"],
            protocol=QUICK,
            target=place,
            journal=journal,
            progress=bar,
        )

    found = again()
    assert bar.at == bar.total == QUICK.rounds * QUICK.processes
    assert set(found) == {"small", "large", REFERENCE}
    for each in found.values():
        assert 0 < each.p10 <= each.p50 <= each.p90 <= each.p99
        assert each.repeats >= QUICK.processes * QUICK.rounds * QUICK.runs
    (file,) = journal.glob("*.jsonl")
    lines = file.read_bytes()
    assert again() == found
    assert file.read_bytes() == lines, "nothing was measured again"
    (again_file,) = journal.glob("*.jsonl")
    assert again_file == file


def test_every_place_has_the_same_conditions(place: Any) -> None:
    found = conditions_here(
        load_device("local"), place, runtime="onnxruntime", precision="fp32", batch=1, threads=1
    )
    here = conditions_here(
        load_device("local"), runtime="onnxruntime", precision="fp32", batch=1, threads=1
    )
    assert found == here


@pytest.mark.parametrize("place", ["local", "bare"], indirect=True)
def test_every_place_refuses_what_does_not_fit(
    tiny_subjects: dict[str, Subject], place: Any, tmp_path: Path
) -> None:
    wrong = Subject(tiny_subjects["large"].make, (1, 5, 16, 16))
    with pytest.raises(DeviceError, match=r"measuring process failed: \S") as error:
        measure(
            {"wrong": wrong},
            tiny_subjects["small"],
            protocol=QUICK,
            target=place,
            journal=tmp_path,
        )
    assert "\n" not in str(error.value)
    (journal,) = tmp_path.glob("*.jsonl")
    assert len(journal.read_text().splitlines()) == 1, "only its head, no record"


def test_openvino_is_measured_by_an_agent_too(
    tiny_subjects: dict[str, Subject], agents: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its import forks, and what it forked must not hold the agent up."""
    pytest.importorskip("openvino")
    monkeypatch.setattr(measure_module, "_TOO_NOISY", math.inf)
    with RemoteTarget(Direct()) as target:
        found = measure(
            tiny_subjects,
            tiny_subjects["small"],
            runtime="openvino",
            protocol=QUICK,
            target=target,
        )
    assert found["large"].repeats == QUICK.processes * QUICK.rounds * QUICK.runs


def test_local_is_no_target() -> None:
    with open_target(load_device("local")) as target:
        assert target is None


def test_local_and_remote_see_the_same_ratio(
    tiny_subjects: dict[str, Subject], bare_python: Path, agents: Path
) -> None:
    """Of a network and itself: 1, whichever process times it."""
    protocol = Protocol(rounds=8, runs=4, processes=1)
    pair = {"same": tiny_subjects["large"]}
    with RemoteTarget(Direct(bare_python)) as target:
        ratios = []
        for where in (None, target):
            found = measure(pair, tiny_subjects["large"], protocol=protocol, target=where)
            ratios.append(found["same"].ms / found[REFERENCE].ms)
    assert all(0.5 < ratio < 2 for ratio in ratios), ratios  # however busy this machine is


def test_version_of_the_engine_is_that_of_the_device(bare_python: Path, agents: Path) -> None:
    with RemoteTarget(Direct(bare_python)) as target:
        assert target.version("onnxruntime") == get_runtime("onnxruntime").version
        assert target.version("onnxruntime-cuda") == target.version("onnxruntime")
        assert target.processor in ("x86", "x86-vnni", "arm")


# -- what it is asked and what is kept ------------------------------------------------------


def test_figures_and_what_else_was_told(tiny_subjects: dict[str, Subject], tmp_path: Path) -> None:
    found = taken(tiny_subjects, agent(), journal=tmp_path)
    assert found["large"].ms == pytest.approx(2.0)
    (file,) = tmp_path.glob("*.jsonl")
    _, *records = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(record["chunk"], record["process"]) for record in records] == [(0, 0), (0, 1)]
    for record in records:
        assert record["boot"] == "first"
        assert record["telemetry"] == {
            "temperatures_c": {"cpu": 50.0},
            "state": {"power_mode": "15W"},
        }


def test_models_are_sent_once(tiny_subjects: dict[str, Subject], tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    counted = f"""
honest = put
def put(name, data):
    with open({str(seen)!r}, "a") as file:
        print(len(data), file=file)
    return honest(name, data)
"""
    taken(tiny_subjects, agent(counted))
    assert len(seen.read_text().split()) == 2, "the reference is one of the two subjects"


def test_chunks_are_smaller_than_here(tiny_subjects: dict[str, Subject], tmp_path: Path) -> None:
    many = {f"net {i}": tiny_subjects["large"] for i in range(40)}
    seen = tmp_path / "seen"
    counted = f"""
honest = time
def time(job):
    with open({str(seen)!r}, "a") as file:
        print(len(job["models"]) - 1, file=file)
    honest(job)
"""
    found = taken({**many, "small": tiny_subjects["small"]}, agent(counted))
    assert set(found) == {*many, "small", REFERENCE}
    assert seen.read_text().split() == ["21", "20", "21", "20"]


def test_other_devices_are_measured_anew(tiny_subjects: dict[str, Subject], tmp_path: Path) -> None:
    """And the same device goes on, at another address, and after it was started anew."""
    for changed, journals in (
        ("", 1),
        ("hello['boot'], hello['load'] = 'second', 3.0", 1),
        ("hello['board'] = 'two'", 2),
        ("hello['processor'] = 'Other, 4 cores'", 3),
        ("hello['telemetry'] = {'state': {'power_mode': '30W'}}", 4),
        ("hello['architecture'] = 'x86_64'", 5),
    ):
        taken(tiny_subjects, agent("\n" + changed), journal=tmp_path)
        files = list(tmp_path.glob("*.jsonl"))
        assert len(files) == journals, changed
        assert all(len(file.read_text().splitlines()) == 3 for file in files)


def test_other_engines_are_measured_anew(tiny_subjects: dict[str, Subject], tmp_path: Path) -> None:
    newer = "\nhello['runtimes'] = {'onnxruntime': '1.20.0'}\n"
    said = HONEST.replace('{"engine": "1.19.2"}', '{"engine": "1.20.0"}')
    taken(tiny_subjects, agent(), journal=tmp_path)
    taken(tiny_subjects, Direct(script=said + newer + SERVE), journal=tmp_path)
    assert len(list(tmp_path.glob("*.jsonl"))) == 2


def test_int8_is_built_for_the_device(tiny_subjects: dict[str, Subject], tmp_path: Path) -> None:
    """ARM wants signed activations, x86 unsigned ones."""
    kinds = {}
    for machine in ("aarch64", "x86_64"):
        folder = tmp_path / machine
        folder.mkdir()
        kept = f"""
hello["architecture"] = {machine!r}
honest = put
def put(name, data):
    open(os.path.join({str(folder)!r}, name), "wb").write(data)
    return honest(name, data)
"""
        with RemoteTarget(agent(kept)) as target:
            measure(
                {"net": tiny_subjects["small"]},
                tiny_subjects["small"],
                precision="int8",
                protocol=QUICK,
                target=target,
            )
        graph = onnx.load(next(folder.iterdir())).graph
        zeros = {tensor.name: tensor.data_type for tensor in graph.initializer}
        kinds[machine] = {
            zeros[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"
        }
    assert kinds == {"aarch64": {onnx.TensorProto.INT8}, "x86_64": {onnx.TensorProto.UINT8}}


def test_a_table_speaks_of_the_device(tiny_space: SearchSpace) -> None:
    device = load_device("local")
    with RemoteTarget(agent()) as target:
        table = profile_space(
            tiny_space, device, protocol=QUICK, calibration=4, holdout=2, target=target
        )
    c = table.conditions
    assert (c.processor, c.runtime_version, c.power_mode) == ("Board, 4 cores", "1.19.2", "15W")
    assert table.other_load == 0.25
    assert set(table.blocks) == {block.key for block in tiny_space.blocks()}


# -- clocks that jump -----------------------------------------------------------------------

JUMPING = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
/* The wall clock goes back and forth by days each time that it is asked. */
static long days(void) { static long n; return 86400L * ((++n * 7919) % 41 - 20); }
int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(clock, now);
    if (clock == CLOCK_REALTIME) now->tv_sec += days();
    return code;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    now->tv_sec = found.tv_sec;
    now->tv_usec = found.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *now) {
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (now) *now = found.tv_sec;
    return found.tv_sec;
}
"""


@pytest.fixture(scope="session")
def jumping(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bare Python, with a wall clock that jumps."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("clock")
    (folder / "clock.c").write_text(JUMPING)
    library = folder / "clock.so"
    command = [compiler, "-shared", "-fPIC", "-o", library, folder / "clock.c", "-ldl"]
    subprocess.run(command, check=True, timeout=60)
    return interpreter(folder / "python3", site, f"export LD_PRELOAD='{library}'")


def test_a_wall_clock_that_jumps_changes_nothing(
    tiny_subjects: dict[str, Subject],
    jumping: Path,
    agents: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither figures nor when a process ends; here it jumps as well."""
    code = "import time; print(len({int(time.time() // 86400) for _ in range(41)}))"
    told = subprocess.run([jumping, "-c", code], capture_output=True, text=True, check=True)
    assert int(told.stdout) > 20, "it does jump"
    ticks = count()
    monkeypatch.setattr(time, "time", lambda: 86400.0 * (next(ticks) * 7919 % 41))
    monkeypatch.setattr(measure_module, "_TOO_NOISY", math.inf)
    protocol = Protocol(rounds=10**6, seconds=1.0, runs=2, processes=2, tolerance=10)
    start, bar = time.monotonic(), Notes()
    with RemoteTarget(Direct(jumping), progress=bar) as target:
        found = measure(tiny_subjects, tiny_subjects["small"], protocol=protocol, target=target)
        assert target.reconnects == 0
    assert time.monotonic() - start < 50
    for each in found.values():
        assert 0 < each.p10 <= each.p50 <= each.p99 < 1000
        assert each.repeats > 2 * 2 * LEAST_ROUNDS, "half of a second is more than the least"
