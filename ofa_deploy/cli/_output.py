"""How commands speak: data to stdout, progress and messages to stderr, errors in one line."""

import csv
import functools
import io
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ParamSpec

import typer
from rich.console import Console

from ofa_deploy.cli._legend import legend
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.terminal import (
    SILENT,
    Interrupted,
    Progress,
    Task,
    TimeLeft,
    Work,
    count,
    decimals,
    duration,
    was_interrupted,
)

__all__ = [
    "INTERRUPTED",
    "OutputFormat",
    "all_or_nothing",
    "csv_text",
    "emit",
    "guarded",
    "next_steps",
    "progress",
    "progress_of_several",
    "quoted",
    "resumable",
    "say",
    "say_accuracy",
    "say_error",
    "say_top1",
    "show_table",
    "wrote",
]

if TYPE_CHECKING:
    from rich.progress import Progress as RichBars
    from rich.progress import TaskID

    from ofa_deploy.predict import AccuracyModel
    from ofa_deploy.terminal import TextTable

P = ParamSpec("P")
INTERRUPTED = 130
_WIDTH = 100  # characters of a note, where there is no terminal
_NARROWEST = 20  # characters of a terminal, whatever it says
_stderr = Console(stderr=True, highlight=False)


class OutputFormat(StrEnum):
    """How data is written to stdout."""

    table = "table"
    json = "json"
    csv = "csv"


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Turn errors raised on purpose into one line on stderr and the exit code of their kind."""
    return _guarded(command, "interrupted")


def resumable(command: Callable[P, None]) -> Callable[P, None]:
    """``guarded``, of a command that keeps finished work in a journal or a checkpoint."""
    return _guarded(command, "interrupted; run the same command again: finished work is kept")


def all_or_nothing(command: Callable[P, None]) -> Callable[P, None]:
    """``guarded``, of a command each of whose results appears whole or not at all."""
    return _guarded(command, "interrupted; what was finished is kept, nothing half-done is left")


def _guarded(command: Callable[P, None], interrupted: str) -> Callable[P, None]:
    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        _check_finite(kwargs)
        try:
            command(*args, **kwargs)
        except OfaDeployError as error:
            say_error(str(error))
            raise typer.Exit(error.exit_code) from None
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            from ofa_deploy.files import disk_full

            say_error(f"{where}{disk_full(error) or error.strerror or error}")
            raise typer.Exit(1) from None
        except (MemoryError, RuntimeError) as error:
            from ofa_deploy.cli._exhausted import exhausted

            if not (told := exhausted(error)):
                raise
            say_error(told)
            raise typer.Exit(1) from None
        except Interrupted as error:
            say(f"interrupted; {error}; {_again()}")
            raise typer.Exit(INTERRUPTED) from None
        except (KeyboardInterrupt, ImportError) as error:
            if not was_interrupted(error):
                raise
            _stderr.print(interrupted)
            raise typer.Exit(INTERRUPTED) from None

    return run


def _again() -> str:
    """How the command at work is given once more."""
    if "RANK" in os.environ:
        return "go on with the same torchrun command"
    return f"go on with: {' '.join(['ofa-deploy', *map(quoted, sys.argv[1:])])}"


def _check_finite(options: Mapping[str, object]) -> None:
    """Refuse what no range of an option does: NaN is neither below nor above anything."""
    for name, value in options.items():
        if isinstance(value, float) and not math.isfinite(value):
            hint = f"--{name.replace('_', '-')}"
            raise typer.BadParameter(f"expected a finite number, found {value}", param_hint=hint)


def say_error(text: str) -> None:
    """Why a command ends, in one line on stderr."""
    _stderr.print(f"[bold red]error:[/] {_escaped(text)}", soft_wrap=True)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape("".join(c if c.isprintable() else " " for c in text).strip())


def emit(
    rows: Sequence[Mapping[str, Any]],
    how: OutputFormat,
    *,
    title: str = "",
    meanings: Mapping[str, str] | None = None,
    spare: tuple[str, ...] = (),
) -> None:
    """Write rows of plain values to stdout.

    Args:
        meanings: of columns, said below a table of those that are there.
        spare: headings of columns that a narrow terminal can do without, the first of them first.
    """
    columns = list(rows[0]) if rows else []
    if how is OutputFormat.json:
        print(_json(rows))
    elif how is OutputFormat.csv:
        print(csv_text(rows), end="")
    else:
        from ofa_deploy.terminal import TextTable

        values = {column: [row[column] for row in rows] for column in columns}
        table = TextTable(
            title,
            headers=tuple(column.replace("_", " ") for column in columns),
            numeric=tuple(
                all(isinstance(value, int | float | None) for value in each)
                for each in values.values()
            ),
            rows=tuple(zip(*(_spelled(n, each) for n, each in values.items()), strict=True)),
            note=legend(columns, meanings or {}),
            spare=spare,
        )
        show_table(table)


def _json(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as JSON, whose characters are escaped where stdout lacks one of them."""
    text = json.dumps(list(rows), indent=1, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(list(rows), indent=1)
    return text


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of plain values as CSV, with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _spelled(column: str, values: Sequence[object]) -> list[str]:
    """The cells of a column, with as many decimals in all of them."""
    floats = [value for value in values if isinstance(value, float)]
    places = decimals(floats, percents="top1" in column or "%" in column)
    return [_shown(value, places) for value in values]


def _shown(value: object, places: int) -> str:
    if isinstance(value, float):
        return f"{value:,.{places}f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}" if value < 10**5 else _with_unit(value)
    return "" if value is None else "".join(c if c.isprintable() else " " for c in str(value))


def show_table(table: "TextTable") -> None:
    """A table on stdout, fitted to the terminal, whole where there is none."""
    console = Console(highlight=False)
    if not sys.stdout.isatty():
        console.width = max(_WIDTH, table.width)
    elif console.width < _NARROWEST:  # COLUMNS=0 would let nothing be seen
        console.width = _NARROWEST
    console.print(table, crop=False)


def _with_unit(value: int) -> str:
    return count(value) if value < 10**12 else f"{value:.2e}"


def wrote(path: object, *, quiet: bool) -> None:
    """Say what was written."""
    if not quiet:
        _stderr.print(f"wrote {_escaped(str(path))}", soft_wrap=True)


def say(message: str, *, quiet: bool = False) -> None:
    """A message on stderr."""
    if not quiet:
        _stderr.print(_escaped(message), soft_wrap=True)


def say_top1(top1: Mapping[str, float], *, quiet: bool) -> None:
    """How good a trained supernet's smallest and largest subnet are, in percent."""
    small, large = top1["smallest"], top1["largest"]
    say(f"validation top-1: smallest {small:.1f} %, largest {large:.1f} %", quiet=quiet)


def say_accuracy(model: "AccuracyModel", *, quiet: bool) -> None:
    """How far an accuracy model is off, and a warning where it does not rank networks."""
    say(str(model), quiet=quiet)
    if model.doubt:
        say(f"warning: {model.doubt}", quiet=quiet)


def quoted(what: object) -> str:
    """A path or a name as a shell takes it, for commands that people copy."""
    text = str(what)
    if text.isprintable():
        return shlex.quote(text)
    plain = (c if c.isprintable() and c not in "\\'" else _as_bytes(c) for c in text)
    return f"$'{''.join(plain)}'"


def _as_bytes(character: str) -> str:
    """As bash, zsh and ksh take it within ``$'…'``; two digits each, so that others may follow."""
    own = "\udc80" <= character <= "\udcff"  # a byte that is not UTF-8
    encoded = character.encode(errors="surrogateescape" if own else "surrogatepass")
    return "".join(f"\\x{byte:02x}" for byte in encoded)


def next_steps(*commands: str, quiet: bool) -> None:
    """Print the commands to try next."""
    if quiet or not commands:
        return
    _stderr.print("next:")
    for command in commands:
        _stderr.print(f"  {_escaped(command)}", soft_wrap=True)


def progress(quiet: bool) -> Progress:
    """Bars on a terminal, a line now and then elsewhere, nothing when quiet."""
    if quiet:
        return SILENT
    return _Bars() if _on_terminal() else _Lines()


@contextmanager
def progress_of_several(names: Sequence[str], quiet: bool) -> Iterator[dict[str, Progress]]:
    """``progress`` for work that threads do side by side: one display, a line a name."""
    if quiet:
        yield dict.fromkeys(names, SILENT)
    elif _on_terminal():
        with _rich_bars() as bars:
            yield {name: _Bars(name, bars) for name in names}
    else:
        yield {name: _Lines(name) for name in names}


def _on_terminal() -> bool:
    """Whether bars can move: a notebook takes colours, but keeps every frame of a bar."""
    return _stderr.file.isatty()


def _rich_bars() -> "RichBars":
    from rich import progress as rich_progress
    from rich.text import Text

    class Left(rich_progress.ProgressColumn):
        def render(self, task: rich_progress.Task) -> Text:
            return Text(_left(task.fields["left"]), style="progress.remaining")

    return rich_progress.Progress(
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(bar_width=24),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeElapsedColumn(),
        Left(),
        rich_progress.TextColumn("{task.fields[note]}", style="dim"),
        console=_stderr,
    )


def _left(left: TimeLeft) -> str:
    seconds = left.seconds()
    return "" if seconds is None else f"{duration(seconds)} left"


class _Named:
    """Says whose progress it is, where there are several."""

    def __init__(self, name: str = "") -> None:
        self._prefix = f"{name}: " if name else ""

    def say(self, message: str) -> None:
        say(self._prefix + message)


class _Bars(_Named):
    """On a terminal. A task within a task has a line below its own, as long as it takes.

    Args:
        shared: a display that runs already, in which each bar takes the place of the one before.
    """

    def __init__(self, name: str = "", shared: "RichBars | None" = None) -> None:
        super().__init__(name)
        self._shared = shared
        self._last: TaskID | None = None
        self._open: list[RichBars] = []

    def task(
        self, description: str, total: int, *, done: int = 0, work: Work = float
    ) -> AbstractContextManager[Task]:
        return self._task(self._prefix + description, total, done, TimeLeft(total, done, work))

    @contextmanager
    def _task(self, description: str, total: int, done: int, left: TimeLeft) -> Iterator[Task]:
        depth = len(self._open)
        running = self._open[-1] if depth else self._shared
        with nullcontext(running) if running else _rich_bars() as bars:
            if self._last is not None and not depth:
                bars.remove_task(self._last)
                self._last = None
            shown = "  " * depth + _escaped(description)
            handle = bars.add_task(shown, total=total, completed=done, note="", left=left)

            class Bar:
                def advance(self, steps: int = 1, note: str = "") -> None:
                    left.moved(steps)
                    bars.advance(handle, steps)
                    if note:
                        bars.update(handle, note=note)

            self._open.append(bars)
            try:
                yield Bar()
            finally:
                self._open.pop()
                if depth:
                    bars.remove_task(handle)
                elif self._shared:
                    self._last = handle


class _Lines(_Named):
    """For logs: at most a line every ten seconds, and one at the end.

    A short task within a task is not worth a line.
    """

    _SECONDS = 10.0

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        self._depth = 0

    def task(
        self, description: str, total: int, *, done: int = 0, work: Work = float
    ) -> AbstractContextManager[Task]:
        return self._task(self._prefix + description, total, done, TimeLeft(total, done, work))

    @contextmanager
    def _task(self, description: str, total: int, done: int, left: TimeLeft) -> Iterator[Task]:
        started = last = time.monotonic()
        at, said, period = done, "", self._SECONDS
        self._depth += 1

        class Line:
            def advance(self, steps: int = 1, note: str = "") -> None:
                nonlocal at, last, said
                at, said = at + steps, note or said
                left.moved(steps)
                now = time.monotonic()
                if now - last >= period and done < at < total:
                    ahead = _left(left)
                    say(f"{description}: {at}/{total}{ahead and ', '}{ahead} {said}".rstrip())
                    last = now

        try:
            yield Line()
        finally:
            self._depth -= 1
        took = time.monotonic() - started
        if at > done and (took >= period or not self._depth):
            say(f"{description}: {at}/{total} in {duration(took)} {said}".rstrip())
