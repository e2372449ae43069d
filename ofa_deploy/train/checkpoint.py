"""What a run folder keeps of a training run, and how it comes back.

``state.pt`` (torch's own format, read with ``weights_only=True``) holds all that a resume needs;
``supernet.safetensors`` the finished weights; ``metrics.csv`` one row an epoch; ``run.json`` what
was asked for and what came out.
"""

import io
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Set
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field

from ofa_deploy import __version__
from ofa_deploy.data import DataSplits
from ofa_deploy.errors import FileFormatError, InputError, MismatchError, OtherRunError
from ofa_deploy.files import digest, read_bytes, read_json, read_model, write_bytes, write_model
from ofa_deploy.space import SearchSpace, SpaceField
from ofa_deploy.supernet import (
    Supernet,
    channels_last,
    check_amount,
    check_archive,
    load_checkpoint,
    load_tensors,
    load_weights,
)
from ofa_deploy.train.config import AnyConfig
from ofa_deploy.train.runner import Runner

__all__ = [
    "WEIGHTS",
    "RunFile",
    "RunRecord",
    "check_init",
    "claim_run",
    "deciding_versions",
    "load_state",
    "load_supernet",
    "restore",
    "save_state",
]

WEIGHTS = "supernet.safetensors"
_STATE_SCHEMA = "training-state/1"
_DECIDING = ("torch", "numpy")  # their versions decide about every bit
_SPOKEN = {
    "data_digest": "its images",
    "space": "its space",
    "subnet_sha256": "its subnet",
    "parent_sha256": "its parent",
}


def deciding_versions() -> dict[str, str]:
    """This version, and those of libraries that decide about every bit."""
    return {"ofa_deploy": __version__, **{name: version(name) for name in _DECIDING}}


class RunRecord(BaseModel, ABC):
    """``run.json`` of whatever the training loop runs.

    Attributes:
        IDENTITY: the fields that decide what comes out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    IDENTITY: ClassVar[tuple[str, ...]] = ("space", "config", "data_digest", "versions")

    schema_: str = Field(alias="schema")
    space: SpaceField
    config: Any
    data: str
    data_digest: str
    data_options: dict[str, int | None]
    classes: tuple[str, ...]
    versions: dict[str, str]

    @property
    def search_space(self) -> SearchSpace:
        """The space that it is about."""
        return SearchSpace.from_dict(self.space)

    @property
    @abstractmethod
    def finished(self) -> bool:
        """Whether its weights are there."""

    @property
    @abstractmethod
    def outputs(self) -> tuple[str, ...]:
        """What a finished run cannot do without, within its folder."""

    def gone(self, run: Path) -> Path | None:
        """An output that is not there, if any."""
        return next((run / name for name in self.outputs if not (run / name).exists()), None)

    @classmethod
    @abstractmethod
    def load(cls, run: Path) -> Self:
        """Read ``run/run.json``."""

    def deciding(self) -> dict[str, Any]:
        """What decides about the run, with versions that only move no bit left out."""
        values = {name: getattr(self, name) for name in self.IDENTITY}
        return values | {
            "space": self.search_space.to_dict(),
            "config": self.config.model_dump(mode="json"),
            "versions": {name: self.versions.get(name) for name in _DECIDING},
        }


class RunFile(RunRecord):
    """``run.json`` of a supernet's training."""

    schema_: Literal["supernet-run/1"] = Field("supernet-run/1", alias="schema")
    config: AnyConfig
    weights_sha256: str | None = None
    validation_top1: dict[str, float] = {}

    @property
    def finished(self) -> bool:
        return self.weights_sha256 is not None

    @property
    def outputs(self) -> tuple[str, ...]:
        return (WEIGHTS,)

    @classmethod
    def begin(
        cls,
        config: AnyConfig,
        space: SearchSpace,
        data: DataSplits,
        data_options: Mapping[str, int | None] | None,
    ) -> "RunFile":
        """What a run holds before it has weights."""
        return cls(
            space=space.to_dict(),
            config=config,
            data=data.name,
            data_digest=data.digest,
            data_options=dict(data_options or {}),
            classes=data.classes,
            versions=deciding_versions(),
        )

    @classmethod
    def load(cls, run: Path) -> "RunFile":
        """Read ``run/run.json``."""
        if not (run / "run.json").exists():
            raise InputError(
                f"{run}: no training run there (no run.json); "
                "train one with: ofa-deploy train --run NAME"
            )
        return read_model(run / "run.json", cls, schema="supernet-run/1")


def check_init(
    run: Path, space: SearchSpace, init: Path, *, new_classifier: bool = False, seed: int = 0
) -> None:
    """See that given weights fit, while there is no folder yet that they could spoil."""
    if not (run / "run.json").exists():
        load_checkpoint(Supernet(space), init, new_classifier=new_classifier, seed=seed)


def claim_run(run: Path, record: RunRecord) -> str:
    """Make ``run`` this run's folder, or see that it is already.

    A setting that the folder's ``run.json`` is too old to know must have its default now.

    Returns:
        A digest of all that decides what comes out, as ``run.json`` has it: it stays the same when
        a later ofa_deploy knows more settings.

    Raises:
        OtherRunError: if it holds another run, naming what differs.
    """
    path = run / "run.json"
    if not path.exists():
        write_model(path, record)
    else:
        _check_same(run, type(record).load(run), record)
    written = read_json(path)
    return digest({key: written[key] for key in record.IDENTITY})


def _check_same(run: Path, found: RunRecord, wanted: RunRecord) -> None:
    """See that what decides about a run is the same in two records."""
    there, now = (record.deciding() for record in (found, wanted))
    settings = _different(there.pop("config"), now.pop("config"))
    if "method" in settings:  # whose settings are others altogether
        settings = {"method": settings["method"]}
    versions = _different(there.pop("versions"), now.pop("versions"))
    if "seed" in settings:  # which decides what images are drawn
        there.pop("data_digest"), now.pop("data_digest")
    others = [_SPOKEN.get(name, name) for name in sorted(now) if there[name] != now[name]]
    if settings or others or versions:
        raise OtherRunError(run, settings, others, versions)


def _different(there: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = sorted(name for name in now if there.get(name) != now[name])
    return {name: (there.get(name), now[name]) for name in names}


def save_state(path: Path, identity: str, state: dict[str, Any]) -> None:
    """Write all that a resume needs."""
    buffer = io.BytesIO()
    torch.save({"schema": _STATE_SCHEMA, "identity": identity, **state}, buffer)
    write_bytes(path, buffer.getvalue())


def load_state(path: Path, identity: str, keys: Set[str]) -> dict[str, Any] | None:
    """Read it back, or None when there is none.

    Args:
        keys: what it must have.

    Raises:
        FileFormatError: if the file is damaged.
        MismatchError: if it belongs to another run than ``run.json``.
    """
    if not path.exists():
        return None
    data = read_bytes(path)
    try:
        if not zipfile.is_zipfile(io.BytesIO(data)):
            raise ValueError("it is no zip")
        check_archive(data)
        state = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = str(error).partition("\n")[0]
        raise FileFormatError(
            f"{path}: unreadable checkpoint ({reason}); delete it to train from the start"
        ) from None
    if not isinstance(state, dict) or state.get("schema") != _STATE_SCHEMA:
        raise FileFormatError(f"{path}: expected a checkpoint of schema {_STATE_SCHEMA!r}")
    if missing := sorted(keys - state.keys()):
        raise FileFormatError(f"{path}: checkpoint without {', '.join(missing)}")
    if state.get("identity") != identity:
        raise MismatchError(
            f"{path}: a checkpoint of another run than run.json beside it speaks of (other "
            "settings, space, data or versions); restore the two, or delete it to train from the "
            "start"
        )
    return state


def restore(runner: Runner, state: dict[str, Any], path: Path) -> None:
    """Have a runner go on from what ``load_state`` read.

    Raises:
        FileFormatError: if it is no state of such a run.
    """
    step, rows = state["step"], state["rows"]
    try:
        if type(step) is not int or not 0 <= step <= runner.plan.steps:
            raise ValueError(f"expected step 0 to {runner.plan.steps}, found {step!r:.60}")
        if not isinstance(rows, list) or not all(map(_is_row, rows)):
            raise ValueError("rows: expected names with numbers or text")
        runner.load_state_dict(state)
    except torch.OutOfMemoryError:
        raise  # which says nothing of the file
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise FileFormatError(
            f"{path}: not a checkpoint of this run ({reason}); delete it to train from the start"
        ) from None


def _is_row(row: object) -> bool:
    return isinstance(row, dict) and all(
        isinstance(name, str) and isinstance(value, str | int | float)
        for name, value in row.items()
    )


def load_supernet(run: Path) -> tuple[Supernet, RunFile]:
    """The finished supernet of a run folder.

    Raises:
        InputError: if training has not finished.
        FileFormatError: if a file is damaged or does not belong to the others.
    """
    record = RunFile.load(run)
    if record.weights_sha256 is None:
        raise InputError(
            f"{run}: training has not finished; resume it with: "
            f"ofa-deploy train --resume --run {run}"
        )
    space, weights = record.search_space, run / WEIGHTS
    tensors = load_tensors(weights, sha256=record.weights_sha256)
    check_amount(space.cost(space.largest).params, tensors, weights)
    net = Supernet(space)
    load_weights(net, tensors, weights)
    return channels_last(net.eval()), record
