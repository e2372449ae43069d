"""``Device``: what a network can be measured on, described by a TOML file in ``devices/``."""

import os
import platform
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ofa_deploy._files import read_toml
from ofa_deploy._folders import shipped
from ofa_deploy.errors import FileFormatError, UnknownNameError

__all__ = ["Device", "device_names", "load_device", "processor_name"]


class Device(BaseModel):
    """A place to run networks.

    Attributes:
        id: the name by which tables and constraints refer to it; the file's stem.
        connection: ``local`` is this machine.
        runtimes: what can be measured there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_: Literal["device/1"] = Field(alias="schema")
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=64)
    name: str
    kind: Literal["cpu"]
    connection: Literal["local"]
    runtimes: tuple[str, ...]
    precisions: tuple[str, ...]
    note: str = ""


def _device_files() -> dict[str, Path]:
    """Device id to file; the user's ``./devices`` come before those that ship."""
    files: dict[str, Path] = {}
    for folder in (shipped("devices"), Path("devices")):
        if folder.is_dir():
            files |= {path.stem: path for path in sorted(folder.glob("*.toml"))}
    return files


def device_names() -> tuple[str, ...]:
    """The ids of all devices that can be named."""
    return tuple(sorted(_device_files()))


def load_device(name: str) -> Device:
    """The device of that id.

    Raises:
        UnknownNameError: listing the nearest ids.
        FileFormatError: if its file does not validate.
    """
    files = _device_files()
    if name not in files:
        raise UnknownNameError("device", name, files, hint="ofa-deploy devices lists them")
    path = files[name]
    try:
        device = Device.model_validate(read_toml(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise FileFormatError(f"{path}: {where}: {first['msg']}") from None
    if device.id != name:
        raise FileFormatError(f"{path}: id {device.id!r} differs from the file's name")
    return device


def processor_name() -> str:
    """What this machine's processor calls itself, and how many cores it has."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.lower().startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return f"{name}, {os.cpu_count()} cores"
