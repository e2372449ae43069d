"""Manners of the ``tensorrt`` module, 10.x and 11.x, and of ``tensorrt_rtx``.

Agents carry this file: the standard library only, on Python 3.8 too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from ofa_deploy.errors import DeviceError

__all__ = ["check_version", "name_of", "quiet_log", "refused"]

MAJORS = (10, 11)
_MESSAGES = 3


def name_of(trt: Any) -> str:
    """The runtime's name as users write it."""
    return str(trt.__name__).replace("_", "-")


def check_version(trt: Any) -> None:
    """See that this TensorRT is one of those whose interface is used here.

    Raises:
        DeviceError: naming the versions that are.
    """
    if name_of(trt) == "tensorrt-rtx":
        if not hasattr(trt, "ComputeCapability"):
            raise DeviceError(f"tensorrt-rtx {trt.__version__}: expected 1.1 or later")
        return
    found = re.match(r"\d+", trt.__version__)
    if not found or int(found.group()) not in MAJORS:
        raise DeviceError(
            f"tensorrt {trt.__version__}: expected 10.x or 11.x (on Jetson, JetPack 6.1 or later)"
        )


def quiet_log(trt: Any) -> Any:
    """A logger of the module's own kind that keeps the latest errors and prints nothing."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors = [*self.errors, message][-_MESSAGES:]

    return Log()


def refused(trt: Any, log: Any, reasons: Iterable[object] = ()) -> DeviceError:
    """What the module says, as an error; the log forgets it."""
    said = [*map(str, reasons), *log.errors] or ["it gives no reason"]
    log.errors = []
    return DeviceError(
        f"{name_of(trt)} {trt.__version__}: {' '.join('; '.join(said).split())[:300]}"
    )
