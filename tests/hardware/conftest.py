"""A table of made-up times, and the same times in the files that others publish."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from ofa_deploy.hardware import (
    Conditions,
    LatencyTable,
    Measurement,
    NetworkEntry,
)
from ofa_deploy.space import Block, SearchSpace
from tests.tables import measurement, table_of

HERE = Conditions(
    device="local", processor="Fast Inc. X1, 2 cores", runtime="onnxruntime", runtime_version="1.2"
)

Lookup = dict[str, dict[str, object]]


def made_up_ms(block: Block) -> float:
    """A device at 2 GMAC/s and 8 GB/s, with a thousandth of a millisecond a block.

    Only a classifier's pool depends on the resolution.
    """
    if block.kind == "classifier":
        return 0.03 + 0.001 * block.size
    return block.macs / 2e6 + block.bytes_moved / 8e6 + 1e-3


def made_up(ms: float) -> Measurement:
    return measurement(ms, p50=1.1 * ms, p90=1.2 * ms, p99=1.5 * ms)


def build(space: SearchSpace, ms: Mapping[str, float] | None = None) -> LatencyTable:
    """A table of ``made_up_ms``, other where ``ms`` says so."""
    return table_of(
        space,
        lambda block: (ms or {}).get(block.key, made_up_ms(block)),
        conditions=HERE,
        protocol={"rounds": 40},
        empty_ms=0.001,
        reference=made_up(0.4),
        networks=(
            NetworkEntry(arch=space.smallest.to_dict(), role="calibration", latency=made_up(0.2)),
            NetworkEntry(arch=space.largest.to_dict(), role="holdout", latency=made_up(0.7)),
        ),
    )


@pytest.fixture(scope="session")
def make_table() -> Callable[..., LatencyTable]:
    return build


@pytest.fixture(scope="session")
def ms_of() -> Callable[[Block], float]:
    return made_up_ms


def lookup(space: SearchSpace) -> Lookup:
    """What the published tables would say of a space at one resolution, in their keys."""
    found: Lookup = {}
    for block in space.blocks():
        s, o, cin, cout = block.size, block.out_size, block.in_channels, block.out_channels
        shape = f"input:{s}x{s}x{cin}-output:{o}x{o}x{cout}"
        ms = made_up_ms(block)
        if block.kind == "mbconv":
            key = (
                f"expanded_conv-{shape}-expand:{block.mid_channels}-kernel:{block.kernel}"
                f"-stride:{block.stride}-idskip:{1 if block.residual else 0}"
                f"-se:{1 if block.se else 0}-hs:{1 if block.activation == 'hswish' else 0}"
            )
            found[key] = {"count": 50, "mean": ms, "std": 0.02 * ms}
        elif block.kind == "conv":
            stem = cin == 3
            found[f"{'Conv' if stem else 'Conv_1'}-{shape}"] = {
                "count": 50,
                "mean": ms,
                "std": 0.02 * ms,
            }
        else:
            mid = block.mid_channels
            for key, part in (
                (f"AvgPool2D-input:{s}x{s}x{cin}-output:1x1x{cin}", 0.001 * s),
                (f"Conv_2-input:1x1x{cin}-output:1x1x{mid}", 0.01),
                (f"Logits-input:1x1x{mid}-output:{cout}", 0.02),
            ):
                found[key] = {"count": 50, "mean": part, "std": 0.02 * part}
    return found


def dumped(entries: Lookup) -> str:
    lines = []
    for key in sorted(entries):
        lines.append(f"{key}:")
        lines += [f"  {name}: {value}" for name, value in sorted(entries[key].items())]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="session")
def lookup_of() -> Callable[[SearchSpace], Lookup]:
    return lookup


@pytest.fixture(scope="session")
def dump() -> Callable[[Lookup], str]:
    return dumped


@pytest.fixture
def folder(tiny_space: SearchSpace, tmp_path: Path) -> Path:
    """The tiny space's tables as once-for-all would publish them."""
    made = tmp_path / "lookup"
    made.mkdir()
    for size in tiny_space.resolutions:
        text = dumped(lookup(tiny_space.with_resolutions(size)))
        (made / f"{size}_lookup_table.yaml").write_text(text)
    return made
