"""What the documentation takes from the code: the commands' help, devices, figures.

A page that holds ``<!-- commands -->``, ``<!-- devices -->`` or ``<!-- security -->`` gets the text
in its place; images ``figures/NAME.svg`` are drawn by ``figures.py`` when the site is built.
"""

import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from ofa_deploy.cli.main import app
from ofa_deploy.hardware import device_names, load_device

_HERE = Path(__file__).parent


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the figures."""
    for name, svg in _figures().all_figures(_HERE.parent / "benchmarks" / "results").items():
        files.append(File.generated(config, f"figures/{name}.svg", content=svg))
    return files


def _figures() -> Any:
    spec = importlib.util.spec_from_file_location("docs_figures", _HERE / "figures.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put in what follows from the code."""

    def made(found: re.Match[str]) -> str:
        return "\n".join(_PARTS[found[1]]())

    return re.sub(rf"<!-- ({'|'.join(_PARTS)}) -->", made, markdown)


def _commands() -> Iterator[str]:
    group: Any = typer.main.get_command(app)
    context = group.make_context("ofa-deploy", [], resilient_parsing=True)
    yield from _help(group, context)
    for name, command in group.commands.items():
        yield f"## {name}\n"
        inner = command.make_context(f"ofa-deploy {name}", [], resilient_parsing=True)
        yield from _help(command, inner)
        for sub, subcommand in getattr(command, "commands", {}).items():
            yield f"### {name} {sub}\n"
            path = f"ofa-deploy {name} {sub}"
            deeper = subcommand.make_context(path, [], resilient_parsing=True)
            yield from _help(subcommand, deeper)


def _help(command: Any, context: Any) -> Iterator[str]:
    yield f"```text\n{command.get_help(context)}\n```\n"


def _devices() -> Iterator[str]:
    yield "| device | what it is | runs | run on real hardware |"
    yield "|---|---|---|---|"
    for name in device_names():
        device = load_device(name)
        runs = device.refusal or ", ".join(device.runtimes)
        yield f"| `{name}` | {device.name} | {runs} | {'; '.join(device.verified) or 'no'} |"


def _security() -> Iterator[str]:
    """SECURITY.md without its title."""
    text = (_HERE.parent / "SECURITY.md").read_text(encoding="utf-8")
    yield text.partition("\n")[2]


_PARTS: dict[str, Callable[[], Iterator[str]]] = {
    "commands": _commands,
    "devices": _devices,
    "security": _security,
}
