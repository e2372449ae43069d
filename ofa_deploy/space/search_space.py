"""``SearchSpace``: every network that a supernet holds, as data.

A space is a stem, stages of inverted-residual blocks and a head. What is elastic becomes *genes*:
the input resolution, each stage's depth, each block's kernel and expansion ratio. A *population*
is an int8 array (n, genes) of choice indices, with -1 where a block is inactive.

*Slots* say which block stands at each place of a network, and which genes decide it. Lowering an
arch and building an additive cost model are both walks over the slots.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import product
from math import prod
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from ofa_deploy._files import digest
from ofa_deploy.errors import FileFormatError, InputError, MismatchError
from ofa_deploy.space.arch import Arch, Cost
from ofa_deploy.space.block import Activation, Block, make_divisible

__all__ = ["Gene", "Head", "Population", "SearchSpace", "Slot", "Stage", "Stem"]

Population = npt.NDArray[np.int8]
_CHECKED = ConfigDict(extra="forbid", allow_inf_nan=False)


Positive = Annotated[int, Field(strict=True, gt=0, le=2**20)]
Size = Annotated[int, Field(strict=True, ge=0, le=2**20)]


@checked_dataclass(frozen=True, kw_only=True, config=_CHECKED)
class Stem:
    """The first convolution."""

    channels: Positive
    kernel: Positive = 3
    stride: Positive = 2
    activation: Activation = "hswish"


@checked_dataclass(frozen=True, kw_only=True, config=_CHECKED)
class Stage:
    """Inverted-residual blocks of one width; the first carries the stride.

    A stage with one depth, one kernel and one expansion ratio has nothing to choose: it is fixed,
    has no genes and does not appear in an ``Arch``.
    """

    channels: Positive
    stride: Positive
    depths: tuple[Positive, ...]
    kernels: tuple[Positive, ...]
    expands: tuple[Annotated[float, Field(strict=True, gt=0, le=64)], ...]
    activation: Activation = "hswish"
    se: Annotated[bool, Field(strict=True)] = False

    @property
    def elastic(self) -> bool:
        """Whether anything in the stage can be chosen."""
        return max(len(self.depths), len(self.kernels), len(self.expands)) > 1


@checked_dataclass(frozen=True, kw_only=True, config=_CHECKED)
class Head:
    """What follows the last stage: 1x1 conv, pooling, 1x1 features, linear (0 leaves one out)."""

    channels: Size
    features: Size
    activation: Activation = "hswish"


@dataclass(frozen=True)
class Gene:
    """One column of a population: what it chooses among, and for which stage and block."""

    name: str
    choices: tuple[float, ...]
    stage: int = -1
    block: int = -1


@dataclass(frozen=True)
class Slot:
    """A place in the network.

    Attributes:
        name: where it is, such as ``stages.1.0``.
        genes: the population columns that decide its block.
        block: from the values of those genes, in that order, to the block that stands there.
    """

    name: str
    genes: tuple[int, ...]
    block: Callable[..., Block]


@checked_dataclass(frozen=True, kw_only=True, config=_CHECKED)
class SearchSpace:
    """All networks that a supernet holds. See the module's head for genes, populations, slots."""

    name: str
    resolutions: tuple[Positive, ...]
    classes: Positive
    stem: Stem
    stages: tuple[Stage, ...]
    head: Head
    bn_eps: Annotated[float, Field(strict=True, gt=0, lt=1)] = 1e-5

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise InputError(
                f"space {self.name}: expected at least 2 classes, found {self.classes}"
            )
        for choices in self._choice_lists():
            if not choices or list(choices) != sorted(set(choices)) or choices[0] <= 0:
                raise InputError(
                    f"space {self.name}: choices must be positive and ascending, found {choices}"
                )
        kernels = [self.stem.kernel, *(kernel for stage in self.stages for kernel in stage.kernels)]
        if any(kernel % 2 == 0 for kernel in kernels):
            raise InputError(f"space {self.name}: kernel sizes must be odd, found {kernels}")

    def _choice_lists(self) -> Iterable[tuple[float, ...]]:
        yield self.resolutions
        for stage in self.stages:
            yield from (stage.depths, stage.kernels, stage.expands)

    # -- identity ---------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form, read back by ``from_dict``."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "SearchSpace":
        """Read what ``to_dict`` wrote.

        Raises:
            FileFormatError: if a field is missing, unknown or of the wrong type.
        """
        try:
            return TypeAdapter(cls).validate_python(value)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = " ".join(".".join(map(str, first["loc"])).split()) or "file"
            raise FileFormatError(f"not a search space: {where}: {first['msg']}") from None
        except InputError as error:
            raise FileFormatError(f"not a search space: {error}") from None

    @cached_property
    def fingerprint(self) -> str:
        """A short name for exactly this space, classes included."""
        return digest({**self.to_dict(), "name": ""})

    def with_classes(self, classes: int) -> "SearchSpace":
        """The same space with another number of classes."""
        return replace(self, classes=classes)

    # -- genes and slots --------------------------------------------------------------------

    @cached_property
    def elastic_stages(self) -> tuple[int, ...]:
        """Indices of the stages with something to choose, in order."""
        return tuple(i for i, stage in enumerate(self.stages) if stage.elastic)

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        """The population's columns."""
        genes = [Gene("resolution", self.resolutions)]
        elastic = [(i, self.stages[i]) for i in self.elastic_stages]
        genes += [Gene(f"depth[{i}]", stage.depths, i) for i, stage in elastic]
        for name in ("kernel", "expand"):
            for i, stage in elastic:
                choices = stage.kernels if name == "kernel" else stage.expands
                genes += [Gene(f"{name}[{i}.{b}]", choices, i, b) for b in range(max(stage.depths))]
        return tuple(genes)

    @cached_property
    def columns(self) -> dict[str, int]:
        """Gene name to population column."""
        return {gene.name: column for column, gene in enumerate(self.genes)}

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """The places of the largest network, from input to output."""
        slots = [Slot("stem", (0,), self._stem_block)]
        downsampling, channels = self.stem.stride, self.stem.channels
        for s, stage in enumerate(self.stages):
            for b in range(max(stage.depths)):
                slots.append(self._stage_slot(s, b, channels, downsampling))
                channels = stage.channels
                downsampling *= stage.stride if b == 0 else 1
        if self.head.channels:
            slots.append(Slot("head", (0,), self._head_block(channels, downsampling)))
            channels = self.head.channels
        slots.append(Slot("classifier", (0,), self._classifier_block(channels, downsampling)))
        return tuple(slots)

    def _stem_block(self, resolution: int) -> Block:
        return Block(
            kind="conv",
            in_channels=3,
            out_channels=self.stem.channels,
            kernel=self.stem.kernel,
            stride=self.stem.stride,
            size=resolution,
            activation=self.stem.activation,
        )

    def _stage_slot(self, s: int, b: int, in_channels: int, downsampling: int) -> Slot:
        stage = self.stages[s]
        stride = stage.stride if b == 0 else 1

        def block(resolution: int, kernel: int, expand: float) -> Block:
            mid = make_divisible(round(in_channels * expand))
            return Block(
                kind="mbconv",
                in_channels=in_channels,
                mid_channels=mid if expand != 1 else in_channels,
                out_channels=stage.channels,
                kernel=kernel,
                stride=stride,
                size=-(-resolution // downsampling),
                se=make_divisible(mid // 4) if stage.se else 0,
                activation=stage.activation,
                residual=stride == 1 and in_channels == stage.channels,
            )

        if not stage.elastic:
            fixed = (stage.kernels[0], stage.expands[0])
            return Slot(f"stages.{s}.{b}", (0,), lambda resolution: block(resolution, *fixed))
        columns = (self.columns[f"kernel[{s}.{b}]"], self.columns[f"expand[{s}.{b}]"])
        return Slot(f"stages.{s}.{b}", (0, *columns), block)

    def _head_block(self, in_channels: int, downsampling: int) -> Callable[[int], Block]:
        return lambda resolution: Block(
            kind="conv",
            in_channels=in_channels,
            out_channels=self.head.channels,
            size=-(-resolution // downsampling),
            activation=self.head.activation,
        )

    def _classifier_block(self, in_channels: int, downsampling: int) -> Callable[[int], Block]:
        return lambda resolution: Block(
            kind="classifier",
            in_channels=in_channels,
            mid_channels=self.head.features,
            out_channels=self.classes,
            size=-(-resolution // downsampling),
            activation=self.head.activation,
        )

    # -- archs ------------------------------------------------------------------------------

    @cached_property
    def num_archs(self) -> int:
        """How many different networks the space holds."""
        stages = (
            sum((len(stage.kernels) * len(stage.expands)) ** depth for depth in stage.depths)
            for stage in (self.stages[i] for i in self.elastic_stages)
        )
        return int(len(self.resolutions) * prod(stages))

    def arch(
        self,
        *,
        depths: int | Sequence[int],
        kernels: int | Sequence[int],
        expands: float | Sequence[float],
        resolution: int | None = None,
    ) -> Arch:
        """Build an arch.

        Args:
            depths: one a stage, or one number for all.
            kernels: one a block (active blocks only, or the full-length lists of published
                configs, whose inactive entries are dropped), or one number for all.
            expands: as ``kernels``.
            resolution: in pixels; the space's largest when not given.

        Raises:
            InputError: if a length is wrong or a value is not one of the space's choices.
        """
        stages = [self.stages[i] for i in self.elastic_stages]
        depth_list = [depths] * len(stages) if isinstance(depths, int) else list(depths)
        if len(depth_list) != len(stages):
            raise InputError(
                f"space {self.name}: expected {len(stages)} depths, found {len(depth_list)}"
            )
        for index, stage, depth in zip(self.elastic_stages, stages, depth_list, strict=True):
            if depth not in stage.depths:
                raise InputError(
                    f"space {self.name}: depth[{index}] = {depth}, expected one of "
                    f"{', '.join(map(str, stage.depths))}"
                )
        arch = Arch(
            resolution=self.resolutions[-1] if resolution is None else resolution,
            depths=tuple(int(d) for d in depth_list),
            kernels=tuple(self._active("kernels", kernels, depth_list)),  # type: ignore[arg-type]
            expands=tuple(self._active("expands", expands, depth_list)),
        )
        return self.decode(self.encode([arch]))[0]

    def _active(
        self, name: str, values: float | Sequence[float], depths: Sequence[int]
    ) -> list[float]:
        """The entries of active blocks, from a number, a full-length list or an active one."""
        most = [max(self.stages[i].depths) for i in self.elastic_stages]
        active, full = sum(depths), sum(most)
        if isinstance(values, int | float):
            return [values] * active
        if len(values) == active:
            return list(values)
        if len(values) != full:
            raise InputError(
                f"space {self.name}: expected {active} {name} (active blocks) or {full} "
                f"(full length), found {len(values)}"
            )
        starts = np.cumsum([0, *most])
        return [values[starts[s] + b] for s, depth in enumerate(depths) for b in range(depth)]

    @cached_property
    def smallest(self) -> Arch:
        """The least choice of every gene."""
        return self._extreme(0)

    @cached_property
    def largest(self) -> Arch:
        """The greatest choice of every gene."""
        return self._extreme(-1)

    def _extreme(self, index: int) -> Arch:
        row = np.array([[len(gene.choices) - 1 if index else 0 for gene in self.genes]], np.int8)
        return self.decode(self.mask_inactive(row))[0]

    def lower(self, arch: Arch) -> tuple[Block, ...]:
        """The blocks of ``arch``, from input to output."""
        return tuple(block for _, block in self.lower_named(arch))

    def lower_named(self, arch: Arch) -> tuple[tuple[str, Block], ...]:
        """The blocks of ``arch`` with the names of their slots."""
        row = self.encode([arch])[0]
        return tuple(
            (slot.name, slot.block(*(self.genes[c].choices[row[c]] for c in slot.genes)))
            for slot in self.slots
            if (row[list(slot.genes)] >= 0).all()
        )

    def blocks(self) -> tuple[Block, ...]:
        """Every distinct block that can occur, in network order."""
        found: dict[str, Block] = {}
        for slot in self.slots:
            for values in product(*(self.genes[c].choices for c in slot.genes)):
                block = slot.block(*values)
                found.setdefault(block.key, block)
        return tuple(found.values())

    def cost(self, arch: Arch) -> Cost:
        """MACs, parameters and peak activation memory of ``arch``."""
        blocks = self.lower(arch)
        return Cost(
            macs=sum(block.macs for block in blocks),
            params=sum(block.params for block in blocks),
            peak_memory=max(block.activation_bytes for block in blocks),
        )

    # -- populations ------------------------------------------------------------------------

    def encode(self, archs: Sequence[Arch]) -> Population:
        """Archs to rows of choice indices, shape (n, genes).

        Raises:
            MismatchError: if an arch is not in the space.
        """
        population = np.full((len(archs), len(self.genes)), -1, np.int8)
        for row, arch in zip(population, archs, strict=True):
            self._encode_row(arch, row)
        return population

    def _encode_row(self, arch: Arch, row: npt.NDArray[np.int8]) -> None:
        values: dict[str, float] = {"resolution": arch.resolution}
        if len(arch.depths) != len(self.elastic_stages) or arch.widths:
            raise MismatchError(
                f"arch {arch} is not in space {self.name}: expected "
                f"{len(self.elastic_stages)} depths and no widths"
            )
        active = [
            (stage, block)
            for stage, depth in zip(self.elastic_stages, arch.depths, strict=True)
            for block in range(min(depth, max(self.stages[stage].depths)))
        ]
        if not len(arch.kernels) == len(arch.expands) == len(active):
            raise MismatchError(
                f"arch {arch} is not in space {self.name}: expected {len(active)} active blocks, "
                f"found {len(arch.kernels)} kernels and {len(arch.expands)} expands"
            )
        values |= {f"depth[{i}]": d for i, d in zip(self.elastic_stages, arch.depths, strict=True)}
        for (stage, block), kernel, expand in zip(active, arch.kernels, arch.expands, strict=True):
            values[f"kernel[{stage}.{block}]"] = kernel
            values[f"expand[{stage}.{block}]"] = expand
        for name, value in values.items():
            gene = self.genes[self.columns[name]]
            if value not in gene.choices:
                raise MismatchError(
                    f"arch {arch} is not in space {self.name}: {name} = {value:g}, expected one of "
                    f"{', '.join(f'{c:g}' for c in gene.choices)}"
                )
            row[self.columns[name]] = gene.choices.index(value)

    def decode(self, population: Population) -> list[Arch]:
        """Rows of choice indices to archs; the inverse of ``encode``."""
        names = [gene.name.partition("[")[0] for gene in self.genes]
        archs = []
        for row in np.atleast_2d(population):
            fields: dict[str, list[float]] = {
                "resolution": [],
                "depth": [],
                "kernel": [],
                "expand": [],
            }
            for name, gene, choice in zip(names, self.genes, row, strict=True):
                if choice >= 0:
                    fields[name].append(gene.choices[choice])
            archs.append(
                Arch(
                    resolution=int(fields["resolution"][0]),
                    depths=tuple(int(d) for d in fields["depth"]),
                    kernels=tuple(int(k) for k in fields["kernel"]),
                    expands=tuple(fields["expand"]),
                )
            )
        return archs

    @cached_property
    def num_choices(self) -> npt.NDArray[np.int64]:
        """The number of choices of each gene, shape (genes,)."""
        return np.array([len(gene.choices) for gene in self.genes])

    def is_active(self, population: Population) -> npt.NDArray[np.bool_]:
        """Which genes count, given each row's depths; shape (n, genes)."""
        active = np.ones(population.shape, bool)
        for column, gene in enumerate(self.genes):
            if gene.block >= 0:
                depth_column = self.columns[f"depth[{gene.stage}]"]
                needs = np.array(self.genes[depth_column].choices) > gene.block
                active[:, column] = needs[population[:, depth_column]]
        return active

    def mask_inactive(self, population: Population) -> Population:
        """Set the genes of inactive blocks to -1, so that equal networks are equal rows."""
        return np.where(self.is_active(population), population, np.int8(-1)).astype(np.int8)

    def sample(self, rng: np.random.Generator, n: int) -> Population:
        """Draw ``n`` networks, each gene uniform over its choices; shape (n, genes)."""
        draws = rng.integers(0, self.num_choices, size=(n, len(self.genes)), dtype=np.int64)
        return self.mask_inactive(draws.astype(np.int8))

    def mutate(self, population: Population, rng: np.random.Generator, rate: float) -> Population:
        """Redraw each gene with probability ``rate``; genes that become active are drawn anew."""
        fresh = rng.integers(0, self.num_choices, size=population.shape).astype(np.int8)
        redraw = (rng.random(population.shape) < rate) | (population < 0)
        return self.mask_inactive(np.where(redraw, fresh, population))

    def crossover(
        self, mothers: Population, fathers: Population, rng: np.random.Generator
    ) -> Population:
        """Uniform crossover, row by row; an active gene missing in one parent is the other's."""
        from_mother = rng.random(mothers.shape) < 0.5
        child = np.where((from_mother & (mothers >= 0)) | (fathers < 0), mothers, fathers)
        # Both parents may lack a gene that the child's depth, taken from either, never activates.
        return self.mask_inactive(child.astype(np.int8))
