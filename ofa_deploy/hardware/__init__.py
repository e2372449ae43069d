"""Devices, measurements and latency tables. Torch-free."""

from ofa_deploy.hardware.device import Device, device_names, load_device, processor_name
from ofa_deploy.hardware.measurement import Conditions, Measurement
from ofa_deploy.hardware.table import (
    BlockEntry,
    LatencyTable,
    NetworkEntry,
    find_table,
    table_files,
)
from ofa_deploy.hardware.telemetry import LoadMeter

__all__ = [
    "BlockEntry",
    "Conditions",
    "Device",
    "LatencyTable",
    "LoadMeter",
    "Measurement",
    "NetworkEntry",
    "device_names",
    "find_table",
    "load_device",
    "processor_name",
    "table_files",
]
