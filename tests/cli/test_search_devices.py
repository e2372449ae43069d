"""``search --device``: tables that are named by their device, found among those at hand."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy.predict import AccuracyModel
from ofa_deploy.search import FrontFile
from ofa_deploy.space import SearchSpace, get_space
from tests.search.measured import measured_table

Cli = Callable[..., Any]
NANO = get_space("mbv3-nano-32")
table_module: Any = importlib.import_module("ofa_deploy.hardware.table")


pytestmark = pytest.mark.usefixtures("short_searches")


@pytest.fixture
def run(accuracy: AccuracyModel, here: Path) -> Path:
    """All of a run that a search by its models alone reads."""
    for name in ("accuracy.onnx", "accuracy-onnxruntime-int8.onnx"):
        accuracy.save(here / "R" / name)
    return Path("R")


def profiled(
    device: str, precision: str = "fp32", space: SearchSpace = NANO, slow: float = 1.0
) -> Path:
    """A table where ``profile`` writes it."""
    table = measured_table(space, device, slow=slow, precision=precision)
    return table.save(Path("latency_tables") / device / table.file_name)


def asked(run: Path, *devices: str) -> list[object]:
    return ["search", "--run", run, *(part for name in devices for part in ("--device", name))]


def predictions(run: Path) -> list[dict[str, float]]:
    file = FrontFile.load(run / "fronts" / "best.front.json")
    return [dict(each.predicted) for each in file.pareto]


def test_one_network_for_several_machines(cli: Cli, run: Path) -> None:
    """The slower of two that run the same networks decides."""
    profiled("orin")
    profiled("pi-5", slow=3.0)
    limits = ("--constraint", "latency[orin] <= 3 ms", "--constraint", "latency[pi-5] <= 6 ms")
    made = cli(*asked(run, "orin", "pi-5"), *limits)
    assert made.code == 0, made.stderr
    assert "predicted for orin, pi-5: candidates are measured on this machine" in made.stderr
    predicted = predictions(run)
    assert max(each["latency[pi-5]"] for each in predicted) <= 6
    assert 1.5 < max(each["latency[orin]"] for each in predicted) < 2.2
    assert "candidates are measured on this machine only" in (
        cli(*asked(run, "orin", "pi-5"), "--verify").error(1)
    )


def test_one_network_a_machine(cli: Cli, run: Path) -> None:
    profiled("orin")
    profiled("pi-5", slow=3.0)
    both = asked(run, "orin", "pi-5")
    made = cli(*both, "--per-device", "--constraint", "latency <= 4 ms", "--quiet")
    assert made.code == 0, made.stderr
    assert made.stderr == ""
    for device in ("orin", "pi-5"):
        file = FrontFile.load(run / "fronts" / f"best-{device}.front.json")
        assert file.conditions is not None and file.conditions.device == device


def test_a_device_and_a_file(cli: Cli, run: Path, here: Path) -> None:
    profiled("orin")
    other = measured_table(NANO, "other").save(here / "other.json")
    made = cli(*asked(run, "orin"), "--table", other)
    assert made.code == 0, made.stderr
    assert {"latency[orin]", "latency[other]"} <= predictions(run)[0].keys()


def test_a_runs_own_table_serves_where_none_is_at_hand(cli: Cli, run: Path) -> None:
    """A quickstart keeps its table in its run; one that was profiled since comes first."""
    measured_table(NANO, "orin", slow=3.0).save(run / "latency_table.json")
    assert "unknown device 'pi-5'" in cli(*asked(run, "pi-5")).error(1)
    latencies = []
    for _ in range(2):
        made = cli(*asked(run, "orin"), "--no-verify")
        assert made.code == 0, made.stderr
        latencies.append(max(each["latency"] for each in predictions(run)))
        profiled("orin")
    assert latencies[0] == pytest.approx(3 * latencies[1], rel=0.2)
    (run / "latency_table.json").write_text("{")
    assert "latency_table.json: not readable as JSON" in cli(*asked(run, "pi-5")).error(1)


def test_several_tables_of_a_device_are_listed(cli: Cli, run: Path) -> None:
    paths = [profiled("orin", precision) for precision in ("fp32", "int8")]
    message = cli(*asked(run, "orin"), "--no-verify").error(1)
    assert "several latency tables of orin are for mbv3-nano-32 (50 classes): " in message
    for path in paths:
        assert str(path) in message
    assert "choose with --runtime and --precision" in message
    made = cli(*asked(run, "orin"), "--precision", "int8", "--no-verify")
    assert made.code == 0, made.stderr
    conditions = FrontFile.load(run / "fronts" / "best.front.json").conditions
    assert conditions is not None and conditions.precision == "int8"


def test_a_device_without_a_fitting_table(cli: Cli, run: Path) -> None:
    path = profiled("orin", space=NANO.with_classes(7))
    message = cli(*asked(run, "orin"), "--no-verify").error(1)
    assert "no latency table of orin is for mbv3-nano-32 (50 classes); at hand: " in message
    assert str(path) in message
    assert "make one with: ofa-deploy profile --run R --device orin" in message
    profiled("orin")
    message = cli(*asked(run, "orin"), "--runtime", "openvino", "--no-verify").error(1)
    assert "is for mbv3-nano-32 (50 classes), openvino" in message
    message = cli(*asked(run, "orim"), "--no-verify").error(1)
    assert "unknown device 'orim'; did you mean orin? (those that have a latency" in message


@pytest.mark.parametrize(
    ("given", "proposed"),
    [
        ((), "--runtime tensorrt --precision fp32"),
        (("--precision", "int8"), "--runtime tensorrt --precision int8"),
        (("--runtime", "onnxruntime"), "--runtime onnxruntime --precision fp32"),
    ],
)
def test_what_is_proposed_makes_the_table_that_was_asked_for(
    cli: Cli, run: Path, given: tuple[str, ...], proposed: str
) -> None:
    message = cli(*asked(run, "jetson-orin-nano"), *given, "--no-verify").error(1)
    assert f"ofa-deploy profile --run R --device jetson-orin-nano {proposed}" in message
    profiled("orin")
    message = cli(*asked(run, "orin"), "--runtime", "openvino", "--no-verify").error(1)
    assert message.endswith("profile --run R --device orin --runtime openvino")


def test_the_very_space_comes_before_one_that_shares_resolutions(cli: Cli, run: Path) -> None:
    sharing = profiled("orin", space=NANO.with_resolutions(24, 32))
    made = cli(*asked(run, "orin"), "--no-verify")
    assert made.code == 0, made.stderr
    assert "left out, since not known to all: 24" in made.stderr
    profiled("orin")
    made = cli(*asked(run, "orin"), "--no-verify")
    assert made.code == 0, made.stderr
    assert "left out" not in made.stderr
    assert sharing.exists()


def test_own_tables_come_before_those_that_ship(
    cli: Cli, run: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = profiled("orin")
    shipped = here / "shipped" / "latency_tables"
    measured_table(NANO, "orin", slow=5.0).save(shipped / "orin" / own.name)
    measured_table(NANO, "pi-5", slow=3.0).save(shipped / "pi-5" / own.name)
    monkeypatch.setattr(table_module, "shipped", lambda name: here / "shipped" / name)
    made = cli(*asked(run, "orin", "pi-5"))
    assert made.code == 0, made.stderr
    for each in predictions(run):
        assert each["latency[pi-5]"] / each["latency[orin]"] == pytest.approx(3.0, rel=0.01)


def test_an_address_is_a_device(cli: Cli, run: Path) -> None:
    """By the name that ``profile`` gave it."""
    profiled("box.local-2222")
    made = cli(*asked(run, "ssh://me@box.local:2222"), "--no-verify")
    assert made.code == 0, made.stderr


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--table", "t.json", "--precision", "int8"), "--runtime and --precision choose among"),
        (("--device", "../orin"), "unknown device '../orin'"),
        (("--device", "ssh://-oops"), "is no host's name"),
    ],
)
def test_what_is_asked_must_make_sense(
    cli: Cli, run: Path, more: tuple[str, ...], message: str
) -> None:
    profiled("orin")
    assert message in cli("search", "--run", run, *more).error(1)


def test_a_search_needs_a_latency(cli: Cli, run: Path) -> None:
    made = cli("search", "--run", run)
    assert made.code == 2
    assert "expected --table FILE or --device NAME" in made.stderr
    assert "--device local" not in made.stderr, "there is no such table"
    profiled("local")
    said = " ".join(cli("search", "--run", run).stderr.replace("│", " ").split())
    assert "a table of this machine is at hand: --device local" in said


def test_weights_have_no_space_before_they_are_a_run(cli: Cli, here: Path) -> None:
    profiled("orin")
    first = ("--weights", "w.pth", "--space", NANO.name, "--data", "glyphs")
    message = cli(*asked(Path("new"), "orin"), *first).error(1)
    assert "new: no run there yet" in message and "--table FILE" in message
