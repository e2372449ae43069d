"""Latency tables whose figures the tests make up."""

from collections.abc import Callable
from typing import Any

from ofa_deploy.hardware import BlockEntry, Conditions, LatencyTable, Measurement
from ofa_deploy.space import Block, SearchSpace

__all__ = ["measurement", "table_of"]

SOMEWHERE = Conditions(
    device="bench", processor="made up", runtime="onnxruntime", runtime_version="1"
)


def measurement(ms: float, **changed: Any) -> Measurement:
    """As if every run had taken ``ms``."""
    usual = {"ms": ms, "p10": ms, "p50": ms, "p90": ms, "p99": ms, "spread": 0.01, "repeats": 20}
    return Measurement(**{**usual, **changed})


def table_of(
    space: SearchSpace, block_ms: Callable[[Block], float], **changed: Any
) -> LatencyTable:
    """A table in which blocks take what ``block_ms`` says."""
    conditions = changed.get("conditions", SOMEWHERE)
    usual: dict[str, Any] = {
        "space": space.name,
        "classes": space.classes,
        "fingerprint": space.fingerprint,
        "resolutions": space.resolutions,
        "conditions": conditions,
        "protocol": {"repeats": 20},
        "date": "2026-01-02T03:04:05+00:00",
        "reference": measurement(1.0),
        "blocks": {
            block.key: BlockEntry.of(
                block, ms=block_ms(block), spread=0.01, count=20, batch=conditions.batch
            )
            for block in space.blocks()
        },
    }
    return LatencyTable(**{**usual, **changed})
