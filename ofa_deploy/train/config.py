"""Settings of a training run, validated where they are built."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ofa_deploy.errors import InputError

__all__ = ["ImportConfig", "TrainConfig"]


class ImportConfig(BaseModel):
    """A run that was not trained here: its weights came from a file.

    Attributes:
        init_sha256: of that file.
        calibration: as in ``TrainConfig``.
        threads: as in ``TrainConfig``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["import"] = "import"
    init_sha256: str
    calibration: int = Field(2_000, ge=1)
    threads: int = Field(2, ge=1, le=1024)


class TrainConfig(BaseModel):
    """DεpS settings; the defaults are those of the quickstart.

    Attributes:
        epochs: ``T``, all epochs.
        ramp_end: ``W``, the epoch where the ε ramp ends and β stays 1.
        ramp_epochs: ``s``, the ramp's length; shrinking starts at epoch ``W - s``. ``build`` takes
            0.6 and 0.1 of the epochs for W and s when they are not given.
        batch: images a step.
        lr: the cosine's start, ``η0``.
        lr_min: the cosine's floor; the paper's 2.5e-3 at η0 = 2.6, scaled, when not given.
        random_subnets: random subnets a step, beside the largest and the smallest.
        dropout: on the features, for the largest subnet only.
        calibration: training images whose statistics BN takes before a subnet is evaluated (the
            quickstart takes half as many, to save time).
        threads: of this process; part of the run, since sums in another order round otherwise.
        init_sha256: of the file whose weights it starts from, if any.
        new_classifier: whether the classifier starts anew all the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    method: Literal["deps"] = "deps"
    epochs: int = Field(8, ge=2, le=100_000)
    ramp_end: int = Field(5, ge=1)
    ramp_epochs: int = Field(1, ge=1)
    batch: int = Field(64, ge=2, le=65_536)
    lr: float = Field(0.1, gt=0)
    lr_min: float | None = Field(None, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(3e-5, ge=0)
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    random_subnets: int = Field(2, ge=0, le=16)
    augment: Literal["none", "crop", "crop+flip"] = "none"
    calibration: int = Field(2_000, ge=1)
    seed: int = Field(0, ge=0, lt=2**31)
    threads: int = Field(2, ge=1, le=1024)
    init_sha256: str | None = None
    new_classifier: bool = False

    @model_validator(mode="after")
    def _phases(self) -> "TrainConfig":
        if not 0 <= self.ramp_end - self.ramp_epochs < self.ramp_end < self.epochs:
            raise ValueError(
                f"expected ramp_epochs <= ramp_end < epochs, found "
                f"{self.ramp_epochs}, {self.ramp_end}, {self.epochs}"
            )
        return self

    @classmethod
    def build(cls, **settings: object) -> "TrainConfig":
        """Validate settings from a person.

        Raises:
            InputError: one line that names the setting.
        """
        from pydantic import ValidationError

        epochs = settings.get("epochs", cls.model_fields["epochs"].default)
        if isinstance(epochs, int):
            shares = {"ramp_end": 0.6, "ramp_epochs": 0.1}
            derived = {name: max(1, round(share * epochs)) for name, share in shares.items()}
            given = {name: value for name, value in settings.items() if value is not None}
            settings = derived | given
        try:
            return cls.model_validate(settings)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            message = first["msg"].removeprefix("Value error, ")
            raise InputError(
                f"training settings: {f'{where}: ' if where else ''}{message}"
            ) from None
