"""Runs workers that read damaged files, survives their death, and counts what they say."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Tally", "read_damaged"]

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Tally:
    """How reading damaged files of one format went.

    Attributes:
        faults: what was wrong, by case; a case is repeated by its number.
        peak_mib: resident memory of the worker at its greatest, libraries included.
    """

    cases: int = 0
    refused: int = 0
    accepted: int = 0
    faults: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0
    peak_mib: int = 0

    def add(self, case: int, found: str, seconds: float) -> None:
        """One case."""
        self.cases += 1
        self.seconds += seconds
        self.refused += found == "refused"
        self.accepted += found == "accepted"
        if found not in ("refused", "accepted"):
            self.faults[case] = found


def read_damaged(jobs: Sequence[tuple[str, int, int]]) -> dict[str, Tally]:
    """Read damaged files, in workers one after another.

    Args:
        jobs: format, first case, number of cases.
    """
    tallies = {name: Tally() for name, _, _ in jobs}
    left = list(jobs)
    while left:
        at = _followed(left, tallies)
        if at is None:
            return tallies
        name, case, why = at
        if case is None:
            raise RuntimeError(f"the worker ended before it began with {name}: {why}")
        tallies[name].add(case, why, 0.0)
        place = [job[0] for job in left].index(name)
        _, first, count = left[place]
        rest = (name, case + 1, first + count - case - 1)
        left = ([rest] if rest[2] else []) + left[place + 1 :]
    return tallies


def _followed(
    jobs: Sequence[tuple[str, int, int]], tallies: dict[str, Tally]
) -> tuple[str, int | None, str] | None:
    """Run one worker; where and why it died, if it did."""
    command = [sys.executable, "-m", "tests.faults.corrupt_worker"]
    words = [str(part) for job in jobs for part in job]
    name, case = jobs[0][0], None
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(
            [*command, *words],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
        ) as worker,
    ):
        assert worker.stdout is not None
        for line in worker.stdout:
            if not line.startswith('{"format"'):
                continue
            said = json.loads(line)
            name, case = said["format"], said.get("case")
            if "found" in said:
                way, number = said["way"], case
                found = said["found"]
                shown = found if found in ("refused", "accepted") else f"{way}: {found}"
                tallies[name].add(number, shown, said["seconds"])
            elif "peak_mib" in said:
                tallies[name].peak_mib = max(tallies[name].peak_mib, said["peak_mib"])
        code = worker.wait()
        if not code:
            return None
        complaints.seek(0)
        last = (complaints.read().strip().splitlines() or ["no message"])[-1][:300]
        return name, case, f"the process ended ({code}): {last}"
