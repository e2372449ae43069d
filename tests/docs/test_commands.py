"""Every command and every piece of Python that the documentation shows works.

The pages' commands are run one after another in one folder, as a reader would, on little data.
"""

import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.docs.commands import ROOT, Command, Reader, blocks_in, commands_in, parse, why_not

DOCS = ROOT / "docs"
# As a reader goes through them; pages that are not named follow in alphabetical order.
FIRST = (
    "install.md",
    "tutorials/train.md",
    "tutorials/profile.md",
    "tutorials/search.md",
    "tutorials/export.md",
    "tutorials/compare.md",
)
# With a test of their own: tests/docs/test_guides.py.
ELSEWHERE = ("guides/jetson-orin.md",)
# Commands that cannot be run here, by their beginning; they are parsed.
NOT_RUN = {
    "--show-completion": "asks which shell has started it; tests/cli/test_doctor.py names one",
    "quickstart": "takes minutes; tests/cli/test_quickstart.py runs it smaller",
    "train --data photos --space ofa-mbv3-w1.0": "plans a network of ImageNet's size for minutes",
    "devices probe ssh://": "needs a board; tests/profiling/test_remote.py goes the way there",
    "profile --run runs/mine --device ssh://": "needs a board, as above",
    "adapt --weights ofa_mbv3": "needs published weights; tests/cli/test_weights.py has small ones",
    "train --init ofa_mbv3": "needs published weights, as above",
    "evaluate runs/published": "needs published weights, as above",
    "export --run runs/published": "needs published weights, as above",
    "tables import --from ofa-yaml": "needs published tables; tests/cli/tables makes some",
    "predictors import": "needs a published predictor; tests/cli/test_plan.py makes one",
    "search --accuracy mlp.onnx": "needs the two above",
}


def _pages() -> list[Path]:
    found = sorted(DOCS.rglob("*.md"), key=lambda path: path.relative_to(DOCS).as_posix())
    first = [DOCS / name for name in FIRST]
    return first + [page for page in found if page not in first]


def _shown() -> list[Command]:
    """Each command once, where it is met first."""
    pages = [page for page in _pages() if page.relative_to(DOCS).as_posix() not in ELSEWHERE]
    every = [command for page in pages for command in commands_in(page)]
    return list({command.text: command for command in reversed(every)}.values())[::-1]


SHOWN = _shown()
README = commands_in(ROOT / "README.md")


RUN = [command for command in SHOWN if why_not(command, NOT_RUN) is None]
# Searching in INT8 takes a minute; tests/cli/test_precision.py does it on a smaller space.
SLOW = [command for command in RUN if {"int8", "either"} & {*command.args}]


@pytest.fixture(scope="module")
def reader(world: Path) -> Reader:
    return Reader(RUN, SLOW)


@pytest.mark.parametrize(
    "command",
    [pytest.param(c, id=c.text, marks=pytest.mark.slow if c in SLOW else ()) for c in RUN],
)
def test_command_of_the_documentation_works(command: Command, reader: Reader) -> None:
    result = reader.reach(command)
    assert result.code == 0, f"{command.page}: {result.stderr}"


def test_it_leaves_what_the_pages_speak_of(world: Path, reader: Reader) -> None:
    reader.reach([command for command in RUN if command not in SLOW][-1])
    for name in (
        "runs/mine/supernet.safetensors",
        "runs/mine/curves.png",
        "runs/mine/accuracy.onnx",
        "mine.json",
        "runs/mine/subnets/small.subnet.json",
        "runs/mine/fronts/small.front.json",
        "runs/mine/fronts/small-measured.front.json",
        "runs/mine/fronts/tiny.front.json",
        "bundles/small/manifest.json",
        "bundles/small/README.md",
        "fronts.html",
        "fronts.png",
        "blocks.csv",
        "phone.json",
    ):
        assert (world / name).is_file(), name


@pytest.mark.parametrize("command", SHOWN, ids=lambda command: command.text)
def test_command_of_the_documentation_parses(command: Command) -> None:
    if not {"--help", "--version", "--show-completion"} & {*command.args}:  # which act at once
        parse(command.args)


@pytest.mark.parametrize("command", README, ids=lambda command: command.text)
def test_command_of_the_readme_parses(command: Command) -> None:
    parse(command.args)


def test_reasons_not_to_run_are_of_commands_that_are_shown() -> None:
    shown = [shlex.join(command.args) for command in SHOWN]
    unused = [start for start in NOT_RUN if not any(text.startswith(start) for text in shown)]
    assert unused == []


@pytest.mark.parametrize("text", ["ofa-deploy serach", "ofa-deploy search --tabel x"])
def test_what_is_no_command_is_found(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"```sh\n{text}\n```\n")
    (command,) = commands_in(page)
    with pytest.raises(Exception, match=r"No such (command|option)"):
        parse(command.args)


def test_commands_are_found_as_people_write_them(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```console\n$ ofa-deploy show 'a b' # why\nwhat it prints\n```\n"
        "```sh\nofa-deploy train \\\n    --epochs 3\ncd ..\n"
        "torchrun --nproc-per-node 2 -m ofa_deploy -- train\n```\n"
        "```text\nofa-deploy not this\n```\nofa-deploy nor this\n"
    )
    assert [(command.args, command.launched) for command in commands_in(page)] == [
        (("show", "a b"), False),
        (("train", "--epochs", "3"), False),
        (("train",), True),
    ]


PYTHON = [page for page in _pages() if list(blocks_in(page, "python"))]


@pytest.mark.parametrize("page", PYTHON, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_python_of_the_documentation_runs(world: Path, page: Path) -> None:
    names: dict[str, Any] = {}
    for body in blocks_in(page, "python"):
        exec(compile(body, str(page), "exec"), names)
    assert names
