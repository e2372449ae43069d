"""What a run will cost, against what it does cost and against sums by hand."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ofa_deploy.cost import macs_model
from ofa_deploy.data import DataSplits
from ofa_deploy.space import Head, SearchSpace, Stage, Stem
from ofa_deploy.supernet import Supernet
from ofa_deploy.train import (
    BigNasConfig,
    CompOfaConfig,
    DepsConfig,
    Forecast,
    ProgressiveConfig,
    TrainConfig,
    Trainer,
    evaluation_macs,
    forecast,
    time_steps,
)
from ofa_deploy.train import (
    pace as pace_module,
)
from ofa_deploy.train import (
    trainer as trainer_module,
)

CONFIGS = (
    DepsConfig(epochs=4, ramp_end=2, ramp_epochs=1),
    BigNasConfig(epochs=2),
    ProgressiveConfig(
        teacher_epochs=2,
        kernel_epochs=1,
        depth_epochs=(1,),
        expand_epochs=(1,),
        warmup_epochs=1,
    ),
    CompOfaConfig(teacher_epochs=1, phase_epochs=(2,)),
)


def by_method(config: TrainConfig) -> str:
    return config.method


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that count but train nothing."""

    def none(*args: Any, **_: object) -> list[float]:
        return [0.0] * len(args[4])

    monkeypatch.setattr(trainer_module, "train_step", none)


def spent(trainer: Trainer) -> dict[str, int]:
    """The trainer's own count, by phase."""
    costs: dict[str, int] = {}
    while not trainer.finished:
        name, before = trainer.plan.at(trainer.step)[0].name, trainer.cost
        trainer.advance()
        costs[name] = costs.get(name, 0) + trainer.cost - before
    return costs


def forecast_of(trainer: Trainer) -> Forecast:
    return forecast(trainer.config, trainer.space, trainer.plan)


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("config", CONFIGS, ids=by_method)
def test_cost_is_what_the_trainer_counts(
    config: TrainConfig, small_space: SearchSpace, data: DataSplits
) -> None:
    # Phases of at most 64 steps are counted step by step.
    trainer = Trainer(small_space, config.model_copy(update={"batch": 10}), data)
    found = forecast_of(trainer)
    counted = spent(trainer)
    assert {p.name: p.macs for p in found.phases} == pytest.approx(counted, rel=1e-12)
    assert found.macs == pytest.approx(trainer.cost, rel=1e-12)


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("config", CONFIGS, ids=by_method)
def test_random_subnets_enter_with_their_mean(
    config: TrainConfig, small_space: SearchSpace, data: DataSplits
) -> None:
    trainer = Trainer(small_space, config.model_copy(update={"batch": 2, "processes": 1}), data)
    found = {phase.name: phase for phase in forecast_of(trainer).phases}
    rng = np.random.default_rng(0)
    drawn = macs_model(small_space).predict(small_space.decode(small_space.sample(rng, 500)))
    assert any(phase.steps > 64 and "random" in phase.passes for phase in found.values())
    for name, counted in spent(trainer).items():
        phase = found[name]
        largest_only = phase.passes == "largest"
        # Of 64 steps with at most 4 random subnets each; forward, and twice that backward.
        error = 2 * 3 * phase.steps * float(drawn.std()) * math.sqrt(4 / 64)
        assert abs(phase.macs - counted) <= (1e-9 * counted if largest_only else 4 * error)
        assert phase.macs == pytest.approx(counted, rel=0.05)


def test_cost_of_the_largest_alone_by_hand(small_space: SearchSpace, data: DataSplits) -> None:
    config = DepsConfig(epochs=4, ramp_end=3, batch=10, processes=2)
    warm_up = forecast_of(Trainer(small_space, config, data)).phases[0]
    assert (warm_up.name, warm_up.steps, warm_up.passes) == ("warm-up", 10, "largest")
    assert warm_up.macs == 10 * 20 * 3 * small_space.cost(small_space.largest).macs


def test_teacher_costs_a_forward_from_its_freezing_on(
    small_space: SearchSpace, data: DataSplits
) -> None:
    config = CONFIGS[2].model_copy(update={"batch": 10})
    trainer = Trainer(small_space, config, data)
    first = forecast_of(trainer).phases[1]
    assert (first.name, first.start[0]) == ("kernel", "freeze teacher")
    model = macs_model(small_space)
    begin = trainer.plan.first_step("kernel")
    students = sum(
        small_space.cost(each.arch).macs
        for step in range(begin, begin + first.steps)
        for each in trainer.plan.passes(small_space, step, config.seed)
    )
    largest = small_space.cost(small_space.largest).macs
    assert first.macs == pytest.approx(10 * (3 * students + first.steps * largest), rel=1e-12)
    assert model.predict([small_space.largest]).sum() == largest


def test_phases_say_what_they_do(small_space: SearchSpace, data: DataSplits) -> None:
    config = DepsConfig(epochs=5, ramp_end=3, ramp_epochs=1, batch=10, lr=0.2, lr_min=0.0)
    warm_up, ramp, shrink = forecast_of(Trainer(small_space, config, data)).phases
    assert [phase.passes for phase in (warm_up, ramp, shrink)] == [
        "largest",
        *("largest + smallest + 2 random",) * 2,
    ]
    assert [phase.start for phase in (warm_up, ramp, shrink)] == [(), ("sort channels",), ()]

    def cosine(step: int) -> float:
        return 0.1 * (1 + math.cos(math.pi * step / 50))

    assert warm_up.lr == pytest.approx([cosine(0), cosine(10), cosine(19)])
    assert ramp.weight == pytest.approx([0.1 * cosine(30) / cosine(20), cosine(30) / cosine(29)])
    assert shrink.weight == (1.0, 1.0)
    assert shrink.lr == pytest.approx([cosine(30), cosine(40), cosine(49)])


# -- memory ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def minute() -> SearchSpace:
    """8x8 pixels, stride 2, one block of 8 channels that widens to 16, two classes."""
    return SearchSpace(
        name="minute",
        resolutions=(8,),
        classes=2,
        stem=Stem(channels=8),
        stages=(Stage(channels=8, stride=1, depths=(1,), kernels=(3,), expands=(1, 2)),),
        head=Head(channels=0, features=0),
    )


# stem 3·8·9 + 2·8; block 8·16 + 2·16, 9·16 + 2·16, 16·8 + 2·8; classifier 8·2 + 2
PARAMS = (216 + 16) + (128 + 32) + (144 + 32) + (128 + 16) + (16 + 2)
# stem 3·64 in, 8·16 out; block 8·16 in and out, 16·16 in and out of the expanded map, twice;
# classifier 8·16 in, 2 out
VALUES = (192 + 128) + (128 + 128 + 4 * 256) + (128 + 2)


def memory(space: SearchSpace, data: DataSplits, config: TrainConfig) -> tuple[int, int]:
    found = forecast_of(Trainer(space.with_classes(4), config, data))
    return found.weight_bytes, found.activation_bytes


def test_memory_by_hand(minute: SearchSpace, data: DataSplits) -> None:
    assert sum(p.numel() for p in Supernet(minute).parameters()) == PARAMS
    params, values = PARAMS + 2 * 9, VALUES + 2  # four classes
    batch = {"batch": 10, "processes": 3}
    weights, activations = memory(minute, data, DepsConfig.build(epochs=2, **batch))
    assert weights == 4 * 3 * params
    assert activations == 4 * 10 * values  # of one process
    with_teacher, same = memory(
        minute, data, ProgressiveConfig.build(teacher_epochs=1, expand_epochs=(1,), **batch)
    )
    assert (with_teacher, same) == (4 * 4 * params, activations)
    squares, _ = memory(minute, data, BigNasConfig.build(epochs=1, optimizer="rmsprop", **batch))
    assert squares == 4 * 4 * params


# -- time -----------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that steps move on: a second for a hundred million multiply-accumulates."""
    made = SimpleNamespace(now=0.0)
    made.monotonic = made.perf_counter = lambda: made.now
    monkeypatch.setattr(pace_module, "time", made)
    take = Trainer._take

    def timed(self: Trainer, *args: Any) -> list[float]:
        before = self.cost
        losses = take(self, *args)
        made.now += (self.cost - before) / 1e8
        return losses

    monkeypatch.setattr(Trainer, "_take", timed)
    return made


@pytest.mark.usefixtures("untrained", "clock")
@pytest.mark.parametrize("config", CONFIGS, ids=by_method)
def test_time_follows_from_a_few_steps(
    config: TrainConfig, small_space: SearchSpace, data: DataSplits
) -> None:
    config = config.model_copy(update={"batch": 10, "calibration": 32})
    run = forecast_of(Trainer(small_space, config, data))
    pace = time_steps(config, small_space, data, run)
    assert pace.batch == 10
    assert pace.macs == pytest.approx([1e8] * len(run.phases))
    macs = [phase.macs for phase in run.phases]
    low, high = pace.seconds(macs, evaluation_macs(config, small_space, data, run))
    costs = [small_space.cost(arch).macs for arch in (small_space.largest, small_space.smallest)]
    epochs = sum(phase.steps for phase in run.phases) / 10
    judged = epochs * (len(data.validation) + 32) * sum(costs)
    assert (low / 0.8, high / 1.6) == pytest.approx([(run.macs + judged) / 1e8] * 2)


@pytest.mark.usefixtures("untrained", "clock")
def test_long_steps_are_timed_with_fewer_images(
    small_space: SearchSpace, data: DataSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ProgressiveConfig(teacher_epochs=2, kernel_epochs=1, batch=10)
    run = forecast_of(Trainer(small_space, config, data))
    dearest = max(phase.macs / phase.steps for phase in run.phases) / 10
    monkeypatch.setattr(pace_module, "_MACS", {"cpu": 3.5 * dearest})
    monkeypatch.setattr(pace_module, "_SECONDS", 0.0)
    pace = time_steps(config, small_space, data, run)
    assert pace.batch == 3
    assert 2 <= pace.steps <= 4, "later phases are taken to go at the pace of the first"
    assert pace.macs == pytest.approx([1e8] * len(run.phases))
