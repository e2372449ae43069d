"""What people see while something runs, without knowing who shows it: no command is imported."""

from ofa_deploy.terminal.interrupt import Interrupted, Stop, heeding, was_interrupted
from ofa_deploy.terminal.progress import SILENT, Portions, Progress, Task, TimeLeft, Work
from ofa_deploy.terminal.text_table import KEPT, TextTable
from ofa_deploy.terminal.units import (
    UNKNOWN,
    count,
    decimals,
    duration,
    interval,
    metric,
    milliseconds,
    percent,
    percent_within,
    short,
    size,
    span,
)

__all__ = [
    "KEPT",
    "SILENT",
    "UNKNOWN",
    "Interrupted",
    "Portions",
    "Progress",
    "Stop",
    "Task",
    "TextTable",
    "TimeLeft",
    "Work",
    "count",
    "decimals",
    "duration",
    "heeding",
    "interval",
    "metric",
    "milliseconds",
    "percent",
    "percent_within",
    "short",
    "size",
    "span",
    "was_interrupted",
]
