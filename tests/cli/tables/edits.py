"""Tables that are edited, devices of another speed, and what commands propose next."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

SPACE = "mbv3-nano-32"
Cli = Callable[..., Any]


def edited(path: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))
    return path


def at_speed(workers: Any, factor: str) -> None:
    """Measuring processes on a device that takes ``factor`` (Python, of ``size``) times as long."""
    slower = workers.script.replace("    return {", f"    ms *= {factor}\n    return {{", 1)
    assert slower != workers.script
    workers.script = slower


def next_commands(stderr: str) -> list[list[str]]:
    _, _, after = stderr.partition("next:\n")
    return [shlex.split(line) for line in after.splitlines() if line.startswith("  ")]
