"""How far a latency table can be trusted, on this machine: random networks, searched networks.

Builds the table of a space as ``ofa-deploy profile`` does, with many more whole networks measured
in turns in the same run; they have no part in the calibration. Prints the time and the inferences
that the table took, the error of MACs, of the plain sum of lone blocks and of the calibrated table,
how often its intervals cover, and the error on networks that a search picked. With ``--repeat``,
builds a table as ``profile`` does by default and compares entry by entry. The machine must do
nothing else::

    python benchmarks/latency.py --space mbv3-nano-32 --networks 200 --csv FILE
    python benchmarks/latency.py --space ofa-mbv3-w1.0 --resolutions 160,176,192,208,224
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from figures import Figures

from ofa_deploy.cost import AdditiveModel, macs_model
from ofa_deploy.hardware import LatencyTable, load_device
from ofa_deploy.predict import (
    HoldoutError,
    LatencyModel,
    fit_accuracy,
    fit_latency,
    latency_model,
)
from ofa_deploy.profiling import (
    REFERENCE,
    Protocol,
    blocks_subject,
    measure,
    network_subject,
    profile_space,
    reference_arch,
)
from ofa_deploy.search import search
from ofa_deploy.space import Arch, Block, SearchSpace, get_space

JUDGES = 24  # what ``ofa-deploy profile`` measures by default
Floats = npt.NDArray[np.float64]


def build(figures: Figures, space: SearchSpace, given: argparse.Namespace) -> LatencyTable:
    """The table with the hold-out networks, and what building it took."""
    started = time.perf_counter()
    resumed = given.journal is not None and given.journal.exists()
    table = profile_space(
        space,
        load_device(given.device),
        runtime=given.runtime,
        precision=given.precision,
        minutes=given.minutes,
        holdout=given.networks,
        journal=given.journal,
    )
    seconds = time.perf_counter() - started
    blocks = sum(entry.count for entry in table.blocks.values())
    calibration = [each for each in table.networks if each.role == "calibration"]
    whole = sum(each.latency.repeats for each in calibration)
    figures.line("conditions", f"{given.runtime} {given.precision}, {table.protocol}")
    figures.line("other load meanwhile", f"{table.other_load:.1%}")
    went_on = " (went on with an earlier run)" if resumed else ""
    figures.line("table and hold-out networks, s", f"{seconds:.0f}{went_on}")
    figures.line("inferences of blocks", f"{blocks} of {len(table.blocks)} blocks")
    figures.line("inferences of calibration", f"{whole} of {len(calibration)} networks")
    figures.line("time of these inferences, s", f"{_spent(table):.0f}")
    return table


def _spent(table: LatencyTable) -> float:
    """Seconds in timed runs of blocks and of as many networks as a table has by default."""
    blocks = sum(entry.ms * entry.count for entry in table.blocks.values())
    networks = [n.latency for n in table.networks if n.role == "calibration"]
    judges = [n.latency for n in table.networks if n.role == "holdout"][:JUDGES]
    return (blocks + sum(each.p50 * each.repeats for each in networks + judges)) / 1000


def errors(figures: Figures, space: SearchSpace, table: LatencyTable) -> LatencyModel:
    """Errors on the hold-out networks of three predictors."""
    archs, ms = table.archs("holdout")
    calibrated = latency_model(space, table)
    found = {
        "line through MACs, same networks": _line(space, table, archs),
        "plain sum of lone blocks": AdditiveModel.from_blocks(space, table.value).predict(archs),
        "calibrated table": calibrated.predict(archs),
    }
    for name, predicted in found.items():
        figures.line(name, str(HoldoutError.of(predicted, np.array(ms))))
    spread = [each.latency.spread for each in table.networks if each.role == "holdout"]
    figures.line("noise of these measurements, range over processes", f"{np.median(spread):.1%}")
    return calibrated


def _line(space: SearchSpace, table: LatencyTable, archs: Sequence[Arch]) -> Floats:
    """What a straight line through the calibration networks' MACs predicts."""
    macs = macs_model(space)
    learned, ms = table.archs("calibration")
    slope, offset = np.polyfit(macs.predict(learned), ms, 1, w=1 / np.array(ms))
    return np.asarray(slope * macs.predict(archs) + offset)


def in_context(
    figures: Figures, space: SearchSpace, table: LatencyTable, given: argparse.Namespace
) -> None:
    """Blocks by difference instead: behind a block that may come before them, less that block."""
    blocks = {block.key: block for block in space.blocks()}
    before = {
        key: min(
            (b for b in blocks.values() if _feeds(b, block)), key=lambda b: b.macs, default=None
        )
        for key, block in blocks.items()
    }
    pairs = {
        key: blocks_subject((first, blocks[key]))
        for key, first in before.items()
        if first is not None
    }
    taken = measure(
        pairs,
        network_subject(space, reference_arch(space)),
        runtime=given.runtime,
        precision=given.precision,
        protocol=Protocol(**{**table.protocol, "processes": 2}),  # type: ignore[arg-type]
        journal=given.journal,
    )
    assert table.reference is not None
    level = table.reference.ms / taken[REFERENCE].ms

    def value(block: Block) -> float:
        first = before[block.key]
        if first is None:
            return table.value(block)
        both = taken[block.key].ms * level - table.empty_ms
        return max(both - table.value(first), 1e-6)

    archs, ms = table.archs("holdout")
    plain = AdditiveModel.from_blocks(space, value)
    fitted = fit_latency(space, *table.archs("calibration"), [plain])
    for name, model in {"plain sum of": plain, "calibrated": fitted}.items():
        error = HoldoutError.of(model.predict(archs), np.array(ms))
        figures.line(f"{name} blocks by difference", str(error))


def _feeds(first: Block, second: Block) -> bool:
    return (
        first.kind != "classifier"
        and first.out_channels == second.in_channels
        and first.out_size == second.size
        and first.key != second.key
    )


def coverage(figures: Figures, model: LatencyModel, table: LatencyTable) -> None:
    """How many of the networks that had no part in it an interval holds, over five splits."""
    archs, ms = table.archs("holdout")
    relative = np.abs(np.array(ms) / model.predict(archs) - 1)
    for judges in (JUDGES, len(archs) // 2):
        shares = []
        for split in range(5):
            order = np.random.default_rng(split).permutation(len(archs))
            chosen, others = order[:judges], order[judges:]
            model.judge([archs[i] for i in chosen], [ms[i] for i in chosen])
            shares.append(100 * float((relative[others] <= model.margin).mean()))
        figures.line(
            f"coverage of the 90 % interval from {judges} networks",
            f"{np.mean(shares):.1f} % (five splits: "
            f"{', '.join(f'{share:.1f}' for share in shares)})",
        )


def searched(
    figures: Figures, space: SearchSpace, table: LatencyTable, given: argparse.Namespace
) -> None:
    """Errors on what searches under ten budgets picked; MACs stand in for accuracy."""
    latency = latency_model(space, table)
    some = space.sample(np.random.default_rng(0), 60)
    macs = macs_model(space).predict(some)
    stand_in = 80 + 10 * np.log(macs / macs.max())
    accuracy = fit_accuracy(space, some, list(stand_in))
    least, greatest = latency.bounds()
    picked: list[Arch] = []
    for share in np.linspace(0.1, 0.9, 10):
        budget = f"latency <= {least + share * (greatest - least)} ms"
        front = search(space, accuracy=accuracy, latency=latency, constraints=[budget])
        picked.append(front.best("top1").arch)
    picked = list(dict.fromkeys(picked))
    measured = _measured(space, picked, table, given)
    error = HoldoutError.of(latency.predict(picked), measured)
    signed = 100 * (measured / latency.predict(picked) - 1)
    figures.line(f"{len(picked)} networks that searches picked", str(error))
    figures.line("measured against predicted, these", f"{signed.mean():+.1f} % in the mean")


def _measured(
    space: SearchSpace, archs: Sequence[Arch], table: LatencyTable, given: argparse.Namespace
) -> Floats:
    """At the table's level: ratios to the reference, times the table's reference."""
    taken = measure(
        {str(arch): network_subject(space, arch) for arch in archs},
        network_subject(space, reference_arch(space)),
        runtime=given.runtime,
        precision=given.precision,
        protocol=Protocol(rounds=20),
    )
    assert table.reference is not None
    level = table.reference.ms / taken[REFERENCE].ms
    return np.array([taken[str(arch)].ms * level for arch in archs])


def repeat(
    figures: Figures, space: SearchSpace, first: LatencyTable, given: argparse.Namespace
) -> None:
    """A second table against the first, entry by entry."""
    started = time.perf_counter()
    second = profile_space(
        space, load_device(given.device), runtime=given.runtime, precision=given.precision
    )
    figures.line("repeat: a usual table, s", f"{time.perf_counter() - started:.0f}")
    figures.line("repeat: its error on its own hold-out", str(latency_model(space, second).holdout))
    compare(figures, first, second)


def compare(figures: Figures, first: LatencyTable, second: LatencyTable) -> None:
    """One table against another of the same blocks, entry by entry."""
    assert first.reference is not None and second.reference is not None
    level = second.reference.ms / first.reference.ms
    ratios = np.array([second.blocks[key].ms / entry.ms for key, entry in first.blocks.items()])
    figures.line("repeat: reference, second over first", f"{level:.3f}")
    for name, values in (("as measured", ratios), ("at one level", ratios / level)):
        off = np.abs(values - 1)
        figures.line(
            f"repeat: entries, {name}",
            f"median {np.median(off):.1%}, 90th percentile {np.quantile(off, 0.9):.1%}",
        )


def main() -> None:
    """Build, judge, search, repeat."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--space", default="mbv3-nano-32")
    parser.add_argument("--resolutions", help="such as 160,192,224")
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--networks", type=int, default=200, help="random networks to judge by")
    parser.add_argument("--minutes", type=float, default=6.0, help="about, for all measuring")
    parser.add_argument("--journal", type=Path, help="a folder that lets a killed run go on")
    parser.add_argument("--context", action="store_true", help="also blocks by difference")
    parser.add_argument("--repeat", action="store_true", help="also a table as `profile` makes it")
    parser.add_argument("--device", default="local", help="a description of this machine")
    parser.add_argument("--table", type=Path, help="also write the table there")
    parser.add_argument("--csv", type=Path, help="also write the figures there")
    parser.add_argument(
        "--compare", type=Path, nargs=2, metavar="TABLE", help="only two tables, entry by entry"
    )
    given = parser.parse_args()
    if given.compare:
        figures = Figures()
        first, second = map(LatencyTable.load, given.compare)
        compare(figures, first, second)
        figures.save(given.csv)
        return
    space = get_space(given.space)
    if given.resolutions:
        space = space.with_resolutions(*map(int, given.resolutions.split(",")))
    figures = Figures()
    figures.line("space", f"{space.name} at {', '.join(map(str, space.resolutions))}")
    table = build(figures, space, given)
    if given.table:
        table.save(given.table)
    model = errors(figures, space, table)
    coverage(figures, model, table)
    if given.context:
        in_context(figures, space, table, given)
    searched(figures, space, table, given)
    if given.repeat:
        repeat(figures, space, table, given)
    figures.save(given.csv)


if __name__ == "__main__":
    main()
