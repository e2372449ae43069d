"""Commands that are killed with SIGKILL end as if nothing had happened, once they are given again.

The quick part tries a few points of two commands; the slow one all of all, and random times.
"""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.injection import Commands, Fault, left_behind
from tests.faults.killing import COMMANDS, World, sampled

Amount = Callable[[int], int]
QUICK = ("evaluate", "export")  # a journal, and a folder that is renamed into place


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc")
    with Commands() as commands:
        yield World(tmp_path_factory.mktemp("world"), commands)


def problems(world: World, name: str, points: list[int]) -> dict[str, list[str]]:
    """What went wrong, by the point at which the command was killed."""
    labels = world.undisturbed(name).points
    found = {f"{k} {labels[k]}": world.killed(name, Fault(kill_at=k)) for k in points}
    return {point: said for point, said in found.items() if said}


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in COMMANDS]
)
def test_killed_at_some_points(world: World, name: str) -> None:
    total = len(world.undisturbed(name).points)
    assert total > 10
    assert problems(world, name, sampled(1, total, seed=len(name))) == {}


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_every_point(world: World, name: str) -> None:
    total = len(world.undisturbed(name).points)
    assert problems(world, name, list(range(total))) == {}


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_random_times(world: World, name: str, amount: Amount) -> None:
    draw = random.Random(f"times {name}")
    seconds = world.undisturbed(name).seconds
    found = {}
    for _ in range(-(-amount(100) // len(COMMANDS))):
        after = draw.uniform(0, seconds)
        found[f"after {after:.3f} s"] = world.killed(name, Fault(kill_after=after))
    assert {when: said for when, said in found.items() if said} == {}


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_killed_while_it_really_measures(world: World) -> None:
    """Measuring processes end by themselves; the table has every entry once."""
    draw = random.Random("measuring")
    found = {}
    for _ in range(4):
        after = draw.uniform(1.0, 6.0)
        found[after] = world.killed("profile", Fault(kill_after=after, exact=False))
    assert {when: said for when, said in found.items() if said} == {}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_processes_that_build_bundles_end_with_the_command(world: World, tmp_path: Path) -> None:
    work = world.fresh("export")
    for suffix in (".subnet.json", ".safetensors"):
        source = work / "r" / "subnets" / f"best{suffix}"
        source.with_name(f"also{suffix}").write_bytes(source.read_bytes())
    subnets = [work / "r" / "subnets" / f"{name}.subnet.json" for name in ("best", "also")]
    args = ("export", *subnets, "--jobs", 2, "--no-measure", "--out")
    whole = world.run(*args, tmp_path / "whole", cwd=work)
    assert whole.code == 0, whole.stderr
    for share in (0.4, 0.7):
        fault = Fault(kill_after=share * whole.seconds)
        done = world.run(*args, tmp_path / f"out-{share}", cwd=work, fault=fault)
        assert done.killed, (done.code, done.stderr)
        assert left_behind(done.session, 20.0) == []
