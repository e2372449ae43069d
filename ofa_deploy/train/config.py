"""Settings of a training run, validated where they are built; one class a method."""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from ofa_deploy.checks import PositiveCount, problem
from ofa_deploy.data import augmentation_names
from ofa_deploy.errors import InputError, UnknownNameError

__all__ = [
    "FOLLOWS",
    "METHODS",
    "AnyConfig",
    "BigNasConfig",
    "Common",
    "CompOfaConfig",
    "DepsConfig",
    "ImportConfig",
    "ProgressiveConfig",
    "Settings",
    "TrainConfig",
    "build_config",
]

# Settings that are made of others where they are not given themselves.
FOLLOWS = {
    "ramp_end": {"epochs"},
    "ramp_epochs": {"epochs"},
    "lr": {"batch", "processes"},
}

Epochs = Annotated[int, Field(ge=0, le=100_000)]


class Common(BaseModel):
    """What every run on the training loop has.

    Attributes:
        method: what ``build_config`` and messages call it.
        batch: images a step and process.
        lr: the greatest learning rate, ``η0``.
        optimizer: ``sgd`` with Nesterov momentum, or ``rmsprop``.
        divergence: what subnets minimise towards a teacher: cross-entropy on its soft labels, or
            AlphaNet's adaptive α-divergence.
        kd_ratio: weight of a fixed teacher's soft labels beside the hard ones.
        augment: names joined by ``+``.
        calibration: training images whose statistics BN takes before a subnet is evaluated (the
            quickstart takes half as many, to save time).
        precision: ``bf16`` runs matrix products and convolutions in bfloat16 (autocast).
        processes: how many take part, each with a batch of its own.
        threads: of each process; part of the run, since sums in another order round otherwise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    method: str
    batch: int = Field(64, ge=2, le=65_536)
    lr: float = Field(0.1, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(3e-5, ge=0)
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    optimizer: Literal["sgd", "rmsprop"] = "sgd"
    divergence: Literal["cross-entropy", "alpha"] = "cross-entropy"
    kd_ratio: float = Field(1.0, ge=0)
    augment: str = "none"
    calibration: PositiveCount = 2_000
    precision: Literal["fp32", "bf16"] = "fp32"
    processes: int = Field(1, ge=1, le=65_536)
    seed: int = Field(0, ge=0, lt=2**31)
    threads: int = Field(2, ge=1, le=1024)

    @property
    def images_a_step(self) -> int:
        """Of all processes together."""
        return self.batch * self.processes

    @field_validator("augment")
    @classmethod
    def _known(cls, text: str) -> str:
        try:
            augmentation_names(text)
        except InputError as error:
            raise ValueError(str(error)) from None
        return text

    @classmethod
    def build(cls, /, **settings: object) -> Self:
        """Validate settings from a person, strictly: text is no number, nor is ``true``.

        Args:
            settings: None is one that was not given.

        Raises:
            InputError: one line that names the setting.
        """
        given = {name: value for name, value in settings.items() if value is not None}
        try:
            return cls.model_validate_json(json.dumps(given, default=str), strict=True)
        except ValidationError as error:
            raise InputError(_one_line(error, cls)) from None


class Settings(Common):
    """What every method of training a supernet has.

    Attributes:
        dropout: on the features, for the largest subnet only.
        zero_gamma: whether the last BN of a residual block starts at 0.
        init_sha256: of the file whose weights it starts from, if any.
        new_classifier: whether the classifier starts anew all the same.
    """

    dropout: float = Field(0.1, ge=0, lt=1)
    zero_gamma: bool = False
    init_sha256: str | None = None
    new_classifier: bool = False


class DepsConfig(Settings):
    """Delayed ε-shrinking (arXiv 2407.06167); the defaults are those of the quickstart.

    Attributes:
        epochs: ``T``, all epochs.
        ramp_end: ``W``, the epoch where the ε ramp ends and β stays 1.
        ramp_epochs: ``s``, the ramp's length; shrinking starts at epoch ``W - s``. Without a ramp
            (0) β is 1 from W on.
        lr_min: the cosine's floor; the paper's 2.5e-3 at η0 = 2.6, scaled, when not given.
        random_subnets: random subnets a step, beside the largest and the smallest.
    """

    method: Literal["deps"] = "deps"
    epochs: int = Field(8, ge=2, le=100_000)
    ramp_end: int = Field(5, ge=1, le=100_000)
    ramp_epochs: int = Field(1, ge=0, le=100_000)
    lr_min: float | None = Field(None, ge=0)
    random_subnets: int = Field(2, ge=0, le=16)

    @model_validator(mode="before")
    @classmethod
    def _shares(cls, given: Any) -> Any:
        """W and s are 0.6 and 0.1 of the epochs when only those are given."""
        epochs = given.get("epochs") if isinstance(given, dict) else None
        if not isinstance(epochs, int):
            return given
        shares = {"ramp_end": 0.6, "ramp_epochs": 0.1}
        return {name: max(1, round(share * epochs)) for name, share in shares.items()} | given

    @model_validator(mode="after")
    def _phases(self) -> Self:
        if not 0 <= self.ramp_end - self.ramp_epochs <= self.ramp_end < self.epochs:
            raise ValueError(
                f"expected ramp_epochs <= ramp_end < epochs, found "
                f"{self.ramp_epochs}, {self.ramp_end}, {self.epochs}"
            )
        return self


class BigNasConfig(Settings):
    """BigNAS (Yu et al. 2020): the sandwich from the first step.

    Attributes:
        decay: of the learning rate an epoch, exponential.
        lr_floor: the share of ``lr`` at which the decay ends.
    """

    method: Literal["bignas"] = "bignas"
    epochs: int = Field(8, ge=1, le=100_000)
    decay: float = Field(0.97, gt=0, lt=1)
    lr_floor: float = Field(0.05, gt=0, le=1)
    random_subnets: int = Field(2, ge=0, le=16)
    zero_gamma: bool = True


class ProgressiveConfig(Settings):
    """Once-for-all's progressive shrinking (Cai et al. 2020).

    Attributes:
        teacher_epochs: the largest network alone; it is the fixed teacher from then on.
        kernel_epochs, depth_epochs, expand_epochs: of each opening phase; the last of a list
            stands for all further ones, and a phase with nothing to open is left out.
        warmup_epochs: in which a phase's rate rises from 0, beyond its own epochs; not for the
            short first phases.
        kernel_lr, depth_lr, expand_lr: a phase's rate as a share of the teacher's. The published
            0.03, 0.0025, 0.0075 at batch 64 stand against a teacher's 0.08125.
        lr_min: the floor of every cosine.
    """

    method: Literal["progressive"] = "progressive"
    teacher_epochs: Epochs = 180
    kernel_epochs: Epochs = 120
    depth_epochs: tuple[Epochs, ...] = (25, 120)
    expand_epochs: tuple[Epochs, ...] = (25, 120)
    warmup_epochs: Epochs = 5
    kernel_lr: float = Field(0.37, gt=0)
    depth_lr: tuple[Annotated[float, Field(gt=0)], ...] = (0.03, 0.09)
    expand_lr: tuple[Annotated[float, Field(gt=0)], ...] = (0.03, 0.09)
    lr_min: float = Field(0.0, ge=0)


class CompOfaConfig(Settings):
    """CompOFA (Sahni et al. 2021): only networks whose depth fixes the expansion ratio.

    Attributes:
        teacher_epochs: as in ``ProgressiveConfig``.
        phase_epochs, phase_lr: of the phases that open one depth after the other.
        subnets: a step.
    """

    method: Literal["compofa"] = "compofa"
    teacher_epochs: Epochs = 180
    phase_epochs: tuple[Epochs, ...] = (25, 120)
    phase_lr: tuple[Annotated[float, Field(gt=0)], ...] = (0.03, 0.09)
    warmup_epochs: Epochs = 5
    subnets: int = Field(4, ge=1, le=16)
    lr_min: float = Field(0.0, ge=0)


class ImportConfig(BaseModel):
    """A run that was not trained here: its weights came from a file.

    Attributes:
        init_sha256: of that file.
        calibration: as in ``Settings``.
        threads: as in ``Settings``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["import"] = "import"
    init_sha256: str
    calibration: PositiveCount = 2_000
    threads: int = Field(2, ge=1, le=1024)


TrainConfig = DepsConfig | BigNasConfig | ProgressiveConfig | CompOfaConfig
_BY_METHOD: dict[str, type[TrainConfig]] = {
    "deps": DepsConfig,
    "bignas": BigNasConfig,
    "progressive": ProgressiveConfig,
    "compofa": CompOfaConfig,
}
METHODS = tuple(_BY_METHOD)


def build_config(method: str, **settings: object) -> TrainConfig:
    """The config of a method, from a person's settings.

    Raises:
        InputError: one line that names the method or the setting.
    """
    if method not in _BY_METHOD:
        raise UnknownNameError("method", method, METHODS)
    return _BY_METHOD[method].build(**settings)


def _one_line(error: ValidationError, config: type[Common]) -> str:
    first = error.errors(include_url=False)[0]
    if first["type"] != "extra_forbidden":
        return f"training settings: {problem(error)}"
    where, method = ".".join(map(str, first["loc"])), config.model_fields["method"].default
    known = ", ".join(sorted(config.model_fields.keys() - {"method"}))
    return f"training settings: {where}: method {method} has no setting {where}; it has {known}"


AnyConfig = Annotated[TrainConfig | ImportConfig, Field(discriminator="method")]
