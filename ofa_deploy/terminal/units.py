"""Numbers as people read them, in every message, table, hover text and axis."""

from collections.abc import Sequence
from math import floor, isfinite, log10

__all__ = [
    "UNKNOWN",
    "count",
    "decimals",
    "duration",
    "interval",
    "metric",
    "milliseconds",
    "percent",
    "percent_within",
    "short",
    "size",
    "span",
]

UNKNOWN = "–"


def milliseconds(value: float | None, digits: int = 3) -> str:
    """So many significant digits, never in exponent form: ``0.0123``, ``4.56``, ``1234``."""
    if value is None:
        return UNKNOWN
    if value == 0 or not isfinite(value):
        return f"{value:g}"
    rounded = float(f"{abs(value):.{digits - 1}e}")
    decimals = max(0, digits - 1 - floor(log10(rounded)))
    return f"{value:.{decimals}f}"


def interval(low: float | None, value: float | None, high: float | None) -> str:
    """Milliseconds with the interval, where there is one: ``4.56 (4.31–4.80)``."""
    if low is None or high is None:
        return milliseconds(value)
    return f"{milliseconds(value)} ({milliseconds(low)}–{milliseconds(high)})"


def percent(value: float | None) -> str:
    """Two decimals; the sign stands in the heading."""
    return UNKNOWN if value is None else f"{value:.2f}"


def percent_within(value: float | None, ends: tuple[float | None, float | None]) -> str:
    """With half the width of the interval, where there is one: ``86.29 ±1.4``."""
    low, high = ends
    if low is None or high is None:
        return percent(value)
    half = (high - low) / 2
    return f"{percent(value)} ±{half:.1f}" if half >= 0.1 else f"{percent(value)} ±{half:.2f}"


def decimals(values: Sequence[float], *, percents: bool = False) -> int:
    """How many decimals a column has: four digits of its greatest value, two of its least.

    Args:
        percents: which have two decimals, whatever they are.
    """
    if percents:
        return 2
    sizes = [floor(log10(abs(value))) for value in values if value and isfinite(value)]
    return min(9, max(0, 3 - max(sizes), 1 - min(sizes))) if sizes else 0


def count(value: float | None, digits: int = 3) -> str:
    """Decimal multiples, as MACs and parameters are told: ``950``, ``412 k``, ``3.21 M``."""
    if value is None:
        return UNKNOWN
    for factor, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= factor * 0.9995:
            return f"{milliseconds(value / factor, digits)}{suffix}"
    return f"{value:.0f}"


def short(value: float) -> float:
    """A number for a plot: seven significant digits."""
    return float(f"{value:.7g}")


def size(value: float, digits: int = 3) -> str:
    """Binary multiples of a byte: ``512 B``, ``24.0 KiB``, ``1.50 MiB``."""
    for factor, suffix in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if abs(value) >= factor:
            return f"{milliseconds(value / factor, digits)} {suffix}"
    return f"{value:.0f} B"


def duration(seconds: float) -> str:
    """About how long: ``137 s``, ``85 min``, ``4.2 h``."""
    if seconds < 300:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3 * 3600 else f"{seconds / 3600:.1f} h"


def metric(name: str, value: float, digits: int = 3) -> str:
    """A metric's value with its unit, by the metric's name."""
    kind = name.partition("[")[0].partition(".")[0]
    if name.endswith(".spread"):
        return f"{100 * value:.1f} %"
    if name.endswith(".images"):
        return f"{value:.0f}"
    if kind in ("latency", "energy"):
        return f"{milliseconds(value, digits)} {'ms' if kind == 'latency' else 'mJ'}"
    if kind in ("top1", "test_top1"):
        return f"{percent(value)} %"
    if kind in ("macs", "params"):
        return count(value, digits)
    return size(value, digits) if kind in ("peak_memory", "model_size") else f"{value:g}"


def span(name: str, ends: tuple[float, float]) -> str:
    """Least and greatest value of a metric: ``0.03733 ms to 0.1298 ms``.

    With a digit more than tables have, so that a bound differs from a limit that just misses it.
    """
    return " to ".join(metric(name, value, 4) for value in ends)
