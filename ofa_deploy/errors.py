"""Every error that ofa_deploy raises on purpose.

::

    OfaDeployError                 exit 1
    ├── InputError                 the user's input or data is wrong
    │   ├── UnknownNameError       no such space, device, metric, column, ... (lists the nearest)
    │   ├── ConstraintError        the text of a constraint or budget does not parse
    │   ├── FileFormatError        a file is damaged, inconsistent or of a newer schema
    │   └── MismatchError          two things that belong to different spaces, runs or conditions
    │       ├── OtherRunError      a folder holds a run of other settings, space or images
    │       └── WeightsError       weights that do not fit a network (lists every key)
    ├── MissingDependencyError     an optional package is absent (names the pip extra)
    ├── BusyError                  another process holds the run folder
    ├── StorageError               disk full, no permission
    ├── TrainingDivergedError      the loss is NaN or infinite
    ├── GateError                  an exported model does not do what its subnet does
    ├── InfeasibleError            exit 3: no network meets the constraints
    └── DeviceError                exit 4: a device or runtime failed
        └── NoisyDeviceError       the device moved too much to be measured

Messages are one line: what was expected, what was found, what to do. They may quote what comes from
elsewhere, so nothing in them is obeyed by a terminal, and their length is bounded.
"""

from collections.abc import Iterable

__all__ = [
    "BusyError",
    "ConstraintError",
    "DeviceError",
    "FileFormatError",
    "GateError",
    "InfeasibleError",
    "InputError",
    "MismatchError",
    "MissingDependencyError",
    "NoisyDeviceError",
    "OfaDeployError",
    "OtherRunError",
    "StorageError",
    "TrainingDivergedError",
    "UnknownNameError",
    "WeightsError",
]


_LONGEST, _END = 4000, 1000


class OfaDeployError(Exception):
    """Root of the tree; ``exit_code`` is what the command line returns for it."""

    exit_code = 1

    def __str__(self) -> str:
        text = super().__str__()
        if len(text) > _LONGEST:
            text = f"{text[: _LONGEST - _END]} … {text[-_END:]}"
        return text if text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    """A character, or how it is written where it could move a cursor or not be printed."""
    if character.isprintable():
        return character
    return " " if character.isspace() else character.encode("unicode_escape").decode()


class InputError(OfaDeployError):
    """The user's input or data is wrong."""


class UnknownNameError(InputError):
    """A name that is not in a closed set."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, hint: str = "") -> None:
        import difflib

        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        listed = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
        super().__init__(f"unknown {kind} {name!r}; {listed}{f' ({hint})' if hint else ''}")


class ConstraintError(InputError):
    """The text of a constraint does not parse."""


class FileFormatError(InputError):
    """A file is unreadable, truncated, inconsistent or of a newer schema."""


class MismatchError(InputError):
    """Two things that belong to different spaces, runs or conditions."""


class OtherRunError(MismatchError):
    """A folder holds another run than the one that is asked for.

    ``settings`` maps each setting that differs to what it is there and now, ``versions`` each
    library likewise; ``others`` names what else differs.
    """

    def __init__(
        self,
        folder: object,
        settings: dict[str, tuple[object, object]],
        others: Iterable[str] = (),
        versions: dict[str, tuple[object, object]] | None = None,
    ) -> None:
        self.settings, self.others, self.versions = settings, tuple(others), versions or {}
        differing = {**settings, **self.versions}.items()
        listed = [f"{name} ({there} there, {now} now)" for name, (there, now) in differing]
        what = f"install {', '.join(self.versions)} as it was" if self.versions else ""
        same = "ask for the same" if settings or self.others else ""
        super().__init__(
            f"{folder}: holds another run, which differs in {', '.join([*listed, *self.others])}; "
            f"{' and '.join(filter(None, (same, what)))} to go on with it, or name another folder"
        )


class WeightsError(MismatchError):
    """Weights that do not fit a network.

    ``missing``, ``extra`` and ``misshaped`` hold every name; the message shows the first of each.
    """

    _SHOWN, _LONGEST = 10, 100

    def __init__(
        self,
        what: str,
        *,
        missing: Iterable[str] = (),
        extra: Iterable[str] = (),
        misshaped: Iterable[str] = (),
        hint: str = "",
    ) -> None:
        self.missing, self.extra = tuple(sorted(missing)), tuple(sorted(extra))
        self.misshaped = tuple(sorted(misshaped))
        problems = {"missing": self.missing, "extra": self.extra, "misshaped": self.misshaped}
        listed = "; ".join(
            f"{len(names)} {kind}: {self._list(names)}" for kind, names in problems.items() if names
        )
        super().__init__(f"{what}: {listed}{f'; {hint}' if hint else ''}")

    def _list(self, names: tuple[str, ...]) -> str:
        more = len(names) - self._SHOWN
        shown = ", ".join(name[: self._LONGEST] for name in names[: self._SHOWN])
        return f"{shown} and {more} more" if more > 0 else shown


class MissingDependencyError(OfaDeployError):
    """An optional package is absent."""


class BusyError(OfaDeployError):
    """Another process holds the run folder."""


class StorageError(OfaDeployError):
    """The disk is full, or a path cannot be written."""


class TrainingDivergedError(OfaDeployError):
    """The loss is NaN or infinite."""


class GateError(OfaDeployError):
    """An exported model does not do what its subnet does."""


class InfeasibleError(OfaDeployError):
    """No network meets the constraints.

    ``reachable`` maps each constrained metric to its (least, greatest) value in the space, or to
    what was seen of it where its bounds are not known;
    ``nearest`` is the candidate that misses the constraints least, where one was looked for.
    """

    exit_code = 3

    def __init__(
        self,
        message: str,
        reachable: dict[str, tuple[float, float]],
        nearest: object | None = None,
    ) -> None:
        super().__init__(message)
        self.reachable = reachable
        self.nearest = nearest


class DeviceError(OfaDeployError):
    """A device or runtime failed."""

    exit_code = 4


class NoisyDeviceError(DeviceError):
    """The device moved too much to be measured."""
