"""The agent on an ARM processor that qemu emulates, set up by ``make test-arm``.

It shows that the agent works there and computes the same. What it times means nothing.
"""

import importlib
import json
import math
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ofa_deploy.profiling import RemoteTarget, Subject, measure
from ofa_deploy.profiling.remote.bundle import agent_source
from ofa_deploy.profiling.space_table import blocks_subject, network_subject, reference_arch
from ofa_deploy.profiling.subject import write_models
from ofa_deploy.space import Block, get_space
from ofa_deploy.terminal import SILENT
from tests.profiling.places import QUICK, Direct

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / "build" / "arm64" / "root" / "usr" / "bin" / "python3"
pytestmark = [
    pytest.mark.arm,
    pytest.mark.timeout(280),
    pytest.mark.skipif(not PYTHON.exists(), reason="no ARM Python here; make test-arm makes one"),
]
NANO = get_space("mbv3-nano-32")
measure_module: Any = importlib.import_module("ofa_deploy.profiling.measure")


def few_blocks() -> list[Block]:
    """One of each kind, and a depthwise one with squeeze and excitation if there is one."""
    chosen: dict[tuple[str, bool], Block] = {}
    for block in NANO.blocks():
        chosen.setdefault((block.kind, block.se > 0), block)
    return list(chosen.values())


@pytest.fixture(scope="module")
def subjects() -> dict[str, Subject]:
    blocks = {block.key: blocks_subject((block,)) for block in few_blocks()}
    return {**blocks, "network": network_subject(NANO, reference_arch(NANO))}


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteTarget]:
    """A session with an agent there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("agents")))
        with RemoteTarget(Direct(python=PYTHON), silence_s=200.0) as target:
            yield target


def test_the_agent_says_what_it_runs_on(arm: RemoteTarget) -> None:
    if platform.machine() == "aarch64":
        pytest.skip("this processor needs no emulation")
    assert "aarch64" in arm.hello.model_dump().values()
    assert arm.processor == "arm", "INT8 files have signed activations"
    assert arm.version("onnxruntime").startswith("1.")


def test_blocks_are_profiled_there(
    arm: RemoteTarget, subjects: dict[str, Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every block is answered for; how long it took in an emulator says nothing."""
    monkeypatch.setattr(measure_module, "_TOO_NOISY", math.inf)
    blocks = {name: each for name, each in subjects.items() if name != "network"}
    found = measure(blocks, subjects["network"], protocol=QUICK, target=arm)
    assert found.keys() == {*blocks, "reference"}
    assert {each.repeats for each in found.values()} >= {QUICK.rounds * QUICK.runs * 2}
    assert all(each.p10 > 0 for each in found.values())


@dataclass(frozen=True)
class Outputs:
    """What models give for the images that the agent times them with, in order.

    Attributes:
        there: on ARM, as the agent opens them.
        here: on this processor, opened by the same lines.
        meant: here, each operator of the file by itself, bytes through floats.
    """

    there: list[Any]
    here: list[Any]
    meant: list[Any]

    def of(self, precision: str) -> Iterator[tuple[Any, Any, Any]]:
        count = len(self.there) // 2
        part = slice(0, count) if precision == "fp32" else slice(count, None)
        yield from zip(self.there[part], self.here[part], self.meant[part], strict=True)


@pytest.fixture(scope="module")
def given(subjects: dict[str, Subject], tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    """Of every subject in fp32, then in INT8."""
    folder = tmp_path_factory.mktemp("outputs")
    agent = folder / "agent.py"
    agent.write_text(agent_source())
    models: list[dict[str, Any]] = []
    for precision in ("fp32", "int8"):
        (folder / precision).mkdir()
        made = write_models(subjects, folder / precision, "onnxruntime", precision, SILENT, "arm")
        models += made.values()
    named = [part for m in models for part in (str(m["path"]), json.dumps(m["shape"]))]

    def run(python: Path | str, plain: str, name: str) -> list[Any]:
        script, to = Path(__file__).with_name("outputs.py"), folder / f"{name}.npz"
        done = subprocess.run(
            [str(python), str(script), str(agent), plain, str(to), *named],
            capture_output=True,
            check=False,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        with np.load(to) as arrays:
            return [arrays[f"arr_{n}"] for n in range(len(models))]

    return Outputs(
        run(PYTHON, "0", "there"), run(sys.executable, "0", "here"), run(sys.executable, "1", "own")
    )


def test_outputs_equal_those_here(given: Outputs) -> None:
    """Of the same files, opened by the same lines, for the same images."""
    for there, here, _ in given.of("fp32"):
        assert np.isfinite(here).all() and np.ptp(here) > 0
        np.testing.assert_allclose(there, here, rtol=1e-5, atol=1e-5 * np.abs(here).max())


def test_bytes_equal_what_the_file_means(given: Outputs) -> None:
    """Within a step. Not those here: x86 without VNNI saturates where activations are signed."""
    for there, _, meant in given.of("int8"):
        assert np.isfinite(meant).all() and np.ptp(meant) > 0
        assert np.abs(there - meant).max() <= np.ptp(meant) / 255


def test_bytes_are_bytes(given: Outputs) -> None:
    """INT8 files are others than those of fp32, and nearly say the same."""
    for (exact, _, _), (rounded, _, _) in zip(given.of("fp32"), given.of("int8"), strict=True):
        assert 0 < np.abs(exact - rounded).max() < 0.2 * np.ptp(exact)
