"""``Identity``: what kind of machine this is."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from ._system import read_text
from .jetson import parse_l4t

__all__ = ["Identity", "has_vnni", "identify", "processor_name"]

_HERE = Path("/")
# ARM processors do not say their name; these are the parts of ARM's own designs that boards and
# servers have, as /proc/cpuinfo numbers them.
_ARM_PARTS = {
    "0xd03": "Cortex-A53",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd40": "Neoverse-V1",
    "0xd42": "Cortex-A78AE",
    "0xd49": "Neoverse-N2",
    "0xd4f": "Neoverse-V2",
}
_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True)
class Identity:
    """A machine.

    Attributes:
        kind: ``jetson``, ``raspberry-pi``, ``gpu`` (an NVIDIA driver is loaded) or ``cpu``.
        architecture: ``x86_64``, ``aarch64``, or what the kernel calls it.
        processor: as tables record it.
        cores: that the system has.
        memory_mib: of the system; 0 where it is not told.
        system: such as ``Ubuntu 22.04.5 LTS, L4T 36.4.3``.
        python: the version of the interpreter, such as ``3.10.12``.
    """

    kind: str
    architecture: str
    processor: str
    cores: int
    memory_mib: int
    system: str
    python: str

    def to_dict(self) -> dict[str, str | int]:
        """As JSON can hold it."""
        return asdict(self)


def identify(root: Path = _HERE) -> Identity:
    """The machine that this runs on.

    Args:
        root: where ``proc`` and ``etc`` are.
    """
    machine = platform.machine().lower()
    return Identity(
        kind=_kind(root),
        architecture=_ARCHITECTURES.get(machine, machine),
        processor=processor_name(root),
        cores=os.cpu_count() or 1,
        memory_mib=_memory_mib(root),
        system=_system(root),
        python=platform.python_version(),
    )


def processor_name(root: Path = _HERE) -> str:
    """What this machine's processor, or board, calls itself, and how many cores it has.

    Args:
        root: where ``proc`` is.
    """
    name = _board(root) or _model_name(root) or platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def _board(root: Path) -> str:
    """Boards have a device tree with their name; PCs and servers do not."""
    text = read_text(root / "proc/device-tree/model", 256) or ""
    return "".join(c for c in text if c.isprintable()).strip()


def _model_name(root: Path) -> str:
    fields: dict[str, str] = {}
    for line in (read_text(root / "proc/cpuinfo") or "").splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip().lower(), value.strip())
    if "model name" in fields:
        return fields["model name"]
    part, implementer = fields.get("cpu part", ""), fields.get("cpu implementer", "")
    if implementer == "0x41" and part in _ARM_PARTS:
        return f"ARM {_ARM_PARTS[part]}"
    return f"{platform.machine()} {implementer} part {part}" if part else ""


def _kind(root: Path) -> str:
    compatible = read_text(root / "proc/device-tree/compatible", 1024) or ""
    if "nvidia,tegra" in compatible or (root / "etc/nv_tegra_release").exists():
        return "jetson"
    if _board(root).startswith("Raspberry Pi"):
        return "raspberry-pi"
    return "gpu" if (root / "proc/driver/nvidia/version").exists() else "cpu"


def _memory_mib(root: Path) -> int:
    found = re.search(r"^MemTotal:\s+(\d{1,12}) kB", read_text(root / "proc/meminfo") or "", re.M)
    return int(found.group(1)) // 1024 if found else 0


def _system(root: Path) -> str:
    release = read_text(root / "etc/os-release") or ""
    named = re.search(r'^PRETTY_NAME="?([ -!#-~]{1,60})"?$', release, re.M)
    l4t = parse_l4t(read_text(root / "etc/nv_tegra_release") or "")
    parts = [named.group(1) if named else platform.system(), f"L4T {l4t}" if l4t else ""]
    return ", ".join(part for part in parts if part)


def has_vnni(root: Path = _HERE) -> bool:
    """Whether this x86 processor multiplies bytes into 32-bit sums at once."""
    flags = read_text(root / "proc/cpuinfo") or ""
    return "avx512_vnni" in flags or "avx_vnni" in flags
