"""``Measurement``: how long one thing took; ``Conditions``: what it was measured under."""

from pydantic import BaseModel, ConfigDict

from ofa_deploy.checks import Energy, Milliseconds, PositiveCount, Spread

__all__ = ["Conditions", "Measurement"]


class Conditions(BaseModel):
    """What must agree for two measurements to be comparable.

    Attributes:
        device: the device id, as in ``devices/``.
        processor: the model name that the device itself reports.
        power_mode: where a device has several, such as Jetson's nvpmodel.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    processor: str
    runtime: str
    runtime_version: str
    precision: str = "fp32"
    batch: PositiveCount = 1
    threads: PositiveCount = 1
    power_mode: str = ""

    def differences(self, other: "Conditions") -> list[str]:
        """Which conditions differ, each as ``name (this, other)``."""
        mine, theirs = self.model_dump(), other.model_dump()
        return [f"{key} ({mine[key]}, {theirs[key]})" for key in mine if mine[key] != theirs[key]]


class Measurement(BaseModel):
    """Latency of one graph, in ms.

    Attributes:
        ms: the figure that tables and budgets speak of: the median of the ratios to a reference
            graph timed in turns, times the reference's own 10th percentile in the fastest process.
            It is the latency of a machine that does nothing else, and repeats best.
        p10, p50, p90, p99: percentiles of the plain timings.
        spread: relative range of ``ms`` over the measuring processes.
        repeats: timed runs behind it.
        energy_mj: of the processor while it ran, where the device counts it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    ms: Milliseconds
    p10: Milliseconds
    p50: Milliseconds
    p90: Milliseconds
    p99: Milliseconds
    spread: Spread
    repeats: PositiveCount
    energy_mj: Energy | None = None
