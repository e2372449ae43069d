"""Batches: the same with and without workers, and what a worker meets comes back as it is."""

import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ofa_deploy.data import DataSplits, ImageSet
from ofa_deploy.errors import FileFormatError
from ofa_deploy.train import DepsConfig, Ranks, RunFile
from ofa_deploy.train.batches import Batches, _order


@pytest.fixture
def batches(config: DepsConfig, data: DataSplits) -> Batches:
    return Batches(config.model_copy(update={"augment": "crop+flip"}), data.train, 16)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(batches: Batches, workers: int) -> None:
    here, there = (list(batches.stream(2, 7, count)) for count in (0, workers))
    assert len(here) == len(there) == 5
    for ours, theirs in zip(here, there, strict=True):
        assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])
        assert ours[0].stride() == theirs[0].stride()


def test_a_stream_starts_anywhere(batches: Batches) -> None:
    whole, rest = list(batches.stream(0, 6)), list(batches.stream(4, 6))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(whole[4:], rest, strict=True))
    assert not torch.equal(whole[4][0], whole[5][0])


def test_an_epoch_takes_every_image_at_most_once(batches: Batches, data: DataSplits) -> None:
    marked = ImageSet(
        np.arange(len(data.train), dtype=np.uint8)[:, None, None, None]
        * np.ones((1, 3, 16, 16), np.uint8),
        data.train.labels,
        data.train.classes,
    )
    plain = replace(
        batches, images=marked, config=batches.config.model_copy(update={"augment": "none"})
    )
    steps = plain.steps_per_epoch
    seen = [images[:, 0, 0, 0] for images, _ in plain.stream(0, 2 * steps)]
    first, second = torch.cat(seen[:steps]), torch.cat(seen[steps:])
    assert len(first.unique()) == len(first) == steps * plain.config.batch
    assert not torch.equal(first, second)


def test_ranks_share_an_epoch(batches: Batches) -> None:
    config = batches.config.model_copy(update={"augment": "none", "processes": 2})
    alone = replace(
        batches, config=config.model_copy(update={"batch": 2 * config.batch, "processes": 1})
    )
    parts = [replace(batches, config=config, ranks=Ranks(rank, 2)).at(1) for rank in range(2)]
    whole = alone.at(1)
    assert torch.equal(torch.cat([part[0] for part in parts]), whole[0])
    assert torch.equal(torch.cat([part[1] for part in parts]), whole[1])


class Broken:
    """Images of which some cannot be read."""

    classes = ("a", "b", "c", "d")

    def __init__(self, count: int) -> None:
        self.labels = np.zeros(count, np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, chosen: Any) -> Any:
        raise FileFormatError("cat/7.jpg: cut off")


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_worker_meets_comes_back_in_one_line(batches: Batches, workers: int) -> None:
    broken = replace(batches, images=Broken(len(batches.images)))  # type: ignore[arg-type]
    with pytest.raises(FileFormatError) as caught:
        next(broken.stream(0, 2, workers))
    assert str(caught.value) == "cat/7.jpg: cut off"


def test_a_run_with_workers_is_the_same_run(go: Any, run: Path, finished: Path) -> None:
    record = go(workers=1)
    assert record.weights_sha256 == RunFile.load(finished).weights_sha256


def test_workers_leave_ctrl_c_to_their_parent(batches: Batches) -> None:
    stream = batches.stream(0, 6, 1)
    first = next(stream)
    (worker,) = multiprocessing.active_children()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGINT)
    there = [first, *stream]
    assert all(torch.equal(a[0], b[0]) for a, b in zip(batches.stream(0, 6), there, strict=True))


def test_an_epoch_is_permuted_once(batches: Batches) -> None:
    _order.cache_clear()
    for step in range(2 * batches.steps_per_epoch):
        batches.at(step)
    assert _order.cache_info().misses == 2
