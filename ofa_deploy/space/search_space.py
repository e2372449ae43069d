"""``SearchSpace``: every network that a supernet holds, as data.

What is elastic becomes *genes*: the input resolution, depths, widths, each block's kernel and
expansion ratio. A *population* is an int8 array (n, genes) of choice indices, with -1 where a block
is inactive.

*Slots* say which block stands at each place of a network, and which genes decide it. Lowering an
arch and building an additive cost model are both walks over the slots.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import numpy as np
import numpy.typing as npt
from pydantic.dataclasses import dataclass as checked_dataclass

from ofa_deploy.errors import MismatchError
from ofa_deploy.space.arch import Arch, Cost
from ofa_deploy.space.block import Block
from ofa_deploy.space.layout import CHECKED, Layout, Stage
from ofa_deploy.space.slots import Gene, Property, Slot, build_genes, build_slots

__all__ = ["Population", "SearchSpace"]

Population = npt.NDArray[np.int8]
_NUMBER = (int, float, np.number)


@dataclass(frozen=True)
class _Place:
    """One number of an ``Arch``: a gene's name for it, and what decides it."""

    name: str
    value: Property


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, _NUMBER) else repr(value)


@checked_dataclass(frozen=True, kw_only=True, config=CHECKED)
class SearchSpace(Layout):
    """All networks that a supernet holds. See the module's head for genes, populations, slots."""

    def with_classes(self, classes: int) -> "SearchSpace":
        """The same space with another number of classes."""
        return replace(self, classes=classes)

    def with_resolutions(self, *resolutions: int) -> "SearchSpace":
        """The same space with other input sizes to choose from, in pixels."""
        return replace(self, resolutions=tuple(sorted(set(resolutions))))

    # -- genes and slots --------------------------------------------------------------------

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        """The population's columns."""
        return build_genes(self)

    @cached_property
    def columns(self) -> dict[str, int]:
        """Gene name to population column."""
        return {gene.name: column for column, gene in enumerate(self.genes)}

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """The places of the largest network, from input to output."""
        return build_slots(self, self.genes)

    @cached_property
    def elastic_stages(self) -> tuple[int, ...]:
        """Indices of the stages with something to choose, in order."""
        return tuple(i for i, s in enumerate(self.stages) if s.elastic or self.width_multipliers)

    # -- what an arch's numbers mean --------------------------------------------------------

    def _place(self, name: str, choices: Sequence[float]) -> _Place:
        """The gene of that name, or the only choice there is."""
        column = self.columns.get(name)
        values = tuple(choices) if column is None else self.genes[column].choices
        return _Place(name, Property(values, column))

    @cached_property
    def _depth_places(self) -> tuple[_Place, ...]:
        stem = [self._place("depth[stem]", self.stem.depths)] if len(self.stem.depths) > 1 else []
        stages = [self._place(f"depth[{i}]", self.stages[i].depths) for i in self.elastic_stages]
        return (*stem, *stages)

    @cached_property
    def _width_places(self) -> tuple[_Place, ...]:
        return tuple(
            _Place(gene.name, Property(gene.choices, column))
            for column, gene in enumerate(self.genes)
            if gene.name.startswith("width[")
        )

    @cached_property
    def _block_places(self) -> tuple[tuple[tuple[_Place, _Place], ...], ...]:
        """(kernel, expansion ratio) of every block, by elastic stage."""
        return tuple(
            tuple((self._kernel_place(i, b), self._expand_place(i, b)) for b in range(stage.most))
            for i, stage in ((i, self.stages[i]) for i in self.elastic_stages)
        )

    def _kernel_place(self, stage: int, block: int) -> _Place:
        return self._place(f"kernel[{stage}.{block}]", self.stages[stage].kernels)

    def _expand_place(self, stage: int, block: int) -> _Place:
        name, expands = f"expand[{stage}.{block}]", self.stages[stage].expands
        if not self.stages[stage].coupled:
            return self._place(name, expands)
        return _Place(name, Property(expands, self.columns.get(f"depth[{stage}]")))

    def _stage_depths(self, depths: Sequence[int]) -> list[int]:
        """Active blocks of each elastic stage, from an arch's depths."""
        own = depths[len(self._depth_places) - len(self.elastic_stages) :]
        return [
            self.stages[i].base_depth + d for i, d in zip(self.elastic_stages, own, strict=True)
        ]

    # -- archs ------------------------------------------------------------------------------

    @cached_property
    def num_archs(self) -> int:
        """How many different networks the space holds."""
        shared = prod(len(gene.choices) for gene in self.genes if gene.stage < 0)
        return int(shared * prod(self._num_stages(stage) for stage in self.stages))

    @staticmethod
    def _num_stages(stage: Stage) -> int:
        ratios = 1 if stage.coupled else len(stage.expands)
        per_block = len(stage.kernels) * ratios
        return sum(per_block ** (stage.base_depth + depth) for depth in stage.depths)

    def arch(
        self,
        *,
        depths: int | Sequence[int],
        kernels: int | Sequence[int] | None = None,
        expands: float | Sequence[float] | None = None,
        resolution: int | None = None,
        widths: int | Sequence[int] | None = None,
    ) -> Arch:
        """Build an arch.

        Args:
            depths: one a stage, or one number for all that have a choice. ResNet's begin with the
                stem's (2 keeps its residual convolution) and count the blocks beyond the base.
            kernels: one a block (active blocks only, or the full-length lists of published
                configs, whose inactive entries are dropped), or one number for all. May be left
                out where there is no choice.
            expands: as ``kernels``.
            resolution: in pixels; the space's largest when not given.
            widths: indices into ``width_multipliers``, or one for all; the largest when not given.

        Raises:
            InputError: if a length is wrong or a value is not one of the space's choices.
        """
        found = self._depths(depths)
        row = self._shared_row(
            self.resolutions[-1] if resolution is None else resolution, found, self._widths(widths)
        )
        active = self._stage_depths([int(place.value.of(row)) for place in self._depth_places])
        per_block = {
            "kernels": self._active("kernels", kernels, active),
            "expands": self._active("expands", expands, active),
        }
        self._fill_blocks(row, active, per_block["kernels"], per_block["expands"])
        return self.decode(row[None])[0]

    def _depths(self, depths: int | Sequence[int]) -> list[int]:
        places = self._depth_places
        if isinstance(depths, _NUMBER):
            values = [place.value.values for place in places]
            return [int(each[0]) if len(each) == 1 else depths for each in values]
        self._check_length("depths", depths, len(places))
        return list(depths)

    def _widths(self, widths: int | Sequence[int] | None) -> list[int]:
        places = self._width_places
        if isinstance(widths, _NUMBER) and not places:
            raise MismatchError(f"space {self.name}: expected no widths, found {widths}")
        if widths is None or isinstance(widths, _NUMBER):
            most = len(self.width_multipliers) - 1
            return [most if widths is None else widths] * len(places)
        self._check_length("widths", widths, len(places))
        return list(widths)

    def _check_length(self, name: str, values: Sequence[float], expected: int) -> None:
        if len(values) != expected:
            raise MismatchError(
                f"space {self.name}: expected {expected} {name}, found {len(values)}"
            )

    def _active(
        self, name: str, values: float | Sequence[float] | None, active: Sequence[int]
    ) -> list[float | None]:
        """The entries of active blocks, from nothing, a number, a full-length or an active list."""
        most = [self.stages[i].most for i in self.elastic_stages]
        count, full = sum(active), sum(most)
        if values is None or isinstance(values, _NUMBER):
            return [values] * count
        if len(values) == count:
            return list(values)
        if len(values) != full:
            raise MismatchError(
                f"space {self.name}: expected {count} {name} (active blocks) or "
                f"{full} (full length), found {len(values)}"
            )
        starts = np.cumsum([0, *most])
        return [values[starts[s] + b] for s, depth in enumerate(active) for b in range(depth)]

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
        return tuple(self._lower_row(self.encode([arch])[0]))

    def _lower_row(self, row: npt.NDArray[np.int8]) -> Iterator[tuple[str, Block]]:
        for slot in self.slots:
            indices = row[list(slot.genes)]
            block = slot.block(*map(int, indices)) if (indices >= 0).all() else None
            if block is not None:
                yield slot.name, block

    def blocks(self) -> tuple[Block, ...]:
        """Every distinct block that can occur, in network order."""
        found: dict[str, Block] = {}
        for slot in self.slots:
            for _, block in slot.blocks():
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
        for n, arch in enumerate(archs):
            population[n] = self._row(arch)
        return population

    def _row(self, arch: Arch) -> npt.NDArray[np.int8]:
        try:
            self._check_length("depths", arch.depths, len(self._depth_places))
            self._check_length("widths", arch.widths, len(self._width_places))
            row = self._shared_row(arch.resolution, arch.depths, arch.widths)
            active = self._stage_depths([int(place.value.of(row)) for place in self._depth_places])
            if not len(arch.kernels) == len(arch.expands) == sum(active):
                raise MismatchError(
                    f"space {self.name}: expected {sum(active)} active blocks, found "
                    f"{len(arch.kernels)} kernels and {len(arch.expands)} expands"
                )
            self._fill_blocks(row, active, arch.kernels, arch.expands)
        except MismatchError as error:
            raise MismatchError(f"arch {arch} is not in {error}") from None
        return row

    def _shared_row(
        self, resolution: int, depths: Sequence[int], widths: Sequence[int]
    ) -> npt.NDArray[np.int8]:
        """A row with everything set that is not a single block's."""
        row = np.full(len(self.genes), -1, np.int8)
        self._set(row, self._place("resolution", self.resolutions), resolution)
        for places, values in ((self._depth_places, depths), (self._width_places, widths)):
            for place, value in zip(places, values, strict=True):
                self._set(row, place, value)
        return row

    def _fill_blocks(
        self,
        row: npt.NDArray[np.int8],
        active: Sequence[int],
        kernels: Sequence[float | None],
        expands: Sequence[float | None],
    ) -> None:
        """Set the genes of active blocks; None stands where there is no choice."""
        values = iter(zip(kernels, expands, strict=True))
        for depth, places in zip(active, self._block_places, strict=True):
            for pair in places[:depth]:
                for place, value in zip(pair, next(values), strict=True):
                    self._set(row, place, value)

    def _set(self, row: npt.NDArray[np.int8], place: _Place, value: float | None) -> None:
        """Write a value into its gene, or see that it is what other genes or the space dictate."""
        column = place.value.column
        own = column is not None and self.genes[column].name == place.name
        if own and value is not None:
            assert column is not None
            try:
                row[column] = self.genes[column].index(value)
            except ValueError:
                self._refuse_value(place.name, value, self.genes[column].choices)
            return
        expected = place.value.values if own else (place.value.of(row),)
        if own or (value is not None and value != expected[0]):
            self._refuse_value(place.name, value, expected)

    def _refuse_value(
        self, name: str, value: float | None, expected: Sequence[float | None]
    ) -> None:
        listed = ", ".join(f"{choice:g}" for choice in expected)
        found = "is not given" if value is None else f"= {_shown(value)}"
        raise MismatchError(f"space {self.name}: {name} {found}, expected one of {listed}")

    def decode(self, population: Population) -> list[Arch]:
        """Rows of choice indices to archs; the inverse of ``encode``."""
        return [self._arch(row) for row in np.atleast_2d(population).tolist()]

    def _arch(self, row: list[int]) -> Arch:
        depths = tuple(int(place.value.of(row)) for place in self._depth_places)
        active = [
            pair
            for depth, places in zip(self._stage_depths(depths), self._block_places, strict=True)
            for pair in places[:depth]
        ]
        return Arch(
            resolution=self.resolutions[row[0]],
            depths=depths,
            kernels=tuple(int(kernel.value.of(row)) for kernel, _ in active),
            expands=tuple(expand.value.of(row) for _, expand in active),
            widths=tuple(int(place.value.of(row)) for place in self._width_places),
        )

    @cached_property
    def num_choices(self) -> npt.NDArray[np.int64]:
        """The number of choices of each gene, shape (genes,)."""
        return np.array([len(gene.choices) for gene in self.genes])

    def is_active(self, population: Population) -> npt.NDArray[np.bool_]:
        """Which genes count, given each row's depths; shape (n, genes)."""
        active = np.ones(population.shape, bool)
        columns, deciding, needs = self._activity
        active[:, columns] = needs[np.arange(len(columns)), population[:, deciding]]
        return active

    @cached_property
    def _activity(
        self,
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
        """Genes that a depth decides about, that gene, and whether they count by its choice.

        Shapes (k,), (k,) and (k, the most choices of a depth).
        """
        columns, deciding, needs = [], [], []
        for column, gene in enumerate(self.genes):
            depth_column = self.columns.get(f"depth[{gene.stage}]")
            if gene.block >= 0 and depth_column is not None:
                depths = np.array(self.genes[depth_column].choices)
                columns.append(column)
                deciding.append(depth_column)
                needs.append(self.stages[gene.stage].base_depth + depths > gene.block)
        table = np.zeros((len(needs), max(map(len, needs), default=0)), bool)
        for row, own in zip(table, needs, strict=True):
            row[: len(own)] = own
        return np.array(columns, np.intp), np.array(deciding, np.intp), table

    @cached_property
    def decides(self) -> npt.NDArray[np.bool_]:
        """Which genes decide whether others count, shape (genes,)."""
        _, deciding, _ = self._activity
        return np.isin(np.arange(len(self.genes)), deciding)

    def mask_inactive(self, population: Population) -> Population:
        """Set the genes of inactive blocks to -1, so that equal networks are equal rows."""
        kept = np.where(self.is_active(population), population, np.int8(-1))
        return kept.astype(np.int8, copy=False)

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
