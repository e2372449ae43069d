"""A table of this machine, on which nothing else runs."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy.hardware import LoadMeter
from tests.cli.tables.edits import SPACE, Cli


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else runs on this machine."""
    monkeypatch.setattr(LoadMeter, "others", lambda self: 0.0)


@pytest.fixture(scope="session")
def measured(cli: Cli, make_workers: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of this machine, made by exact workers."""
    import subprocess

    path = tmp_path_factory.mktemp("measured") / "table.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path.parent)
        patch.setattr(subprocess, "Popen", make_workers().popen)
        made = cli("profile", "--space", SPACE, "--out", path)
    assert made.code == 0, made.stderr
    return path


@pytest.fixture
def table(measured: Path, here: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copy(measured, here / "table.json"))
