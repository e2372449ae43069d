"""``ofa-deploy doctor``: what is installed, what this machine can do, what to install for more."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ofa_deploy.cli._options import FormatOption
from ofa_deploy.cli._output import OutputFormat, emit, guarded, say
from ofa_deploy.errors import DeviceError, OfaDeployError, UnknownNameError

if TYPE_CHECKING:
    from ofa_deploy.hardware import Sensors

__all__ = ["CHECKS", "Found", "Status", "doctor"]


class Status(StrEnum):
    """How a check ended.

    ``good``; ``none``: this machine has no such thing; ``missing``: it can be installed;
    ``warning``: there, but see; ``broken``: it ought to work and does not.
    """

    good = "good"
    none = "none"
    missing = "missing"
    warning = "warning"
    broken = "broken"


@dataclass(frozen=True)
class Found:
    """What one check found.

    Attributes:
        status: whether it can be used.
        found: in words.
        mend: the command, or the step, that brings what is not there; empty where nothing would.
    """

    status: Status
    found: str
    mend: str = ""


NeededArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[CHECK]...",
        help="What must be good here, such as openvino or ssh: exit with 4 if it is not.",
    ),
]


@guarded
def doctor(needed: NeededArgument = None, output: FormatOption = OutputFormat.table) -> None:
    """Look at this machine and this installation, and say what to install for the rest.

    What is optional and absent is no fault: the exit code is 0, unless something that was named,
    or that ofa-deploy cannot do without, does not work.
    """
    wanted = needed or []
    for name in wanted:
        if name not in CHECKS:
            raise UnknownNameError("check", name, CHECKS)
    found = {name: check.look() for name, check in CHECKS.items()}
    if output is OutputFormat.table:
        lines = [{"what": n, "status": str(f.status), "found": f.found} for n, f in found.items()]
        emit(lines, output, title="this machine")
        _say_mends(found)
    else:
        rows = [
            {"what": name, **asdict(f), "status": str(f.status), "purpose": CHECKS[name].purpose}
            for name, f in found.items()
        ]
        emit(rows, output)
    for name, one in found.items():
        if one.status is Status.broken or (name in wanted and one.status is not Status.good):
            mend = f"; mend it with: {one.mend}" if one.mend else ""
            raise DeviceError(f"{name}: expected it to work, found {one.found}{mend}")


def _say_mends(found: dict[str, Found]) -> None:
    mends = {name: one.mend for name, one in found.items() if one.mend}
    if mends:
        say("for the rest:")
    for name, mend in mends.items():
        say(f"  {name}, {CHECKS[name].purpose}: {mend}")


def _pip(extra: str) -> str:
    return f"pip install 'ofa-deploy[{extra}]'"


# -- this machine ---------------------------------------------------------------------------


def _machine() -> Found:
    from ofa_deploy.hardware import identify

    here = identify()
    memory = f", {here.memory_mib:,} MiB" if here.memory_mib else ""
    return Found(Status.good, f"{here.processor}{memory}, {here.architecture}, {here.system}")


def _int8() -> Found:
    from ofa_deploy.hardware import has_vnni, identify

    architecture = identify().architecture
    if has_vnni():
        return Found(Status.good, "VNNI")
    if architecture == "x86_64":
        return Found(Status.none, "no VNNI: INT8 of small networks is often slower than float32")
    return Found(Status.none, f"not told by a processor of {architecture}")


def _gpu() -> Found:
    from ofa_deploy.runtimes.trt.cuda import gpu

    try:
        device = gpu()
    except DeviceError as error:
        return Found(Status.none, str(error))
    major, minor = device.capability
    return Found(
        Status.good, f"{device.name}, compute capability {major}.{minor}, {_driver() or 'driver'}"
    )


def _driver(path: Path = Path("/proc/driver/nvidia/version")) -> str:
    try:
        first = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    except OSError:
        return ""
    return " ".join(first.removeprefix("NVRM version:").split())


def _with_sensors(look: Callable[["Sensors"], Found]) -> Found:
    from ofa_deploy.hardware import Sensors

    with Sensors.find(gpu=0) as sensors:
        return look(sensors)


def _sensors() -> Found:
    def look(sensors: "Sensors") -> Found:
        told = sensors.read().to_dict()
        if not told:
            return Found(Status.none, "no temperature, clock or throttling is told, as in a VM")
        hot = sensors.read().temperature_c
        heat = "" if hot is None else f", {hot:g} °C"
        return Found(Status.good, f"{', '.join(sensors.names)}: {', '.join(told)}{heat}")

    return _with_sensors(look)


def _energy(root: Path = Path("/sys/class/powercap")) -> Found:
    def look(sensors: "Sensors") -> Found:
        from ofa_deploy.hardware import EnergyMeter, energy_meter

        meters = {"processor": energy_meter(sensors, root=root)}
        meters["GPU"] = energy_meter(sensors, gpu=True, root=root)
        told = [
            f"{name} by its {'counter' if isinstance(meter, EnergyMeter) else 'power'}"
            for name, meter in meters.items()
            if meter is not None
        ]
        if told:
            return Found(Status.good, ", ".join(told))
        if any(root.glob("intel-rapl:*/energy_uj")):
            return Found(
                Status.missing,
                "the processor's counters may not be read",
                f"sudo chmod a+r {root}/intel-rapl:*/energy_uj (until the next boot)",
            )
        return Found(Status.none, "nothing here counts energy")

    return _with_sensors(look)


def _quiet() -> Found:
    def look(sensors: "Sensors") -> Found:
        from ofa_deploy.hardware import check_device, identify, load_device

        against = [o.what for o in check_device(load_device("local"), identify(), sensors.read())]
        load, cores = os.getloadavg()[0], os.cpu_count() or 1
        if load > 0.5 * cores:
            against.append(f"busy: {load:.1f} processes want its {cores} cores")
        if against:
            return Found(Status.warning, "; ".join(against))
        return Found(Status.good, f"{load:.1f} processes on {cores} cores")

    return _with_sensors(look)


# -- what is installed ----------------------------------------------------------------------


def _packages() -> Found:
    names = [name for name in _required() if not _there(name)]
    if names:
        return Found(Status.broken, f"{', '.join(names)} not installed", f"pip install {names[0]}")
    return Found(Status.good, f"all {len([*_required()])} that are required")


def _required() -> Iterator[str]:
    for line in metadata.requires("ofa-deploy") or []:
        if ";" not in line and (name := re.match(r"[A-Za-z0-9._-]+", line)):
            yield name.group()


def _there(distribution: str) -> bool:
    try:
        return bool(metadata.version(distribution))
    except metadata.PackageNotFoundError:
        return False


def _torch() -> Found:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Found(Status.broken, f"torch does not load: {error}", "pip install torch")
    cuda = f"CUDA {torch.version.cuda}" if torch.cuda.is_available() else "no GPU"
    return Found(
        Status.good, f"{torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {cuda}"
    )


def _runtime(name: str) -> Callable[[], Found]:
    def look() -> Found:
        from ofa_deploy.errors import MissingDependencyError
        from ofa_deploy.runtimes import get_runtime

        try:
            runtime = get_runtime(name)
            version, why_not = runtime.version, runtime.why_not()
        except MissingDependencyError as error:
            reason, _, command = str(error).partition("; run: ")
            return Found(Status.missing, reason, command or _pip(name))
        except (OfaDeployError, ImportError, OSError) as error:
            return Found(Status.broken, str(error))
        if why_not is None:
            return Found(Status.good, version)
        return Found(Status.warning, f"{version}, builds only: {why_not}")

    return look


def _nncf() -> Found:
    if not _there("nncf"):
        return Found(Status.missing, "nncf is not installed", _pip("openvino"))
    return Found(Status.good, metadata.version("nncf"))


def _pynvml() -> Found:
    if not _there("nvidia-ml-py"):
        return Found(Status.missing, "nvidia-ml-py is not installed", _pip("nvidia"))
    return Found(Status.good, metadata.version("nvidia-ml-py"))


def _ssh() -> Found:
    if (path := shutil.which("ssh")) is None:
        return Found(
            Status.missing,
            "no ssh on the PATH",
            "sudo apt install openssh-client (or your system's OpenSSH)",
        )
    return Found(Status.good, path)


# -- files ----------------------------------------------------------------------------------


def _devices() -> Found:
    from ofa_deploy.hardware import device_names, load_device

    names = device_names()
    for name in names:
        try:
            load_device(name)
        except OfaDeployError as error:
            return Found(
                Status.warning, str(error), "edit that file; devices/README.md has its form"
            )
    return Found(Status.good, f"{len(names)} can be named")


def _tables() -> Found:
    from ofa_deploy.cli.tables_list import origins

    found = origins()
    here = found.pop("here", 0)
    others = "".join(f", {count} {where}" for where, count in sorted(found.items()))
    if not here:
        mend = "ofa-deploy profile --space mbv3-nano-32"
        return Found(Status.none, f"none measured on this machine{others}", mend)
    return Found(Status.good, f"{here} measured on this machine{others}")


@dataclass(frozen=True)
class _Check:
    purpose: str
    look: Callable[[], Found]


CHECKS = {
    "machine": _Check("what tables are bound to", _machine),
    "int8": _Check("8-bit arithmetic of the processor", _int8),
    "gpu": _Check("for training and TensorRT", _gpu),
    "sensors": _Check("to see heat and throttling while measuring", _sensors),
    "energy": _Check("for tables of energy", _energy),
    "quiet": _Check("latencies are measured best on an idle machine", _quiet),
    "packages": _Check("what ofa-deploy cannot do without", _packages),
    "torch": _Check("training, evaluating, exporting", _torch),
    "onnxruntime": _Check("measures and runs on any processor", _runtime("onnxruntime")),
    "openvino": _Check("Intel's engine, float32 to INT8", _runtime("openvino")),
    "nncf": _Check("INT8 of OpenVINO", _nncf),
    "tensorrt": _Check("NVIDIA's engine", _runtime("tensorrt")),
    "tensorrt-rtx": _Check("engines for GeForce and RTX", _runtime("tensorrt-rtx")),
    "pynvml": _Check("what an NVIDIA GPU tells of itself", _pynvml),
    "ssh": _Check("to measure on devices over SSH", _ssh),
    "devices": _Check("what can be measured on", _devices),
    "tables": _Check("what search predicts latency by", _tables),
}
