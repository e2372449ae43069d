"""Where a command runs: a machine that is too small, a folder that is gone, Ctrl-C at any time."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy.cli._exhausted import exhausted

ROOT = Path(__file__).resolve().parents[2]
SPACE = "mbv3-nano-32"

Cli = Callable[..., Any]


# -- the machine ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate "
                "memory: you tried to allocate 4294967296 bytes. Error code 12 (Cannot allocate)"
            ),
            "this machine has too little memory for the 4.00 GiB that it was asked for; end what",
        ),
        (MemoryError(), "this machine has too little memory; end what else holds memory, or lo"),
        (RuntimeError("can't start new thread"), "to start one more thread, found that this mach"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA"), "the GPU has too little memory"),
    ],
)
def test_a_machine_that_is_too_small_is_one_line(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def fail(name: str) -> None:
        raise error

    monkeypatch.setattr("ofa_deploy.space.get_space", fail)
    assert message in cli("spaces", SPACE).error(1)


def test_a_mistake_of_ours_is_not_told_as_a_small_machine(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr("ofa_deploy.space.get_space", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        cli("spaces", SPACE)


def test_memory_that_torch_lacks_is_known() -> None:
    """By what it says today, as this version of it does."""
    import torch

    with pytest.raises(RuntimeError) as found:
        torch.empty(10**15)
    assert "for the " in exhausted(found.value)


@pytest.mark.parametrize("command", [("spaces",), ("tables",), ("train", "--dry-run")])
def test_a_folder_that_is_gone_is_one_line(here: Path, cli: Cli, command: tuple[str, ...]) -> None:
    gone = here / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    try:
        message = cli(*command).error(1)
    finally:
        os.chdir(here)
    assert "expected a working folder, found none (No such file or directory)" in message
    assert "change to one that is there" in message


# -- Ctrl-C ---------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["typer", "rich.console", "ofa_deploy.cli.main"])
def test_ctrl_c_while_the_command_line_is_loaded_is_silent(here: Path, module: str) -> None:
    code = f"""
import signal, sys
class Pressed:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Pressed())
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = ["ofa-deploy", "spaces"]
from ofa_deploy.__main__ import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_ctrl_c_within_an_import_is_no_missing_module(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> None:
        raise ImportError("initialization failed") from KeyboardInterrupt()

    monkeypatch.setattr("ofa_deploy.space.get_space", fail)
    made = cli("spaces", SPACE)
    assert (made.code, made.stdout, made.stderr) == (130, "", "interrupted\n")
