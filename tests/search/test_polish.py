"""What is tried around a network of a space with too many pairs of changes to try them all."""

import numpy as np
import pytest

from ofa_deploy.cost import AdditiveModel
from ofa_deploy.search import polish
from ofa_deploy.search.domain import Domain, unique
from ofa_deploy.search.exact import best_within
from ofa_deploy.search.polish import worth_trying
from ofa_deploy.search.problem import Problem
from ofa_deploy.space import Head, Population, SearchSpace, Stage, Stem, get_space, space_names


@pytest.fixture(scope="module")
def vast() -> SearchSpace:
    """More than 10^30 networks."""
    choices = {"depths": (2, 3, 4), "kernels": (3, 5, 7), "expands": (3, 4, 6)}
    space = SearchSpace(
        name="vast",
        resolutions=(64,),
        classes=10,
        stem=Stem(channels=16),
        stages=tuple(Stage(channels=24, stride=1, **choices) for _ in range(8)),
        head=Head(channels=64, features=64),
    )
    assert space.num_archs > 10**30
    return space


def by_genes(space: SearchSpace, seed: int) -> AdditiveModel:
    """A sum over single genes, each choice dearer than the one before."""
    rng = np.random.default_rng(seed)
    tables = [
        ((column,), np.r_[0.0, rng.uniform(0.1, 1, len(gene.choices)).cumsum()])
        for column, gene in enumerate(space.genes)
    ]
    return AdditiveModel(space, tables, offset=1.0)


def problem_of(space: SearchSpace, share: float) -> Problem:
    """Under a limit so far between the least and the greatest latency."""
    latency = by_genes(space, 1)
    least, greatest = latency.bounds()
    limit = least + share * (greatest - least)
    texts = [f"latency <= {limit:.6f} ms"]
    return Problem.build(space, accuracy=by_genes(space, 0), latency=latency, constraints=texts)


def feasible(problem: Problem, rows: Population) -> Population:
    return rows[problem.violation(rows) == 0]


def top1(problem: Problem, rows: Population) -> float:
    return float(problem.metrics["top1"].predict(feasible(problem, rows)).max())


def walked(problem: Problem, row: Population, steps: int) -> list[float]:
    """Top-1 along a walk to the best of what is worth trying."""
    seen = [top1(problem, row)]
    for _ in range(steps):
        near = feasible(problem, worth_trying(problem, row[0]))
        values = problem.metrics["top1"].predict(near)
        if not len(near) or values.max() <= seen[-1]:
            break
        row = near[values.argmax()][None]
        seen.append(float(values.max()))
    return seen


def test_of_published_spaces_all_pairs_are_tried(tiny_space: SearchSpace) -> None:
    for name in space_names():
        domain = Domain(get_space(name))
        assert len(domain.other_changes(domain.extremes()[0])) <= polish._FEW
    problem = problem_of(tiny_space, 0.5)
    row = tiny_space.sample(np.random.default_rng(0), 1)[0]
    near = worth_trying(problem, row)
    assert near.tolist() == problem.domain.neighbours(row).tolist()


def test_what_is_tried_are_networks_of_the_domain_and_few(vast: SearchSpace) -> None:
    problem = problem_of(vast, 0.4)
    row = problem.domain.extremes()[:1]
    near = worth_trying(problem, row[0])
    assert (near != row).any(axis=1).all() and len(unique(near)) == len(near)
    np.testing.assert_array_equal(vast.encode(vast.decode(near[::50])), near[::50])
    singles = {bytes(each) for each in problem.domain.single_changes(row)[0]}
    assert singles <= {bytes(each) for each in near}
    assert len(singles) < len(near) <= len(singles) + polish._PAIRS + 8


def test_the_best_pair_is_among_those_that_are_tried(
    tiny_space: SearchSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where models are sums over genes, a promise is what comes of it."""
    monkeypatch.setattr(polish, "_FEW", 0)
    monkeypatch.setattr(polish, "_PAIRS", 5)
    problem = problem_of(tiny_space, 0.6)
    awake = tiny_space.sample(np.random.default_rng(0), 300)
    awake = feasible(problem, awake[(awake >= 0).all(axis=1)])
    assert len(awake) > 10
    better = 0
    for row in awake[:40]:
        every = problem.domain.neighbours(row)
        tried = np.concatenate([row[None], worth_trying(problem, row)])
        assert top1(problem, tried) >= top1(problem, every) - 1e-9
        better += top1(problem, every) > top1(problem, problem.domain.neighbours(row, 1))
    assert better > 10


@pytest.mark.parametrize("pool", [64, 512])  # of 146 changes
def test_a_walk_ends_near_the_optimum_after_few_steps(
    vast: SearchSpace, monkeypatch: pytest.MonkeyPatch, pool: int
) -> None:
    """From the smallest network; one pair a step, it would be a step for two genes of 73."""
    monkeypatch.setattr(polish, "_POOL", pool)
    problem = problem_of(vast, 0.4)
    seen = walked(problem, problem.domain.extremes()[:1], 40)
    accuracy, latency = by_genes(vast, 0), by_genes(vast, 1)
    found = best_within(problem.domain, accuracy, latency, problem.constraints[0].limit, bins=512)
    assert found is not None
    assert seen[-1] > seen[0] + 0.99 * (found.value - seen[0])
    assert seen[-1] <= found.bound + 1e-9
    assert len(seen) < 20


def test_a_space_with_nothing_to_change(tiny_space: SearchSpace) -> None:
    texts = ["resolution = 16", "depth = 1", "kernel = 3", "expand = 3"]
    problem = Problem.build(tiny_space, accuracy=by_genes(tiny_space, 0), constraints=texts)
    row = problem.domain.extremes()[0]
    assert worth_trying(problem, row).shape == (0, len(row))


def test_without_constraints_the_best_of_all_is_reached(vast: SearchSpace) -> None:
    accuracy = by_genes(vast, 0)
    problem = Problem.build(vast, accuracy=accuracy)
    seen = walked(problem, problem.domain.extremes()[:1], 30)
    assert seen[-1] == pytest.approx(accuracy.bounds()[1])
    assert len(seen) < 20
