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
from ofa_deploy.hardware.table_check import Finding, check_table, table_space
from ofa_deploy.hardware.table_csv import table_csv
from ofa_deploy.hardware.table_diff import Moved, TableDiff, diff_tables
from ofa_deploy.hardware.table_import import import_tables
from ofa_deploy.hardware.telemetry import LoadMeter

__all__ = [
    "BlockEntry",
    "Conditions",
    "Device",
    "Finding",
    "LatencyTable",
    "LoadMeter",
    "Measurement",
    "Moved",
    "NetworkEntry",
    "TableDiff",
    "check_table",
    "device_names",
    "diff_tables",
    "find_table",
    "import_tables",
    "load_device",
    "processor_name",
    "table_csv",
    "table_files",
    "table_space",
]
