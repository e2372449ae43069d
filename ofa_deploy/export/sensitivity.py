"""Which blocks to leave in float32, found by measuring.

Each block is quantised alone, and the noise that this brings into the logits is its sensitivity.
Then the noisiest are left in float32 one after another; one that does not buy at least a decibel
goes back to INT8. That ends when the logits are good enough, after eight tries, or where the blocks
in float32 would hold more than a part of the network's multiplications.

Whole blocks, not layers: a tensor that two layers share stays rounded as long as one of them is in
INT8, so that a layer alone often buys nothing.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx

from ofa_deploy.runtimes import Session, get_runtime
from ofa_deploy.runtimes.onnx_int8 import Quantizer
from ofa_deploy.space import Block
from ofa_deploy.terminal import SILENT, Progress

__all__ = ["GAIN_DB", "Noise", "Sensitivity", "find_sensitive", "ratio_db", "sqnr_db"]

Floats = npt.NDArray[np.float32]

GAIN_DB = 1.0  # that blocks in float32 must buy
_GOAL_DB = 30.0
_TRIES = 8
_SHARE = 0.15
_MOST_DB = 200.0


@dataclass(frozen=True)
class Sensitivity:
    """What was found.

    Attributes:
        blocks: to leave in float32, by the names of their places.
        nodes: of the graph, in those blocks.
        sqnr_db: of the logits, with all blocks in INT8 and with those in float32.
        macs_share: of the network's multiply-accumulates that those blocks hold.
        tried: block to the decibels that leaving it in float32 bought, in the order of trying.
        images: that the logits were compared on.
    """

    blocks: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    sqnr_db: tuple[float, float] | None = None
    macs_share: float = 0.0
    tried: Mapping[str, float] = field(default_factory=dict)
    images: int = 0

    def to_dict(self) -> dict[str, object]:
        """A JSON-able form."""
        if self.sqnr_db is None:
            return {"float_blocks": [], "measured": False}
        before, after = self.sqnr_db
        return {
            "float_blocks": list(self.blocks),
            "measured": True,
            "sqnr_db_all_int8": round(before, 2),
            "sqnr_db": round(after, 2),
            "macs_share": round(self.macs_share, 4),
            "tried_gain_db": {name: round(gain, 2) for name, gain in self.tried.items()},
            "images": self.images,
        }


def sqnr_db(expected: Floats, found: Floats) -> float:
    """The power of what was expected over that of the difference, in decibels, at most 200."""
    wanted = expected.astype(np.float64)
    return ratio_db(float((wanted**2).sum()), float(((wanted - found) ** 2).sum()))


def ratio_db(signal: float, noise: float) -> float:
    """A ratio of powers in decibels, within ±200."""
    ratio = signal / noise if noise > 0 else np.inf
    return float(np.clip(10 * np.log10(max(ratio, 1e-30)), -_MOST_DB, _MOST_DB))


class Noise:
    """How far logits are from those of a float32 model, on some images.

    Attributes:
        images: how many.
    """

    def __init__(self, model: onnx.ModelProto, batches: Sequence[Floats]) -> None:
        self._runtime = get_runtime("onnxruntime")
        self._batches = batches
        self.images = sum(map(len, batches))
        self._expected = self._logits(self._session(model))

    def of(self, session: Session) -> float:
        """SQNR in decibels."""
        return sqnr_db(self._expected, self._logits(session))

    def of_model(self, model: onnx.ModelProto) -> float:
        """SQNR in decibels of a model in ONNX Runtime."""
        return self.of(self._session(model))

    def _session(self, model: onnx.ModelProto) -> Session:
        return self._runtime.load(model.SerializeToString())

    def _logits(self, session: Session) -> Floats:
        return np.concatenate([session.run(batch) for batch in self._batches])


def find_sensitive(
    model: onnx.ModelProto,
    quantizer: Quantizer,
    noise: Noise,
    network: Sequence[tuple[str, Block]],
    progress: Progress = SILENT,
) -> Sensitivity:
    """Look for blocks that are better left in float32.

    Args:
        model: what ``quantizer`` was made of.
        noise: on images best not those that it was calibrated with.
        network: the blocks that the graph was built of, with names of their places.
    """
    first = best = noise.of_model(quantizer.build())
    blocks = _nodes(model, [place for place, _ in network])
    macs = {place: block.macs for place, block in network}
    total = sum(macs.values())
    tried: dict[str, float] = {}
    kept: list[str] = []
    order = _by_noise(quantizer, noise, blocks, progress) if first < _GOAL_DB else ()
    with progress.task("blocks left in float32", _TRIES) as task:
        for place in order:
            if best >= _GOAL_DB or len(tried) == _TRIES:
                break
            together = [*kept, place]
            if sum(macs[each] for each in together) > _SHARE * total:
                continue
            floats = [name for each in together for name in blocks[each]]
            reached = noise.of_model(quantizer.build(floats=floats))
            tried[place] = reached - best
            if tried[place] >= GAIN_DB:
                kept, best = together, reached
            task.advance(note=f"{best:.1f} dB of {_GOAL_DB:g}")
    return Sensitivity(
        blocks=tuple(kept),
        nodes=tuple(name for place in kept for name in blocks[place]),
        sqnr_db=(first, best),
        macs_share=sum(macs[place] for place in kept) / total,
        tried=tried,
        images=noise.images,
    )


def _nodes(model: onnx.ModelProto, places: Sequence[str]) -> dict[str, list[str]]:
    """The nodes of each block; their names begin with its position."""
    found: dict[str, list[str]] = defaultdict(list)
    for node in model.graph.node:
        found[places[int(node.name.partition(".")[0])]].append(node.name)
    return found


def _by_noise(
    quantizer: Quantizer, noise: Noise, blocks: Mapping[str, Sequence[str]], progress: Progress
) -> list[str]:
    """The blocks, the one first that brings the most noise when it alone is in INT8."""
    alone = {}
    with progress.task("blocks in INT8, one alone", len(blocks)) as task:
        for place, nodes in blocks.items():
            alone[place] = noise.of_model(quantizer.build(only=nodes))
            task.advance(note=place)
    return sorted(alone, key=lambda place: alone[place])
