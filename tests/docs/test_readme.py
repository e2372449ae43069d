"""The README's commands, in its order: they continue from a small quickstart."""

import importlib
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import in_process
from tests.docs.commands import ROOT, Command, Reader, commands_in, why_not
from tests.docs.test_commands import NOT_RUN

SHOWN = commands_in(ROOT / "README.md")
RUN = [
    command
    for command in SHOWN
    if why_not(command, NOT_RUN | {"plan --space ofa-mbv3-w1.2": "needs published tables"}) is None
]
quickstart_module: Any = importlib.import_module("ofa_deploy.cli.quickstart")


@pytest.fixture(scope="module")
def reader(world: Path) -> Reader:
    """Somebody who ran the quickstart and has images."""
    pytest.importorskip("tensorrt_rtx", reason="pip install 'ofa-deploy[tensorrt-rtx]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quickstart_module, "SUBNETS", 9)
        patch.setattr(quickstart_module, "SHARES", (0.5,))
        made = in_process("quickstart", "--epochs", "3", "--images", "600", "--threads", "1")
    assert made.code == 0, made.stderr
    shutil.copy(world / "photos" / "cat" / "1.jpg", world / "photo.jpg")
    return Reader(RUN)


@pytest.mark.slow
@pytest.mark.parametrize("command", RUN, ids=lambda command: command.text)
def test_command_of_the_readme_works(command: Command, reader: Reader) -> None:
    result = reader.reach(command)
    assert result.code == 0, result.stderr


@pytest.mark.slow
def test_it_leaves_what_the_readme_speaks_of(world: Path, reader: Reader) -> None:
    reader.reach(RUN[-1])
    for name in ("small/manifest.json", "small-distilled/manifest.json"):
        assert (world / "bundles" / name).is_file(), name
    for name in ("fronts.html", "fronts.png", "runs/mine/accuracy.onnx", "runs/mine/curves.png"):
        assert (world / name).is_file(), name


def test_most_of_the_readme_is_run() -> None:
    left = [shlex.join(command.args) for command in SHOWN if command not in RUN]
    assert len(left) == 7 and len(RUN) > 2 * len(left), left
