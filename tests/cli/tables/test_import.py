"""``ofa-deploy tables import`` and ``export``."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy.hardware import LatencyTable, table_csv
from ofa_deploy.space import get_space
from ofa_deploy.train import RunFile
from tests.cli.tables.edits import Cli, edited, next_commands
from tests.tables import table_of


def test_export_and_import_give_the_same_blocks(cli: Cli, table: Path, here: Path) -> None:
    made = cli("tables", "export", table, "--out", "table.csv")
    assert made.code == 0, made.stderr
    assert (here / "table.csv").read_text() == table_csv(LatencyTable.load(table))
    assert cli("tables", "export", table).stdout == (here / "table.csv").read_text()
    (following,) = next_commands(made.stderr)
    again = cli(*following[1:], "--out", "again.json")
    assert again.code == 0, again.stderr
    old, new = LatencyTable.load(table), LatencyTable.load("again.json")
    assert new.blocks == old.blocks
    assert new.conditions == old.conditions
    assert new.fingerprint == old.fingerprint


@pytest.fixture
def lookup(here: Path) -> Path:
    """Published tables of a phone at 160 and 164 pixels: a millisecond for each 10 MMACs."""
    space = get_space("ofa-mbv3-w1.2")
    folder = here / "look up"
    folder.mkdir()
    for size in (160, 164):
        lines = []
        for block in space.with_resolutions(size).blocks():
            s, o, cin, cout = block.size, block.out_size, block.in_channels, block.out_channels
            shape = f"input:{s}x{s}x{cin}-output:{o}x{o}x{cout}"
            mid, ms = block.mid_channels, block.macs / 1e7
            match block.kind:
                case "mbconv":
                    named = {
                        f"expanded_conv-{shape}-expand:{mid}-kernel:{block.kernel}-stride:"
                        f"{block.stride}-idskip:{int(block.residual)}-se:{int(block.se > 0)}"
                        f"-hs:{int(block.activation == 'hswish')}": ms
                    }
                case "conv":
                    named = {f"{'Conv' if cin == 3 else 'Conv_1'}-{shape}": ms}
                case _:
                    named = {
                        f"AvgPool2D-input:{s}x{s}x{cin}-output:1x1x{cin}": 0.01,
                        f"Conv_2-input:1x1x{cin}-output:1x1x{mid}": cin * mid / 1e7,
                        f"Logits-input:1x1x{mid}-output:{cout}": mid * cout / 1e7,
                    }
            for key, value in named.items():
                lines += [f"{key}:", "  count: 90", f"  mean: {value}", f"  std: {value / 50}"]
        (folder / f"{size}_lookup_table.yaml").write_text("\n".join(lines) + "\n")
    return folder


PUBLISHED = ("--from", "ofa-yaml", "--space", "ofa-mbv3-w1.2", "--device", "samsung-note10")


def test_import_says_what_it_read_and_what_it_does_not_know(cli: Cli, lookup: Path) -> None:
    made = cli("tables", "import", lookup, *PUBLISHED, "--out", "note10.json")
    assert made.code == 0, made.stderr
    assert made.stdout == ""
    space = get_space("ofa-mbv3-w1.2").with_resolutions(160, 164)
    assert f"{len(space.blocks())} blocks at 160, 164 pixels" in made.stderr
    assert "assumed, since not given: batch 1, threads 1" in made.stderr
    assert "error unknown: no whole network was measured" in made.stderr
    imported = LatencyTable.load("note10.json")
    imported.check_for(space)
    largest = (space.cost(space.largest).macs / 1e7) + 0.01
    assert f" to {largest:.3f} ms" in made.stderr
    for command in next_commands(made.stderr):
        followed = cli(*command[1:])
        assert followed.code == 0, followed.stderr
    shown = cli("tables", "show", "note10.json", "--top", 1)
    assert "imported" in shown.stderr and "ofa-yaml: look up, 2 files" in shown.stderr
    assert "error unknown: no whole network was measured" in shown.stderr


def test_import_goes_where_tables_are_looked_for(cli: Cli, lookup: Path, here: Path) -> None:
    made = cli("tables", "import", lookup, *PUBLISHED, "--resolutions", 164, "--quiet")
    assert (made.code, made.stderr) == (0, "")
    (path,) = (here / "latency_tables").rglob("*.json")
    digits = get_space("ofa-mbv3-w1.2").with_resolutions(164).fingerprint[:8]
    assert path.name == f"ofa-mbv3-w1.2-{digits}@unknown-unknown-b1-t1.json"
    assert path.parent.name == "samsung-note10"
    space = get_space("ofa-mbv3-w1.2").with_resolutions(164)
    assert LatencyTable.load(path).fingerprint == space.fingerprint
    assert "samsung-note10" in cli("tables").stdout


def test_import_keeps_the_resolutions_that_are_asked_for_of_a_run(
    job: Any, cli: Cli, here: Path
) -> None:
    run = shutil.copytree(job.run, here / "run")
    edited(run / "run.json", lambda value: value["space"].update(resolutions=[24, 32]))
    space = RunFile.load(run).search_space
    Path("both.csv").write_text(table_csv(table_of(space, lambda block: block.macs / 1e6)))
    asked = ("--from", "csv", "both.csv", "--run", run, "--device", "board")
    for sizes in ((24,), (24, 32)):
        listed = ",".join(map(str, sizes))
        made = cli("tables", "import", *asked, "--resolutions", listed, "--out", "t.json")
        assert made.code == 0, made.stderr
        assert LatencyTable.load("t.json").resolutions == sizes


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--unit", "s"], "too slow to be true"),
        (["--unit", "min"], "unknown unit 'min'"),
        (["--resolutions", "160,168"], "expected as 'Conv-input:168x168x3-output:84x84x24'"),
        (["--device", "../x"], "device: expected lower-case letters"),
        (["--from", "yaml"], "unknown form 'yaml'; did you mean ofa-yaml?"),
        (["--run", "nosuch"], "expected either --space NAME or --run"),
        (["--classes", "10"], "expected as 'Logits-input:1x1x1536-output:10'"),
    ],
)
def test_wrong_import_is_one_line_and_writes_nothing(
    cli: Cli, lookup: Path, here: Path, more: list[str], message: str
) -> None:
    made = cli("tables", "import", lookup, *PUBLISHED, *more, "--out", "x.json")
    assert message in made.error(1)
    assert not (here / "x.json").exists()


def test_damaged_yaml_is_one_line(cli: Cli, lookup: Path) -> None:
    file = lookup / "160_lookup_table.yaml"
    file.write_text('"a\\nerror: b": {mean: .nan}\n')
    message = cli("tables", "import", lookup, *PUBLISHED).error(1)
    assert "160_lookup_table.yaml" in message and "greater than 0" in message
