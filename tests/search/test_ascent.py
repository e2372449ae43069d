"""Ascents along a front, on spaces small enough to know all."""

import numpy as np
import numpy.typing as npt
import pytest

from ofa_deploy.cost import macs_model
from ofa_deploy.search import search
from ofa_deploy.search.ascent import Ascender, Known
from ofa_deploy.search.constraints import GeneConstraint, parse_constraint
from ofa_deploy.search.domain import Domain
from ofa_deploy.space import Population, SearchSpace

Floats = npt.NDArray[np.float64]


class Rugged:
    """An accuracy with many local optima: genes help or hinder each other by pairs."""

    def __init__(self, space: SearchSpace, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        genes, choices = len(space.genes), 8
        self.alone = rng.normal(0, 1, genes * choices)
        pairs = rng.normal(0, 1, (genes, genes, choices, choices))
        pairs *= np.tri(genes, k=-1)[:, :, None, None]  # each pair once
        self.pairs = pairs.transpose(0, 2, 1, 3).reshape(len(self.alone), -1)
        self.one_hot = np.eye(choices + 1)[:, :choices]  # -1, an inactive gene, is none of them

    def predict(self, rows: Population) -> Floats:
        chosen = self.one_hot[rows].reshape(len(rows), len(self.alone))
        total: Floats = 50 + chosen @ self.alone + ((chosen @ self.pairs) * chosen).sum(axis=1)
        return total


def test_single_changes_are_the_neighbours_one_gene_away(
    tiny_space: SearchSpace, rng: np.random.Generator
) -> None:
    domain = Domain(tiny_space)
    rows = domain.sample(rng, 20)
    near, owner, change = domain.single_changes(rows)
    columns, choices = domain.changes
    assert (rows[owner, columns[change]] != choices[change]).all()
    for index, row in enumerate(rows):
        known = {tuple(each) for each in domain.neighbours(row, distance=1)}
        assert {tuple(each) for each in near[owner == index]} == known


def test_choices_that_are_not_allowed_are_not_tried(
    tiny_space: SearchSpace, rng: np.random.Generator
) -> None:
    only = parse_constraint("kernel = 3")
    assert isinstance(only, GeneConstraint)
    domain = Domain(tiny_space, [only])
    near, _, _ = domain.single_changes(domain.sample(rng, 20))
    assert len(near) and domain.holds(near).all()


def test_a_space_of_one_network_has_nothing_to_ascend(tiny_space: SearchSpace) -> None:
    texts = ("resolution = 16", "depth = 1", "kernel = 3", "expand = 3")
    fixed = [each for each in map(parse_constraint, texts) if isinstance(each, GeneConstraint)]
    domain = Domain(tiny_space, fixed)
    row = domain.extremes()[:1]
    seen: list[Population] = []

    def score(rows: Population) -> tuple[Floats, npt.NDArray[np.bool_]]:
        seen.append(rows)
        return np.zeros(len(rows)), np.ones(len(rows), bool)

    known = Known(row, np.zeros(1), np.ones(1))
    rng = np.random.default_rng(0)
    Ascender(domain, macs_model(tiny_space), score).ascend(known, 1.0, 2.0, rng)
    assert {tuple(each) for rows in seen for each in rows} == {tuple(row[0])}


def test_what_is_led_uphill_is_feasible_and_better(tiny_space: SearchSpace) -> None:
    """Everything scored keeps to the domain, and the front only grows better."""
    domain, model = Domain(tiny_space), macs_model(tiny_space)
    accuracy, limit = Rugged(tiny_space), 250_000.0
    found: list[Population] = []

    def score(rows: Population) -> tuple[Floats, npt.NDArray[np.bool_]]:
        assert domain.holds(rows).all()
        feasible = model.predict(rows) <= limit
        found.append(rows[feasible])
        return accuracy.predict(rows), feasible

    rng = np.random.default_rng(1)
    first = domain.sample(rng, 12)
    first = first[model.predict(first) <= limit]
    known = Known(first, accuracy.predict(first), model.predict(first))
    ascender = Ascender(domain, model, score)
    for _ in range(3):
        ascender.ascend(known, float(known.price.min()), limit, rng)
    reached = accuracy.predict(np.concatenate(found)).max()
    every = tiny_space_rows(tiny_space)
    every = every[model.predict(every) <= limit]
    values = np.sort(accuracy.predict(every))
    assert reached >= values[-len(values) // 200], "among the best half percent"
    assert reached > known.top1.max()


def tiny_space_rows(space: SearchSpace) -> Population:
    """Its 5,712 networks."""
    return np.unique(Domain(space).sample(np.random.default_rng(0), 400_000), axis=0)


@pytest.mark.parametrize("seed", range(3))
def test_ascents_find_more_of_a_rugged_front(tiny_space: SearchSpace, seed: int) -> None:
    """Against the true front: the share of its networks that are found."""
    accuracy, model = Rugged(tiny_space, seed), macs_model(tiny_space)
    every = tiny_space_rows(tiny_space)
    assert len(every) == 5_712
    order = np.lexsort((-accuracy.predict(every), model.predict(every)))
    top1 = accuracy.predict(every)[order]
    best = np.maximum.accumulate(top1)
    true = top1[np.r_[True, best[1:] > best[:-1]]]
    share = {}
    for ascents in (0, 32):
        front = search(
            tiny_space,
            accuracy=accuracy,
            metrics={"macs": model},
            objectives={"top1": "max", "macs": "min"},
            seed=seed,
            ascents=ascents,
        )
        found = {round(each.predicted["top1"], 9) for each in front}
        share[ascents] = sum(round(float(value), 9) in found for value in true) / len(true)
    assert share[32] >= share[0]
    assert share[32] >= 0.95
