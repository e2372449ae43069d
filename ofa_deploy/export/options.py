"""What to export, and how: checked where it is built."""

from dataclasses import dataclass, field
from pathlib import Path

from ofa_deploy.errors import InputError, UnknownNameError
from ofa_deploy.graph import PREPROCESSING
from ofa_deploy.runtimes.base import PROCESSORS
from ofa_deploy.runtimes.trt.settings import EngineSettings

__all__ = ["MAX_BATCH", "ExportOptions"]

MAX_BATCH = 1024


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What to export, and how.

    Attributes:
        targets: names as ``TARGETS`` has them, in the order of the manifest.
        batch: a fixed batch size; dynamic when not given.
        preprocessing: what the graph does itself: ``none`` (it takes normalised float32 images),
            ``normalise`` (uint8 pixels of its size) or ``resize`` (uint8 pixels of any size).
        processor: whose 8-bit arithmetic ONNX Runtime and OpenVINO INT8 files are laid out for,
            one of ``PROCESSORS``.
        calibration_images: from which INT8 learns its ranges; as many again are measured on.
        sensitivity: whether to look for blocks that are better left in float32.
        allowed_loss: points of top-1 that a file may lose before it is marked.
        test_images: compare on so many test images at most; on all when not given.
        measure: whether to time the files that run here.
        threads: of each timed inference.
        force: export a subnet whose BN was never recalibrated.
        engine: of TensorRT engines.
        capabilities: compute capabilities of TensorRT-for-RTX engines; its usual ones if empty.
        timing_cache: a file that keeps what TensorRT timed in earlier builds.

    Raises:
        InputError: for a value out of range.
    """

    targets: tuple[str, ...] = ("onnx",)
    batch: int | None = None
    preprocessing: str = "none"
    processor: str = "here"
    calibration_images: int = 256
    sensitivity: bool = True
    allowed_loss: float = 1.0
    test_images: int | None = None
    measure: bool = True
    threads: int = 1
    force: bool = False
    engine: EngineSettings = field(default_factory=EngineSettings)
    capabilities: tuple[str, ...] = ()
    timing_cache: Path | None = None

    def __post_init__(self) -> None:
        if not self.targets or len(set(self.targets)) < len(self.targets):
            raise InputError(
                f"expected distinct targets, found {', '.join(self.targets) or 'none'}"
            )
        for kind, name, known in (
            ("preprocessing", self.preprocessing, PREPROCESSING),
            ("processor", self.processor, PROCESSORS),
        ):
            if name not in known:
                raise UnknownNameError(kind, name, known)
        limits: tuple[tuple[str, float | None, float, float], ...] = (
            ("batch", self.batch, 1, MAX_BATCH),
            ("calibration images", self.calibration_images, 1, 100_000),
            ("allowed loss", self.allowed_loss, 0, 100),
            ("test images", self.test_images, 1, float("inf")),
            ("threads", self.threads, 1, 1024),
        )
        for what, value, least, greatest in limits:
            if value is not None and not least <= value <= greatest:
                raise InputError(f"{what}: expected {least:g} to {greatest:g}, found {value:g}")
