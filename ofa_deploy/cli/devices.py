"""``ofa-deploy devices``: where networks can be measured, and what those machines say."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa_deploy.cli._options import FormatOption
from ofa_deploy.cli._output import OutputFormat, emit, guarded, next_steps, say
from ofa_deploy.cli._profile_command import profile_command
from ofa_deploy.errors import DeviceError

if TYPE_CHECKING:
    from ofa_deploy.hardware import Device
    from ofa_deploy.profiling import Here, RemoteTarget

__all__ = ["app", "devices"]

NameArgument = Annotated[
    str,
    typer.Argument(help="A device's name, or its address: ssh://user@host.", metavar="NAME"),
]

app = typer.Typer(rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]})


@app.callback(invoke_without_command=True)
@guarded
def devices(context: typer.Context, output: FormatOption = OutputFormat.table) -> None:
    """List the devices to measure on; show one, ask it what it is, check that it is ready.

    Each is a TOML file, in ./devices or shipped with the package. Without a file, an address will
    do: ofa-deploy devices probe ssh://user@host
    """
    if context.invoked_subcommand is None:
        _list(output)


@app.command("list")
@guarded
def list_(output: FormatOption = OutputFormat.table) -> None:
    """List the devices to measure on."""
    _list(output)


def _list(output: OutputFormat) -> None:
    from ofa_deploy.errors import FileFormatError, OfaDeployError
    from ofa_deploy.hardware import device_names, load_device

    rows: list[dict[str, object]] = []
    bad = []
    for name in device_names():
        try:
            device = load_device(name)
        except OfaDeployError as error:
            say(str(error))
            bad.append(name)
            continue
        rows.append(
            {
                "device": device.id,
                "name": device.name,
                "connection": device.connection or "-",
                "runtimes": ", ".join(device.runtimes),
                "supported": "no" if device.refusal else "yes",
                "verified": "yes" if device.verified else "not yet",
            }
        )
    emit(rows, output, title="devices", spare=("name", "runtimes"))
    if bad:
        raise FileFormatError(
            f"{len(bad)} of {len(bad) + len(rows)} device files cannot be used: {', '.join(bad)}; "
            "mend or remove them"
        )


@app.command()
@guarded
def show(name: NameArgument, output: FormatOption = OutputFormat.table) -> None:
    """Show all that a device's file says: software that works, power modes, limits."""
    from ofa_deploy.hardware import load_device

    device = load_device(name)
    facts = device.model_dump(mode="json", by_alias=True) | {"refusal": device.refusal}
    _emit_facts(facts, output, title=device.id)
    if device.refusal:
        say(f"{device.id} is not supported: {device.refusal}")


@app.command()
@guarded
def probe(name: NameArgument, output: FormatOption = OutputFormat.table) -> None:
    """Ask a device what it is: processor, engines, memory, clocks, temperature, power.

    A device that is reached over SSH needs Python 3.8 or later, numpy and one of the runtimes;
    nothing is installed there. Your own OpenSSH configuration decides about keys, ports and hosts.
    """
    from ofa_deploy.hardware import load_device
    from ofa_deploy.profiling import Here, RemoteTarget, open_target

    device = load_device(name)
    with open_target(device) as target:
        place = target or Here()
        facts = _of_remote(place) if isinstance(place, RemoteTarget) else _of_here(place, device)
        _emit_facts(facts, output, title=target.name if target is not None else device.id)
    if not device.refusal:
        made = profile_command("--space mbv3-nano-32", name, device, engines=place.engines)
        next_steps(made, quiet=False)


@app.command()
@guarded
def check(name: NameArgument, output: FormatOption = OutputFormat.table) -> None:
    """Compare a device with its file: what it is, engines, power mode, clocks, heat.

    Exit 4 if it must not be measured as it is.
    """
    from ofa_deploy.hardware import check_device, load_device
    from ofa_deploy.profiling import Here, open_target

    device = load_device(name)
    with open_target(device) as target:
        place = target or Here()
        found = check_device(
            device,
            place.machine,
            place.telemetry(gpu=device.kind == "gpu"),
            engines=place.engines,
            load=place.load,
        )
    rows = [{"verdict": "error" if o.error else "warning", "what": o.what} for o in found]
    emit(rows or [{"verdict": "good", "what": "as its file says"}], output, title=device.id)
    if wrong := [objection.what for objection in found if objection.error]:
        raise DeviceError(f"{device.id} is not ready to be measured: {wrong[0]}")


def _of_remote(target: "RemoteTarget") -> dict[str, Any]:
    """What an agent said first, in the order and by the names of this machine's."""
    hello = target.hello
    rest = hello.model_dump(include={"numpy", "vnni", "load", "others", "board"})
    told = {"sensors": hello.sensors, **hello.telemetry.to_dict()}
    return {**hello.identity.to_dict(), "runtimes": hello.runtimes, **told, **rest}


def _of_here(here: "Here", device: "Device") -> dict[str, Any]:
    told = {"sensors": list(here.sensors), **here.told.to_dict()}
    return {**here.machine.to_dict(), "runtimes": _engines(device), **told, "load": here.load}


def _engines(device: "Device") -> dict[str, str]:
    """Versions of the engines that are installed here."""
    from ofa_deploy.errors import OfaDeployError
    from ofa_deploy.runtimes import get_runtime

    found = {}
    for name in device.runtimes:
        try:
            found[name] = get_runtime(name).version
        except OfaDeployError as error:
            found[name] = f"none: {error}"
    return found


def _emit_facts(facts: dict[str, Any], output: OutputFormat, *, title: str) -> None:
    """One row as it is, or, in a table, a line a fact; what is empty left out."""
    if output is not OutputFormat.table:
        emit([facts], output)
        return
    told = {name: value for name, value in facts.items() if value not in ("", [], {}, None)}
    emit([{"what": k, "found": _spelled(v)} for k, v in told.items()], output, title=title)


def _spelled(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_spelled(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(map(_spelled, value))
    return str(value)
