"""Places to measure on: a bare Python on this machine, and a real SSH server that leads to it."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import pytest

from ofa_deploy.graph import build_onnx
from ofa_deploy.hardware import Connection
from ofa_deploy.profiling import Subject
from ofa_deploy.profiling.remote.ssh import Ssh
from ofa_deploy.runtimes import get_runtime
from ofa_deploy.space import SearchSpace
from tests.profiling.places import (
    Server,
    bare_site,
    interpreter,
    running_server,
    why_no_server,
)
from tests.profiling.sessions import Agent

# What ONNX Runtime imports, and nothing else: no torch, none of this project's other packages.
_BARE = ("numpy", "onnxruntime", "flatbuffers", "packaging", "protobuf")


@pytest.fixture(scope="session")
def tiny_subjects(tiny_space: SearchSpace) -> dict[str, Subject]:
    graphs: dict[str, onnx.ModelProto] = {
        "small": build_onnx(tiny_space.lower(tiny_space.smallest)),
        "large": build_onnx(tiny_space.lower(tiny_space.largest)),
    }
    return {
        "small": Subject(lambda: graphs["small"], (1, 3, 12, 12)),
        "large": Subject(lambda: graphs["large"], (1, 3, 16, 16)),
    }


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bare_site(tmp_path_factory.mktemp("bare") / "site", _BARE)


@pytest.fixture(scope="session")
def bare_python(site: Path) -> Path:
    """A Python with numpy and ONNX Runtime, and no torch."""
    python = interpreter(site.parent / "python3", site)
    tried = subprocess.run([python, "-c", "import torch"], capture_output=True, check=False)
    assert b"No module named 'torch'" in tried.stderr
    return python


@pytest.fixture
def agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where agents of this test keep their folders, in place of the system's own."""
    get_runtime("onnxruntime")  # which writes a file there when it is imported
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture
def start(bare_python: Path, agents: Path) -> Callable[..., Agent]:
    return lambda token="mine": Agent(bare_python, token)


@pytest.fixture
def model(tiny_subjects: dict[str, Subject]) -> bytes:
    return get_runtime("onnxruntime").build(tiny_subjects["small"].graph)


# -- a real server --------------------------------------------------------------------------


@pytest.fixture(scope="session")
def ssh_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server that lets one key in: of the kind asked for, or else the first that is here."""
    if shutil.which("ssh") is None or shutil.which("ssh-keygen") is None:
        pytest.skip("OpenSSH's client is not installed")
    kinds = (request.param,) if hasattr(request, "param") else ("openssh", "asyncssh")
    reasons = {kind: why_no_server(kind) for kind in kinds}
    kind = next((kind for kind, reason in reasons.items() if not reason), None)
    if kind is None:
        pytest.skip("; ".join(reasons.values()))
    with running_server(tmp_path_factory.mktemp("ssh"), kind) as server:
        yield server


@pytest.fixture
def device(ssh_server: Server, bare_python: Path, tmp_path: Path, agents: Path) -> Ssh:
    """The bare Python behind the real server; its agents keep their folders in ``agents``."""
    python = tmp_path / "bare3"
    python.write_text(f"#!/bin/sh\nTMPDIR='{agents}' exec '{bare_python}' \"$@\"\n")
    python.chmod(0o755)
    return Ssh(Connection("device"), str(python), ssh_server.config(tmp_path / "config"))
