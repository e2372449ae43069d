"""Writes the figures of ``results/reliability.csv`` into SECURITY.md, as tables.

    python benchmarks/reliability_summary.py

A test compares the two.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "reliability.csv"
PAGE = ROOT / "SECURITY.md"
_BEGIN, _END = "<!-- figures -->\n", "<!-- end of figures -->\n"

Rows = Sequence[dict[str, str]]
_COUNTED = {
    "corrupt": "damaged files, {n} formats",
    "fuzz": "inputs that find new paths, {n} formats",
    "hostile": "hostile files",
    "numbers": "numbers that cannot be, results that must not move",
    "supply": "licences, the wheel, the network",
    "kill": "commands killed",
    "disk": "disks that are full, files that vanish, clocks that go back",
}


def markdown(path: Path = RESULTS) -> str:
    """The tables of a file of results; of what was run twice the last counts."""
    with path.open(newline="", encoding="utf-8") as file:
        last = {(row["part"], row["what"]): row for row in csv.DictReader(file)}
    rows = list(last.values())
    return "\n".join([*_counted(rows), "", *_loads(rows), ""])


def _counted(rows: Rows) -> Iterator[str]:
    yield "| what was tried | cases | refused in one line | ended as it should | faults | commit |"
    yield "|---|---:|---:|---:|---:|---|"
    for part, what in _COUNTED.items():
        own = [row for row in rows if row["part"] == part]
        sums = [
            f"{sum(int(row[name]) for row in own):,}"
            for name in ("cases", "refused", "accepted_equal", "faults")
        ]
        if part not in ("corrupt", "disk"):
            sums[1] = ""  # not counted apart
        commits = ", ".join(sorted({row["commit"] for row in own}))
        yield f"| {what.format(n=len(own))} | {' | '.join(sums)} | {commits} |"


def _loads(rows: Rows) -> Iterator[str]:
    yield "| load | size | processor time | memory | growth |"
    yield "|---|---:|---:|---:|---|"
    for row in rows:
        if row["part"] == "load" and ("(time grew" in row["what"] or "at once" in row["what"]):
            what, _, growth = row["what"].partition(" (time grew as ")
            cells = (f"{int(row['cases']):,}", f"{float(row['seconds']):.1f} s")
            memory = f"{int(row['peak_mib']):,} MiB"
            yield f"| {what} | {' | '.join(cells)} | {memory} | {growth.rstrip(')')} |"


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    PAGE.write_text(f"{before}{_BEGIN}\n{markdown()}\n{_END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
