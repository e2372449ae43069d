"""``export``: which network is meant, what has no effect, and what it says to do next."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy.export import load_manifest
from ofa_deploy.supernet import load_subnet, save_ensemble

Cli = Callable[..., Any]


@pytest.fixture
def run(job: Any, here: Path) -> Path:
    """A copy of the run, with the subnet that a search proved."""
    return Path(shutil.copytree(job.run, here / "run"))


def tree(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize(
    "more",
    [("--weights", "w.pth"), ("--space", "mbv3-nano-32"), ("--resolutions", "32")],
)
def test_a_subnet_file_has_its_weights_and_space(
    cli: Cli, here: Path, more: tuple[str, ...]
) -> None:
    message = cli("export", "a.subnet.json", "--out", "b", *more).error(1)
    assert "--weights, --space and --resolutions go with --run and --arch" in message
    assert not list(here.iterdir())


def test_another_network_is_not_written_over_what_search_proved(
    job: Any, cli: Cli, run: Path, workers: Any
) -> None:
    """``best`` is the name that a search gives unless told otherwise."""
    space = load_subnet(job.subnet)[1].search_space
    proven = load_subnet(job.subnet)[1].network.arch
    other = space.smallest if proven != space.smallest else space.largest
    Path("best.json").write_text(json.dumps(other.to_dict()))
    before = tree(run / "subnets")
    message = cli("export", "--run", run, "--arch", "best.json", "--out", "b").error(1)
    assert f"best.subnet.json: is another network ({proven}), which would be lost" in message
    assert "rename the file that --arch names" in message
    assert tree(run / "subnets") == before
    assert not Path("b").exists()


def test_the_network_that_search_proved_is_taken_with_what_is_known_of_it(
    job: Any, cli: Cli, run: Path
) -> None:
    proven = load_subnet(job.subnet)[1].network
    Path("best.json").write_text(json.dumps(proven.arch.to_dict()))
    before = tree(run / "subnets")
    made = cli("export", "--run", run, "--arch", "best.json", "--out", "b", "--no-measure")
    assert made.code == 0, made.stderr
    assert tree(run / "subnets") == before
    assert "best.subnet.json: that network, taken as it is" in made.stderr
    measured = load_manifest(Path("b/manifest.json")).subnet["measured"]
    assert measured["latency"] == proven.measured["latency"]


def test_networks_of_another_supernet_are_others(job: Any, cli: Cli, run: Path) -> None:
    path = run / "subnets" / "best.subnet.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value | {"supernet_sha256": "0" * 64}))
    Path("best.json").write_text(json.dumps(value["candidate"]["arch"]))
    message = cli("export", "--run", run, "--arch", "best.json", "--out", "b").error(1)
    assert "is another network" in message


def test_commands_to_try_next_can_be_copied(job: Any, cli: Cli, here: Path) -> None:
    folder = here / "my subnets"
    folder.mkdir()
    for path in (job.subnet, job.subnet.with_name("best.safetensors")):
        shutil.copy(path, folder)
    made = cli("export", "my subnets/best.subnet.json", "--out", "my bundle", "--no-measure")
    assert made.code == 0, made.stderr
    lines = [shlex.split(line) for line in made.stderr.partition("next:\n")[2].splitlines()]
    assert lines == [
        ["ofa-deploy", "show", "my subnets/best.subnet.json"],
        ["ofa-deploy", "bench", "my bundle"],
        ["ofa-deploy", "run", "my bundle", "IMAGE"],
    ]
    assert cli(*lines[0][1:]).code == 0


def test_an_ensemble_is_shown(job: Any, cli: Cli, here: Path) -> None:
    """As ``export`` suggests after one."""
    members = []
    for name in ("one", "two"):
        shutil.copy(job.subnet.with_name("best.safetensors"), here / f"{name}.safetensors")
        members.append(Path(shutil.copy(job.subnet, here / f"{name}.subnet.json")))
    path = save_ensemble(here / "both", members, {"top1": 51.25})
    made = cli("show", path, "--table", job.table, "--format", "json")
    assert made.code == 0, made.stderr
    alone = cli("show", job.subnet, "--table", job.table, "--format", "json")
    assert json.loads(made.stdout) == json.loads(alone.stdout), "blocks are those of each member"
    assert "top1 51.25" in made.stderr
    assert "both.ensemble.json: 2 members, each r" in cli("show", path).stdout
    (here / "two.safetensors").write_bytes(b"")
    assert "two" in cli("show", path).error(1)
