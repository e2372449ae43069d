"""What a page of fronts says of the runs that they come from, and what it proposes to run next."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ofa_deploy.cli._next import search_command
from ofa_deploy.cli._output import quoted
from ofa_deploy.errors import OfaDeployError

if TYPE_CHECKING:
    from ofa_deploy.report import Context, Series

__all__ = ["page_commands", "page_facts"]


def page_facts(series: "Sequence[Series]") -> dict[str, str]:
    """What the numbers hold for: shared conditions, whose top-1 it is, the models, the supernet.

    What cannot be read from a front's run is left out.
    """
    facts = _conditions(series)
    if all(each.context.run for each in series):  # a search judges on the validation split
        facts["top-1"] = f"on the validation split{_images(series)}"
    for name, find in (("latency model", _latency_model), ("accuracy model", _accuracy_model),
                       ("supernet SHA-256", _supernet)):  # fmt: skip
        found: dict[str, list[str]] = {}
        for each in series:
            with suppress(OfaDeployError):  # nobody named it: left alone where it cannot be read
                if text := find(each.context):
                    found.setdefault(text, []).append(each.label)
        for text, labels in found.items():
            of = f" of {', '.join(dict.fromkeys(labels))}" if len(found) > 1 else ""
            facts[f"{name}{of}"] = text
    return facts


def page_commands(series: "Sequence[Series]") -> list[str]:
    """For each run: export and show the network that the page opens with, and search again."""
    runs: dict[str, list[Series]] = {}
    for each in series:
        if each.context.run:
            runs.setdefault(each.context.run, []).append(each)
    made: dict[str, None] = {}
    for mine in runs.values():
        made |= dict.fromkeys([*_of_chosen(mine), *_searches(mine)])
    return list(made)


def _of_chosen(series: "Sequence[Series]") -> Iterator[str]:
    """Commands of the most accurate measured network that keeps the middle budget, if kept."""
    from ofa_deploy.report.store import export_command

    budget = _budget(series)
    points = [
        (point.y, -point.x, point.candidate.arch in each.context.subnets, index, point, each)
        for index, each in enumerate(series)
        for point in each.points()
        if point.measured and (budget is None or point.x <= budget)
    ]
    if not points:
        return
    *_, point, chosen = max(points, key=lambda found: found[:3])
    if path := chosen.context.subnets.get(point.candidate.arch):
        yield export_command(path, point.candidate.target or chosen.context.target)
        yield f"ofa-deploy show {quoted(path)}"


def _searches(series: "Sequence[Series]") -> Iterator[str]:
    from ofa_deploy.cli._search_tables import TablesOfDevices

    budget = _budget(series)
    context = series[0].context
    stated, space, run = context.conditions, context.space, Path(context.run)
    if budget is None or stated is None or space is None:
        return
    with suppress(OfaDeployError):  # no table of that device at hand
        tables = TablesOfDevices(space, run, stated.runtime, stated.precision)
        for path in tables.find([stated.device]):
            near = path.is_relative_to(Path.cwd())
            yield search_command(run, path.relative_to(Path.cwd()) if near else path, budget)


def _budget(series: "Sequence[Series]") -> float | None:
    """The latency in ms that the page opens with: the middle one of those asked for."""
    asked = sorted({budget for each in series for budget in each.context.budgets})
    return asked[len(asked) // 2] if asked else None


def _conditions(series: "Sequence[Series]") -> dict[str, str]:
    """Those that all of the fronts share."""
    stated = [s.context.conditions.model_dump() for s in series if s.context.conditions]
    if len(stated) < len(series):
        return {}
    first = stated[0]
    return {k: str(v) for k, v in first.items() if v and all(each[k] == v for each in stated)}


def _images(series: "Sequence[Series]") -> str:
    measured = [candidate.measured for each in series for candidate in each.front]
    counts = {values["top1.images"] for values in measured if "top1.images" in values}
    return f", {' or '.join(f'{count:,.0f}' for count in sorted(counts))} images" if counts else ""


def _latency_model(context: "Context") -> str:
    from ofa_deploy.predict import latency_model

    table, space = context.table, context.space
    if table is None or space is None:
        return ""
    return table.unjudged or str(latency_model(space, table).holdout)


def _accuracy_model(context: "Context") -> str:
    from ofa_deploy.export import accuracy_file
    from ofa_deploy.predict import load_accuracy_model

    if not context.run:
        return ""
    path = accuracy_file(Path(context.run), *context.engine)
    return str(load_accuracy_model(path)) if path.exists() else ""


def _supernet(context: "Context") -> str:
    from ofa_deploy.files import read_json

    if not context.run:
        return ""
    return str(read_json(Path(context.run) / "run.json").get("weights_sha256") or "")
