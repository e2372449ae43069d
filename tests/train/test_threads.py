"""Passes side by side: the same gradients, the same run, whatever finishes first."""

import copy
import threading
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ofa_deploy.data import DataSplits
from ofa_deploy.errors import TrainingDivergedError
from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet import Supernet
from ofa_deploy.train import (
    DepsConfig,
    Pass,
    StepSettings,
    Trainer,
    build_optimizer,
    loop,
    train,
    train_step,
)
from ofa_deploy.train.threads import pass_threads, repeatable_kernels, threads_for
from tests.train.runs import assert_same_outcome, stop_at


@pytest.fixture(scope="module")
def side_by_side() -> Iterator[Executor]:
    with pass_threads(3, 1) as executor:
        yield executor


@pytest.fixture
def passes(small_space: SearchSpace, rng: np.random.Generator) -> list[Pass]:
    random = small_space.decode(small_space.sample(rng, 3))
    return [
        Pass("largest", small_space.largest, 1.0, "labels", dropout=True),
        Pass("smallest", small_space.smallest, 0.4, "teacher", dropout=False),
        *(Pass("random", arch, 0.4, "teacher", dropout=False) for arch in random),
    ]


def test_threads_of_operations(side_by_side: Executor) -> None:
    own = torch.get_num_threads()
    with pass_threads(2, 3) as executor:
        found = {executor.submit(torch.get_num_threads).result() for _ in range(8)}
    assert found == {3}
    assert torch.get_num_threads() == own


def test_no_more_threads_is_said_and_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    before, start = threading.active_count(), threading.Thread.start

    def few(thread: threading.Thread) -> None:
        if threading.active_count() > before + 1:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", few)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        pass_threads(4, 1)
    assert threading.active_count() == before


def test_same_bits_as_one_after_the_other(
    small_space: SearchSpace, passes: list[Pass], side_by_side: Executor
) -> None:
    nets = [Supernet(small_space, seed=1).train() for _ in range(2)]
    images = torch.randn(12, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    labels = torch.arange(12) % 4
    for net, executor in zip(nets, (None, side_by_side), strict=True):
        optimizer = build_optimizer(net, lr=0.1, momentum=0.9, weight_decay=1e-3)
        for seed in range(3):
            dropped = torch.Generator().manual_seed(seed)
            train_step(
                net,
                optimizer,
                images,
                labels,
                passes,
                settings=StepSettings(dropout=0.3),
                generator=dropped,
                executor=executor,
            )
    for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(one, other)
        assert (one.grad is None) == (other.grad is None)


def test_what_fails_on_a_thread_comes_out(
    small_space: SearchSpace, passes: list[Pass], side_by_side: Executor
) -> None:
    net = Supernet(small_space, seed=1).train()
    before = copy.deepcopy(net.state_dict())
    optimizer = build_optimizer(net, lr=0.1, momentum=0.9, weight_decay=0)
    images = torch.full((12, 3, 16, 16), torch.nan)
    with pytest.raises(TrainingDivergedError, match="the loss of largest"):
        train_step(net, optimizer, images, torch.arange(12) % 4, passes, executor=side_by_side)
    assert all(torch.equal(weight, before[name]) for name, weight in net.state_dict().items())


def test_trainer_shares_its_threads(
    small_space: SearchSpace, data: DataSplits, config: DepsConfig
) -> None:
    def threads(count: int) -> tuple[int, int] | None:
        trainer = Trainer(small_space, config.model_copy(update={"threads": count}), data)
        if trainer.executor is None:
            return None
        with trainer.executor as executor:
            each = executor.submit(torch.get_num_threads).result()
            return executor._max_workers, each  # type: ignore[attr-defined]

    # Three passes a step: the largest, the smallest and one at random.
    assert [threads(count) for count in (1, 2, 3, 7)] == [None, (2, 1), (3, 1), (3, 2)]


@pytest.mark.usefixtures("save_every_step")
def test_resume_is_exact_with_threads(
    small_space: SearchSpace, data: DataSplits, config: DepsConfig, tmp_path: Path
) -> None:
    config = config.model_copy(update={"threads": 2})
    train(config, small_space, data, tmp_path / "whole")
    for stop in (3, 6, 9):
        with pytest.raises(KeyboardInterrupt):
            train(config, small_space, data, tmp_path / "parts", progress=stop_at(stop))
    train(config, small_space, data, tmp_path / "parts")
    assert_same_outcome(tmp_path / "parts", tmp_path / "whole")


def test_a_single_pass_takes_all_threads_of_the_step(
    small_space: SearchSpace,
    data: DataSplits,
    config: DepsConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The warm-up trains the largest alone; the ramp three networks side by side."""
    trainer = Trainer(small_space, config.model_copy(update={"threads": 2}), data)
    torch.set_num_threads(2)
    original, seen = torch.autograd.grad, []

    def noted(*args: Any, **kwargs: Any) -> Any:
        seen.append((threading.current_thread().name.partition("_")[0], torch.get_num_threads()))
        return original(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", noted)
    with closing(trainer):
        trainer.advance()
        assert seen == [("MainThread", 2)]
        trainer.seek(trainer.plan.first_step("ramp"))
        trainer.advance()
        assert seen[1:] == [("pass", 1)] * 3
    torch.set_num_threads(1)


def test_training_ends_its_threads(
    small_space: SearchSpace,
    data: DataSplits,
    config: DepsConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Trainer] = []

    def kept(*args: Any, **kwargs: Any) -> Trainer:
        made.append(Trainer(*args, **kwargs))
        return made[-1]

    def passing() -> int:
        return sum(thread.name.startswith("pass") for thread in threading.enumerate())

    monkeypatch.setattr(loop, "Trainer", kept)
    before = passing()
    config = config.model_copy(update={"threads": 3})
    with pytest.raises(KeyboardInterrupt):
        train(config, small_space, data, tmp_path / "run", progress=stop_at(6))
    assert len(made) == 1
    assert passing() == before


def test_one_pass_or_one_thread_needs_no_pool() -> None:
    assert threads_for(1, 8) is None
    assert threads_for(4, 1) is None


def test_a_gpu_is_held_to_kernels_that_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    repeatable_kernels(torch.device("cpu"))
    assert not torch.backends.cudnn.deterministic
    repeatable_kernels(torch.device("cuda"))
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
