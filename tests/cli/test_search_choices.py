"""``search``: what its options choose, what is refused since it has no effect, what comes next."""

import importlib
import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ofa_deploy.errors import InfeasibleError
from ofa_deploy.files import write_model
from ofa_deploy.hardware import LatencyTable
from ofa_deploy.pareto import Candidate
from ofa_deploy.predict import AccuracyModel
from ofa_deploy.profiling import reference_arch
from ofa_deploy.search import FrontFile, Verified, models_of, parse_constraint
from ofa_deploy.space import get_space
from ofa_deploy.train import RunFile, build_config
from tests.search.measured import measured_table, on
from tests.tables import measurement, table_of

Cli = Callable[..., Any]
NANO = get_space("mbv3-nano-32")
INT8 = "accuracy-onnxruntime-int8.onnx"

closed_loop: Any = importlib.import_module("ofa_deploy.cli._closed_loop")
search_job: Any = importlib.import_module("ofa_deploy.cli._search_job")
workspace: Any = importlib.import_module("ofa_deploy.cli._workspace")


pytestmark = pytest.mark.usefixtures("short_searches")


@pytest.fixture
def run(accuracy: AccuracyModel, here: Path) -> Path:
    """All of a run that a search by its models alone reads."""
    for name in ("accuracy.onnx", INT8):
        accuracy.save(here / "my run" / name)
    return Path("my run")


@pytest.fixture
def tables(here: Path) -> dict[str, Path]:
    """Two devices in two precisions."""
    return {
        f"{device}-{precision}": measured_table(NANO, device, precision=precision).save(
            here / f"{device}-{precision}.json"
        )
        for device in ("a", "b")
        for precision in ("fp32", "int8")
    }


def given(*tables: Path) -> list[object]:
    return [part for path in tables for part in ("--table", path)]


def fronts(run: Path) -> dict[str, FrontFile]:
    return {
        path.name.removesuffix(".front.json"): FrontFile.load(path)
        for path in sorted((run / "fronts").iterdir())
    }


# -- several devices, several forms ---------------------------------------------------------


def test_devices_and_forms_make_a_file_each(cli: Cli, run: Path, tables: dict[str, Path]) -> None:
    named = [tables[name] for name in ("a-fp32", "a-int8", "b-fp32")]
    asked = ("search", "--run", run, *given(*named), "--no-verify")
    refused = cli(*asked).error(1)
    assert "one network for several devices: expected one table of each, found" in refused
    assert "onnxruntime-fp32 on a, onnxruntime-int8 on a, onnxruntime-fp32 on b" in refused
    assert "--per-device" in refused
    assert not (run / "fronts").exists()
    made = cli(*asked, "--per-device", "--constraint", "latency[a] <= 3 ms")
    assert made.code == 0, made.stderr
    found = fronts(run)
    assert list(found) == [
        "best-a-onnxruntime-fp32",
        "best-a-onnxruntime-int8",
        "best-b-onnxruntime-fp32",
    ]
    for name, file in found.items():
        device, _, form = name.removeprefix("best-").partition("-onnxruntime-")
        assert file.conditions == on(device, form)
        limit = 3.0 if device == "a" else np.inf
        assert max(each.predicted["latency"] for each in file.pareto) <= limit
        assert file.budgets == ((3.0,) if device == "a" else ())


@pytest.mark.parametrize("more", [(), ("--per-device",)])
def test_two_tables_of_one_form_are_refused(
    cli: Cli, run: Path, tables: dict[str, Path], more: tuple[str, ...]
) -> None:
    both = given(tables["a-fp32"], tables["a-fp32"])
    message = cli("search", "--run", run, *both, "--no-verify", *more).error(1)
    assert "found several of onnxruntime-fp32 on a: give one of them" in message


def test_device_of_a_form_may_be_named(cli: Cli, run: Path, tables: dict[str, Path]) -> None:
    both = given(tables["a-fp32"], tables["a-int8"])
    limit = ("--constraint", "latency[a] <= 3 ms")
    made = cli("search", "--run", run, *both, "--no-verify", *limit)
    assert made.code == 0, made.stderr
    for file in fronts(run).values():
        assert max(each.predicted["latency"] for each in file.pareto) <= 3


def test_a_table_names_no_folder(cli: Cli, run: Path, tables: dict[str, Path]) -> None:
    """A table is somebody else's text, and the device it names becomes a part of a file's name."""
    for name in ("a-fp32", "b-fp32"):
        value = json.loads(tables[name].read_text())
        value["conditions"]["device"] = f"../../{name}"
        tables[name].write_text(json.dumps(value))
    both = given(tables["a-fp32"], tables["b-fp32"])
    made = cli("search", "--run", run, *both, "--no-verify", "--per-device")
    assert made.code == 0, made.stderr
    assert list(fronts(run)) == ["best-..-..-a-fp32", "best-..-..-b-fp32"]


# -- objectives -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "objective", "more", "expected"),
    [
        (("a",), "latency[a] min", (), [{"top1": "max", "latency": "min"}]),
        (("a",), "latency[a].p99 min", (), [{"top1": "max", "latency.p99": "min"}]),
        (
            ("a", "b"),
            "latency min",
            (),
            [{"top1": "max", "latency[a]": "min", "latency[b]": "min"}],
        ),
        (("a", "b"), "latency[b] min", (), [{"top1": "max", "latency[b]": "min"}]),
        (
            ("a", "b"),
            "latency[b].p99 min",
            ("--per-device",),
            [{"top1": "max", "latency": "min"}, {"top1": "max", "latency.p99": "min"}],
        ),
    ],
)
def test_objectives_are_put_in_terms_of_the_tables(
    cli: Cli,
    run: Path,
    tables: dict[str, Path],
    names: tuple[str, ...],
    objective: str,
    more: tuple[str, ...],
    expected: list[dict[str, str]],
) -> None:
    asked = given(*(tables[f"{name}-fp32"] for name in names))
    made = cli("search", "--run", run, *asked, "--no-verify", "--objective", objective, *more)
    assert made.code == 0, made.stderr
    assert [dict(file.pareto.objectives) for file in fronts(run).values()] == expected


def test_a_long_front_is_printed_in_part_and_written_whole(
    cli: Cli, run: Path, tables: dict[str, Path]
) -> None:
    asked = ("search", "--run", run, *given(tables["a-fp32"]), "--no-verify")
    asked += ("--objective", "latency min")
    made = cli(*asked)
    assert made.code == 0, made.stderr
    (file,) = fronts(run).values()
    count = len(file.pareto)
    assert count > 12
    printed = [line for line in made.stdout.splitlines() if "r32 | " in line]
    assert len(printed) == 12
    assert [line.startswith(" *") for line in printed] == [False] * 11 + [True]
    assert str(file.pareto.best().arch) in printed[-1]
    assert f"12 of {count} networks shown; all are in {run}/fronts/best.front.json" in made.stderr
    assert len(json.loads(cli(*asked, "--format", "json").stdout)) == count
    assert "shown" not in cli(*asked, "--quiet").stderr


def test_objectives_of_one_metric_must_agree(cli: Cli, run: Path, tables: dict[str, Path]) -> None:
    both = ("--objective", "latency min", "--objective", "latency[a] max")
    made = cli("search", "--run", run, *given(tables["a-fp32"]), "--no-verify", *both)
    assert "objective latency[a] max contradicts latency min" in made.error(1)


# -- what has no effect ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--run", "R", "--out", "there", "--no-verify"), "--out goes with --accuracy"),
        (("--run", "R", "--per-device"), "--per-device goes with --no-verify"),
        (("--run", "R", "--objective", "macs min"), "--objective shapes the front that"),
        (("--accuracy", "A", "--no-verify", "--weights", "w.pth"), "go with --run"),
        (("--accuracy", "A", "--no-verify", "--space", NANO.name), "go with --run"),
        (("--accuracy", "A", "--no-verify", "--data", "glyphs"), "go with --run"),
        (("--accuracy", "A", "--no-verify", "--resolutions", "32"), "go with --run"),
    ],
)
def test_options_without_an_effect_are_refused(
    cli: Cli, run: Path, tables: dict[str, Path], args: tuple[str, ...], message: str
) -> None:
    named = {"R": run, "A": run / "accuracy.onnx"}
    before = sorted(Path().rglob("*"))
    made = cli("search", *(named.get(a, a) for a in args), *given(tables["a-fp32"]))
    assert message in made.error(1)
    assert sorted(Path().rglob("*")) == before


def test_fronts_of_a_model_alone_go_where_asked(
    cli: Cli, run: Path, tables: dict[str, Path]
) -> None:
    asked = ("search", "--accuracy", run / "accuracy.onnx", *given(tables["a-fp32"]))
    assert cli(*asked, "--no-verify").code == 0
    assert cli(*asked, "--no-verify", "--out", "there").code == 0
    assert Path("best.front.json").is_file() and Path("there/best.front.json").is_file()


# -- proving --------------------------------------------------------------------------------


@pytest.fixture
def provable(run: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A closed loop whose outcome by precision is given: a candidate's top-1, or an error."""
    outcomes: dict[str, Any] = {}
    monkeypatch.setattr(closed_loop, "check_here", lambda table, mend: None)
    monkeypatch.setattr(closed_loop, "keep", lambda evaluator, best, name: run / f"{name}.json")
    evaluator = SimpleNamespace(run=run)
    monkeypatch.setattr(workspace, "load_evaluator", lambda *args, **options: evaluator)

    def prove_one(job: Any, model: Any, table: LatencyTable, *more: Any) -> Any:
        outcome = outcomes[table.conditions.precision]
        if isinstance(outcome, Exception):
            raise outcome
        best = Candidate(NANO.smallest, measured={"top1": outcome, "latency": 1.0})
        form = f"{table.conditions.precision} form"
        return search_job._Proof(
            Verified(best, (best,)), run / f"{form}.front.json", run / f"{form}-measured.front.json"
        )

    monkeypatch.setattr(search_job.SearchJob, "_prove_one", prove_one)
    return outcomes


@pytest.mark.parametrize(("fp32", "int8"), [(60.0, 50.0), (50.0, 60.0)])
def test_fronts_to_compare_are_those_of_the_winner(
    cli: Cli,
    run: Path,
    tables: dict[str, Path],
    provable: dict[str, Any],
    fp32: float,
    int8: float,
) -> None:
    provable |= {"fp32": fp32, "int8": int8}
    both = given(tables["a-fp32"], tables["a-int8"])
    made = cli("search", "--run", run, *both, "--name", "my best")
    assert made.code == 0, made.stderr
    lines = made.stderr.partition("next:\n")[2].splitlines()
    export, compare = (shlex.split(line) for line in lines)
    form = "fp32" if fp32 > int8 else "int8"
    expected = [f"my run/{form} form{what}.front.json" for what in ("", "-measured")]
    assert compare == ["ofa-deploy", "compare", *expected, "--out", "report.html"]
    assert export[:5] == ["ofa-deploy", "export", "my run/my best.json", "--out", "bundles/my best"]


def test_every_form_that_fails_is_named(
    cli: Cli, run: Path, tables: dict[str, Path], provable: dict[str, Any]
) -> None:
    provable["fp32"] = InfeasibleError("no network is so fast", {"latency": (2.0, 9.0)})
    provable["int8"] = InfeasibleError("nor so small", {"latency": (1.0, 7.0)})
    both = given(tables["a-fp32"], tables["a-int8"])
    message = cli("search", "--run", run, *both).error(3)
    assert "onnxruntime-fp32: no network is so fast; onnxruntime-int8: nor so small" in message
    provable["int8"] = 50.0
    made = cli("search", "--run", run, *both)
    assert made.code == 0
    assert "onnxruntime-fp32: no network is so fast" in made.stderr


def test_errors_of_forms_become_one() -> None:
    nearest = Candidate(NANO.smallest)
    error = search_job._none_fits(
        {
            "one": InfeasibleError("x", {"latency": (2.0, 9.0)}),
            "two": InfeasibleError("y", {"latency": (1.0, 7.0), "macs": (3.0, 4.0)}, nearest),
        }
    )
    assert str(error) == "one: x; two: y"
    assert error.reachable == {"latency": (1.0, 9.0), "macs": (3.0, 4.0)}
    assert error.nearest is nearest


def test_what_cannot_be_measured_is_refused_before_the_search(
    cli: Cli, run: Path, tables: dict[str, Path], provable: dict[str, Any]
) -> None:
    asked = ("--run", run, *given(tables["a-fp32"]), "--constraint", "energy <= 5 mJ")
    message = cli("search", *asked).error(1)
    assert "energy cannot be measured here, so 'energy <= 5 mJ' cannot be proven" in message


def test_missing_accuracy_names_a_command_that_can_be_copied(
    cli: Cli, run: Path, tables: dict[str, Path]
) -> None:
    (run / INT8).unlink()
    asked = ("search", "--run", run, *given(tables["a-int8"]), "--no-verify")
    assert "measure it: ofa-deploy evaluate 'my run' --runtime" in cli(*asked).error(1)
    (run / "accuracy.onnx").unlink()
    record = RunFile(
        schema="supernet-run/1",
        space=NANO.to_dict(),
        config=build_config("deps"),
        data="glyphs",
        data_digest="0" * 16,
        data_options={},
        classes=("a", "b"),
        versions={},
    )
    write_model(run / "run.json", record)
    assert "make it with: ofa-deploy evaluate 'my run'" in cli(*asked).error(1)


# -- the closed loop's parts ----------------------------------------------------------------


@pytest.fixture(scope="module")
def two_sizes() -> Any:
    return NANO.with_resolutions(24, 32)


def test_candidates_are_timed_against_the_reference_of_the_table(
    accuracy: AccuracyModel, two_sizes: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run may know more resolutions than the table does."""
    heard: list[Any] = []

    def verified(space: Any, examine: Any, **asked: Any) -> Verified:
        heard.append(examine)
        return Verified(Candidate(space.smallest), ())

    monkeypatch.setattr(closed_loop, "search_verified", verified)
    table = measured_table(NANO)
    models = models_of(accuracy, [table])
    evaluator: Any = SimpleNamespace(run=here, record=SimpleNamespace(search_space=two_sizes))
    asked = [parse_constraint("latency <= 1 ms")]
    closed_loop.prove(evaluator, table, models, asked, 0, None)
    (examiner,) = heard
    assert examiner.space.fingerprint == table.fingerprint != two_sizes.fingerprint
    assert reference_arch(examiner.space) != reference_arch(two_sizes)
    assert "energy" not in examiner.metrics and "latency.p90" in examiner.metrics


def test_percentiles_learn_from_what_was_measured(accuracy: AccuracyModel) -> None:
    table = measured_table(NANO)
    models = models_of(accuracy, [table], ["latency.p99"])
    rows = NANO.sample(np.random.default_rng(8), 40)
    examined = [
        Candidate(
            arch,
            measured={"top1": 50.0, "latency": 1.4 * usual, "latency.p99": 5 * usual},
        )
        for arch, usual in zip(
            NANO.decode(rows), models.latency_on("bench").predict(rows), strict=True
        )
    ]
    _, latency, others = closed_loop._learner(models, table)(examined)
    before = models.metrics["latency.p99"].predict(rows)
    assert (others["latency.p99"].predict(rows) > 1.2 * before).mean() > 0.5
    assert (latency.predict(rows) > 1.05 * models.latency_on("bench").predict(rows)).mean() > 0.5


def test_energy_keeps_its_model(accuracy: AccuracyModel) -> None:
    table = measured_table(NANO)
    model = models_of(accuracy, [table]).latency_on("bench")
    models = replace(models_of(accuracy, [table]), metrics={"energy": model})
    examined = [
        Candidate(NANO.smallest, measured={"top1": 50.0, "latency": 1.0}),
        Candidate(NANO.largest, measured={"top1": 60.0, "latency": 9.0}),
    ]
    _, _, others = closed_loop._learner(models, table)(examined)
    assert others == {"energy": model}


def test_a_device_that_counts_energy_is_asked_for_it(accuracy: AccuracyModel) -> None:
    counted = table_of(NANO, lambda block: 1.0, reference=measurement(1.0, energy_mj=2.0))
    assert "energy" in closed_loop.measurable(counted)
