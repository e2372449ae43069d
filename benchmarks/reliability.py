"""How much of what can go wrong was tried, and what came of it.

    python benchmarks/reliability.py --part corrupt [--cases 1000] [--only FORMAT]
    python benchmarks/reliability.py --part numbers --part supply
    python benchmarks/reliability.py --part fuzz [--seconds 60]

Runs the whole of the suite in ``tests/faults`` and appends to `results/reliability.csv`,
a row a format or file of tests: how many cases there were, how many were refused in one line, how
many were accepted as what the file says (of tests: passed), and how many were faults; seconds; the
greatest resident memory of the process that read them, its libraries included.
Of commands that are killed or meet a failing disk, cases are such runs (a tenth of ``--cases`` at
random times, beside every point of a write); ``accepted_equal`` ended as an undisturbed run, at the
latest after the same command again. Of a load, cases are its size, and seconds those of the
processor. Of fuzzing, cases are inputs that atheris made, refused or not.
``reliability_summary.py`` puts the sums into SECURITY.md.
"""

import argparse
import csv
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.figures import commit  # noqa: E402
from tests.faults.corrupt import read_damaged  # noqa: E402
from tests.faults.corrupt_worker import FORMATS  # noqa: E402
from tests.faults.tallies import Tally, disk, kill, loads  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "reliability.csv"


@dataclass(frozen=True)
class Row:
    """What was tried of one thing.

    Attributes:
        accepted_equal: cases that were accepted, as what the file says.
        peak_mib: resident memory; 0 where it was not measured.
    """

    part: str
    what: str
    cases: int
    refused: int
    accepted_equal: int
    faults: int
    seconds: float
    peak_mib: int


@dataclass(frozen=True)
class Asked:
    """What the command line asks for."""

    cases: int
    only: str | None
    seconds: int


def corrupt(asked: Asked) -> Iterator[Row]:
    """Damaged files, a row a format; the quick part's cases are not among them."""
    for name in FORMATS if asked.only is None else (asked.only,):
        began = time.monotonic()
        tally = read_damaged([(name, 50, asked.cases)])[name]
        for case, why in list(tally.faults.items())[:5]:
            print(f"  {name}, case {case}: {why}", file=sys.stderr)
        yield Row(
            "corrupt",
            name,
            tally.cases,
            tally.refused,
            tally.accepted,
            len(tally.faults),
            round(time.monotonic() - began, 1),
            tally.peak_mib,
        )


def fuzz(asked: Asked) -> Iterator[Row]:
    """Inputs that find new paths in the parsers; the first that is a fault ends a format's."""
    for name in FORMATS if asked.only is None else (asked.only,):
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as kept:
            done = subprocess.run(
                [sys.executable, "-m", "tests.faults.fuzz_targets", name, str(asked.seconds), kept],
                cwd=ROOT,
                check=False,
                capture_output=True,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
            )
        said = dict(re.findall(r"^stat::(\w+):\s+(\d+)$", done.stderr, re.MULTILINE))
        if done.returncode:
            print(f"  {name}: {done.stderr[-2000:]}", file=sys.stderr)
        cases, faults = int(said.get("number_of_executed_units", 0)), int(done.returncode != 0)
        seconds, peak = round(time.monotonic() - began, 1), int(said.get("peak_rss_mb", 0))
        yield Row("fuzz", name, cases, 0, cases - faults, faults, seconds, peak)


def _tests(part: str, name: str) -> Row:
    """A file of tests, slow ones included; what is skipped is no case."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "slow or not slow"]
        subprocess.run(
            [*command, f"--junitxml={report}", f"tests/faults/{name}.py"],
            cwd=ROOT,
            check=False,
            stdout=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )
        (suite,) = ET.parse(report).getroot().iter("testsuite")
    count = {key: int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")}
    faults, cases = count["failures"] + count["errors"], count["tests"] - count["skipped"]
    seconds = round(time.monotonic() - began, 1)
    return Row(part, name, cases, 0, cases - faults, faults, seconds, 0)


def hostile(asked: Asked) -> Iterator[Row]:
    """Files made by somebody who means harm."""
    yield _tests("hostile", "test_hostile")
    yield _tests("hostile", "test_hostile_weights")


def numbers(asked: Asked) -> Iterator[Row]:
    """Numbers that cannot be, and results that must not move."""
    yield _tests("numbers", "test_numbers")


def supply(asked: Asked) -> Iterator[Row]:
    """Licences, pins, the wheel, and the network."""
    yield _tests("supply", "test_supply")


def _rows(part: str, tallies: Iterator[Tally]) -> Iterator[Row]:
    for each in tallies:
        values = asdict(each) | {
            "seconds": round(each.seconds, 2),
            "peak_mib": round(each.peak_mib),
        }
        yield Row(part, **values)


PARTS: dict[str, Callable[[Asked], Iterator[Row]]] = {
    "corrupt": corrupt,
    "fuzz": fuzz,
    "hostile": hostile,
    "numbers": numbers,
    "supply": supply,
    "kill": lambda asked: _rows("kill", kill(asked.cases // 10)),
    "disk": lambda asked: _rows("disk", disk(asked.cases // 10)),
    "load": lambda asked: _rows("load", loads()),
}


def keep(row: Row, path: Path = RESULTS) -> None:
    """Print a row, and append it."""
    values = {**asdict(row), "commit": commit()}
    print(", ".join(f"{name} {value}" for name, value in values.items()), flush=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(
            file, [*(each.name for each in fields(Row)), "commit"], lineterminator="\n"
        )
        if new:
            writer.writeheader()
        writer.writerow(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", action="append", choices=PARTS, help="several may be named")
    parser.add_argument("--cases", type=int, default=1000, help="damaged files a format")
    parser.add_argument("--seconds", type=int, default=60, help="of fuzzing a format")
    parser.add_argument("--only", choices=FORMATS, help="one format of --part corrupt or fuzz")
    given = parser.parse_args()
    asked = Asked(given.cases, given.only, given.seconds)
    for part in given.part or PARTS:
        for row in PARTS[part](asked):
            keep(row)


if __name__ == "__main__":
    main()
