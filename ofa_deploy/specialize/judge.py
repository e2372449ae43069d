"""Everything that is to be known of a subnet or an ensemble before somebody chooses it."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch

from ofa_deploy.data import Images, in_proportion
from ofa_deploy.specialize.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from ofa_deploy.specialize.cost import layer_macs
from ofa_deploy.specialize.quality import Diversity, Quality, diversity, quality
from ofa_deploy.supernet import Ensemble, stored_bytes, to_tensor
from ofa_deploy.supernet.recalibration import device_of
from ofa_deploy.terminal import SILENT, Progress

__all__ = ["Judged", "judge", "member_probabilities"]

_BATCH = 250

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Judged:
    """What a network or an ensemble is worth, and what it costs.

    Attributes:
        clean: on the images as they are.
        member_top1: mean over members alone, in percent.
        corrupted: top-1 in percent by corruption and severity; empty if none was asked for.
        macs, sparse_macs: of one inference by all members; sparse counts weights that are not 0.
        params, living: weights of convolutions and linear layers, and those that are not 0.
        dense_bytes, sparse_bytes: see ``stored_bytes``.
    """

    members: int
    images: int
    clean: Quality
    member_top1: float
    diversity: Diversity
    corrupted: dict[tuple[str, int], float]
    macs: int
    sparse_macs: int
    params: int
    living: int
    dense_bytes: int
    sparse_bytes: int

    def row(self) -> dict[str, float]:
        """The figures by name; of corruptions the mean, and the mean of each."""
        flat: dict[str, float] = {"members": self.members, **asdict(self.clean)}
        flat |= {"member_top1": self.member_top1, **asdict(self.diversity)}
        if self.corrupted:
            flat["top1_corrupted"] = float(np.mean(list(self.corrupted.values())))
            for name in CORRUPTIONS:
                values = [v for (kind, _), v in self.corrupted.items() if kind == name]
                flat[f"top1_{name}"] = float(np.mean(values))
        names = ("macs", "sparse_macs", "params", "living", "dense_bytes", "sparse_bytes")
        return flat | {name: getattr(self, name) for name in names}


def judge(
    ensemble: Ensemble,
    images: Images,
    *,
    corrupted_images: int | None = None,
    progress: Progress = SILENT,
    label: str = "judge",
) -> Judged:
    """Judge on images that had no part in training or choosing.

    Args:
        corrupted_images: how many of them to corrupt, each class in proportion; all when not
            given, 0 for none.
        label: of its bar.
    """
    labels = images.labels
    count = len(images) if corrupted_images is None else min(corrupted_images, len(images))
    kinds = [(name, severity) for name in CORRUPTIONS for severity in SEVERITIES] if count else []
    with progress.task(label, 1 + len(kinds)) as task:
        members = member_probabilities(ensemble, images)
        task.advance()
        some = in_proportion(images, count) if count else images
        corrupted = {}
        for name, severity in kinds:
            found = member_probabilities(ensemble, some, (name, severity)).mean(0)
            corrupted[name, severity] = 100 * float((found.argmax(1) == some.labels).mean())
            task.advance(note=f"{name} {severity}")
    macs, sparse_macs, params, living = _counted(ensemble)
    dense_bytes, sparse_bytes = stored_bytes(ensemble)
    return Judged(
        members=len(members),
        images=len(images),
        clean=quality(members.mean(0), labels),
        member_top1=float(np.mean([quality(each, labels).top1 for each in members])),
        diversity=diversity(members),
        corrupted=corrupted,
        macs=macs,
        sparse_macs=sparse_macs,
        params=params,
        living=living,
        dense_bytes=dense_bytes,
        sparse_bytes=sparse_bytes,
    )


@torch.no_grad()
def member_probabilities(
    ensemble: Ensemble, images: Images, corruption: tuple[str, int] | None = None
) -> Floats:
    """Probabilities of each member, shape (members, images, classes).

    Args:
        corruption: a name and a severity, done to the images at their own size.
    """
    device = device_of(ensemble.subnets[0])
    found = []
    for start, pixels in _batches(images):
        if corruption is not None:
            pixels = corrupt(pixels, *corruption, seed=start)
        batch = to_tensor(pixels, ensemble.arch.resolution).to(device)
        logits = [subnet(batch).softmax(1).cpu().numpy() for subnet in ensemble.subnets]
        found.append(np.stack(logits))
    return np.concatenate(found, axis=1)


def _batches(images: Images) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    for start in range(0, len(images), _BATCH):
        stop = min(start + _BATCH, len(images))
        yield start, images.batch(np.arange(start, stop))


def _counted(ensemble: Ensemble) -> tuple[int, int, int, int]:
    """Multiply-accumulates, all and of living weights; weights, all and living."""
    macs = sparse = params = living = 0
    for subnet in ensemble.subnets:
        for name, amount in layer_macs(subnet, ensemble.arch.resolution).items():
            weight = subnet.get_parameter(name)
            alive = int(torch.count_nonzero(weight))
            macs += amount
            sparse += amount * alive // weight.numel()
            params += weight.numel()
            living += alive
    return macs, sparse, params, living
