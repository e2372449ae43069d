"""``manifest.json``: what a bundle holds, where it comes from, and what was checked of it."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from ofa_deploy.checks import Count, Factor, Milliseconds, PositiveCount, Spread
from ofa_deploy.errors import FileFormatError
from ofa_deploy.files import read_json, read_model
from ofa_deploy.pareto import CandidateField
from ofa_deploy.space import SpaceField

__all__ = [
    "MANIFEST",
    "Accuracy",
    "Input",
    "Latency",
    "Manifest",
    "Preprocessing",
    "TargetRecord",
    "load_manifest",
]

MANIFEST = "manifest.json"

_SCHEMA = "bundle/2"
_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Percent = Annotated[float, Field(ge=0, le=100)]
Side = Annotated[int, Field(ge=1, le=2**16)]
Channels = tuple[float, float, float]
DataOption = Annotated[str, Field(pattern="^(seed|train|validation|test|skip_bad)$")]
Status = Literal["verified", "marked", "not verified here"]


def _above_zero(values: Channels) -> Channels:
    if min(values) <= 0:
        raise ValueError("expected deviations above 0")
    return values


class Input(BaseModel):
    """What a model takes.

    Attributes:
        shape: a number or a name a dimension.
        preprocessing: what the file does itself: ``none``, ``normalise`` or ``resize``.
    """

    model_config = _STRICT

    name: str
    dtype: Literal["float32", "uint8"]
    shape: tuple[Side | str, ...]
    layout: Literal["NCHW", "NHWC"]
    preprocessing: Literal["none", "normalise", "resize"]


class Preprocessing(BaseModel):
    """From an image to what a network sees, in the order in which it is done.

    Attributes:
        size: height and width in pixels.
        mean, std: a value a channel, of pixels from 0 to 1.
        inside: what of this the files do themselves, if their target can: ``none``, ``normalise``
            or ``resize``.
    """

    model_config = _STRICT

    colours: Literal["RGB"] = "RGB"
    crop: Literal["centre square"] = "centre square"
    size: int = Field(ge=1, le=4096)
    resize: Literal["bilinear with anti-aliasing"] = "bilinear with anti-aliasing"
    scale: Literal["pixel / 255"] = "pixel / 255"
    mean: Channels
    std: Annotated[Channels, AfterValidator(_above_zero)]
    inside: Literal["none", "normalise", "resize"]


class Accuracy(BaseModel):
    """A file's logits on the test set, against those of the PyTorch subnet.

    Attributes:
        images: test images.
        top1, subnet_top1: of the file and of the subnet, in percent.
        agreement: images to which both give the same class, in percent.
        max_difference: greatest difference of a logit, relative to the greatest logit.
        tolerance: that ``max_difference`` had to keep to, where the target has one.
        sqnr_db: power of the subnet's logits over that of the difference, at most 200.
    """

    model_config = _STRICT

    images: PositiveCount
    top1: Percent
    subnet_top1: Percent
    agreement: Percent
    max_difference: float = Field(ge=0, le=1e30)
    tolerance: float | None
    sqnr_db: float

    @property
    def loss(self) -> float:
        """Points of top-1 that the file is behind the subnet."""
        return self.subnet_top1 - self.top1


class Latency(BaseModel):
    """How long a file takes, timed in turns with ``model.onnx`` in ONNX Runtime.

    TensorRT's files are timed by the GPU's own clock, without copies and without the host.

    Attributes:
        ms: the ratio times the reference's 10th percentile: the latency of an idle machine.
        ratio: to the reference; the median over ``processes``.
        spread: relative range of the ratio over the processes.
        twin_ratio: to the target's own float twin, timed in the same rounds.
        p50, p90, p99: percentiles of the plain timings, in ms.
    """

    model_config = _STRICT

    ms: Milliseconds
    ratio: Factor
    spread: Spread
    twin_ratio: Factor | None = None
    p50: Milliseconds
    p90: Milliseconds
    p99: Milliseconds
    batch: PositiveCount
    threads: PositiveCount
    processes: PositiveCount


class TargetRecord(BaseModel):
    """One target of a bundle.

    Attributes:
        runtime, runtime_version: of the engine that it is for, as far as one is here.
        files: those that belong to it.
        bytes: of all of them.
        build_s: seconds that building took.
        settings: of the build; ``load`` is what the engine was told when the file was timed.
        status: whether it passed the gate, passed with marks, or could not run here.
        reasons: for the marks, why it could not run, or what was not measured.
    """

    model_config = _STRICT

    runtime: str
    runtime_version: str | None
    precision: Literal["fp32", "fp16", "int8"]
    files: tuple[str, ...] = Field(min_length=1)
    bytes: Count
    build_s: float = Field(ge=0, le=1e9)
    input: Input
    settings: dict[str, Any]
    status: Status = "not verified here"
    reasons: tuple[str, ...] = ()
    accuracy: Accuracy | None = None
    latency: Latency | None = None


class Manifest(BaseModel):
    """``manifest.json`` of a bundle.

    Attributes:
        date: of the export, ISO 8601.
        machine: on which it was built and checked.
        files: SHA-256 of every file but this one, by name.
        subnet: arch, budget asked, metrics predicted and measured, as ``Candidate`` writes them;
            ``test_top1`` is the PyTorch subnet's on the test set.
        weights_sha256: of the subnet's weights.
        members: networks that answer together.
        output: what files give: a single network's logits, or the mean of several's softmax.
        bn_images: training images whose statistics its BN took; 0 if it was never recalibrated.
        data, data_digest: what it was trained and checked on; ``data_options`` how it was split.
        preprocessing: from an image to what a model takes.
        allowed_loss: points of top-1 beyond which a file is marked.
        best: the fastest of the targets that passed without a mark, measured on ``machine``.
    """

    model_config = _STRICT

    schema_: Literal["bundle/2"] = Field("bundle/2", alias="schema")
    date: str
    versions: dict[str, str]
    machine: dict[str, str | int | bool]
    files: dict[str, Sha256]
    space: SpaceField
    subnet: CandidateField
    supernet_sha256: str
    weights_sha256: Sha256
    members: int = Field(1, ge=1, le=64)
    output: Literal["logits", "probabilities"] = "logits"
    bn_images: Count
    data: str
    data_options: dict[DataOption, Count | None]
    data_digest: str
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    opset: int
    allowed_loss: float
    targets: dict[str, TargetRecord] = Field(min_length=1)
    best: str | None = None

    @model_validator(mode="after")
    def _names_are_plain(self) -> Self:
        for name in (*self.files, *(file for each in self.targets.values() for file in each.files)):
            if not is_plain(name):
                raise ValueError(f"{name[:80]!r} points outside the bundle; expected a plain name")
        for name, record in self.targets.items():
            if missing := set(record.files) - self.files.keys():
                raise ValueError(f"target {name}: no SHA-256 of {', '.join(sorted(missing))}")
        if self.best is not None and self.best not in self.targets:
            raise ValueError(f"best: {self.best!r} is not one of the targets")
        return self


def is_plain(name: str) -> bool:
    """Whether a name is that of a file right in a folder, on any system."""
    unsafe = set('/\\:*?"<>|')
    return (
        0 < len(name) <= 200
        and name.isprintable()
        and not unsafe & set(name)
        and not name.startswith(".")
        and name != MANIFEST
    )


def load_manifest(path: Path) -> Manifest:
    """Read the manifest of a bundle.

    Args:
        path: ``manifest.json``.

    Raises:
        FileFormatError: if it is damaged, of another schema, or names files outside the bundle.
    """
    if read_json(path).get("schema") == "bundle/1":
        raise FileFormatError(
            f"{path}: written by an older ofa-deploy (bundle/1; this one reads {_SCHEMA}); export "
            "the subnet again"
        )
    return read_model(path, Manifest, schema=_SCHEMA)
