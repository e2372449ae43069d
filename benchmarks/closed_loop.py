"""Ten budgets in the closed loop, and every answer measured again in a run of its own.

Takes a finished training run that was evaluated (``ofa-deploy quickstart`` leaves one) and a
latency table of this machine. For ten budgets across the range it searches, proves and learns as
``ofa-deploy search`` does; then all answers are measured once more, together, in new processes.
Prints what was asked, predicted, measured and measured again, at the second run's own level and at
the table's: a shared machine changes its speed as a whole between runs, which no choice of network
can know. The machine must do nothing else::

    python benchmarks/closed_loop.py --run runs/quickstart --table TABLE [--csv FILE]
"""

import argparse
import time
from pathlib import Path

import numpy as np
from figures import Figures

from ofa_deploy.cli._closed_loop import PROTOCOL, as_of_now, check_here, prove
from ofa_deploy.cli._workspace import load_evaluator
from ofa_deploy.export import DeviceExaminer
from ofa_deploy.hardware import LatencyTable
from ofa_deploy.pareto import Candidate
from ofa_deploy.predict import load_accuracy_model
from ofa_deploy.profiling import REFERENCE, measure, network_subject, reference_arch
from ofa_deploy.search import models_of, parse_constraint
from ofa_deploy.space import SearchSpace
from ofa_deploy.terminal import SILENT
from ofa_deploy.train import Evaluator

BUDGETS = 10


def main() -> None:
    """Search, prove, measure again."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--csv", type=Path, help="also write the figures there")
    given = parser.parse_args()
    figures = Figures()
    table = LatencyTable.load(given.table)
    check_here(table, mend="profile anew")
    accuracy = load_accuracy_model(given.run / "accuracy.onnx")
    table = as_of_now(table, accuracy.space, SILENT)
    evaluator = load_evaluator(given.run, SILENT)
    models = models_of(accuracy, [table])
    latency = models.latency_on(table.conditions.device)
    _, (least, greatest) = latency.widen(np.array(latency.bounds()))
    figures.line("run, space", f"{given.run.name}, {models.space.name}")
    figures.line("accuracy model", str(accuracy))
    figures.line("latency model", str(latency.holdout))
    shares = (np.arange(BUDGETS) + 0.5) / BUDGETS
    budgets = [round(float(least + share * (greatest - least)), 4) for share in shares]
    found: list[Candidate] = []
    for budget in budgets:
        started = time.perf_counter()
        asked = [parse_constraint(f"latency <= {budget} ms")]
        verified = prove(evaluator, table, models, asked, 0, SILENT)
        best = verified.best
        found.append(best)
        figures.line(
            f"latency <= {budget} ms",
            f"predicted {best.predicted['latency']:.4f}, measured "
            f"{best.measured['latency']:.4f} ms; top-1 predicted {best.predicted['top1']:.2f}, "
            f"measured {best.measured['top1']:.2f} %; "
            f"{len(verified.examined)} measured in {time.perf_counter() - started:.0f} s"
            f"{'' if verified.stands else ', rounds over'}",
        )
    _again(figures, table, models.whole(table), evaluator, found, budgets)
    figures.save(given.csv)


def _again(
    figures: Figures,
    table: LatencyTable,
    space: SearchSpace,
    evaluator: Evaluator,
    found: list[Candidate],
    budgets: list[float],
) -> None:
    """All answers once more, in one separate run without a journal."""
    assert table.reference is not None
    conditions = table.conditions
    examiner = DeviceExaminer(evaluator, conditions, table.reference.ms, PROTOCOL, space=space)
    taken = measure(
        {str(i): examiner.shipped.subject(c.arch) for i, c in enumerate(found)},
        network_subject(space, reference_arch(space), batch=conditions.batch),
        runtime=conditions.runtime,
        precision=conditions.precision,
        threads=conditions.threads,
        protocol=PROTOCOL,
    )
    level = taken[REFERENCE].ms / table.reference.ms
    figures.line("second run: reference over the table's", f"{level:.3f}")
    for name, factor in (("as measured", 1.0), ("at the table's level", 1 / level)):
        over = [taken[str(i)].ms * factor / budget - 1 for i, budget in enumerate(budgets)]
        listed = ", ".join(f"{100 * each:+.1f}" for each in over)
        figures.line(
            f"second run, {name}: over budget",
            f"{sum(each > 0 for each in over)} of {len(over)} ({listed} %)",
        )


if __name__ == "__main__":
    main()
