"""The quickstart, small: what it leaves, that it repeats itself, and that it can be interrupted."""

import importlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy import space as space_module
from ofa_deploy.files import sha256_file
from ofa_deploy.hardware import LatencyTable
from ofa_deploy.search import FrontFile
from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet import load_subnet
from ofa_deploy.train import RunFile, Trainer

quickstart_module: Any = importlib.import_module("ofa_deploy.cli.quickstart")

STEPS = ("train", "profile", "evaluate", "search", "export", "report")
NAMES = ("budget-30", "budget-70")
ARGS = ("--epochs", 3, "--images", 500, "--threads", 1)

Cli = Callable[..., Any]


def small(patch: pytest.MonkeyPatch, space: SearchSpace) -> None:
    """Few subnets and budgets, of a small space of one resolution with the glyphs' classes."""
    chosen = replace(space, resolutions=(16,), classes=50)
    patch.setattr(space_module, "get_space", lambda name: chosen)
    patch.setattr(quickstart_module, "SUBNETS", 9)
    patch.setattr(quickstart_module, "SHARES", (0.3, 0.7))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, tiny_space: SearchSpace) -> None:
    small(monkeypatch, tiny_space)


@pytest.fixture(scope="module")
def whole(
    tiny_space: SearchSpace,
    tmp_path_factory: pytest.TempPathFactory,
    cli: Cli,
    make_workers: Callable[[], Any],
) -> tuple[Path, Any]:
    """An undisturbed quickstart, and what it said."""
    run = tmp_path_factory.mktemp("quickstart") / "q"
    with pytest.MonkeyPatch.context() as patch:
        small(patch, tiny_space)
        patch.setattr(subprocess, "Popen", make_workers().popen)
        said = cli("quickstart", "--run", run, *ARGS)
    assert said.code == 0, said.stderr
    return run, said


def fingerprints(run: Path) -> dict[str, str]:
    """What a quickstart is for: weights, subnets, models, by content."""
    files = [
        run / "supernet.safetensors",
        run / "accuracy.onnx",
        *(run / "subnets" / f"{name}.safetensors" for name in NAMES),
        *(run / "subnets" / f"{name}.subnet.json" for name in NAMES),
        *(run / "bundles" / name / "model.onnx" for name in NAMES),
        *(run / "fronts" / f"{name}.front.json" for name in ("predicted", "measured")),
    ]
    return {str(path.relative_to(run)): sha256_file(path) for path in files}


def test_everything_is_there(whole: tuple[Path, Any]) -> None:
    run, said = whole
    assert (run / "report.png").read_bytes().startswith(b"\x89PNG")
    page = (run / "report.html").read_text()
    _, _, proposed = page.partition("What to run next")
    names = re.findall(r">ofa-deploy (\w+) ", proposed)
    assert names[:3] == ["export", "show", "search"]
    assert RunFile.load(run).weights_sha256 == sha256_file(run / "supernet.safetensors")
    assert {path.name for path in (run / "bundles").iterdir()} == set(NAMES)
    assert fingerprints(run)
    assert [f"[{i}/6] {name}" in said.stderr for i, name in enumerate(STEPS, 1)] == [True] * 6
    assert f"wrote {run / 'report.html'}" in said.stderr
    assert "warning: 125 validation images are few to choose by" in said.stderr
    assert "top-1" in said.stdout


def test_every_subnet_meets_its_budget(whole: tuple[Path, Any]) -> None:
    run, _ = whole
    limits = []
    for name in NAMES:
        _, record = load_subnet(run / "subnets" / f"{name}.subnet.json")
        limit = float(record.network.budget.split()[2])
        assert record.network.measured["latency"] <= limit
        assert record.calibration > 0
        limits.append(limit)
    assert limits == sorted(limits)
    fronts = [FrontFile.load(run / "fronts" / f"{n}.front.json") for n in ("predicted", "measured")]
    assert [front.kind for front in fronts] == ["predicted", "measured"]
    assert all(front.budgets == tuple(limits) for front in fronts)


def test_bundles_are_of_the_subnets(whole: tuple[Path, Any]) -> None:
    run, _ = whole
    for name in NAMES:
        subnet = json.loads((run / "subnets" / f"{name}.subnet.json").read_text())
        manifest = json.loads((run / "bundles" / name / "manifest.json").read_text())
        assert manifest["subnet"]["arch"] == subnet["candidate"]["arch"]
        assert manifest["supernet_sha256"] == RunFile.load(run).weights_sha256
        assert len(manifest["labels"]) == 50
        assert "test_top1" in manifest["subnet"]["measured"]
        assert "test_top1" not in subnet["candidate"]["measured"], "chosen without the test set"


def test_again_is_the_same_without_training_or_measuring(
    whole: tuple[Path, Any],
    tmp_path: Path,
    cli: Cli,
    workers: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = Path(shutil.copytree(whole[0], tmp_path / "q"))
    before = fingerprints(run)
    table = (run / "latency_table.json").read_bytes()
    evaluations = (run / "evaluations.jsonl").read_bytes()

    def refuse(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(Trainer, "advance", refuse)
    (run / "report.html").unlink()
    made = cli("quickstart", "--run", run, *ARGS, "--quiet")
    assert (made.code, made.stderr) == (0, "")
    assert workers.started == 0
    assert fingerprints(run) == before
    assert (run / "latency_table.json").read_bytes() == table
    assert (run / "evaluations.jsonl").read_bytes() == evaluations
    assert (run / "report.html").exists()
    told = cli("quickstart", "--run", run, *ARGS).stderr
    assert f"{run}: was finished before; nothing is trained again" in told
    assert " s in this call, without what was done before it" in told and "in all" not in told


def test_other_settings_need_another_folder(
    whole: tuple[Path, Any], cli: Cli, workers: Any
) -> None:
    message = cli("quickstart", "--run", whole[0], *ARGS, "--epochs", 4).error(1)
    assert "epochs (3 there, 4 now)" in message
    assert workers.started == 0


def test_interrupted_before_every_step_it_ends_the_same(
    whole: tuple[Path, Any],
    tmp_path: Path,
    cli: Cli,
    workers: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "q"
    step = quickstart_module._Quickstart.step
    advance = Trainer.advance
    stop_at = ""

    @contextmanager
    def stopping(self: Any, name: str, what: str) -> Iterator[None]:
        if name == stop_at:
            raise KeyboardInterrupt
        with step(self, name, what):
            yield

    def stopping_within_training(self: Trainer) -> list[float]:
        if stop_at == "train" and self.step == 12:
            raise KeyboardInterrupt
        return advance(self)

    monkeypatch.setattr(quickstart_module._Quickstart, "step", stopping)
    monkeypatch.setattr(Trainer, "advance", stopping_within_training)
    for stop_at in STEPS:
        if stop_at == "train":  # not before it, where nothing is lost, but within it
            monkeypatch.setattr(quickstart_module._Quickstart, "step", step)
        stopped = cli("quickstart", "--run", run, *ARGS)
        assert stopped.code == 130, stopped.stderr
        within = "step 7 of 21 is kept in"  # the end of an epoch
        told = within if stop_at == "train" else "run the same command"
        assert stopped.stderr.splitlines()[-1].startswith(f"interrupted; {told}")
        monkeypatch.setattr(quickstart_module._Quickstart, "step", stopping)
    stop_at = "nowhere"
    ended = cli("quickstart", "--run", run, *ARGS)
    assert ended.code == 0, ended.stderr
    tables = [LatencyTable.load(each / "latency_table.json") for each in (run, whole[0])]
    assert tables[0].blocks == tables[1].blocks
    assert tables[0].networks == tables[1].networks
    assert fingerprints(run) == fingerprints(whole[0])


def test_interrupted_between_budgets_it_ends_the_same(
    whole: tuple[Path, Any],
    tmp_path: Path,
    cli: Cli,
    workers: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A folder as it is when the second budget's measuring is cut short."""
    run = Path(shutil.copytree(whole[0], tmp_path / "q"))
    expected = fingerprints(run)
    for folder in ("bundles", "fronts", "subnets"):
        shutil.rmtree(run / folder)
    for report in run.glob("report.*"):
        report.unlink()
    last = max((run / "measurements").glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    last.write_bytes(last.read_bytes()[:-20])
    assert cli("quickstart", "--run", run, *ARGS).code == 0
    assert workers.started == 1
    assert fingerprints(run) == expected
