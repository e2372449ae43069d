"""``Trace``: what a device said of itself while it was measured."""

from collections.abc import Callable, Iterable
from statistics import median
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

__all__ = ["Trace"]

_MOST = 64
Triple = tuple[float, float, float]


def _within(low: float, high: float) -> Callable[[Triple], Triple]:
    def checked(values: Triple) -> Triple:
        if not low <= values[0] <= values[1] <= values[2] <= high:
            raise ValueError(f"expected least, median and greatest, of {low:g} to {high:g}")
        return values

    return checked


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:+-]{1,40}$")]
Reason = Annotated[str, StringConstraints(pattern=r"^[ -~]{1,80}$")]
Degrees = Annotated[Triple, AfterValidator(_within(-40, 150))]
Mhz = Annotated[Triple, AfterValidator(_within(0, 20_000))]
Milliwatts = Annotated[Triple, AfterValidator(_within(-10_000, 5_000_000))]


class Trace(BaseModel):
    """Readings between the windows of measuring processes. What was not told is absent.

    Attributes:
        temperature_c: least, median and greatest of the hottest sensor, in °C.
        clocks_mhz: the same of each clock that counted, in MHz.
        power_mw: the same of the power that was drawn, in mW.
        throttled: why clocks were held down, in windows that were dropped.
        told: whether the device could have told that clocks were held down.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    temperature_c: Degrees | None = None
    clocks_mhz: dict[Name, Mhz] = Field(default={}, max_length=_MOST)
    power_mw: Milliwatts | None = None
    throttled: tuple[Reason, ...] = Field((), max_length=_MOST)
    told: bool = False

    @classmethod
    def joined(cls, traces: Iterable[Self]) -> Self:
        """Of several processes: least of the least, median of the medians, greatest of them."""
        traces = list(traces)
        names = dict.fromkeys(name for each in traces for name in each.clocks_mhz)
        clocks = {
            name: _joined(each.clocks_mhz.get(name) for each in traces)
            for name in list(names)[:_MOST]
        }
        reasons = dict.fromkeys(reason for each in traces for reason in each.throttled)
        return cls(
            temperature_c=_joined(each.temperature_c for each in traces),
            clocks_mhz={name: mhz for name, mhz in clocks.items() if mhz is not None},
            power_mw=_joined(each.power_mw for each in traces),
            throttled=tuple(reasons)[:_MOST],
            told=any(each.told for each in traces),
        )

    def __str__(self) -> str:
        parts = []
        if self.temperature_c:
            least, _, greatest = self.temperature_c
            parts.append(f"{least:.0f} to {greatest:.0f} °C")
        parts += [f"{name} at {middle:.0f} MHz" for name, (_, middle, _) in self.clocks_mhz.items()]
        if self.power_mw:
            parts.append(f"{self.power_mw[1] / 1e3:.3g} W")
        if self.throttled:
            parts.append(f"clocks held down now and then ({', '.join(self.throttled)})")
        return ", ".join(parts) or "no sensor told anything"


def _joined(triples: Iterable[Triple | None]) -> Triple | None:
    known = [triple for triple in triples if triple is not None]
    if not known:
        return None
    least, middle, greatest = zip(*known, strict=True)
    return min(least), median(middle), max(greatest)
