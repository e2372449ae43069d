"""The plans of the baselines: what each phase opens, trains and begins with."""

import math
from collections.abc import Iterator

import numpy as np
import pytest

from ofa_deploy.data import DataSplits
from ofa_deploy.space import SearchSpace, get_space
from ofa_deploy.supernet import Supernet
from ofa_deploy.train import (
    BigNasConfig,
    CompOfaConfig,
    DepsConfig,
    Phase,
    Plan,
    ProgressiveConfig,
    Rule,
    Trainer,
    build_config,
    plan_for,
)
from ofa_deploy.train.trainer import _zero_gamma
from tests.train.runs import lr_at

OFA = get_space("ofa-mbv3-w1.0")  # kernels 3, 5, 7; depths 2, 3, 4; ratios 3, 4, 6
PER_EPOCH = 10


def outline(plan: Plan) -> list[tuple[str, int, tuple[str, ...]]]:
    """Name, epochs and start of each phase."""
    assert all(phase.steps % PER_EPOCH == 0 for phase in plan.phases)
    return [(phase.name, phase.steps // PER_EPOCH, phase.start) for phase in plan.phases]


def phase_of(plan: Plan, name: str) -> Phase:
    return next(phase for phase in plan.phases if phase.name == name)


def rules_of(phase: Phase) -> tuple[Rule, ...]:
    """The rules of a phase, which are the same at every step."""
    (rules,) = {phase.rules(step) for step in (0, 1, phase.steps // 2, phase.steps - 1)}
    return rules


def drawn(plan: Plan, space: SearchSpace, name: str, steps: int = 60) -> Iterator[tuple[int, ...]]:
    """All (kernels, depths, ratios) that a phase draws, as the sets of their values."""
    first = plan.first_step(name)
    archs = [
        each.arch for step in range(first, first + steps) for each in plan.passes(space, step, 5)
    ]
    for kind in ("kernels", "depths", "expands"):
        yield tuple(sorted({int(value) for arch in archs for value in getattr(arch, kind)}))


# -- progressive shrinking ------------------------------------------------------------------


@pytest.fixture(scope="module")
def progressive() -> Plan:
    return plan_for(ProgressiveConfig(lr=2.6, lr_min=0.0), OFA, PER_EPOCH)


RESTART = "restart optimizer"


def test_phases_of_progressive_shrinking(progressive: Plan) -> None:
    assert outline(progressive) == [
        ("teacher", 180, ()),
        ("kernel", 125, ("freeze teacher", RESTART)),
        ("depth 1", 25, (RESTART,)),
        ("depth 2", 125, (RESTART,)),
        ("expand 1", 25, ("sort channels", RESTART)),
        ("expand 2", 125, ("sort channels", RESTART)),
    ]
    assert progressive.steps == 605 * PER_EPOCH


def test_teacher_is_the_largest_on_labels(progressive: Plan) -> None:
    assert rules_of(progressive.phases[0]) == (Rule("largest", 1.0, "labels", dropout=True),)


@pytest.mark.parametrize(
    ("name", "subnets", "kernels", "depths", "expands"),
    [
        ("kernel", 1, (3, 5, 7), (4,), (6,)),
        ("depth 1", 2, (3, 5, 7), (3, 4), (6,)),
        ("depth 2", 2, (3, 5, 7), (2, 3, 4), (6,)),
        ("expand 1", 4, (3, 5, 7), (2, 3, 4), (4, 6)),
        ("expand 2", 4, (3, 5, 7), (2, 3, 4), (3, 4, 6)),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_choices_open_from_the_greatest_down(
    progressive: Plan,
    name: str,
    subnets: int,
    kernels: tuple[int, ...],
    depths: tuple[int, ...],
    expands: tuple[int, ...],
) -> None:
    rules = rules_of(phase_of(progressive, name))
    assert len(rules) == subnets
    for rule in rules:
        assert (rule.role, rule.weight, rule.dropout) == ("random", 1.0, False)
        assert rule.target == "labels+frozen"
    assert tuple(drawn(progressive, OFA, name)) == (kernels, depths, expands)


@pytest.mark.parametrize(
    ("name", "share", "epochs", "warm_up"),
    [
        ("teacher", 1.0, 180, 0),
        ("kernel", 0.37, 120, 5),
        ("depth 1", 0.03, 25, 0),
        ("depth 2", 0.09, 120, 5),
        ("expand 1", 0.03, 25, 0),
        ("expand 2", 0.09, 120, 5),
    ],
)
def test_each_phase_has_a_cosine_of_its_own(
    progressive: Plan, name: str, share: float, epochs: int, warm_up: int
) -> None:
    phase = phase_of(progressive, name)
    rates = [phase.lr(step) for step in range(phase.steps)]
    warming = warm_up * PER_EPOCH
    rising = [2.6 * share * step / warming for step in range(1, warming + 1)]
    steps = epochs * PER_EPOCH
    falling = [1.3 * share * (1 + math.cos(math.pi * step / steps)) for step in range(steps)]
    assert rates == pytest.approx([*rising, *falling], rel=1e-9)
    first = progressive.first_step(name)
    assert lr_at(progressive, first + warm_up * PER_EPOCH) == pytest.approx(2.6 * share)


def test_shares_are_the_published_rates() -> None:
    """0.03, 0.0025 and 0.0075 at batch 64, where the teacher's is 2.6 · 64 / 2048."""
    config, teacher = ProgressiveConfig(), 2.6 * 64 / 2_048
    found = [teacher * share for share in (config.kernel_lr, *config.depth_lr, *config.expand_lr)]
    assert found == pytest.approx([0.03, 0.0025, 0.0075, 0.0025, 0.0075], rel=0.05)


def test_floor_holds_in_every_phase() -> None:
    plan = plan_for(ProgressiveConfig(lr=2.6, lr_min=1e-3), OFA, PER_EPOCH)
    for phase in plan.phases:
        assert phase.lr(phase.steps - 1) >= 1e-3
    assert plan.phases[0].lr(plan.phases[0].steps - 1) == 1e-3


def test_last_length_and_rate_stand_for_all_further_phases(tiny_space: SearchSpace) -> None:
    config = ProgressiveConfig(
        teacher_epochs=1, kernel_epochs=1, depth_epochs=(3,), depth_lr=(0.5,), warmup_epochs=2
    )
    plan = plan_for(config, OFA, PER_EPOCH)
    assert [phase_of(plan, f"depth {n}").steps for n in (1, 2)] == [30, 50]
    assert phase_of(plan, "depth 1").lr(0) == phase_of(plan, "depth 2").lr(20)


@pytest.mark.parametrize(
    ("space", "names"),
    [
        ("deps-mbv3", ["teacher", "depth 1", "depth 2", "expand 1", "expand 2"]),
        ("compofa-mbv3", ["teacher", "depth 1", "depth 2"]),
        ("ofa-proxyless-w1.0", ["teacher", "kernel", "depth 1", "depth 2", "expand 1", "expand 2"]),
    ],
)
def test_phases_with_nothing_to_open_are_left_out(space: str, names: list[str]) -> None:
    plan = plan_for(ProgressiveConfig(), get_space(space), PER_EPOCH)
    assert [phase.name for phase in plan.phases] == names
    frozen = [phase.name for phase in plan.phases if "freeze teacher" in phase.start]
    assert frozen == names[1:2]


@pytest.mark.parametrize("method", ["progressive", "compofa"])
def test_weights_that_are_trained_already_are_the_teacher(method: str) -> None:
    """Without epochs of its own the teacher is what the run starts from."""
    plan = plan_for(build_config(method, teacher_epochs=0), OFA, PER_EPOCH)
    starts = [phase.start[0] == "freeze teacher" for phase in plan.phases]
    assert starts == [True] + [False] * (len(starts) - 1)
    assert plan.phases[0].name == {"progressive": "kernel", "compofa": "compound 1"}[method]


@pytest.mark.parametrize(
    ("config", "first"),
    [
        (ProgressiveConfig(kernel_epochs=0, warmup_epochs=0), "depth 1"),
        (CompOfaConfig(phase_epochs=(0, 9)), "compound 2"),
    ],
    ids=["progressive", "compofa"],
)
def test_first_phase_of_no_length_leaves_the_freezing_to_the_next(
    config: ProgressiveConfig | CompOfaConfig, first: str
) -> None:
    plan = plan_for(config, OFA, PER_EPOCH)
    frozen = [phase.name for phase in plan.phases if "freeze teacher" in phase.start]
    assert frozen == [first] == [plan.phases[1].name]


# -- CompOFA --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compofa() -> Plan:
    return plan_for(CompOfaConfig(lr=2.6), get_space("deps-mbv3"), PER_EPOCH)


def test_phases_of_compofa(compofa: Plan) -> None:
    start = ("sort channels", RESTART)
    assert outline(compofa) == [
        ("teacher", 180, ()),
        ("compound 1", 25, ("freeze teacher", *start)),
        ("compound 2", 125, start),
    ]
    assert compofa.steps == 330 * PER_EPOCH
    rates = [phase_of(compofa, "compound 2").lr(step) for step in (24, 49, 50, 650)]
    assert rates == pytest.approx([0.117, 0.234, 0.234, 0.117], rel=1e-9)


@pytest.mark.parametrize(
    ("name", "pairs"),
    [("compound 1", {(4, 6), (3, 4)}), ("compound 2", {(4, 6), (3, 4), (2, 3)})],
)
def test_compofa_draws_coupled_networks_only(
    compofa: Plan, name: str, pairs: set[tuple[int, int]]
) -> None:
    space = get_space("deps-mbv3")
    first, seen = compofa.first_step(name), set()
    assert {(rule.role, rule.target) for rule in rules_of(phase_of(compofa, name))} == {
        ("random", "labels+frozen")
    }
    for step in range(first, first + 40):
        made = compofa.passes(space, step, seed=1)
        assert len(made) == 4
        for arch in (each.arch for each in made):
            starts = np.cumsum([0, *arch.depths])
            for depth, start in zip(arch.depths, starts, strict=False):
                (ratio,) = set(arch.expands[start : start + depth])
                seen.add((depth, int(ratio)))
    assert seen == pairs


def test_compofa_of_a_coupled_space(tiny_space: SearchSpace) -> None:
    space = get_space("compofa-mbv3")
    assert space.num_archs == 243 * len(space.resolutions)
    plan = plan_for(CompOfaConfig(), space, PER_EPOCH)
    assert [phase.name for phase in plan.phases] == ["teacher", "compound 1", "compound 2"]
    first = plan.first_step("compound 1")
    archs = [each.arch for step in range(first, first + 40) for each in plan.passes(space, step, 0)]
    assert {depth for arch in archs for depth in arch.depths} == {3, 4}


# -- BigNAS ---------------------------------------------------------------------------------


def test_bignas_is_a_sandwich_from_the_first_step(tiny_space: SearchSpace) -> None:
    plan = plan_for(BigNasConfig(epochs=5, random_subnets=2), tiny_space, PER_EPOCH)
    assert outline(plan) == [("sandwich", 5, ())]
    for step in (0, 1, 49):
        largest, smallest, *random = plan.passes(tiny_space, step, 0)
        assert (largest.arch, smallest.arch) == (tiny_space.largest, tiny_space.smallest)
        assert (largest.target, largest.dropout, largest.weight) == ("labels", True, 1.0)
        assert len(random) == 2
        for each in (smallest, *random):
            assert (each.target, each.dropout, each.weight) == ("teacher", False, 1.0)


def test_bignas_decays_to_a_twentieth() -> None:
    plan = plan_for(BigNasConfig(epochs=200, lr=0.2, decay=0.97), OFA, PER_EPOCH)
    rates = [lr_at(plan, step) for step in range(plan.steps)]
    floor = math.ceil(math.log(0.05) / math.log(0.97) * PER_EPOCH)  # 98.4 epochs
    falling = [0.2 * 0.97 ** (step / PER_EPOCH) for step in range(floor)]
    assert rates[:floor] == pytest.approx(falling, rel=1e-12)
    assert rates[floor:] == pytest.approx([0.01] * (plan.steps - floor), rel=1e-12)
    assert falling[-1] > 0.01


@pytest.mark.parametrize("zero", [True, False])
def test_zero_gamma_silences_residual_branches(
    tiny_space: SearchSpace, data: DataSplits, zero: bool
) -> None:
    config = BigNasConfig(epochs=1, batch=25, zero_gamma=zero, threads=1)
    net = Trainer(tiny_space, config, data).net
    gammas = {
        name.removesuffix(".full.project_bn.weight").removeprefix("layers."): weight
        for name, weight in net.named_parameters()
        if name.endswith("project_bn.weight")
    }
    # The first blocks of stages change the map or its channels, but for those of 8 to 8 and of
    # 16 to 16 at stride 1.
    residual = {"stages-0-0", "stages-1-1", "stages-2-0", "stages-2-1", "stages-2-2"}
    assert gammas.keys() == residual | {"stages-1-0"}
    for name, gamma in gammas.items():
        assert (gamma == (0 if zero and name in residual else 1)).all(), name


def test_zero_gamma_in_bottlenecks() -> None:
    net = Supernet(get_space("ofa-resnet50").with_resolutions(128))
    _zero_gamma(net)
    zeros = {name.rpartition(".")[0] for name, p in net.named_parameters() if not p.any()}
    last = {f"layers.stages-{s}-{b}.full.bn3" for s, n in enumerate((4, 4, 6, 4)) for b in range(n)}
    assert {name for name in zeros if name.endswith(".bn3")} == last
    ones = [p for name, p in net.named_parameters() if name.endswith(("bn1.weight", "bn2.weight"))]
    assert all((p == 1).all() for p in ones)


def test_only_bignas_starts_with_zero_gamma() -> None:
    configs = (DepsConfig(), ProgressiveConfig(), CompOfaConfig())
    assert [config.zero_gamma for config in configs] == [False] * 3
    assert BigNasConfig().zero_gamma


# -- widths ---------------------------------------------------------------------------------


def test_widths_open_last_with_the_ratios() -> None:
    """The ResNet space has three widths of the stem and of each stage, and no kernels to open."""
    space = get_space("ofa-resnet50")
    widths = [column for column, gene in enumerate(space.genes) if gene.kind == "width"]
    greatest = space.num_choices[widths] - 1
    plan = plan_for(ProgressiveConfig(), space, PER_EPOCH)
    opened = {}
    for phase in plan.phases[1:]:
        first = plan.first_step(phase.name)
        archs = [p.arch for step in range(first, first + 30) for p in plan.passes(space, step, 0)]
        opened[phase.name] = int((greatest - space.encode(archs)[:, widths]).max())
    assert opened == {
        **{name: 0 for name in opened if name.startswith("depth")},
        "expand 1": 1,
        "expand 2": 2,
    }


def test_compound_phases_open_a_width_each() -> None:
    space = get_space("ofa-resnet50")
    widths = [column for column, gene in enumerate(space.genes) if gene.kind == "width"]
    plan = plan_for(CompOfaConfig(), space, PER_EPOCH)
    for n in (1, 2):
        first = plan.first_step(f"compound {n}")
        archs = [p.arch for step in range(first, first + 30) for p in plan.passes(space, step, 0)]
        closed = space.num_choices[widths] - 1 - space.encode(archs)[:, widths]
        assert closed.max() == n
