"""Accuracies of subnets: right, and never computed twice."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ofa_deploy.data import DataSplits, normalise
from ofa_deploy.errors import FileFormatError, InputError, MismatchError
from ofa_deploy.pareto import Candidate
from ofa_deploy.space import Arch, SearchSpace
from ofa_deploy.supernet import recalibrate, top1
from ofa_deploy.train import Evaluator, RunFile, evaluation

ARCHS = 5


class Stopping:
    """Progress that interrupts after some advances."""

    def __init__(self, after: int | None = None) -> None:
        self.after = after
        self.totals: list[tuple[int, int]] = []
        self.advanced = 0

    @contextmanager
    def task(self, description: str, total: int, *, done: int = 0) -> Iterator["Stopping"]:
        self.totals.append((total, done))
        yield self

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.advanced += steps
        if self.advanced == self.after:
            raise KeyboardInterrupt

    def say(self, message: str) -> None:
        raise AssertionError(message)


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def archs(small_space: SearchSpace) -> list[Arch]:
    rng = np.random.default_rng(8)
    drawn = small_space.decode(small_space.sample(rng, 3))
    return [small_space.smallest, *drawn, small_space.largest]


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One entry an evaluation that really takes place."""
    calls: list[object] = []

    def counted(network: Any, *args: Any, **kwargs: Any) -> float:
        calls.append(network)
        return top1(network, *args, **kwargs)

    monkeypatch.setattr(evaluation, "top1", counted)
    return calls


def by_hand(evaluator: Evaluator, data: DataSplits, arch: Arch) -> float:
    """Extract, take BN statistics of the calibration images, count the hits."""
    subnet = evaluator.net.extract(arch)
    calibration = data.calibration(32).batch(slice(None))
    recalibrate(subnet, [torch.from_numpy(normalise(calibration))])
    with torch.no_grad():
        logits = subnet(torch.from_numpy(normalise(data.validation.batch(slice(None))))).numpy()
    pairs = zip(logits, data.validation.labels, strict=True)
    hits = sum(int(row.argmax()) == label for row, label in pairs)
    return 100 * int(hits) / 24


def test_accuracies_are_those_of_recalibrated_subnets(
    run: Path, data: DataSplits, archs: list[Arch]
) -> None:
    evaluator = Evaluator.load(run, data)
    expected = [by_hand(evaluator, data, arch) for arch in archs]
    assert evaluator.validate(archs) == pytest.approx(expected)
    assert len(set(expected)) > 1
    reported = RunFile.load(run).validation_top1
    assert reported == pytest.approx({"smallest": expected[0], "largest": expected[-1]})


def test_each_subnet_is_evaluated_once(
    run: Path, data: DataSplits, archs: list[Arch], evaluated: list[object]
) -> None:
    evaluator = Evaluator.load(run, data)
    twice = evaluator.validate([*archs, *archs[:2]])
    assert len(evaluated) == ARCHS
    assert twice[ARCHS:] == twice[:2]
    assert evaluator.validate(archs[::-1]) == twice[:ARCHS][::-1]
    assert Evaluator.load(run, data).validate(archs) == twice[:ARCHS]
    assert len(evaluated) == ARCHS
    assert evaluator.validate([]) == []


def test_interrupted_evaluation_goes_on(
    run: Path, data: DataSplits, archs: list[Arch], evaluated: list[object], finished: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        Evaluator.load(run, data).validate(archs, progress=Stopping(after=2))
    assert len(evaluated) == 2
    again = Stopping()
    accuracies = Evaluator.load(run, data).validate(archs, progress=again)
    assert len(evaluated) == ARCHS
    assert (again.totals, again.advanced) == ([(ARCHS, 2)], ARCHS - 2)
    shutil.copytree(finished, run.parent / "other")
    assert Evaluator.load(run.parent / "other", data).validate(archs) == accuracies


def test_record_that_a_crash_cut_short_is_made_again(
    run: Path, data: DataSplits, archs: list[Arch], evaluated: list[object]
) -> None:
    accuracies = Evaluator.load(run, data).validate(archs)
    journal = run / "evaluations.jsonl"
    journal.write_bytes(journal.read_bytes()[:-9])
    assert Evaluator.load(run, data).validate(archs) == accuracies
    assert len(evaluated) == ARCHS + 1


def test_journal_of_other_weights_is_not_believed(
    run: Path, data: DataSplits, archs: list[Arch], evaluated: list[object]
) -> None:
    accuracies = Evaluator.load(run, data).validate(archs)
    journal = run / "evaluations.jsonl"
    lines = journal.read_text().splitlines()
    foreign = json.dumps({"journal": "0" * 16})
    wrong = [json.dumps({**json.loads(line), "top1": 1.0}) for line in lines[1:]]
    journal.write_text("\n".join([foreign, *wrong, ""]))
    assert Evaluator.load(run, data).validate(archs) == accuracies
    assert len(evaluated) == 2 * ARCHS


def test_supernet_is_left_as_it_was(run: Path, data: DataSplits, archs: list[Arch]) -> None:
    evaluator = Evaluator.load(run, data)
    before = {name: t.clone() for name, t in evaluator.net.state_dict().items()}
    evaluator.validate(archs)
    for name, tensor in evaluator.net.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_changed_data_is_refused(run: Path, data: DataSplits, part: str) -> None:
    images = getattr(data, part).images.copy()
    images[0, 0, 0, 0] ^= 1
    changed = replace(data, **{part: replace(getattr(data, part), images=images)})
    with pytest.raises(MismatchError) as caught:
        Evaluator.load(run, changed)
    assert data.digest in str(caught.value) and changed.digest in str(caught.value)


def test_folder_without_a_run_is_refused(tmp_path: Path, data: DataSplits) -> None:
    with pytest.raises(InputError, match="no training run there"):
        Evaluator.load(tmp_path, data)


def test_unfinished_run_is_refused(run: Path, data: DataSplits) -> None:
    content = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**content, "weights_sha256": None}))
    with pytest.raises(InputError, match="training has not finished"):
        Evaluator.load(run, data)


def test_weights_that_are_not_the_runs_are_refused(run: Path, data: DataSplits) -> None:
    weights = bytearray((run / "supernet.safetensors").read_bytes())
    weights[-1] ^= 1
    (run / "supernet.safetensors").write_bytes(weights)
    with pytest.raises(FileFormatError, match="SHA-256 differs"):
        Evaluator.load(run, data)


def test_subnet_record_names_where_it_came_from(run: Path, data: DataSplits) -> None:
    evaluator = Evaluator.load(run, data)
    candidate = Candidate(evaluator.net.space.smallest, {"top1": 50.0})
    record = evaluator.subnet_record(candidate.to_dict())
    assert record.supernet_sha256 == RunFile.load(run).weights_sha256
    assert record.search_space == evaluator.net.space
    assert record.network == candidate
    assert record.classes == data.classes
    assert (record.data_digest, record.calibration) == (data.digest, 32)


def test_threads_are_the_run_s_or_those_given(finished: Path, data: DataSplits) -> None:
    Evaluator.load(finished, data, threads=2)
    assert torch.get_num_threads() == 2
    Evaluator.load(finished, data)
    assert torch.get_num_threads() == 1


def test_subnet_names_the_data_where_it_is_now(finished: Path, data: DataSplits) -> None:
    evaluator = Evaluator.load(finished, replace(data, name="elsewhere"))
    record = evaluator.subnet_record(Candidate(evaluator.record.search_space.largest).to_dict())
    assert (record.data, record.data_digest) == ("elsewhere", data.digest)
