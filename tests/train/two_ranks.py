"""What each of two processes does for ``test_ranks``: python -m tests.train.two_ranks FOLDER.

What it finds goes to FOLDER/RANK.pt.
"""

import copy
import json
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ofa_deploy.data import DataSplits, ImageSet
from ofa_deploy.errors import TrainingDivergedError
from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet import Supernet, batches, cut, recalibrate, top1
from ofa_deploy.train import DepsConfig, Evaluator, RunFile, Trainer, joined, loop, runner, train
from ofa_deploy.train.batches import Batches
from ofa_deploy.train.ranks import ALONE, Ranks
from tests.train.runs import stop_at

KEPT = (0, 4, 5, 8)  # alone; sorted and on the ramp; past it

RUN = {"dropout": 0.1, "calibration": 16, "random_subnets": 1}


def read(folder: Path) -> tuple[SearchSpace, DataSplits]:
    """The space and data that the test has laid there."""
    given = json.loads((folder / "given.json").read_text())
    arrays = np.load(folder / "data.npz")
    parts = [
        ImageSet(arrays[f"images{i}"], arrays[f"labels{i}"], tuple(given["classes"]))
        for i in range(3)
    ]
    return SearchSpace.from_dict(given["space"]), DataSplits("quarters", *parts)


@dataclass(frozen=True)
class Doubles(Batches):
    """The same images in double precision, one pixel not a number if poisoned."""

    poisoned: bool = False

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        images, labels = super().at(step)
        if self.poisoned:
            images[0, 0, 0, 0] = torch.nan
        return images.double(), labels


class Exact(Trainer):
    """In double precision, with BN in eval mode: then a step does not depend on who sees what."""

    batches: Doubles

    def __post_init__(self) -> None:
        super().__post_init__()
        self.net.double().eval()
        self.batches = Doubles(**{f.name: getattr(self.batches, f.name) for f in fields(Batches)})

    def poison(self) -> None:
        """Put a NaN into the images of the steps to come."""
        self.batches = replace(self.batches, poisoned=True)
        self._stream = None


def exact_config(ranks: Ranks) -> DepsConfig:
    """24 images a step, however many processes there are."""
    return DepsConfig(
        epochs=3,
        ramp_end=2,
        ramp_epochs=1,
        batch=24 // ranks.count,
        processes=ranks.count,
        random_subnets=2,
        dropout=0.0,
        lr=0.02,
        seed=3,
        threads=1,
    )


def exact(ranks: Ranks, space: SearchSpace, data: DataSplits) -> dict[str, Any]:
    """Gradients, subnets, weights and losses of a run until past the ramp."""
    trainer = Exact(space, exact_config(ranks), data, ranks)
    gradients, losses, archs, images = {}, [], [], []
    for step in range(KEPT[-1] + 1):
        images.append(trainer.batches.at(step)[0].sum((1, 2, 3)))
        archs.append([str(each.arch) for each in trainer.plan.passes(space, step, 3)])
        losses.append(trainer.advance())
        if step in KEPT:
            gradients[step] = {
                name: p.grad.clone()
                for name, p in trainer.net.named_parameters()
                if p.grad is not None
            }
    return {
        "gradients": gradients,
        "losses": losses,
        "archs": archs,
        "images": images,
        "weights": trainer.net.state_dict(),
        "cost": trainer.cost,
    }


def sorting(ranks: Ranks, space: SearchSpace, data: DataSplits) -> dict[str, Any]:
    """Each layer's order after sorting a net that was trained on parts of the batches."""
    trainer = Exact(space, exact_config(ranks), data, ranks)
    for _ in range(4):
        trainer.advance()
    before = copy.deepcopy(trainer.net)
    trainer.net.sort_channels(trainer.optimizer)
    orders = {}
    for (name, old), new in zip(before.named_parameters(), trainer.net.parameters(), strict=True):
        if name.endswith("depthwise.weight"):
            same = (new[:, None] == old[None]).flatten(2).all(2)
            orders[name] = same.float().argmax(1)
    return orders


def evaluated(ranks: Ranks, space: SearchSpace, data: DataSplits) -> dict[str, Any]:
    """BN statistics and accuracies of subnets; the test images make three batches of 250."""
    net = Supernet(space, seed=5).train()
    sharing = ranks if ranks.count > 1 else ALONE
    small = net.extract(space.smallest)
    recalibrate(small, batches(data.train, 16, 8, sharing=sharing), sharing=sharing)
    large = cut(net, space.largest, data.test, sharing=sharing)
    seen = sum(len(batch) for batch in batches(data.test, 16, sharing=sharing))
    return {
        "small": small.state_dict(),
        "large": large.state_dict(),
        "top1": [
            top1(network, images, 16, sharing=sharing)
            for network in (small, large)
            for images in (data.test, data.validation)
        ],
        "seen": seen,
    }


def diverged(ranks: Ranks, space: SearchSpace, data: DataSplits) -> dict[str, Any]:
    """The last rank sees a NaN in its second step."""
    trainer = Exact(space, exact_config(ranks), data, ranks)
    trainer.advance()
    before = copy.deepcopy(trainer.net.state_dict())
    if ranks.rank == ranks.count - 1:
        trainer.poison()
    message = ""
    try:
        trainer.advance()
    except TrainingDivergedError as error:
        message = str(error)
    after = trainer.net.state_dict()
    return {
        "message": message,
        "moved": [name for name in before if not torch.equal(before[name], after[name])],
    }


def single(ranks: Ranks, space: SearchSpace, data: DataSplits) -> dict[str, Any]:
    """All that has no run folder."""
    parts = (exact, sorting, evaluated, diverged)
    return {part.__name__: part(ranks, space, data) for part in parts}


def never(path: Path, *_: object) -> None:
    raise AssertionError(f"a second process writes {path}")


def whole_run(ranks: Ranks, space: SearchSpace, data: DataSplits, folder: Path) -> dict[str, Any]:
    """A run undisturbed, and one that is stopped in the middle of an epoch."""
    assert dist.get_world_size() == 2
    config = exact_config(ranks).model_copy(update=RUN)
    if not ranks.first:
        for name in ("save_state", "save_tensors", "write_model"):
            setattr(loop, name, never)
        setattr(runner, "write_text", never)  # noqa: B010
    record = train(config, space, data, folder / "undisturbed", ranks=ranks)
    loop._CHECKPOINT_SECONDS = -1
    stopped = False
    try:
        train(config, space, data, folder / "stopped", ranks=ranks, progress=stop_at(6))
    except KeyboardInterrupt:
        stopped = True
    watch = stop_at(99)
    again = train(config, space, data, folder / "stopped", ranks=ranks, progress=watch)
    assert again == RunFile.load(folder / "stopped")
    evaluator = Evaluator.load(folder / "undisturbed", data, ranks)
    return {
        "top1": [evaluator.validate([space.smallest, space.largest]) for _ in range(2)],
        "record": record.model_dump_json(by_alias=True),
        "stopped": stopped,
        "said": watch.said,
        "ranks": [ranks.rank, ranks.count, str(ranks.device), ranks.first],
    }


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    space, data = read(folder)
    with joined() as ranks:
        found = single(ranks, space, data) | {"run": whole_run(ranks, space, data, folder)}
        torch.save(found, folder / f"{ranks.rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
