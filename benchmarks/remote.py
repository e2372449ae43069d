"""Measuring through SSH against measuring in place: the same machine, the same entries, in turns.

Starts an SSH server of its own on 127.0.0.1 (OpenSSH's where it is installed, asyncssh's otherwise)
with keys of its own, and times every block of a space locally and through it: A, B, A, B. Prints
each entry's ratio of remote to local, and beside it the ratio of one local turn to the next, which
is what the machine itself moves. The machine must do nothing else::

    python benchmarks/remote.py --csv benchmarks/results/remote.csv
    python benchmarks/remote.py --space ofa-mbv3-w1.0 --resolutions 224 --minutes 5 --turns 3
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
from figures import Figures, spread

from ofa_deploy.hardware import Connection, Measurement
from ofa_deploy.profiling import (
    REFERENCE,
    RemoteTarget,
    Subject,
    blocks_subject,
    measure,
    network_subject,
    reference_arch,
)
from ofa_deploy.profiling.remote.ssh import Ssh
from ofa_deploy.space import SearchSpace, get_space
from tests.profiling.places import running_server, why_no_server

Turn = Mapping[str, Measurement]


@contextmanager
def loopback(folder: Path) -> Iterator[tuple[str, Ssh]]:
    """A server on this machine and the way to its Python, which is this one."""
    reasons = {kind: why_no_server(kind) for kind in ("openssh", "asyncssh")}
    kind = next((kind for kind, reason in reasons.items() if not reason), None)
    if kind is None:
        sys.exit("; ".join(reasons.values()))
    with running_server(folder, kind) as server:
        config = server.config(folder / "config")
        yield kind, Ssh(Connection("device"), sys.executable, config)


def taken_in_turns(
    space: SearchSpace, target: RemoteTarget, given: argparse.Namespace
) -> tuple[list[Turn], list[Turn]]:
    """(local, remote) measurements of the same subjects, one turn after another."""
    subjects = {block.key: blocks_subject((block,)) for block in space.blocks()}
    if given.entries:
        subjects = dict(list(subjects.items())[: given.entries])
    local: list[Turn] = []
    remote: list[Turn] = []
    for turn in range(given.turns):
        for place, turns in ((None, local), (target, remote)):
            where = "through SSH" if place else "in place"
            print(f"turn {turn + 1} of {given.turns}, {where} ...", flush=True)
            turns.append(_once(space, subjects, place, given))
    return local, remote


def _once(
    space: SearchSpace,
    subjects: Mapping[str, Subject],
    place: RemoteTarget | None,
    given: argparse.Namespace,
) -> Turn:
    return measure(
        subjects,
        network_subject(space, reference_arch(space)),
        runtime=given.runtime,
        precision=given.precision,
        minutes=given.minutes,
        target=place,
    )


def compare(figures: Figures, local: Sequence[Turn], remote: Sequence[Turn]) -> None:
    """Ratios by entry, and what they come to."""
    across = {name: _ratio(remote, local, name) for name in local[0]}
    within = {name: _moved(local, name) for name in local[0]}
    for name in local[0]:
        ms = statistics.median(turn[name].ms for turn in local)
        moved = f"; local turn to turn {within[name]:.4f}" if len(local) > 1 else ""
        figures.line(name, f"remote/local {across[name]:.4f}; {ms:.5f} ms local{moved}")
    entries = [name for name in across if name != REFERENCE]
    ratios = [across[name] for name in entries]
    figures.line("remote/local, entries", spread(ratios))
    p10, p90 = np.quantile(ratios, [0.1, 0.9])
    figures.line("remote/local, entries, p10 to p90", f"{p10:.4f} to {p90:.4f}")
    if len(local) > 1:
        figures.line("local turn to turn, entries", spread([within[name] for name in entries]))
        moved = [_moved(remote, name) for name in entries]
        figures.line("remote turn to turn, entries", spread(moved))


def _ratio(above: Sequence[Turn], below: Sequence[Turn], name: str) -> float:
    """Median over turns of neighbours in time."""
    return statistics.median(a[name].ms / b[name].ms for a, b in zip(above, below, strict=True))


def _moved(turns: Sequence[Turn], name: str) -> float:
    """Median ratio of a turn to the one before."""
    return statistics.median([b[name].ms / a[name].ms for a, b in pairwise(turns)] or [1.0])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--space", default="mbv3-nano-32")
    parser.add_argument("--resolutions", type=lambda text: [int(n) for n in text.split(",")])
    parser.add_argument("--entries", type=int, default=0, help="the first so many; 0 is all")
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--minutes", type=float, default=2.0, help="of each turn, in each place")
    parser.add_argument("--turns", type=int, default=4, help="in each place")
    parser.add_argument("--csv", type=Path)
    given = parser.parse_args()
    space = get_space(given.space)
    if given.resolutions:
        space = space.with_resolutions(*given.resolutions)
    figures = Figures()
    with (
        tempfile.TemporaryDirectory() as folder,
        loopback(Path(folder)) as (kind, ssh),
        RemoteTarget(ssh) as target,
    ):
        figures.line("SSH server", kind)
        figures.line("what", f"{space.name}, {given.runtime} {given.precision}")
        figures.line("turns", f"{given.turns} of {given.minutes:g} minutes in each place")
        local, remote = taken_in_turns(space, target, given)
        figures.line("reconnects", str(target.reconnects))
    compare(figures, local, remote)
    figures.save(given.csv)


if __name__ == "__main__":
    main()
