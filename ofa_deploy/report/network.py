"""A network as a drawing: its blocks from input to output, and what share each has.

A block is drawn once, by itself (``glyph``); a drawing sets the glyphs side by side
(``network_svg``). The page is given the glyphs of a space and sets them in the same way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import sqrt
from typing import Any

from ofa_deploy.hardware import LatencyTable
from ofa_deploy.space import Arch, Block, SearchSpace

__all__ = [
    "FRAME",
    "RAMP",
    "BlockShare",
    "Glyph",
    "glyph",
    "network_svg",
    "shade",
    "shares",
    "stage_of",
    "widest",
]

WIDTH = 46.0
GAP = 10.0
HALF = 62.0  # of the widest block
THIN = 5.0
_SLOPE = 0.28  # share of a block's width over which it widens and narrows

# Sequential, one hue, even steps of lightness: from nothing to the network's largest share.
_PALE, _DEEP = (0xE9, 0xF1, 0xF8), (0x08, 0x30, 0x6B)
RAMP = tuple(
    "#" + "".join(f"{round(a + (b - a) * i / 8):02x}" for a, b in zip(_PALE, _DEEP, strict=True))
    for i in range(9)
)

# What both drawers need to know besides the glyphs; lengths in pixels.
FRAME: dict[str, float] = {
    "width": WIDTH,
    "gap": GAP,
    "left": 12.0,
    "top": 44.0,
    "middle": 44.0 + HALF,
    "bottom": 74.0,
    "title": 16.0,
    "share": 34.0,
}


@dataclass(frozen=True)
class Glyph:
    """A block by itself, around the middle of its left edge at (0, 0).

    Attributes:
        outline: corners of its shape, in pixels: from ``in_channels`` over ``mid_channels`` to
            ``out_channels``, each as the square root of its share of the space's widest.
        labels: lines of text below it.
        about: the same in words, for those who hear the drawing or point at a block.
    """

    outline: tuple[tuple[float, float], ...]
    labels: tuple[str, ...]
    about: str

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form."""
        points = " ".join(f"{x:g},{y:g}" for x, y in self.outline)
        return {"outline": points, "labels": list(self.labels), "about": self.about}


@dataclass(frozen=True)
class BlockShare:
    """One block of a network.

    Attributes:
        ms: latency in a table, None without one.
        share: of the network's latency, or of its MACs without a table; 0 to 1.
    """

    place: str
    block: Block
    ms: float | None
    share: float


def shares(
    space: SearchSpace, arch: Arch, table: LatencyTable | None = None
) -> tuple[BlockShare, ...]:
    """The blocks of a network with their shares of its latency, or of its MACs without a table.

    Raises:
        MismatchError: if the table was made for another space, or lacks a block.
    """
    named = space.lower_named(arch)
    if table is None:
        total = sum(block.macs for _, block in named)
        return tuple(BlockShare(place, b, None, b.macs / total) for place, b in named)
    table.check_for(space)
    times = [table.value(block) for _, block in named]
    return tuple(
        BlockShare(place, block, ms, ms / sum(times))
        for (place, block), ms in zip(named, times, strict=True)
    )


def widest(space: SearchSpace) -> int:
    """Channels of the widest part of any block, classes left out."""
    return max(
        max(b.in_channels, b.mid_channels, 0 if b.kind == "classifier" else b.out_channels)
        for b in space.blocks()
    )


def stage_of(place: str) -> str:
    """What a reader calls the part of the network that a place is in."""
    part, _, rest = place.partition(".")
    return f"stage {int(rest.partition('.')[0]) + 1}" if part == "stages" else part


def kernel_of(block: Block) -> str:
    """The kernel as a label: ``k5``; empty where there is none to speak of."""
    return "" if block.kind == "classifier" else f"k{block.kernel}"


def expand_of(block: Block) -> str:
    """The expansion as a label: ``e4``; empty for blocks without one."""
    if block.kind == "mbconv":
        return f"e{block.mid_channels / block.in_channels:.3g}"
    if block.kind == "bottleneck":
        return f"e{block.mid_channels / block.out_channels:.2g}"
    return ""


def glyph(block: Block, most: int) -> Glyph:
    """A block's shape and labels.

    Args:
        most: channels that are drawn at full height; see ``widest``.
    """

    def half(channels: int) -> float:
        return round(max(THIN, HALF * sqrt(min(1.0, channels / most))), 1)

    a, b = half(block.in_channels), half(block.out_channels)
    upper = [(0.0, -a), (WIDTH, -b)]
    if block.mid_channels:
        m = half(block.mid_channels)
        upper[1:1] = [(round(WIDTH * _SLOPE, 1), -m), (round(WIDTH * (1 - _SLOPE), 1), -m)]
    outline = (*upper, *((x, -y) for x, y in reversed(upper)))
    mid = f" over {block.mid_channels}" if block.mid_channels else ""
    about = (
        f"{block.kind}, {block.size} px, {block.in_channels} to {block.out_channels} channels{mid}"
    )
    labels = [
        kernel_of(block) or "fc",
        expand_of(block) or {"conv": "conv", "maxpool": "pool"}.get(block.kind, ""),
        "SE" if block.se else "",
        f"{block.out_channels}",
    ]
    extras = [kernel_of(block), expand_of(block), "squeeze-excite" if block.se else ""]
    return Glyph(outline, tuple(labels), ", ".join([about, *filter(None, extras)]))


def shade(share: float, greatest: float) -> str:
    """The colour of a share, from the ramp that ends at the network's greatest."""
    return RAMP[min(len(RAMP) - 1, int(len(RAMP) * share / greatest))] if greatest else RAMP[0]


def network_svg(space: SearchSpace, blocks: Sequence[BlockShare], *, title: str) -> str:
    """The drawing as a whole SVG file: no script, nothing from elsewhere, all text escaped."""
    most = widest(space)
    timed = blocks[0].ms is not None
    greatest = max(each.share for each in blocks)
    parts = []
    for index, each in enumerate(blocks):
        first = index == 0 or stage_of(each.place) != stage_of(blocks[index - 1].place)
        parts += _block(index, each, glyph(each.block, most), shade(each.share, greatest), first)
    width = 2 * FRAME["left"] + len(blocks) * (WIDTH + GAP) - GAP
    height = FRAME["middle"] + HALF + FRAME["bottom"]
    what = "latency" if timed else "MACs"
    legend = f"colour and percentages: share of {what}; height: square root of channels"
    root = {
        "xmlns": "http://www.w3.org/2000/svg",
        "viewBox": f"0 0 {width:g} {height + 44:g}",
        "width": f"{width:g}",
        "height": f"{height + 44:g}",
        "font-family": "system-ui, sans-serif",
        "font-size": "11",
        "text-anchor": "middle",
        "fill": "#1b1f24",
    }
    return "\n".join(
        [
            f"<svg{_attributes(root)}>",
            f"<title>{escape(title)}</title>",
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            _text(FRAME["left"], 20, title, {"font-size": "13", "text-anchor": "start"}),
            '<g transform="translate(0 26)">',
            *parts,
            "</g>",
            _text(FRAME["left"], height + 36, legend, {"text-anchor": "start"}),
            "</svg>\n",
        ]
    )


def _block(index: int, each: BlockShare, drawn: Glyph, fill: str, first: bool) -> list[str]:
    left = FRAME["left"] + index * (WIDTH + GAP)
    centre = left + WIDTH / 2
    heading = [_text(left, FRAME["title"], stage_of(each.place), _START)] if first else []
    shape = {
        "points": drawn.to_dict()["outline"],
        "transform": f"translate({left:g} {FRAME['middle']:g})",
        "fill": fill,
        "stroke": "#57606a",
    }
    below = FRAME["middle"] + HALF
    return [
        *heading,
        _text(centre, FRAME["share"], f"{100 * each.share:.1f} %"),
        f"<polygon{_attributes(shape)}><title>{escape(drawn.about)}</title></polygon>",
        *(
            _text(centre, below + 16 + 14 * line, label)
            for line, label in enumerate(drawn.labels)
            if label
        ),
    ]


_START = {"text-anchor": "start", "font-weight": "600"}


def _text(x: float, y: float, text: str, more: Mapping[str, str] | None = None) -> str:
    place = {"x": f"{x:g}", "y": f"{y:g}", **(more or {})}
    return f"<text{_attributes(place)}>{escape(text)}</text>"


def _attributes(values: Mapping[str, str]) -> str:
    return "".join(f' {name}="{escape(value)}"' for name, value in values.items())
