"""Numbers that cannot be, at every door; counts beyond 64 bits; the same bytes wherever it runs."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from ofa_deploy.cli.main import app
from ofa_deploy.cost import AdditiveModel, macs_model, params_model
from ofa_deploy.errors import ConstraintError, FileFormatError, InputError
from ofa_deploy.hardware import LatencyTable, import_tables, table_csv
from ofa_deploy.predict import fit_accuracy, fit_latency
from ofa_deploy.search import Constraint, Problem, parse_constraint, search
from ofa_deploy.space import Head, SearchSpace, Stage, Stem
from ofa_deploy.specialize import build_specialize_config
from ofa_deploy.train import build_config
from tests.cli.conftest import in_process
from tests.faults.formats import SPACE
from tests.faults.table_formats import block_ms
from tests.tables import table_of

ROOT = Path(__file__).resolve().parents[2]
NEVER = [math.nan, math.inf, -math.inf]
QUICK: dict[str, Any] = {"population": 8, "generations": 1, "climbs": 1}


# -- options of commands --------------------------------------------------------------------


def _floats(command: Any, name: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any, Any]]:
    """Every option of every command that takes a number with a fraction."""
    within = getattr(command, "commands", {})
    found = [each for k, inner in within.items() for each in _floats(inner, (*name, k))]
    return found + [
        (name, command, option)
        for option in command.params
        if option.param_type_name == "option" and str(option.bare_type()) == "float"
    ]


FLOATS = _floats(typer.main.get_command(app))


def test_some_commands_take_fractions() -> None:
    assert len(FLOATS) >= 6


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    ("name", "command", "option"), FLOATS, ids=[f"{' '.join(n)} {o.name}" for n, _, o in FLOATS]
)
def test_an_option_is_finite(name: tuple[str, ...], command: Any, option: Any, value: str) -> None:
    needed = [
        text
        for p in command.params
        if p.required
        for text in ([p.opts[0], "x"] if p.param_type_name == "option" else ["x"])
    ]
    made = in_process(*name, *needed, f"{option.opts[0]}={value}")
    assert made.code == 2, made.stderr
    why = r"expected (a finite number|at (least|most) .*|(more|less) than .*), found"
    assert re.search(rf"Invalid value for '?{option.opts[0]}'?: ({why})", made.stderr)


# -- constraints and search -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "unit"),
    [
        *(("latency", " ms"), ("latency[local].p99", "s"), ("energy", " mJ"), ("macs", "")),
        *(("params", "k"), ("peak_memory", "MiB"), ("top1", " %")),
    ],
)
@pytest.mark.parametrize(
    "number", ["nan", "inf", "-inf", "1e999", "0", "0.0", "-1", "-0", "1e-999"]
)
def test_a_budget_is_positive_and_finite(metric: str, unit: str, number: str) -> None:
    for sign in ("<=", ">="):
        with pytest.raises(ConstraintError) as error:
            parse_constraint(f"{metric} {sign} {number}{unit}")
        assert "\n" not in str(error.value)
        assert "expected a unit" not in str(error.value)


@pytest.mark.parametrize("limit", NEVER)
def test_a_budget_from_python_is_finite(limit: float) -> None:
    with pytest.raises(ConstraintError, match="expected a finite limit"):
        Constraint("latency", limit, True, "latency <= ?")


class Model:
    """Predicts a value for all networks, or for one in seven."""

    def __init__(self, value: float, every: int) -> None:
        self.value, self.every = value, every

    def predict(self, archs: Any) -> Any:
        found = np.linspace(1.0, 2.0, len(archs))
        found[:: self.every] = self.value
        return found


@pytest.mark.parametrize("every", [1, 7])
@pytest.mark.parametrize(
    ("metric", "value"),
    [
        *((m, v) for m in ("top1", "latency", "energy") for v in NEVER),
        ("latency", 0.0),
        ("latency", -1.0),
    ],
)
def test_a_model_that_predicts_what_cannot_be(metric: str, value: float, every: int) -> None:
    models = {
        "top1": macs_model(SPACE),
        "latency": params_model(SPACE),
        metric: Model(value, every),
    }
    top1, latency = models.pop("top1"), models.pop("latency")
    with pytest.raises(InputError, match=f"the {metric} model predicts"):
        search(
            SPACE,
            accuracy=top1,
            latency=latency,
            metrics=models,
            constraints=[Constraint(metric, 1e9, True, f"{metric} <= 1e9")],
            **QUICK,
        )


def test_a_seed_is_not_negative() -> None:
    with pytest.raises(InputError, match="seed of 0 or more"):
        search(SPACE, accuracy=macs_model(SPACE), latency=params_model(SPACE), seed=-1, **QUICK)


# -- fits -----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [*NEVER, 0.0, -1.0, 1e-320, 1e308])
def test_a_latency_that_cannot_be_is_not_fitted(value: float) -> None:
    archs = list(dict.fromkeys(SPACE.decode(SPACE.sample(np.random.default_rng(1), 20))))
    with pytest.raises(InputError, match="latencies"):
        fit_latency(SPACE, archs, [value, *(1.0 for _ in archs[1:])])


@pytest.mark.parametrize("value", [*NEVER, -1e-9, 100.0001, 1e308])
def test_an_accuracy_that_cannot_be_is_not_fitted(value: float) -> None:
    archs = list(dict.fromkeys(SPACE.decode(SPACE.sample(np.random.default_rng(1), 20))))
    with pytest.raises(InputError, match="accuracies must be percent"):
        fit_accuracy(SPACE, archs, [value, *(float(50 + i) for i in range(len(archs) - 1))])


# -- files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "0", "-1", '"1"'])
def test_a_table_with_such_a_latency(tmp_path: Path, text: str) -> None:
    table = table_of(SPACE, block_ms)
    value = table.model_dump(mode="json", by_alias=True)
    next(iter(value["blocks"].values()))["ms"] = "here"
    path = tmp_path / "t.json"
    path.write_text(json.dumps(value).replace('"here"', text))
    with pytest.raises(FileFormatError, match="t.json"):
        LatencyTable.load(path)


@pytest.mark.parametrize(
    "text", ["nan", "inf", "-inf", "1e999", "0", "-1", "1e-999", "\u0661", "1_0"]
)
def test_a_csv_with_such_a_latency(tmp_path: Path, text: str) -> None:
    table = table_of(SPACE, block_ms)
    lines = table_csv(table).splitlines()
    cells = lines[3].split(",")
    lines[3] = ",".join([cells[0], text, *cells[2:]])
    path = tmp_path / "t.csv"
    path.write_text("\n".join(lines))
    with pytest.raises(FileFormatError, match=r"t.csv: line 4: ms: expected a latency"):
        import_tables("csv", path, space=SPACE, device="note")


@pytest.mark.parametrize("value", [*NEVER, 0.0, -1.0])
def test_a_factor_of_a_table(value: float) -> None:
    with pytest.raises(InputError, match="positive factor"):
        table_of(SPACE, block_ms).scaled(value)


@pytest.mark.parametrize("value", [*NEVER, 0.0, -0.1, True, "0.1"])
def test_a_rate_that_cannot_be(value: object) -> None:
    for build, method in ((build_config, "deps"), (build_specialize_config, "finetune")):
        with pytest.raises(InputError, match="lr"):
            build(method, lr=value)


@pytest.mark.parametrize("value", [*NEVER, 0, -1, 10**30, True, "64", 2.5])
def test_a_batch_that_cannot_be(value: object) -> None:
    for build, method in ((build_config, "deps"), (build_specialize_config, "finetune")):
        with pytest.raises(InputError, match="batch"):
            build(method, batch=value)


# -- counts ---------------------------------------------------------------------------------


def _huge() -> SearchSpace:
    """As large as a layout may be: counts go far beyond 64 bits."""
    most = 2**20
    stage = Stage(
        channels=most,
        stride=1,
        depths=(1, 12),
        kernels=(3, 5, 7),
        expands=(1.5, 3, 64),
        base_depth=2,
    )
    return SearchSpace(
        name="huge",
        resolutions=(32, most),
        classes=most,
        stem=Stem(channels=most, stride=1),
        stages=(stage,) * 4,
        head=Head(channels=most, features=most),
    )


def test_counts_have_no_64_bits() -> None:
    space = _huge()
    assert space.num_archs == 2 * (9**3 + 9**14) ** 4
    cost = space.cost(space.largest)
    assert cost.macs > 2**80
    assert cost.macs == sum(block.macs for block in space.lower(space.largest))
    assert isinstance(cost.macs, int) and isinstance(cost.params, int)
    for model, count in ((macs_model(space), cost.macs), (params_model(space), cost.params)):
        assert model.predict([space.largest])[0] == pytest.approx(float(count), rel=1e-12)
        least, greatest = model.bounds()
        assert 0 < least < greatest < math.inf
    rows = space.sample(np.random.default_rng(0), 5)
    assert (space.encode(space.decode(rows)) == rows).all()


def test_constraints_beyond_64_bits() -> None:
    found = parse_constraint("macs <= 1e30")
    assert isinstance(found, Constraint) and found.limit == 1e30
    space = _huge()
    latency = AdditiveModel.from_blocks(space, lambda block: 1e-3)
    problem = Problem.build(
        space, accuracy=latency, latency=latency, constraints=["macs <= 1e30", "latency <= 9 ms"]
    )
    problem.check_reachable()
    rows = space.sample(np.random.default_rng(0), 50)
    kept = problem.violation(rows) == 0
    exact = [space.cost(arch).macs <= 1e30 for arch in space.decode(rows)]
    assert list(kept) == exact


# -- the same everywhere --------------------------------------------------------------------

SCRIPT = """
import hashlib, json, locale, sys, time
from contextlib import suppress
from pathlib import Path
with suppress(locale.Error):
    locale.setlocale(locale.LC_ALL, "")
import numpy as np
from ofa_deploy.cost import macs_model
from ofa_deploy.graph import build_onnx
from ofa_deploy.hardware import import_tables, table_csv
from ofa_deploy.predict import fit_accuracy, fit_latency
from ofa_deploy.search import FrontFile, plan, search
from tests.cli.conftest import in_process
from tests.faults.formats import SPACE
from tests.faults.table_formats import block_ms
from tests.tables import table_of
folder = Path(sys.argv[1])
archs = list(dict.fromkeys(SPACE.decode(SPACE.sample(np.random.default_rng(1), 60))))
top1 = fit_accuracy(SPACE, archs, [50 + SPACE.cost(a).macs / 1e5 for a in archs])
latency = fit_latency(SPACE, archs, [0.1 + SPACE.cost(a).macs / 1e6 for a in archs])
front = search(SPACE, accuracy=top1, latency=latency, constraints=["latency <= 0.3 ms"],
               population=10, generations=2, climbs=1)
FrontFile.build("f", "predicted", SPACE, front, conditions=None).save(folder / "f.front.json")
top1.save(folder / "a.onnx")
text = table_csv(table_of(SPACE, block_ms))
(folder / "t.csv").write_text(text)
table = import_tables("csv", folder / "t.csv", space=SPACE, device="note")
(folder / "t.json").write_text(json.dumps({k: e.model_dump() for k, e in table.blocks.items()}))
(folder / "n.onnx").write_bytes(build_onnx(SPACE.lower(SPACE.largest)).SerializeToString())
(folder / "names").write_text(" ".join([SPACE.fingerprint, *(b.key for b in SPACE.blocks())]))
for path in sorted(folder.iterdir()):
    print(path.name, hashlib.sha256(path.read_bytes()).hexdigest())
"""
PLACES: dict[str, dict[str, str]] = {
    "plain": {"LC_ALL": "C", "TZ": "UTC", "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},
    "there": {
        "LC_ALL": "de_DE.UTF-8",
        "TZ": "Asia/Kolkata",
        "PYTHONHASHSEED": "12345",
        "OMP_NUM_THREADS": "2",
        "OPENBLAS_NUM_THREADS": "2",
    },
    "drawn": {"LC_ALL": "tr_TR.UTF-8", "TZ": "America/St_Johns", "PYTHONHASHSEED": "random"},
}


def test_the_same_bytes_under_any_locale_zone_hash_seed_and_threads(tmp_path: Path) -> None:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("LC_")}
    started = {}
    for name, variables in PLACES.items():
        (tmp_path / name).mkdir()
        started[name] = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SCRIPT, str(tmp_path / name)],
            cwd=ROOT,
            env={**kept, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    found = {}
    for name, process in started.items():
        with process:
            found[name], complaints = process.communicate(timeout=250)
        assert process.returncode == 0, complaints
    assert len(found["plain"].splitlines()) == 6
    assert found["there"] == found["plain"]
    assert found["drawn"] == found["plain"]
