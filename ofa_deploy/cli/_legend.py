"""What the columns of tables mean, in a few words, by command; said below a table."""

from collections.abc import Iterable, Mapping

__all__ = [
    "BENCHED",
    "BLOCKS",
    "EXPORTED",
    "MOVED",
    "SENTINELS",
    "TABLES",
    "VERIFIED",
    "legend",
]

_SQNR = "signal to noise of the logits against PyTorch's (higher is nearer)"
_TOP1 = "percent, on the test set"
_SPREAD = "range over the measuring processes, relative"

EXPORTED = {
    "top1": f"{_TOP1} (search goes by the validation split)",
    "loss": "points of top-1 that the file is behind the subnet",
    "sqnr_db": _SQNR,
    "vs_onnx": "time over that of float32 in ONNX Runtime (below 1 is faster)",
}
VERIFIED = {
    "probe_difference": "of a logit from PyTorch's, relative to the greatest",
    "probe_sqnr_db": "signal to noise on the bundle's made-up images, no test images",
    "probe_sqnr_db_export": "the same when it was exported",
    "limit": "that the probe keeps to (INT8: 6 dB below its SQNR at export)",
    "test_top1": _TOP1,
    "test_top1_export": "the same when it was exported",
}
BENCHED = {
    "timed": "alone, or from decoded images to their classes",
    "ms": "ratio times the 10th percentile of the file that all are timed in turns with",
    "p50": "half of the plain timings are below it, of p90 nine in ten (ms)",
    "ratio": "to that file",
    "spread": _SPREAD,
}
BLOCKS = {
    "ms": "beyond an empty graph's",
    "lost_ms": "beyond what the device's best blocks need for its MACs and bytes",
    "spread": _SPREAD,
}
SENTINELS = {
    "ratio": "now over then",
    "moved": "beyond the ratio that all have in common",
    "noise": "of that, what chance explains",
}
TABLES = {
    "error_%": "mean, of networks that had no part in the fit",
    "stale": "by age alone (tables check asks the device)",
    "from": "measured here, on this processor, or elsewhere",
}
MOVED = {
    "moved_ms": "beyond the factor that all have in common",
    "noise_ms": "of that, what chance explains",
}


def legend(columns: Iterable[str], meanings: Mapping[str, str]) -> str:
    """One sentence of the columns that are there: ``lost ms: beyond …; spread: …``."""
    told = (f"{name.replace('_', ' ')}: {meanings[name]}" for name in columns if name in meanings)
    return "; ".join(told)
