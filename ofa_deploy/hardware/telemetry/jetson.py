"""Jetson: ``tegrastats``, ``nvpmodel``, ``jetson_clocks``, from the Nano's JetPack 4 to Orin's 6.

What tegrastats prints differs by board and release, and says less without root: engines lack
their clocks. Each part is therefore looked for on its own, wherever it stands in the line.
Sources: NVIDIA Jetson Linux Developer Guide, "tegrastats Utility" and "Platform Power and
Performance".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ._system import FOLDERS, command_path, output_of, pattern, read_text
from .linux import clocks_fixed
from .reading import Telemetry, kept, tidy

__all__ = ["JetsonSource", "parse_l4t", "parse_nvpmodel", "parse_tegrastats"]

_LONGEST_LINE = 8192


_MEMORY = pattern(r"\b(RAM|SWAP) (\d{1,8})/(\d{1,8})MB")
_CPU = pattern(r"\bCPU \[([^\]]{1,2048})\](?:@(\d{1,5}))?")
_CORE = pattern(r"\s*(\d{1,3})%(?:@(\d{1,5}))?\s*")
_ENGINE = pattern(r"\b(EMC|GR3D|VIC)_FREQ (\d{1,3})%(?:@\[?(\d{1,5}(?:,\d{1,5}){0,7})\]?)?")
_HEAT = pattern(r"(?:^|\s)([A-Za-z][\w-]{0,31})@(-?\d{1,4}(?:\.\d{1,4})?)C(?=\s|$)")
_RAIL = pattern(r"(?:^|\s)([A-Z][A-Z0-9_]{0,31}) (-?\d{1,8})(?:mW)?/-?\d{1,8}(?:mW)?(?=\s|$)")
_ENGINES = {"EMC": "emc", "GR3D": "gpu", "VIC": "vic"}
_MODE = pattern(r"NV Power Mode: ?([\w.+ -]{1,40})")
_RELEASE = pattern(r"# R(\d{1,3}) \(release\), REVISION: (\d{1,3}(?:\.\d{1,3}){0,2})")


def parse_tegrastats(line: str) -> Telemetry | None:
    """One line of ``tegrastats``; None if nothing in it is known.

    Of each rail it is the power at that moment, in mW; the second figure is tegrastats' own mean.
    Rails that are not connected (``NC``) are left out, as are sensors of parts without power.
    """
    line = line[:_LONGEST_LINE]
    loads: list[tuple[str, float]] = []
    clocks: list[tuple[str, float]] = []
    for name, load, mhz in [*_cores(line), *_engines(line)]:
        loads.append((name, load))
        if mhz is not None:
            clocks.append((name, mhz))
    found = Telemetry(
        temperatures_c=kept("temperatures_c", ((n, float(t)) for n, t in _HEAT.findall(line))),
        clocks_mhz=kept("clocks_mhz", clocks),
        power_mw=kept("power_mw", ((n, int(mw)) for n, mw in _RAIL.findall(line) if n != "NC")),
        load_percent=kept("load_percent", loads),
        memory_mib=kept("memory_mib", _memory(line)),
    )
    return found or None


def _memory(line: str) -> Iterator[tuple[str, float]]:
    for name, used, total in _MEMORY.findall(line):
        if name == "RAM":
            yield "used", int(used)
            yield "total", int(total)
        else:
            yield "swap", int(used)


def _cores(line: str) -> Iterator[tuple[str, float, float | None]]:
    """(name, load, MHz) of each core that is on; old releases give one clock behind them all."""
    if (cpu := _CPU.search(line)) is None:
        return
    for number, text in enumerate(cpu.group(1).split(",")):
        if core := _CORE.fullmatch(text):
            mhz = core.group(2) or cpu.group(2)
            yield f"cpu{number}", int(core.group(1)), None if mhz is None else int(mhz)


def _engines(line: str) -> Iterator[tuple[str, float, float | None]]:
    """(name, load, MHz) of memory and GPU; of a GPU's clusters the fastest, since others sleep."""
    for name, load, mhz in _ENGINE.findall(line):
        yield _ENGINES[name], int(load), max(map(int, mhz.split(","))) if mhz else None


def parse_nvpmodel(text: str) -> str | None:
    """The power mode's name in what ``nvpmodel -q`` prints, such as ``MAXN`` or ``15W``."""
    found = _MODE.search(text[:_LONGEST_LINE])
    return tidy(found.group(1).strip()) or None if found else None


def parse_l4t(text: str) -> str | None:
    """The release of Jetson Linux in ``/etc/nv_tegra_release``, such as ``36.4.3``."""
    found = _RELEASE.search(text[:_LONGEST_LINE])
    return f"{found.group(1)}.{found.group(2)}" if found else None


class JetsonSource:
    """A Jetson that this process runs on."""

    name = "tegrastats"
    tells_throttling = False  # the kernel's counters tell, which LinuxSource reads

    def __init__(self, tegrastats: str, nvpmodel: str | None, root: Path) -> None:
        self._tegrastats, self._nvpmodel, self._root = tegrastats, nvpmodel, root

    @classmethod
    def find(cls, root: Path, folders: tuple[str, ...] = FOLDERS) -> JetsonSource | None:
        """The source, or None where there is no tegrastats."""
        tegrastats = command_path("tegrastats", folders)
        return cls(tegrastats, command_path("nvpmodel", folders), root) if tegrastats else None

    def read(self) -> Telemetry:
        line = output_of([self._tegrastats, "--interval", "100"], one_line=True)
        return Telemetry.merged(
            [(line and parse_tegrastats(line)) or Telemetry(), Telemetry(state=self._state())]
        )

    def _state(self) -> dict[str, str]:
        state = {}
        said = output_of([self._nvpmodel, "-q"]) if self._nvpmodel else None
        if mode := parse_nvpmodel(said or ""):
            state["power_mode"] = mode
        if (fixed := clocks_fixed(self._root)) is not None:
            state["jetson_clocks"] = "on" if fixed else "off"
        if release := parse_l4t(read_text(self._root / "etc/nv_tegra_release") or ""):
            state["l4t"] = release
        return state

    def glance(self, cores: Sequence[int]) -> Telemetry:
        return Telemetry()  # tegrastats takes its time; the kernel shows rails and heat too

    def throttled(self) -> tuple[str, ...]:
        return ()

    def close(self) -> None:
        pass
