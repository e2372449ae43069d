"""Two fronts of a few networks, and reports of them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ofa_deploy.pareto import Candidate, ParetoFront
from ofa_deploy.report import Report, Series, write_html, write_png
from ofa_deploy.space import Arch

HOSTILE = "_</script><img src=x onerror=alert(1)> $\\frac & \"[red]'"

Write = Callable[..., Path]


def arch(number: int) -> Arch:
    return Arch(32, (2,), (3, 5), (2, number))


def predicted(number: int, ms: float, top1: float, **more: Any) -> Candidate:
    return Candidate(arch(number), predicted={"latency": ms, "top1": top1}, **more)


def measured(number: int, ms: float, top1: float) -> Candidate:
    return Candidate(
        arch(number),
        predicted={"latency": ms * 1.1, "top1": top1 - 1, "macs": number * 1e6, "params": 5e4},
        intervals={"latency": (ms, ms * 1.25), "top1": (top1 - 2, top1 + 0.5)},
        measured={"latency": ms, "top1": top1},
        budget=f"latency <= {ms:g} ms",
    )


def front(*candidates: Candidate) -> ParetoFront:
    return ParetoFront(candidates)


def fast() -> ParetoFront:
    return front(measured(1, 1.0, 70.0), measured(2, 2.0, 75.0), measured(3, 4.0, 80.0))


def slow() -> ParetoFront:
    return front(measured(4, 1.5, 70.0), measured(5, 3.0, 78.0))


def pair() -> list[Series]:
    return [Series("fast", fast(), "measured"), Series("slow", slow(), "measured")]


def page(
    path: Path,
    series_list: list[Series],
    title: str = "A title",
    budgets: tuple[float, ...] = (),
    **more: Any,
) -> Path:
    return write_html(path, Report(asked(series_list, budgets), title, **more))


def picture(
    path: Path,
    series_list: list[Series],
    title: str = "A title",
    budgets: tuple[float, ...] = (),
    **more: Any,
) -> Path:
    return write_png(path, Report(asked(series_list, budgets), title), **more)


def asked(series_list: list[Series], budgets: tuple[float, ...]) -> list[Series]:
    """The series as they were searched under these latency budgets."""
    return [replace(s, context=replace(s.context, budgets=budgets)) for s in series_list]
