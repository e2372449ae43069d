"""Two real processes do what one does, and one that stays alone says so."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ofa_deploy.data import DataSplits, ImageSet
from ofa_deploy.errors import InputError
from ofa_deploy.space import SearchSpace
from ofa_deploy.train import ALONE, Evaluator, Ranks, RunFile, here, joined, load_supernet
from ofa_deploy.train.batches import Batches, draw_seed
from tests.train.processes import two_processes
from tests.train.runs import OUTPUTS, assert_same_outcome
from tests.train.two_ranks import KEPT, RUN, exact_config, single

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch without distributed")


@pytest.fixture(scope="module")
def many(data: DataSplits) -> DataSplits:
    """With 520 test images: three batches of an evaluation, which two processes share unevenly."""
    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, (520, 3, 16, 16)).astype(np.uint8)
    return replace(data, test=ImageSet(images, rng.integers(0, 4, 520), data.classes))


@pytest.fixture(scope="module")
def space(tiny_space: SearchSpace) -> SearchSpace:
    """One fixed block and up to two elastic ones with squeeze-excite."""
    fixed, _, elastic = tiny_space.stages
    elastic = replace(elastic, stride=2, depths=(1, 2))
    return replace(tiny_space, stages=(fixed, elastic), resolutions=(16,))


@pytest.fixture(scope="module")
def folder(space: SearchSpace, many: DataSplits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The space and data as files."""
    made = tmp_path_factory.mktemp("ranks")
    given = {"space": space.to_dict(), "classes": many.classes}
    (made / "given.json").write_text(json.dumps(given))
    parts: dict[str, Any] = {}
    for i, part in enumerate((many.train, many.validation, many.test)):
        parts |= {f"images{i}": part.batch(slice(None)), f"labels{i}": part.labels}
    np.savez(made / "data.npz", **parts)
    return made


@pytest.fixture(scope="module")
def alone(space: SearchSpace, many: DataSplits) -> dict[str, Any]:
    """What one process finds with the whole batch."""
    return single(ALONE, space, many)


@pytest.fixture(scope="module")
def both(folder: Path) -> list[dict[str, Any]]:
    """What each of two processes finds with half of it, and their run."""
    return two_processes("tests.train.two_ranks", folder)


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        error = (found[name] - tensor).double().norm()
        assert error <= tolerance * tensor.double().norm() + 1e-14, name


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_two_halves_give_the_gradients_of_the_whole(
    alone: dict[str, Any], both: list[dict[str, Any]]
) -> None:
    expected = alone["exact"]["gradients"]
    assert expected.keys() == set(KEPT)
    for rank in both:
        found = rank["exact"]["gradients"]
        assert found.keys() == expected.keys()
        for step in KEPT:
            assert any(bool(g.any()) for g in expected[step].values())
            assert_close(found[step], expected[step], 1e-6)
        assert_close(rank["exact"]["weights"], alone["exact"]["weights"], 1e-6)
        for losses, wanted in zip(rank["exact"]["losses"], alone["exact"]["losses"], strict=True):
            assert losses == pytest.approx(wanted, rel=1e-6)
        assert rank["exact"]["cost"] == alone["exact"]["cost"]


def test_halves_are_not_the_same_images(alone: dict[str, Any], both: list[dict[str, Any]]) -> None:
    for whole, *halves in zip(
        alone["exact"]["images"], *(rank["exact"]["images"] for rank in both), strict=True
    ):
        assert [len(half) for half in halves] == [12, 12]
        torch.testing.assert_close(torch.cat(halves), whole, rtol=0, atol=0)


def test_ranks_stay_alike_to_the_bit(both: list[dict[str, Any]]) -> None:
    first, second = (rank["exact"] for rank in both)
    assert_equal(first["weights"], second["weights"])
    assert first["losses"] == second["losses"]


def test_same_subnets_are_drawn(alone: dict[str, Any], both: list[dict[str, Any]]) -> None:
    first, second = (rank["exact"]["archs"] for rank in both)
    assert first == second == alone["exact"]["archs"]
    assert [len(archs) for archs in first] == [1] * 4 + [4] * 5


def test_channels_are_put_in_the_same_order(
    alone: dict[str, Any], both: list[dict[str, Any]]
) -> None:
    expected = alone["sorting"]
    for rank in both:
        assert_equal(rank["sorting"], expected)
    moved = [order for order in expected.values() if bool((order.diff() < 0).any())]
    assert len(moved) == 2
    for order in moved:
        assert sorted(order.tolist()) == list(range(len(order)))


@pytest.mark.parametrize("size", ["small", "large"])
def test_shared_recalibration_takes_the_statistics_of_all(
    alone: dict[str, Any], both: list[dict[str, Any]], size: str
) -> None:
    for rank in both:
        assert_close(rank["evaluated"][size], alone["evaluated"][size], 1e-6)
    assert_equal(both[0]["evaluated"][size], both[1]["evaluated"][size])
    means = [t for name, t in alone["evaluated"][size].items() if name.endswith("running_mean")]
    assert all(bool(mean.any()) for mean in means)


def test_shared_accuracy_is_that_of_all_images(
    alone: dict[str, Any], both: list[dict[str, Any]]
) -> None:
    expected = alone["evaluated"]["top1"]
    assert all(0 < accuracy < 100 for accuracy in expected)
    for rank in both:
        assert rank["evaluated"]["top1"] == pytest.approx(expected, abs=1e-6)
    seen = [rank["evaluated"]["seen"] for rank in both]
    assert (alone["evaluated"]["seen"], sum(seen)) == (520, 520)
    assert min(seen) > 100


def test_nan_on_one_rank_stops_both(alone: dict[str, Any], both: list[dict[str, Any]]) -> None:
    for found in (alone, *both):
        assert "the loss of largest" in found["diverged"]["message"]
        assert found["diverged"]["message"].endswith(" is nan")
        assert found["diverged"]["moved"] == []


# -- one run of two processes ---------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(both: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [found["run"] for found in both]


def test_joined_reads_what_torchrun_says(runs: list[dict[str, Any]]) -> None:
    assert [found["ranks"] for found in runs] == [[0, 2, "cpu", True], [1, 2, "cpu", False]]


def test_two_processes_leave_one_finished_run(runs: list[dict[str, Any]], folder: Path) -> None:
    run = folder / "undisturbed"
    assert {path.name for path in run.iterdir()} >= set(OUTPUTS)
    assert not (run / "state.pt").exists()
    net, record = load_supernet(run)
    assert [RunFile.model_validate_json(found["record"]) for found in runs] == [record] * 2
    assert record.config == exact_config(Ranks(0, 2)).model_copy(update=RUN)
    assert all(bool(torch.isfinite(p).all()) for p in net.parameters())
    rows = (run / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[1] for row in rows] == ["phase", "warm-up", "ramp", "shrink"]


def test_stopped_run_of_two_goes_on_to_the_same_bits(
    runs: list[dict[str, Any]], folder: Path
) -> None:
    assert [found["stopped"] for found in runs] == [True, True]
    assert {tuple(found["said"]) for found in runs} == {("resuming training at step 6 of 12",)}
    assert_same_outcome(folder / "stopped", folder / "undisturbed")


def test_two_processes_evaluate_together_and_one_keeps_it(
    runs: list[dict[str, Any]], folder: Path, many: DataSplits, space: SearchSpace, tmp_path: Path
) -> None:
    lines = (folder / "undisturbed" / "evaluations.jsonl").read_text().splitlines()
    assert len(lines) == 1 + 2  # whose they are, and one a subnet
    first, second = (found["top1"] for found in runs)
    assert first == second
    assert first[0] == first[1]
    run = tmp_path / "run"
    shutil.copytree(folder / "undisturbed", run)
    (run / "evaluations.jsonl").unlink()
    alone = Evaluator.load(run, many).validate([space.smallest, space.largest])
    assert first[0] == pytest.approx(alone, abs=1e-6)


def test_ranks_draw_dropout_and_augmentation_apart(
    small_space: SearchSpace, data: DataSplits
) -> None:
    config = exact_config(Ranks(0, 2)).model_copy(update={"augment": "crop+flip"})
    both = [Ranks(rank, 2) for rank in range(2)]
    assert len({draw_seed(config, 3, "dropout", ranks) for ranks in both}) == 2
    # The same images on both: what differs is how they are varied.
    same = replace(data, train=data.train.take([7] * 100))
    varied = [Batches(config, same.train, 16, ranks).at(0)[0] for ranks in both]
    assert not torch.equal(varied[0], varied[1])


# -- alone ----------------------------------------------------------------------------------


def test_alone_there_is_nothing_to_reduce() -> None:
    layer = nn.Linear(2, 2)
    layer.weight.grad = torch.full((2, 2), 3.0)
    ALONE.mean_gradients(layer)
    ALONE.wait()
    assert layer.weight.grad.tolist() == [[3, 3], [3, 3]]
    assert ALONE.means([1.0, 2.0]) == [1.0, 2.0]
    assert list(ALONE.share("abcde")) == list("abcde")
    assert ALONE.sum(torch.ones(2)).tolist() == [1, 1]
    assert ALONE.first


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shares_are_disjoint_and_whole(count: int) -> None:
    shares = [list(Ranks(rank, count).share(range(5))) for rank in range(count)]
    assert sorted(item for share in shares for item in share) == [0, 1, 2, 3, 4]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_joined_stays_alone_without_an_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with joined() as ranks:
        assert (ranks.rank, ranks.count, ranks.first) == (0, 1, True)
    assert not dist.is_initialized()


@pytest.mark.parametrize("rank", ["1", "one"])
def test_joined_refuses_half_an_environment(monkeypatch: pytest.MonkeyPatch, rank: str) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(InputError, match="start with torchrun"), joined():
        pass


def test_a_process_alone_takes_the_gpu_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    for gpu, device in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpu=gpu: gpu)
        with joined() as ranks:
            assert ranks == here()
            assert (ranks.count, ranks.device.type) == (1, device)
