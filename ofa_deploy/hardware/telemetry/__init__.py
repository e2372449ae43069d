"""What a device says of itself: temperature, clocks, throttling, power, load.

All files of this folder need the standard library alone and run on Python 3.8, since the agent on
a device carries them: they import each other by relative names and nothing else of the package.
``pynvml`` is imported when a GPU is looked for, ``psutil`` where there is no ``/proc``.
"""

from .identity import Identity, has_vnni, identify, processor_name
from .jetson import parse_l4t, parse_nvpmodel, parse_tegrastats
from .load import LoadMeter
from .raspberry import parse_clock, parse_pmic, parse_temperature, parse_throttled
from .reading import Telemetry
from .sensors import Sensors

__all__ = [
    "Identity",
    "LoadMeter",
    "Sensors",
    "Telemetry",
    "has_vnni",
    "identify",
    "parse_clock",
    "parse_l4t",
    "parse_nvpmodel",
    "parse_pmic",
    "parse_tegrastats",
    "parse_temperature",
    "parse_throttled",
    "processor_name",
]
