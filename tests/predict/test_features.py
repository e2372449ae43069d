"""What accuracy models see of networks, in Python and as a graph."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from scipy.optimize import minimize_scalar

from ofa_deploy.predict.features import Features, features_of
from ofa_deploy.predict.onnx_graph import OnnxGraph
from ofa_deploy.space import Arch, Population, SearchSpace, get_space, space_names
from tests.predict.conftest import narrow_space

Floats = npt.NDArray[np.float64]


def by_graph(features: Features, population: Population) -> Floats:
    """The same by ONNX Runtime."""
    graph = OnnxGraph()
    graph.add("Identity", features.add_to(graph))
    model = graph.model("features", "population", "features")
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"population": population.astype(np.float32)})
    return np.asarray(found, float)


def of_group(space: SearchSpace, archs: list[Arch], name: str) -> Floats:
    features = features_of(space)
    return features(space.encode(archs))[:, features.groups == features.names.index(name)]


@pytest.mark.parametrize("name", ["tiny", *space_names()])
def test_graph_sees_what_python_sees(tiny_space: SearchSpace, name: str) -> None:
    space = tiny_space if name == "tiny" else get_space(name)
    population = space.sample(np.random.default_rng(1), 100)
    features = features_of(space)
    seen = features(population)
    assert seen.shape == (100, len(features.groups))
    assert set(features.groups) == set(range(len(features.names)))
    np.testing.assert_allclose(by_graph(features, population), seen, atol=2e-4)


@pytest.mark.parametrize("name", ["tiny", *space_names()])
def test_networks_are_told_apart(tiny_space: SearchSpace, name: str) -> None:
    space = tiny_space if name == "tiny" else get_space(name)
    rows = np.unique(space.sample(np.random.default_rng(2), 300), axis=0)
    seen = features_of(space)(rows)
    assert len(np.unique(seen.round(9), axis=0)) == len(rows)
    assert np.abs(seen).max() < 25


def test_groups_of_a_space(tiny_space: SearchSpace) -> None:
    assert features_of(tiny_space).names == (
        "resolution",
        "depth",
        "block",
        "kernel",
        "kernel bend",
        "kernel of stage",
        "expand",
        "expand of stage",
        "macs",
        "params",
    )


@pytest.mark.parametrize(
    ("space", "gene", "middle"),
    [
        # the middle of -1/3, -1/5, -1/7; of log 2, log 3, log 6; of 1, 2, 4
        (narrow_space(kernels=(3, 5, 7)), "kernel", 0.4),
        (narrow_space(expands=(2, 3, 6)), "expand", 2 * np.log(1.5) / np.log(3) - 1),
        (narrow_space(depths=(1, 2, 4)), "depth", -1 / 3),
        (
            narrow_space(resolutions=(8, 12, 16)),
            "resolution",
            2 * np.log(1.5) / np.log(2) - 1,
        ),
    ],
    ids=["kernel", "expand", "depth", "resolution"],
)
def test_scales(space: SearchSpace, gene: str, middle: float) -> None:
    population = np.zeros((3, len(space.genes)), np.int8)
    column = next(i for i, g in enumerate(space.genes) if g.kind == gene)
    population[:, column] = range(3)
    archs = space.decode(population)
    level = of_group(space, archs, gene)
    np.testing.assert_allclose(level, np.array([[-1], [middle], [1]]), atol=1e-12)
    bend = of_group(space, archs, f"{gene} bend")
    assert np.ptp(bend) == pytest.approx(1)
    # No straight line through the choices explains any of it.
    assert bend.sum() == pytest.approx(0, abs=1e-12)
    assert (bend * level).sum() == pytest.approx(0, abs=1e-12)


def test_depth_counts_blocks() -> None:
    space = narrow_space(depths=(1, 2, 4))
    archs = [
        space.arch(depths=[depth], kernels=[3] * depth, expands=[2] * depth, resolution=16)
        for depth in (1, 2, 4)
    ]
    np.testing.assert_array_equal(of_group(space, archs, "block"), [[0, 0], [1, 0], [1, 1]])


def test_stage_adds_up_what_its_active_blocks_have(tiny_space: SearchSpace) -> None:
    arch = tiny_space.largest
    kernels = of_group(tiny_space, [arch], "kernel of stage")[0]
    np.testing.assert_allclose(kernels, [2, 3])  # two blocks of 7x7, three of 5x5
    fewer = replace(arch, depths=(1, 3), kernels=arch.kernels[1:], expands=arch.expands[1:])
    np.testing.assert_allclose(of_group(tiny_space, [fewer], "kernel of stage"), [[1, 3]])
    small = replace(arch, kernels=(3, 7, 3, 5, 5))
    np.testing.assert_allclose(of_group(tiny_space, [small], "kernel of stage"), [[0, 1]])


@pytest.mark.parametrize("metric", ["macs", "params"])
@pytest.mark.parametrize("stage", [0, 1])
def test_costs_of_a_stage(tiny_space: SearchSpace, metric: str, stage: int) -> None:
    """The feature is affine in a stage's log cost: the whole's cost is ``c + a exp(b feature)``."""
    drawn = tiny_space.decode(tiny_space.sample(np.random.default_rng(3), 3_000))
    # Only one stage differs: the other one is the first network's.
    genes = [i for i, g in enumerate(tiny_space.genes) if g.stage != (1, 2)[stage]]
    rows = tiny_space.encode(drawn)
    alike = tiny_space.decode(rows[(rows[:, genes] == rows[0, genes]).all(1)])
    found = of_group(tiny_space, alike, metric)
    own, other = found[:, stage], found[:, 1 - stage]
    total = np.array([getattr(tiny_space.cost(arch), metric) for arch in alike], float)
    assert len(np.unique(total)) > 6
    np.testing.assert_allclose(other, other[0])

    def rest(b: float) -> float:
        line = np.stack([np.ones(len(own)), np.exp(b * own)], axis=1)
        return float(np.abs(line @ np.linalg.lstsq(line, total, rcond=None)[0] - total).max())

    best = minimize_scalar(rest, bounds=(0.05, 3), method="bounded", options={"xatol": 1e-9})
    assert best.fun < 1e-5 * np.ptp(total)


def test_costs_are_standardised(tiny_space: SearchSpace) -> None:
    drawn = tiny_space.decode(tiny_space.sample(np.random.default_rng(4), 2_000))
    for metric in ("macs", "params"):
        found = of_group(tiny_space, drawn, metric)
        assert np.abs(found.mean(0)).max() < 0.2
        np.testing.assert_allclose(found.std(0), 1, atol=0.1)


def test_one_gene_moves_only_what_it_is_part_of(tiny_space: SearchSpace) -> None:
    """Two networks that differ in a kernel share depth, expansion, resolution and other stages."""
    arch = tiny_space.largest
    other = replace(arch, kernels=(3, *arch.kernels[1:]))
    features = features_of(tiny_space)
    a, b = features(tiny_space.encode([arch, other]))
    moved = {features.names[group] for group in features.groups[~np.isclose(a, b)]}
    assert moved <= {"kernel", "kernel bend", "kernel of stage", "macs", "params"}
    assert moved >= {"kernel", "kernel of stage", "macs", "params"}


def test_single_choices_are_no_features() -> None:
    space = narrow_space(kernels=(3, 5))
    features = features_of(space)
    assert features.names == ("kernel", "kernel of stage", "macs", "params")
    assert features(space.encode([space.smallest])).shape == (1, 4)
    fixed = features_of(narrow_space())
    assert fixed.names == ()
    assert len(fixed.groups) == 0


def test_spaces_are_looked_at_once(tiny_space: SearchSpace) -> None:
    assert features_of(tiny_space) is features_of(tiny_space)
    spaces = [tiny_space, tiny_space.with_resolutions(12), tiny_space.with_resolutions(16)]
    for one, another in combinations(spaces, 2):
        assert features_of(one) is not features_of(another)
