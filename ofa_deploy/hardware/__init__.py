"""Devices, measurements and latency tables. Torch-free."""

from ofa_deploy.hardware.connection import Connection
from ofa_deploy.hardware.device import Device, device_names, known_device, load_device
from ofa_deploy.hardware.device_check import Objection, check_device, power_objections
from ofa_deploy.hardware.energy import EnergyMeter, PowerMeter, energy_meter
from ofa_deploy.hardware.measurement import Conditions, Measurement
from ofa_deploy.hardware.table import (
    BlockEntry,
    LatencyTable,
    NetworkEntry,
    find_table,
    table_files,
)
from ofa_deploy.hardware.table_check import Finding, check_table, table_space
from ofa_deploy.hardware.table_csv import table_csv
from ofa_deploy.hardware.table_diff import Moved, TableDiff, diff_tables
from ofa_deploy.hardware.table_import import import_tables
from ofa_deploy.hardware.telemetry import (
    Identity,
    LoadMeter,
    Sensors,
    Telemetry,
    has_vnni,
    identify,
    processor_name,
)
from ofa_deploy.hardware.trace import Trace

__all__ = [
    "BlockEntry",
    "Conditions",
    "Connection",
    "Device",
    "EnergyMeter",
    "Finding",
    "Identity",
    "LatencyTable",
    "LoadMeter",
    "Measurement",
    "Moved",
    "NetworkEntry",
    "Objection",
    "PowerMeter",
    "Sensors",
    "TableDiff",
    "Telemetry",
    "Trace",
    "check_device",
    "check_table",
    "device_names",
    "diff_tables",
    "energy_meter",
    "find_table",
    "has_vnni",
    "identify",
    "import_tables",
    "known_device",
    "load_device",
    "power_objections",
    "processor_name",
    "table_csv",
    "table_files",
    "table_space",
]
