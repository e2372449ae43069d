"""The documentation builds without a warning, needs no network, and quotes real messages."""

import ast
import os
import re
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest

import ofa_deploy
from ofa_deploy.cli.main import COMMANDS
from ofa_deploy.hardware import device_names
from tests.docs.commands import ROOT, blocks_in

# What a browser fetches by itself; links that a reader may follow are not among them.
_FETCHED = {
    "audio": "src",
    "embed": "src",
    "iframe": "src",
    "img": "src",
    "link": "href",
    "object": "data",
    "script": "src",
    "source": "src",
    "video": "src",
}
_NOT_FETCHED = {"canonical", "next", "prev"}


class _Page(HTMLParser):
    """What a page fetches, its links, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag == "link" and {*(named.get("rel") or "").split()} <= _NOT_FETCHED:
            return
        if tag in _FETCHED and (url := named.get(_FETCHED[tag])):
            self.fetched.append(url)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; every warning is an error."""
    pytest.importorskip("mkdocs", reason="pip install 'ofa-deploy[docs]'")
    folder = tmp_path_factory.mktemp("site") / "site"
    made = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return folder


def _text(path: Path) -> str:
    return "".join(_Page(path.read_text(encoding="utf-8")).text)


@pytest.mark.slow
def test_no_page_fetches_anything_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for path in pages:
        fetched = _Page(path.read_text(encoding="utf-8")).fetched
        assert fetched
        assert [url for url in fetched if re.match(r"(\w+:)?//", url)] == [], path
    for path in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", path.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_no_page_uses_a_part_of_the_theme_that_is_loaded_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        assert 'class="mermaid"' not in path.read_text(encoding="utf-8"), path


@pytest.mark.slow
def test_everything_that_is_fetched_is_there(site: Path) -> None:
    for path in site.rglob("*.html"):
        if path.name == "404.html":  # served from anywhere, with links from the root
            continue
        for url in _Page(path.read_text(encoding="utf-8")).fetched:
            if not url.startswith("data:"):
                assert (path.parent / url.partition("?")[0].partition("#")[0]).exists(), url


@pytest.mark.slow
def test_figures_are_drawn(site: Path) -> None:
    figures = {path.stem for path in (site / "figures").glob("*.svg")}
    shown = {
        name
        for page in (ROOT / "docs").rglob("*.md")
        for name in re.findall(r"figures/(\w+)\.svg", page.read_text(encoding="utf-8"))
    }
    assert figures == shown
    assert "calibrated table" in (site / "figures" / "table_error.svg").read_text()


@pytest.mark.slow
def test_every_command_is_in_the_reference(site: Path) -> None:
    text = _text(site / "reference" / "commands.html")
    for command in COMMANDS:
        assert f"Usage: ofa-deploy {command.__name__}" in text
    assert "Usage: ofa-deploy tables diff" in text


@pytest.mark.slow
def test_every_public_name_is_in_the_reference(site: Path) -> None:
    html = (site / "reference" / "python.html").read_text(encoding="utf-8")
    documented = {name.rpartition(".")[2] for name in re.findall(r'<h3 id="([\w.]+)"', html)}
    assert set(ofa_deploy.__all__) <= documented


@pytest.mark.slow
def test_every_device_is_listed_with_where_it_was_run(site: Path) -> None:
    text = _text(site / "reference" / "hardware.html")
    for name in device_names():
        assert name in text
    assert "2026-11: all of this package's tests" in text


@cache
def _messages() -> tuple[str, ...]:
    """Every text in the package, with … for what is put into it."""
    found = []
    for path in (ROOT / "ofa_deploy").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return tuple(found)


def _quoted() -> list[str]:
    page = ROOT / "docs" / "troubleshooting.md"
    return [" ".join(body.split()) for body in blocks_in(page, "text")]


@pytest.mark.parametrize("message", _quoted())
def test_message_that_troubleshooting_quotes_is_one(message: str) -> None:
    pieces = [piece.strip(" '():") for piece in message.split("…")]
    longest = max(pieces, key=len)
    assert len(longest) > 10
    assert any(longest in text for text in _messages()), longest
    for piece in pieces:
        assert any(piece in text for text in _messages()), piece
