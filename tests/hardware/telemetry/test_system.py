"""Commands of the system: bounded in time and size, and never a shell's."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from ofa_deploy.hardware.telemetry._system import command_path, output_of, read_int, read_text


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def test_what_a_command_prints() -> None:
    assert output_of(python("print('  NV Power Mode: 15W')")) == "NV Power Mode: 15W"
    assert output_of(python("import sys; sys.stdout.buffer.write(b'\\xff5')")) == "\ufffd5"


@pytest.mark.parametrize(
    "code",
    [
        "",
        "raise SystemExit(3)",
        "print('half'); raise SystemExit(1)",
        "import sys; sys.stdin.read()",
    ],
)
def test_a_command_that_fails_or_says_nothing(code: str) -> None:
    assert output_of(python(code)) is None


def test_no_such_command(tmp_path: Path) -> None:
    assert output_of([str(tmp_path / "none")]) is None
    (tmp_path / "text").write_text("no program")
    assert output_of([str(tmp_path / "text")]) is None


def test_words_are_not_read_by_a_shell() -> None:
    code = "import sys; print(sys.argv[1])"
    assert output_of([*python(code), "$(reboot); *"]) == "$(reboot); *"


def test_first_line_of_a_command_that_goes_on() -> None:
    code = "import time\nprint('RAM 1/2MB', flush=True)\ntime.sleep(60)"
    start = time.monotonic()
    assert output_of(python(code), one_line=True) == "RAM 1/2MB"
    assert time.monotonic() - start < 30


def test_a_slow_command_is_ended_with_what_it_started() -> None:
    words = python("import time; time.sleep(60)")
    child = f"import subprocess; subprocess.run({words!r})"
    start = time.monotonic()
    assert output_of(python(f"print('x', flush=True)\n{child}"), timeout_s=0.3) is None
    assert output_of(python("import time; time.sleep(60)"), timeout_s=0.2, one_line=True) is None
    half = "import sys, time; sys.stdout.write('RAM 1'); sys.stdout.flush(); time.sleep(60)"
    assert output_of(python(half), timeout_s=0.3, one_line=True) is None
    assert time.monotonic() - start < 30


def test_a_pipe_that_a_daemon_keeps_open_is_given_up(tmp_path: Path) -> None:
    sleeps = python("import time; time.sleep(60)")
    code = (
        "import pathlib, subprocess\n"
        f"child = subprocess.Popen({sleeps!r}, start_new_session=True)\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid))\nprint('x')"
    )
    start = time.monotonic()
    try:
        assert output_of(python(code), timeout_s=1.0) is None
        assert time.monotonic() - start < 30
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
@pytest.mark.parametrize("one_line", [False, True])
def test_a_command_that_cannot_be_killed_is_given_up(
    monkeypatch: pytest.MonkeyPatch, one_line: bool
) -> None:
    """As one in the kernel's hands, which waits for a disk or a bus."""
    stuck: list[int] = []
    monkeypatch.setattr("os.killpg", lambda group, sent: stuck.append(group))
    start = time.monotonic()
    sleeps = "import os, time; print('x', flush=True); os.close(1); time.sleep(60)"
    try:
        found = output_of(python(sleeps), timeout_s=0.5, one_line=one_line)
        assert found == ("x" if one_line else None)
        assert time.monotonic() - start < 30
    finally:
        os.kill(stuck[0], signal.SIGKILL)


def test_what_is_printed_is_bounded() -> None:
    code = "import sys\nwhile True: sys.stdout.write('x' * 1000)"
    found = output_of(python(code), limit=5000)
    assert found is None or found == "x" * 5000  # ended, since it would not stop
    assert output_of(python("print('x' * 9000)"), one_line=True, limit=5000) == "x" * 5000


def test_commands_are_looked_for_in_given_folders_only(tmp_path: Path) -> None:
    script = tmp_path / "tegrastats"
    script.write_text("#!/bin/sh\n")
    assert command_path("tegrastats", (str(tmp_path),)) is None  # not executable
    script.chmod(0o755)
    assert command_path("tegrastats", (str(tmp_path),)) == str(script)
    assert command_path("tegrastats", (str(tmp_path / "none"),)) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [("42\n", 42), ("-256000", -256000), ("", None), ("x", None), ("4 2", None), ("9" * 100, None)],
)
def test_numbers_of_files(tmp_path: Path, text: str, number: int | None) -> None:
    (tmp_path / "file").write_text(text)
    found = read_int(tmp_path / "file")
    assert found == number or (number is None and found == int("9" * 64))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert read_text(tmp_path) is None
    assert read_text(tmp_path / "none") is None
    assert read_int(tmp_path / "none") is None
    (tmp_path / "model").write_bytes(b"Raspberry Pi 5\0")
    assert read_text(tmp_path / "model") == "Raspberry Pi 5"
    (tmp_path / "long").write_text("x" * 100_000)
    assert read_text(tmp_path / "long", 10) == "x" * 10
