"""The order of elimination against its definition, and what finding it costs."""

from math import prod

import numpy as np
import pytest

from ofa_deploy.search import elimination
from ofa_deploy.search.elimination import elimination_order

Columns = tuple[int, ...]


def by_definition(
    factors: tuple[Columns, ...], sizes: Columns
) -> list[tuple[tuple[Columns, ...], Columns]]:
    """Everything looked at again at every step."""
    waiting, axes, steps = list(dict.fromkeys(factors)), set[int](), []
    while waiting:
        scopes = {
            column: axes.union(*(columns for columns in waiting if column in columns))
            for columns in waiting
            for column in columns
        }
        column = min(scopes, key=lambda c: (prod(sizes[other] for other in scopes[c]), c))
        taken = tuple(columns for columns in waiting if column in columns)
        waiting = [columns for columns in waiting if column not in columns]
        asked = {c for columns in waiting for c in columns}
        steps.append((taken, tuple(sorted(scopes[column] - asked))))
        axes = scopes[column] & asked
    return steps


def chain(stages: int) -> tuple[tuple[Columns, ...], Columns]:
    """Tables as a space has them: all ask for gene 0, four blocks a stage for its depth."""
    factors: list[Columns] = []
    sizes = [5]
    for _ in range(stages):
        depth, block = len(sizes), len(sizes) + 1
        factors += [(0, depth, b, b + 4) for b in range(block, block + 4)]
        sizes += [3] * 9
    return tuple(factors), tuple(sizes)


def test_order_is_that_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        genes = int(rng.integers(1, 9))
        factors = tuple(
            tuple(map(int, rng.permutation(genes)[: rng.integers(1, min(4, genes) + 1)]))
            for _ in range(rng.integers(1, 14))
        )
        sizes = tuple(map(int, rng.integers(1, 4, genes)))
        assert elimination_order(factors, sizes) == tuple(by_definition(factors, sizes))
    assert elimination_order(*chain(4)) == tuple(by_definition(*chain(4)))


def test_every_factor_is_taken_and_every_gene_goes_once() -> None:
    factors, sizes = chain(6)
    steps = elimination_order(factors, sizes)
    assert sorted(columns for taken, _ in steps for columns in taken) == sorted(factors)
    assert sorted(c for _, gone in steps for c in gone) == list(range(len(sizes)))


def test_twice_as_many_stages_are_twice_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    pushed = [0]
    push = elimination.heappush

    def counted(*given: object) -> None:
        pushed[0] += 1
        push(*given)

    monkeypatch.setattr(elimination, "heappush", counted)
    work = []
    for stages in (20, 40, 80):
        pushed[0] = 0
        elimination_order(*chain(stages))
        work.append(pushed[0])
    assert 0 < work[2] < 2.1 * work[1] < 2.1**2 * work[0]
