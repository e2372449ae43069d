"""Genes, and the slots that they decide: which block stands at each place of a network."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

from ofa_deploy.space.block import Block, make_divisible
from ofa_deploy.space.layout import Layout, Stage, deep_middle

__all__ = ["Gene", "Property", "Slot", "build_genes", "build_slots"]


@dataclass(frozen=True)
class Gene:
    """One column of a population: what it chooses among.

    Attributes:
        stage: the stage it belongs to, or -1.
        block: the block of that stage, for genes that are inactive with it, or -1.
        aliases: further values that mean a choice: pairs of value and choice.
        written: for each choice what people write for it, where it is not the choice itself:
            multipliers for a width's.
    """

    name: str
    choices: tuple[float, ...]
    stage: int = -1
    block: int = -1
    aliases: tuple[tuple[float, float], ...] = ()
    written: tuple[tuple[float, ...], ...] = ()

    @property
    def kind(self) -> str:
        """``resolution``, ``depth``, ``width``, ``kernel`` or ``expand``."""
        return self.name.partition("[")[0]

    def index(self, value: float) -> int:
        """The choice's index; ValueError if there is none."""
        return self.choices.index(dict(self.aliases).get(value, value))

    @property
    def values(self) -> tuple[tuple[float, ...], ...]:
        """For each choice the values that mean it in a constraint."""
        return self.written or tuple((choice,) for choice in self.choices)


@dataclass(frozen=True)
class Property:
    """Something about a network: a constant, or decided by a gene.

    Attributes:
        values: by the gene's choice index.
        column: the gene's, or None for a constant.
    """

    values: tuple[float, ...]
    column: int | None = None

    def of(self, row: "Sequence[int] | Any") -> float:
        """Its value in a network, given as choice indices by column."""
        return self.values[0 if self.column is None else row[self.column]]


@dataclass(frozen=True)
class Slot:
    """A place in the network.

    Attributes:
        name: where it is, such as ``stages.1.0``.
        genes: the population columns that decide its block.
        sizes: how many choices each of them has.
        block: from choice indices of those genes, in that order, to the block that stands there,
            or None where none does.
    """

    name: str
    genes: tuple[int, ...]
    sizes: tuple[int, ...]
    block: Callable[..., Block | None]

    def blocks(self) -> Iterator[tuple[tuple[int, ...], Block]]:
        """Every block that can stand there, with the choice indices that put it there."""
        for indices in product(*map(range, self.sizes)):
            block = self.block(*indices)
            if block is not None:
                yield indices, block


def build_genes(layout: Layout) -> tuple[Gene, ...]:
    """What can be chosen, as columns: the resolution, depths, widths, kernels, expansion ratios.

    A single choice has no gene, but for the resolution and, in spaces with elastic widths, widths
    that rounding makes equal: an arch keeps an index for each.
    """
    genes = [Gene("resolution", layout.resolutions)]
    if len(layout.stem.depths) > 1:
        first = layout.stem.depths[0]
        others = range(layout.stem.depths[-1])
        aliases = tuple((value, first) for value in others if value not in layout.stem.depths)
        genes.append(Gene("depth[stem]", layout.stem.depths, aliases=aliases))
    stages = list(enumerate(layout.stages))
    genes += [Gene(f"depth[{i}]", s.depths, i) for i, s in stages if len(s.depths) > 1]
    if layout.width_multipliers:
        multipliers = layout.width_multipliers
        genes += [_width_gene(name, widths, multipliers) for name, widths in _width_lists(layout)]
    for i, stage in stages:
        if len(stage.kernels) > 1:
            genes += [Gene(f"kernel[{i}.{b}]", stage.kernels, i, b) for b in range(stage.most)]
    for i, stage in stages:
        if len(stage.expands) > 1 and not stage.coupled:
            genes += [Gene(f"expand[{i}.{b}]", stage.expands, i, b) for b in range(stage.most)]
    return tuple(genes)


def _width_lists(layout: Layout) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The names of width genes, and the channels that each choice gives."""
    outputs = layout.widths(layout.stem.channels)
    if layout.stem.kind == "deep":
        yield "width[stem.middle]", tuple(deep_middle(width) for width in outputs)
    yield "width[stem]", outputs
    for i, stage in enumerate(layout.stages):
        yield f"width[{i}]", layout.widths(stage.channels)


def _width_gene(name: str, widths: tuple[int, ...], multipliers: tuple[float, ...]) -> Gene:
    """Choices are indices of multipliers; of those that give equal widths, only the first."""
    first = [widths.index(width) for width in widths]
    aliases = tuple((index, same) for index, same in enumerate(first) if index != same)
    written: dict[float, tuple[float, ...]] = {}
    for multiplier, same in zip(multipliers, first, strict=True):
        written[same] = (*written.get(same, ()), multiplier)
    return Gene(name, tuple(written), aliases=aliases, written=tuple(written.values()))


def build_slots(layout: Layout, genes: Sequence[Gene]) -> tuple[Slot, ...]:
    """The places of the largest network, from input to output."""
    return tuple(_Walk(layout, genes).slots())


class _Walk:
    """A walk from input to output that remembers channels and the stride so far."""

    def __init__(self, layout: Layout, genes: Sequence[Gene]) -> None:
        self.layout = layout
        self.genes = genes
        self.columns = {gene.name: column for column, gene in enumerate(genes)}
        self.channels = Property((3,))
        self.downsampling = 1

    def slots(self) -> Iterator[Slot]:
        layout = self.layout
        yield from self._deep_stem() if layout.stem.kind == "deep" else self._stem()
        for index, stage in enumerate(layout.stages):
            yield from self._stage(index, stage)
        head = layout.head
        if head.channels:
            conv = partial(_conv, activation=head.activation)
            yield self._slot("head", conv, out_channels=Property((head.channels,)))
            self.channels = Property((head.channels,))
        yield self._slot("classifier", self._classifier)

    def _slot(self, name: str, build: Callable[..., Block | None], **properties: Property) -> Slot:
        """A slot whose block is ``build(size, in_channels, **properties)``."""
        properties = {"in_channels": self.channels, **properties}
        used = [p.column for p in properties.values() if p.column is not None]
        columns = tuple(dict.fromkeys([0, *used]))
        downsampling = self.downsampling
        resolutions = self.layout.resolutions

        def block(*indices: int) -> Block | None:
            row = dict(zip(columns, indices, strict=True))
            size = -(-resolutions[row[0]] // downsampling)
            return build(size=size, **{key: p.of(row) for key, p in properties.items()})

        sizes = tuple(len(self.genes[column].choices) for column in columns)
        return Slot(name, columns, sizes, block)

    def _choice(self, name: str, values: Sequence[float]) -> Property:
        """What the gene of that name decides, or the only value there is."""
        column = self.columns.get(name)
        return Property(tuple(values), column) if column is not None else Property((values[0],))

    def _width(self, name: str, widths: Sequence[int]) -> Property:
        column = self.columns.get(name)
        if column is None:
            return Property((widths[0],))
        return Property(tuple(widths[int(i)] for i in self.genes[column].choices), column)

    def _stem(self) -> Iterator[Slot]:
        stem = self.layout.stem
        width = self._width("width[stem]", self.layout.widths(stem.channels))
        conv = partial(_conv, kernel=stem.kernel, stride=stem.stride, activation=stem.activation)
        yield self._slot("stem", conv, out_channels=width)
        self.channels, self.downsampling = width, stem.stride

    def _deep_stem(self) -> Iterator[Slot]:
        stem = self.layout.stem
        outputs = self.layout.widths(stem.channels)
        middle = self._width("width[stem.middle]", [deep_middle(width) for width in outputs])
        width = self._width("width[stem]", outputs)
        depth = self._choice("depth[stem]", stem.depths)
        conv = partial(_conv, kernel=stem.kernel, activation=stem.activation)

        def kept(depth: int, **arguments: Any) -> Block | None:
            return conv(**arguments, residual=True) if depth else None

        yield self._slot("stem.0", partial(conv, stride=stem.stride), out_channels=middle)
        self.channels, self.downsampling = middle, stem.stride
        if max(stem.depths):
            yield self._slot("stem.1", kept, out_channels=middle, depth=depth)
        yield self._slot("stem.2", conv, out_channels=width)
        self.channels = width
        yield self._slot("stem.pool", _max_pool)
        self.downsampling *= 2

    def _stage(self, index: int, stage: Stage) -> Iterator[Slot]:
        depth = self._choice(f"depth[{index}]", stage.depths)
        width = self._width(f"width[{index}]", self.layout.widths(stage.channels))
        for b in range(stage.most):
            properties = {
                "out_channels": width,
                "kernel": self._choice(f"kernel[{index}.{b}]", stage.kernels),
                "expand": self._expand(index, b, stage),
            }
            if stage.coupled or not any(self.genes[c].block >= 0 for c in _columns(properties)):
                properties["depth"] = depth  # no gene of the block's own says that it is inactive
            yield self._slot(f"stages.{index}.{b}", partial(_stage_block, stage, b), **properties)
            self.channels = width
            self.downsampling *= stage.stride if b == 0 else 1

    def _expand(self, index: int, b: int, stage: Stage) -> Property:
        name = f"depth[{index}]" if stage.coupled else f"expand[{index}.{b}]"
        return self._choice(name, stage.expands)

    def _classifier(self, size: int, in_channels: int) -> Block:
        head = self.layout.head
        return Block(
            kind="classifier",
            in_channels=in_channels,
            mid_channels=head.features,
            out_channels=self.layout.classes,
            size=size,
            activation=head.activation if head.features else "none",
        )


def _columns(properties: dict[str, Property]) -> list[int]:
    return [p.column for p in properties.values() if p.column is not None]


def _conv(**arguments: Any) -> Block:
    return Block(kind="conv", **arguments)


def _max_pool(size: int, in_channels: int) -> Block:
    return Block(
        kind="maxpool",
        in_channels=in_channels,
        out_channels=in_channels,
        kernel=3,
        stride=2,
        size=size,
    )


def _stage_block(
    stage: Stage,
    b: int,
    *,
    size: int,
    in_channels: int,
    out_channels: int,
    kernel: int,
    expand: float,
    depth: int | None = None,
) -> Block | None:
    if depth is not None and stage.base_depth + depth <= b:
        return None
    stride = stage.stride if b == 0 else 1
    mid = stage.mid_channels(expand, in_channels, out_channels)
    plain = stage.kind == "mbconv"
    return Block(
        kind=stage.kind,
        in_channels=in_channels,
        mid_channels=mid,
        out_channels=out_channels,
        kernel=kernel,
        stride=stride,
        size=size,
        se=make_divisible(mid // 4) if stage.se else 0,
        activation=stage.activation,
        # A ResNet stage's first block projects its shortcut, whatever the widths.
        residual=stride == 1 and in_channels == out_channels if plain else b > 0,
    )
