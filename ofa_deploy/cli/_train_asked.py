"""What the command line says about a training run, and how an error says it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa_deploy.cli._output import quoted
from ofa_deploy.cli._settings import given_settings
from ofa_deploy.errors import MismatchError, OtherRunError

__all__ = ["Asked", "as_typed"]


@dataclass(frozen=True)
class Asked:
    """What the command line says about a run; None where it says nothing.

    Attributes:
        counts: of training, validation and test images.
    """

    recipe: str | None
    data: str | None
    space: str | None
    resolutions: str | None
    file: Path | None
    pairs: list[str]
    flags: dict[str, Any]
    counts: tuple[int | None, int | None, int | None]
    skip_bad: bool

    def settings(self) -> dict[str, Any]:
        """Those of the file, under the flags, under ``--set``."""
        return given_settings(self.file, self.flags, self.pairs)

    def gave(self, setting: str) -> bool:
        """Whether the command line or its file says it."""
        return self.settings().get(setting) is not None

    def differs(self, setting: str, there: object, now: object) -> str:
        """A setting that is not what a run was begun with."""
        if setting == "init_sha256":
            given = "--init with other weights" if there and now else "--init"
            return given if now else "no --init, which the run there was begun with"
        return f"{self.typed(setting, now)} (the run there was begun with {there})"

    def typed(self, setting: str, value: object) -> str:
        """A setting as it was asked for; by its name where it was not."""
        pairs = [text for text in self.pairs if text.partition("=")[0].strip() == setting]
        if pairs:
            return f"--set {pairs[-1]}"
        if self.flags.get(setting) is not None:
            return f"--{setting.replace('_', '-')} {value}"
        return f"{setting} {value}"

    def options(self, seed: int | None) -> "dict[str, int | None]":
        """What ``load_data`` is told."""
        from ofa_deploy.cli._workspace import data_options

        return data_options(seed, *self.counts, self.skip_bad)


def as_typed(error: OtherRunError, asked: Asked, run: Path) -> MismatchError:
    """What differs, in the words of the command line."""
    from ofa_deploy.train.config import FOLLOWS

    if error.others or error.versions:
        return error
    told = {
        name: values
        for name, values in error.settings.items()
        if asked.gave(name) or not FOLLOWS.get(name, set()) & error.settings.keys()
    }
    if told.keys() == {"epochs"}:
        return _other_length(run, asked, *error.settings["epochs"])
    listed = ", ".join(asked.differs(name, *values) for name, values in told.items())
    way, resume = "ofa-deploy", f"train --resume --run {quoted(run)}"
    if "processes" in error.settings:
        there, _ = error.settings["processes"]
        way = f"torchrun --nproc-per-node {there} -m ofa_deploy --"
    return MismatchError(
        f"{run}: holds another run: {listed}; to go on with that one: {way} {resume}; for another "
        "one name another --run"
    )


def _other_length(run: Path, asked: Asked, there: object, now: object) -> MismatchError:
    """What to do where a run was asked to be longer or shorter."""
    data = f" --data {quoted(asked.data)}" if asked.data else ""
    weights = quoted(run / "supernet.safetensors")
    return MismatchError(
        f"{run}: holds a run of {there} epochs, not {now}: a run's length is fixed when it begins, "
        "as its learning rate falls to nothing at the end; to go on with that one: ofa-deploy "
        f"train --resume --run {quoted(run)}; to train its weights further when it is finished: "
        f"ofa-deploy train{data} --init {weights} --run OTHER --epochs N; to train anew name "
        "another --run"
    )
