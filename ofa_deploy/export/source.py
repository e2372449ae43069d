"""What every target is built from: a subnet or several, their graph, images to calibrate on."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch

from ofa_deploy.data import MEAN, STD, Images
from ofa_deploy.errors import InputError, MismatchError
from ofa_deploy.export.options import ExportOptions
from ofa_deploy.export.sensitivity import GAIN_DB, Noise, Sensitivity, find_sensitive
from ofa_deploy.graph import after, preprocessing
from ofa_deploy.runtimes.base import ByteMath
from ofa_deploy.runtimes.onnx_int8 import Quantizer
from ofa_deploy.supernet import Ensemble, SubnetFile, to_tensor
from ofa_deploy.terminal import SILENT, Progress

__all__ = ["Source"]

Floats = npt.NDArray[np.float32]

_PIXELS = 32 * 64**2  # a calibration batch has about so many
_BATCH = 32
_MACS = 4e9  # of one measurement of sensitivity, about
_LEAST_IMAGES, _MOST_IMAGES = 8, 256


@dataclass(frozen=True)
class Source:
    """What every target is built from; what several need is made once.

    Attributes:
        ensemble: of one member, or several that answer together.
        calibration: images of the training split; INT8 needs them.
    """

    ensemble: Ensemble
    options: ExportOptions
    calibration: Images | None = None
    progress: Progress = SILENT

    @property
    def record(self) -> SubnetFile:
        """What all members have in common."""
        return self.ensemble.record

    @cached_property
    def subnet(self) -> torch.nn.Module:
        """What files are compared with."""
        return self.ensemble.module

    @property
    def resolution(self) -> int:
        """Height and width of what the network takes, in pixels."""
        return self.record.network.arch.resolution

    @cached_property
    def graph(self) -> onnx.ModelProto:
        """The network alone, float32."""
        return self.ensemble.onnx(batch=self.options.batch)

    @cached_property
    def before(self) -> onnx.ModelProto | None:
        """The preprocessing that goes into the files, if any does."""
        kind = self.options.preprocessing
        if kind == "none":
            return None
        size, batch = self.resolution, self.options.batch
        return preprocessing(kind, size, mean=MEAN, std=STD, batch=batch)

    def complete(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """A form of ``graph`` with the preprocessing that goes into the files."""
        return model if self.before is None else after(self.before, model)

    @cached_property
    def math(self) -> ByteMath:
        """The 8-bit arithmetic to build for."""
        return ByteMath.of(self.options.processor)

    @cached_property
    def batches(self) -> tuple[Floats, ...]:
        """Batches to learn ranges from.

        Raises:
            InputError: if there are no images, or fewer than a fixed batch has.
        """
        return self._tensors(0, self.options.calibration_images)

    @cached_property
    def quantizer(self) -> Quantizer:
        """For ONNX Runtime."""
        return Quantizer(self.graph, self.batches, self.math)

    @cached_property
    def sensitive(self) -> Sensitivity:
        """Blocks that are better left in float32; none if they are not to be looked for.

        Nor are they among several members, where the noise of one is lost in the mean.
        """
        if not self.options.sensitivity or len(self.ensemble.subnets) > 1:
            return Sensitivity()
        network = self.record.search_space.lower_named(self.record.network.arch)
        return find_sensitive(self.graph, self.quantizer, self.noise, network, self.progress)

    @cached_property
    def noise(self) -> Noise:
        """Measures INT8, on other images than the ranges were learned from, if there are more."""
        return Noise(self.graph, self._others)

    def worth(self, plain_db: float, mixed_db: float) -> tuple[bool, dict[str, Any]]:
        """Whether ``sensitive``, found in ONNX Runtime's INT8, helps another engine's too.

        Args:
            plain_db, mixed_db: SQNR of the logits with all blocks in INT8, and with those not.

        Returns:
            That, and what the manifest tells of it.
        """
        kept = mixed_db >= plain_db + GAIN_DB
        return kept, {
            "float_blocks": list(self.sensitive.blocks) if kept else [],
            "sqnr_db_all_int8": round(plain_db, 2),
            "sqnr_db_tried": round(mixed_db, 2),
            "images": self.noise.images,
        }

    @property
    def _others(self) -> tuple[Floats, ...]:
        network = self.record.network.arch
        macs = self.record.search_space.cost(network).macs
        least = self.options.batch or 1
        count = max(least, int(np.clip(_MACS / macs, _LEAST_IMAGES, _MOST_IMAGES)))
        start = self.options.calibration_images
        enough = start + least <= len(self._images)
        return self._tensors(start if enough else 0, count)

    @property
    def _images(self) -> Images:
        images = self.calibration
        if images is None or not len(images):
            raise InputError("INT8 needs calibration images of the training split, found none")
        if images.classes != self.record.classes:
            raise MismatchError(
                f"calibration images of {len(images.classes)} other classes than the subnet's "
                f"{len(self.record.classes)}; take those that it was trained on"
            )
        return images

    def _tensors(self, start: int, count: int) -> tuple[Floats, ...]:
        """At most ``count`` images from ``start`` on, as the network takes them."""
        images, size = self._images, self._batch_size
        positions = np.arange(start, min(start + count, len(images)))
        if self.options.batch is not None:
            if len(positions) < size:
                raise InputError(
                    f"a fixed batch of {size} needs as many calibration images, found "
                    f"{len(positions)}"
                )
            positions = positions[: len(positions) // size * size]
        chunks: Sequence[npt.NDArray[np.int64]] = [
            positions[i : i + size] for i in range(0, len(positions), size)
        ]
        return tuple(
            np.ascontiguousarray(to_tensor(_checked(images.batch(chunk)), self.resolution).numpy())
            for chunk in chunks
        )

    @property
    def _batch_size(self) -> int:
        return self.options.batch or int(np.clip(_PIXELS / self.resolution**2, 1, _BATCH))

    @cached_property
    def example(self) -> torch.Tensor:
        """Images for tracing: a fixed batch, or two."""
        return torch.zeros(self.options.batch or 2, 3, self.resolution, self.resolution)


def _checked(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Calibration images, once they are seen to be squares in colour.

    Raises:
        MismatchError: otherwise.
    """
    shape = pixels.shape
    if pixels.dtype != np.uint8 or len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3]:
        raise MismatchError(
            f"calibration images: expected uint8 (n, 3, size, size), found {pixels.dtype} {shape}; "
            "take those of the training split"
        )
    return pixels
