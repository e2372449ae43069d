"""``ofa-deploy devices``: where networks can be measured."""

from ofa_deploy.cli._options import FormatOption
from ofa_deploy.cli._output import OutputFormat, emit, guarded

__all__ = ["devices"]


@guarded
def devices(output: FormatOption = OutputFormat.table) -> None:
    """List the devices to measure on.

    Each is a TOML file, in ./devices or shipped with the package.
    """
    from ofa_deploy.hardware import device_names, load_device, processor_name

    rows = []
    for name in device_names():
        device = load_device(name)
        rows.append(
            {
                "device": device.id,
                "name": device.name,
                "processor": processor_name() if device.connection == "local" else "",
                "runtimes": ",".join(device.runtimes),
                "precisions": ",".join(device.precisions),
            }
        )
    emit(rows, output, title="devices")
