"""The report as one page that works offline: charts, networks in detail, tables, facts, commands.

The page loads nothing, and its policy lets it load nothing: one style and one script, named by
their hashes. All that comes from files reaches it as escaped text or as data, which the script puts
into text nodes and attributes only; the policy refuses any other way (trusted types).
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from ofa_deploy.files import write_text
from ofa_deploy.report.content import Report
from ofa_deploy.report.payload import payload
from ofa_deploy.terminal import TextTable

__all__ = ["SHOWN", "page_data", "write_html"]

SHOWN = 200  # rows of a table that the page shows; the charts' CSV has all
_SCRIPTS = ("network.js", "marks.js", "axes.js", "chart.js", "page.js")


def write_html(path: Path | str, report: Report) -> Path:
    """Write the page: tens of kilobytes, and some 60 bytes a network.

    Raises:
        UnknownNameError: if a candidate lacks a metric.
        InputError: if a value is not finite.
        StorageError: if the file cannot be written.
    """
    style = f"\n{_asset('page.css')}"
    script = '\n"use strict";\n' + "\n".join(map(_asset, _SCRIPTS))
    tables = [report.networks_table(), *report.tables().values()]
    page = Template(_asset("page.html")).substitute(
        title=escape(report.title),
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        data=_packed(payload(report)),
        sections="\n".join(
            [_facts(report), *(_table(_shortened(each)) for each in tables), _commands(report)]
        ),
    )
    return write_text(path, page)


def page_data(text: str) -> dict[str, Any]:
    """The data in a page that ``write_html`` wrote."""
    _, _, rest = text.partition('id="data">')
    packed, _, _ = rest.partition("</script>")
    value = json.loads(gzip.decompress(base64.b64decode(packed)))
    assert isinstance(value, dict)
    return value


def _asset(name: str) -> str:
    return files("ofa_deploy.report").joinpath("assets", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """As a Content-Security-Policy names an element by its content."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _packed(value: Mapping[str, Any]) -> str:
    """The same JSON gives the same text: no time stands in it."""
    data = json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    return base64.b64encode(gzip.compress(data, compresslevel=6, mtime=0)).decode()


def _facts(report: Report) -> str:
    facts = dict(report.facts)
    for panel in report.panels:
        for name, values in panel.differences.items():
            where = f" on {panel.name}" if panel.name else ""
            facts[f"{name} differs{where}"] = ", ".join(values)
    if not facts:
        return ""
    items = "\n".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    return f"<section>\n<h2>What this holds for</h2>\n<dl>\n{items}\n</dl>\n</section>"


def _commands(report: Report) -> str:
    if not report.commands:
        return ""
    items = "\n".join(f"<pre><code>{escape(command)}</code></pre>" for command in report.commands)
    return f"<section>\n<h2>What to run next</h2>\n{items}\n</section>"


def _shortened(table: TextTable) -> TextTable:
    if len(table.rows) <= SHOWN:
        return table
    note = f"The first {SHOWN} of {len(table.rows):,}; a chart's CSV has all. {table.note}"
    return replace(table, rows=table.rows[:SHOWN], note=note.strip())


def _table(table: TextTable) -> str:
    head = "".join(
        f'<th scope="col"{_kind(header, numeric)}>{escape(header)}</th>'
        for header, numeric in zip(table.headers, table.numeric, strict=True)
    )
    body = "\n".join(f"<tr>{_cells(table, row)}</tr>" for row in table.rows)
    note = f'\n<p class="note">{escape(table.note)}</p>' if table.note else ""
    title = escape(table.title)
    return (
        f'<section>\n<div class="scroll" role="region" tabindex="0" aria-label="{title}">\n'
        f"<table>\n<caption><h2>{title}</h2></caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table>\n</div>{note}\n</section>"
    )


def _cells(table: TextTable, row: Sequence[str]) -> str:
    return "".join(
        f"<td{_kind(header, numeric)}>{escape(text)}</td>"
        for header, numeric, text in zip(table.headers, table.numeric, row, strict=True)
    )


def _kind(header: str, numeric: bool) -> str:
    if numeric:
        return ' class="number"'
    return ' class="code"' if header == "Architecture" else ' class="text"'
