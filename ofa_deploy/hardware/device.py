"""``Device``: what a network can be measured on, described by a TOML file in ``devices/``."""

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from ofa_deploy.checks import problem
from ofa_deploy.errors import FileFormatError, InputError, UnknownNameError
from ofa_deploy.files import read_toml, shipped
from ofa_deploy.hardware.connection import Connection

__all__ = [
    "LEAST_PYTHON",
    "Device",
    "Limits",
    "Power",
    "Supported",
    "Unsupported",
    "device_names",
    "known_device",
    "load_device",
]

LEAST_PYTHON = (3, 8)  # what the agent on a device runs on
_OWN = Path("devices")
_LONGEST_HOST = 50  # of an id

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=64)]
Mode = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=40)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=500)]
# It becomes a word of a command on the device: no space, sign of a shell, or leading dash.
Interpreter = Annotated[
    str,
    StringConstraints(
        pattern=r"^(~?/)?[A-Za-z0-9_.][A-Za-z0-9_.+-]*(/[A-Za-z0-9_.+-]+)*$", max_length=256
    ),
]


def _reachable(text: str) -> str:
    if text:
        try:
            Connection.parse(text)
        except InputError as error:
            raise ValueError(str(error)) from None
    return text


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Power(_Part):
    """Settings of a device that change its speed; they are compared, and never set.

    Attributes:
        modes: the names of its power modes, as ``nvpmodel -q`` prints them.
        mode: the one that it must be in; empty is any, which tables then record.
        clocks: ``fixed`` demands clocks that cannot vary, as after ``jetson_clocks``.
    """

    modes: tuple[Mode, ...] = ()
    mode: Mode | Literal[""] = ""
    clocks: Literal["any", "fixed"] = "any"

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.mode and self.mode not in self.modes:
            known = ", ".join(self.modes) or "none"
            raise ValueError(f"mode {self.mode!r} is not one of modes ({known})")
        return self


class Limits(_Part):
    """What a device must not exceed while it is measured.

    Attributes:
        memory_mib: that a measuring process may take, networks and engine; None is no limit.
        temperature_c: above which measuring waits, in °C; None is no limit.
    """

    memory_mib: Annotated[int, Field(gt=0, le=2**24)] | None = None
    temperature_c: Annotated[float, Field(ge=20, le=125)] | None = None


class Supported(_Part):
    """A state of the device's software that is meant to work.

    Attributes:
        system: such as ``JetPack 6.1 or later``.
        python: of the interpreter that comes with it.
        note: what to know.
    """

    system: Text
    python: Annotated[str, StringConstraints(pattern=r"^3\.[0-9]{1,2}$")]
    note: str = Field("", max_length=500)

    @field_validator("python")
    @classmethod
    def _enough(cls, python: str) -> str:
        if tuple(map(int, python.split("."))) < LEAST_PYTHON:
            least = ".".join(map(str, LEAST_PYTHON))
            raise ValueError(f"{python} is older than {least}, which the agent needs")
        return python


class Unsupported(_Part):
    """A state of the device's software that does not work.

    Attributes:
        system: such as ``JetPack 4``.
        reason: why not.
    """

    system: Text
    reason: Text


class Device(_Part):
    """A place to run networks.

    Attributes:
        id: the name by which tables and constraints refer to it; the file's stem.
        kind: what it is; ``any`` where only its address is known.
        connection: ``local`` is this machine, ``ssh://[user@]host[:port]`` another; empty where
            the file describes a kind of machine and not one of them.
        runtimes, precisions: what can be measured there.
        architecture: of its processor; empty is any.
        interpreter: Python on the device: a command's name or a path.
        cores: to which measuring is pinned, as many as there are threads; empty is the last of
            the fastest.
        cool_down_s: pause before each measuring process, in seconds.
        power, limits: see there.
        supported, unsupported: states of its software.
        verified: what has been run on such hardware, and when; empty is nothing.
    """

    schema_: Literal["device/1"] = Field(alias="schema")
    id: Name
    name: str = Field(min_length=1, max_length=200)
    kind: Literal["cpu", "gpu", "jetson", "raspberry-pi", "any"]
    connection: Annotated[str, AfterValidator(_reachable)] = ""
    runtimes: tuple[Name, ...]
    precisions: tuple[Name, ...]
    architecture: Literal["", "x86_64", "aarch64"] = ""
    interpreter: Interpreter = "python3"
    cores: tuple[Annotated[int, Field(ge=0, le=4095)], ...] = Field((), max_length=1024)
    cool_down_s: float = Field(0.0, ge=0, le=3600)
    power: Power = Power()
    limits: Limits = Limits()
    supported: tuple[Supported, ...] = ()
    unsupported: tuple[Unsupported, ...] = ()
    verified: tuple[Text, ...] = ()
    note: str = ""

    @field_validator("cores")
    @classmethod
    def _once(cls, cores: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(cores)) < len(cores):
            raise ValueError("a core stands twice")
        return cores

    @model_validator(mode="after")
    def _offers_something(self) -> Self:
        if not (self.runtimes and self.precisions) and not self.refusal:
            raise ValueError("runtimes and precisions may be empty only where all is unsupported")
        return self

    @property
    def ssh(self) -> Connection | None:
        """Where it is; None for this machine.

        Raises:
            InputError: if its file does not say.
        """
        if not self.connection:
            add = "connection = 'ssh://user@host'"
            own = _files_in(_OWN).get(self.id)
            raise InputError(
                f"device {self.id} is a kind of machine, and no address is known; "
                + (
                    f"add {add} to {own}"
                    if own is not None
                    else f"write devices/NAME.toml with extends = {self.id!r} and {add}"
                )
            )
        return Connection.parse(self.connection)

    @property
    def refusal(self) -> str:
        """Why nothing can be measured there; empty where something can."""
        if self.supported:
            return ""
        return "; ".join(f"{state.system}: {state.reason}" for state in self.unsupported)

    def check_offers(self, runtime: str, precision: str) -> None:
        """See that it can be measured so.

        Raises:
            InputError: saying what it offers, or why nothing.
        """
        if self.refusal:
            raise InputError(f"device {self.id} is not supported: {self.refusal}")
        for kind, name, offered in (
            ("runtime", runtime, self.runtimes),
            ("precision", precision, self.precisions),
        ):
            if name not in offered:
                raise InputError(
                    f"device {self.id} has no {kind} {name!r}; it offers: {', '.join(offered)}"
                )


def _files_in(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.toml"))} if folder.is_dir() else {}


def _device_files() -> dict[str, Path]:
    """Device id to file; the user's ``./devices`` come before those that ship."""
    return _files_in(shipped("devices")) | _files_in(_OWN)


def device_names() -> tuple[str, ...]:
    """The ids of all devices that can be named."""
    return tuple(sorted(_device_files()))


def load_device(name: str) -> Device:
    """The device of that id, or at that address (``ssh://[user@]host[:port]``).

    Of a device that only an address names, nothing is known: ask it before it is believed to
    offer a runtime.

    Raises:
        UnknownNameError: listing the nearest ids.
        InputError: if an address is none.
        FileFormatError: if its file does not validate.
    """
    if "://" in name:
        return _at(name)
    files = _device_files()
    if name not in files:
        raise UnknownNameError("device", name, files, hint="ofa-deploy devices lists them")
    path = files[name]
    device = _validated(path, _extended(path))
    if device.id != name:
        raise FileFormatError(f"{path}: id {device.id!r} differs from the file's name")
    return device


def known_device(name: str) -> Device | None:
    """The device of that id, or None where no file describes it: tables travel without one.

    Raises:
        FileFormatError: if its file does not validate.
    """
    try:
        return load_device(name)
    except UnknownNameError:
        return None


def _at(address: str) -> Device:
    where = Connection.parse(address)
    assert where is not None  # 'local' has no ://
    return Device(
        schema="device/1",
        id=_id_of(where),
        name=str(where)[:200],
        kind="any",
        connection=str(where),
        runtimes=(
            "onnxruntime",
            "openvino",
            "tensorrt",
            "tensorrt-rtx",
            "onnxruntime-tensorrt",
            "onnxruntime-cuda",
        ),
        precisions=("fp32", "fp16", "int8"),
    )


def _id_of(where: Connection) -> str:
    """Host and port, and a part of their hash where others could be called so too."""
    host = where.host.lower()
    port = f"-{where.port}" if where.port else ""
    spelled = re.sub(r"[^a-z0-9.-]+", "-", host).lstrip(".-")[:_LONGEST_HOST]
    name = f"{spelled}{port}"
    like_a_port = not port and re.search(r"-[0-9]{4,5}$", spelled)
    if spelled == host and not like_a_port and name not in _device_files():
        return name
    asked = hashlib.sha256(f"{host}:{where.port or ''}".encode()).hexdigest()
    return f"{spelled or 'device'}{port}-{asked[:6]}"


def _extended(path: Path) -> dict[str, Any]:
    """What a file says, over what the shipped device that it extends says."""
    own = read_toml(path)
    if "extends" not in own:
        return own
    base_name = own.pop("extends")
    bases = _files_in(shipped("devices"))
    if not isinstance(base_name, str) or base_name not in bases:
        raise FileFormatError(
            f"{path}: extends: expected a device that ships ({', '.join(bases)}), "
            f"found {str(base_name)[:80]!r}"
        )
    base = read_toml(bases[base_name])
    for part in ("extends", "connection", "verified"):  # of one machine, not of its kind
        base.pop(part, None)
    merged = {**base, **own}
    for part in ("power", "limits"):
        if isinstance(base.get(part), dict) and isinstance(own.get(part), dict):
            merged[part] = {**base[part], **own[part]}
    return merged


def _validated(path: Path, found: dict[str, Any]) -> Device:
    try:
        text = json.dumps(found, default=str)
    except ValueError as error:  # Python writes no number of thousands of digits
        raise FileFormatError(f"{path}: a number is too large ({error})") from None
    try:
        return Device.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise FileFormatError(f"{path}: {problem(error)}") from None
