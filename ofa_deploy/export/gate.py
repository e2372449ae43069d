"""The gate: what a file gives, against what the PyTorch subnet gives.

Float32 files must give the subnet's logits to rounding, and its top-1; float16 ones nearly so.
INT8 loses something by its nature: how much is measured, and a file that loses more than is
allowed, or is no faster than its float twin, is marked and never called the best.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ofa_deploy.data import Images
from ofa_deploy.errors import DeviceError, GateError
from ofa_deploy.export.classify import BATCH, run_in_batches, top1_allowance
from ofa_deploy.export.manifest import Accuracy, Latency, Status, TargetRecord
from ofa_deploy.export.sensitivity import ratio_db
from ofa_deploy.export.targets import get_target
from ofa_deploy.runtimes import Session
from ofa_deploy.supernet import resized, to_tensor
from ofa_deploy.terminal import SILENT, Progress

__all__ = [
    "Checked",
    "choose_best",
    "compare",
    "judge",
    "prepared",
    "refuse_wrong",
    "tolerance",
]

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

_TOLERANCE = {"fp32": 1e-4, "fp16": 3e-2}
_RESIZED = 1e-3  # images differ by a rounding error where files resize them
_PRECISIONS = ("fp32", "fp16", "int8")
_AS_FAST = 1.02


def tolerance(precision: str, preprocessing: str) -> float | None:
    """How far logits may be off, relative to the greatest; None where it is only measured."""
    exact = precision == "fp32" and preprocessing == "resize"
    return _RESIZED if exact else _TOLERANCE.get(precision)


@dataclass
class Checked:
    """A loaded file, and what was seen of it so far.

    Attributes:
        preprocessing: what the file does itself.
        batch: that it takes; None for any.
        limit: that ``max_difference`` has to keep to.
    """

    session: Session
    preprocessing: str
    batch: int | None
    limit: float | None
    right: int = 0
    agreed: int = 0
    difference: float = 0.0
    noise: float = 0.0
    finite: bool = True

    def see(self, inputs: npt.NDArray[Any], expected: Floats, labels: Labels) -> None:
        """Compare the logits of one batch."""
        found = run_in_batches(self.session, inputs, self.batch)
        if found.shape != expected.shape:
            raise DeviceError(f"expected logits {expected.shape}, the runtime gave {found.shape}")
        if not np.isfinite(found).all():
            self.finite = False
            return
        off = found.astype(np.float64) - expected
        self.difference = max(self.difference, float(np.abs(off).max()))
        self.noise += float((off**2).sum())
        self.right += int((found.argmax(1) == labels).sum())
        self.agreed += int((found.argmax(1) == expected.argmax(1)).sum())


@dataclass
class _Reference:
    """The PyTorch subnet's logits, on images as one kind of file sees them."""

    subnet: nn.Module
    resolution: int
    rounded: bool
    right: int = 0
    signal: float = 0.0
    scale: float = field(default=1e-30)

    @torch.no_grad()
    def see(self, images: Pixels, labels: Labels) -> Floats:
        pixels = _rounded(images, self.resolution) if self.rounded else images
        logits: Floats = self.subnet(to_tensor(pixels, self.resolution)).numpy()
        self.right += int((logits.argmax(1) == labels).sum())
        self.signal += float((logits.astype(np.float64) ** 2).sum())
        self.scale = max(self.scale, float(np.abs(logits).max()))
        return logits


def compare(
    files: Mapping[str, Checked],
    subnet: nn.Module,
    resolution: int,
    test: Images,
    progress: Progress = SILENT,
) -> dict[str, Accuracy]:
    """Run all files and the subnet on the test set.

    Raises:
        GateError: if a file gives NaN or infinite logits.
        DeviceError: if a runtime fails, or gives logits of another shape.
    """
    references: dict[bool, _Reference] = {}
    for file in files.values():
        rounded = file.preprocessing == "normalise"
        references.setdefault(rounded, _Reference(subnet, resolution, rounded))
    starts = range(0, len(test), BATCH)
    with progress.task(f"compare {len(test)} test images", len(starts)) as task:
        for start in starts:
            part = np.arange(start, min(start + BATCH, len(test)))
            images, labels = test.batch(part), test.labels[part]
            expected = {rounded: each.see(images, labels) for rounded, each in references.items()}
            for name, file in files.items():
                inputs = prepared(images, file.preprocessing, resolution)
                file.see(inputs, expected[file.preprocessing == "normalise"], labels)
                if not file.finite:
                    raise GateError(f"{name}: gives NaN or infinite logits; no bundle was written")
            task.advance()
    return {
        name: _accuracy(file, references[file.preprocessing == "normalise"], len(test))
        for name, file in files.items()
    }


def _accuracy(file: Checked, reference: _Reference, images: int) -> Accuracy:
    return Accuracy(
        images=images,
        top1=100 * file.right / images,
        subnet_top1=100 * reference.right / images,
        agreement=100 * file.agreed / images,
        max_difference=file.difference / reference.scale,
        tolerance=file.limit,
        sqnr_db=ratio_db(reference.signal, file.noise),
    )


def prepared(images: Pixels, preprocessing: str, resolution: int) -> npt.NDArray[Any]:
    """Images as a file takes them.

    Args:
        images: uint8, shape (n, 3, height, width).
        preprocessing: what the file does itself.
    """
    if preprocessing == "none":
        return np.ascontiguousarray(to_tensor(images, resolution).numpy())
    pixels = images if preprocessing == "resize" else _rounded(images, resolution)
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


def _rounded(images: Pixels, resolution: int) -> Pixels:
    """Images resized to whole numbers."""
    if images.shape[-1] == resolution:
        return images
    sized = resized(torch.from_numpy(images).float(), resolution)
    return sized.round().clamp(0, 255).to(torch.uint8).numpy()


def refuse_wrong(name: str, precision: str, accuracy: Accuracy) -> None:
    """See that a file does what its subnet does, as far as its precision promises.

    Raises:
        GateError: saying by how much it does not.
    """
    limit = accuracy.tolerance
    if limit is not None and accuracy.max_difference > limit:
        raise GateError(
            f"{name}: its logits differ from the subnet's by {accuracy.max_difference:.2g} "
            f"(relative), more than {limit:g}; no bundle was written"
        )
    if precision == "fp32" and abs(accuracy.loss) > top1_allowance(accuracy.images):
        raise GateError(
            f"{name}: its top-1 on the test set is {accuracy.top1:.2f} %, the subnet's "
            f"{accuracy.subnet_top1:.2f} %; no bundle was written"
        )


def judge(
    precision: str, accuracy: Accuracy, latency: Latency | None, allowed_loss: float
) -> tuple[Status, tuple[str, ...]]:
    """Whether a file that runs passed without a mark, and the marks."""
    marks = []
    if accuracy.loss > allowed_loss:
        marks.append(
            f"loses {accuracy.loss:.2f} points of top-1, more than the {allowed_loss:g} allowed"
        )
    beside = latency.twin_ratio if latency is not None else None
    if precision == "int8" and beside is not None and beside >= 1:  # float16 may gain size alone
        marks.append(f"takes {beside:.2f} times as long as its float32 twin")
    return ("marked" if marks else "verified"), tuple(marks)


def choose_best(targets: Mapping[str, TargetRecord]) -> str | None:
    """The fastest of the targets without a mark.

    Of those that are as fast, to two percent, the most precise, and then the first. Where none was
    timed, the one that has no rival.
    """
    clean = {
        name: each
        for name, each in targets.items()
        if each.status == "verified" and get_target(name).timed
    }
    timed = {name: each.latency.ratio for name, each in clean.items() if each.latency}
    if not timed:
        return next(iter(clean)) if len(clean) == 1 else None
    fast = [name for name, ratio in timed.items() if ratio <= _AS_FAST * min(timed.values())]
    return min(fast, key=lambda name: _PRECISIONS.index(clean[name].precision))
