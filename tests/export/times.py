"""Times that are made up, in place of real ones."""

from collections.abc import Callable, Mapping
from typing import Any

from ofa_deploy.export import Latency

__all__ = ["fake_times"]


def fake_times(
    ratios: Mapping[str, float],
) -> Callable[..., dict[str, Latency]]:
    """In place of ``time_files``: each file takes what ``ratios`` say, or as long as the first."""

    def time_files(
        files: Mapping[str, Any],
        twins: Mapping[str, str],
        *,
        threads: int = 1,
        progress: object = None,
    ) -> dict[str, Latency]:
        taken = {name: ratios.get(name, 1.0) for name in files}
        return {
            name: Latency(
                ms=ratio,
                ratio=ratio,
                spread=0.01,
                twin_ratio=ratio / taken[twins[name]] if name in twins else None,
                p50=ratio,
                p90=ratio,
                p99=ratio,
                batch=files[name].shape[0],
                threads=threads,
                processes=3,
            )
            for name, ratio in taken.items()
        }

    return time_files
