"""The golden answers, and faults of once-for-all's definition that they must show.

Each fault is one plausible misreading, put in place of the right thing. A fault that the golden
file lets pass is a hole in the golden file.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ofa_deploy.errors import MismatchError
from ofa_deploy.graph import builder
from ofa_deploy.space import Arch, Block, SearchSpace, slots
from ofa_deploy.supernet import Supernet, elastic, modules, recalibration
from ofa_deploy.supernet.elastic import ElasticBottleneck, ElasticMBConv
from ofa_deploy.supernet.modules import Bottleneck
from tests.supernet.golden import CASES, PATHS, RECORDS, Case, arch_of, check, read, supernet
from tests.supernet.published_names import divisible

MBV3, PROXYLESS, RESNET = "ofa-mbv3-w1.0", "ofa-proxyless-w1.3", "ofa-resnet50"
Patch = pytest.MonkeyPatch
Apply = Callable[[Patch, Case], SearchSpace | None]


@cache
def sound(name: str) -> Supernet:
    """Shared, not to be changed: faults are put into the code that it calls."""
    return supernet(CASES[name])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", RECORDS)
def test_answers_are_the_golden_ones(name: str, path: str) -> None:
    check(sound(name), path)


@pytest.mark.parametrize("name", RECORDS)
def test_costs_are_the_golden_ones(name: str) -> None:
    space = CASES[name].space
    assert len(read()[name]) == RECORDS[name]
    for record in read()[name]:
        cost = space.cost(arch_of(space, record["config"]))
        assert (cost.params, cost.macs) == (record["params"], record["macs"])


@dataclass(frozen=True)
class Fault:
    """``apply`` puts it in place; it returns a space where the net has to be built anew."""

    apply: Apply
    case: str
    path: str


FAULTS: list[Fault] = []


def shows(case: str, *paths: str) -> Callable[[Apply], Apply]:
    """Register a fault, with the case and the paths on which it must show."""

    def register(apply: Apply) -> Apply:
        FAULTS.extend(Fault(apply, case, path) for path in paths)
        return apply

    return register


# -- kernels --------------------------------------------------------------------------------

Route = Callable[[ElasticMBConv, Tensor, int], Tensor]


def crop(weight: Tensor, size: int) -> Tensor:
    edge = (weight.shape[-1] - size) // 2
    return weight[:, :, edge : edge + size, edge : edge + size]


def through(weight: Tensor, matrix: Tensor) -> Tensor:
    return (weight.flatten(1) @ matrix.T).view_as(weight)


def stepwise(layer: ElasticMBConv, weight: Tensor, kernel: int) -> Tensor:
    """The right way, so that a fault below differs from it in one thing."""
    for small in (5, 3):
        if kernel <= small < weight.shape[-1]:
            matrix = layer.transforms[f"{small + 2}to{small}"]
            weight = through(crop(weight, small), matrix)
    return weight


def transposed(layer: ElasticMBConv, weight: Tensor, kernel: int) -> Tensor:
    for small in (5, 3):
        if kernel <= small < weight.shape[-1]:
            matrix = layer.transforms[f"{small + 2}to{small}"].T
            weight = through(crop(weight, small), matrix)
    return weight


def cropped(layer: ElasticMBConv, weight: Tensor, kernel: int) -> Tensor:
    return crop(weight, kernel)


def straight_from_seven(layer: ElasticMBConv, weight: Tensor, kernel: int) -> Tensor:
    if kernel == 3 and weight.shape[-1] == 7:
        return through(crop(weight, 3), layer.transforms["5to3"])
    return stepwise(layer, weight, kernel)


def route_kernels(monkeypatch: Patch, route: Route) -> None:
    def kernel_weight(self: ElasticMBConv, channels: int, kernel: int) -> Tensor:
        return route(self, self.full.depthwise.weight[:channels], kernel)

    monkeypatch.setattr(ElasticMBConv, "kernel_weight", kernel_weight)


@pytest.mark.parametrize("path", ["forward", "extracted"])
@pytest.mark.parametrize("name", [MBV3, PROXYLESS])
def test_kernels_by_hand_are_right(name: str, path: str, monkeypatch: Patch) -> None:
    route_kernels(monkeypatch, stepwise)
    check(sound(name), path)


@shows(MBV3, "forward", "extracted")
@shows(PROXYLESS, "forward", "extracted")
def kernel_matrix_transposed(monkeypatch: Patch, case: Case) -> None:
    route_kernels(monkeypatch, transposed)


@shows(MBV3, "forward", "extracted")
@shows(PROXYLESS, "forward", "extracted")
def kernel_matrix_skipped(monkeypatch: Patch, case: Case) -> None:
    route_kernels(monkeypatch, cropped)


@shows(MBV3, "forward", "extracted")
@shows(PROXYLESS, "forward", "extracted")
def three_straight_from_seven(monkeypatch: Patch, case: Case) -> None:
    route_kernels(monkeypatch, straight_from_seven)


# -- BN -------------------------------------------------------------------------------------


@shows(MBV3, *PATHS)
@shows(RESNET, "forward", "extracted")
def eps_of_proxyless(monkeypatch: Patch, case: Case) -> SearchSpace:
    return replace(case.space, bn_eps=1e-3)


@shows(PROXYLESS, *PATHS)
def eps_of_the_others(monkeypatch: Patch, case: Case) -> SearchSpace:
    return replace(case.space, bn_eps=1e-5)


def var_mean(x: Tensor, dims: tuple[int, ...], *, correction: int) -> tuple[Tensor, Tensor]:
    assert correction == 0
    variance, mean = torch.var_mean(x, dims, correction=1)
    return variance, mean


@shows(MBV3, "recalibrated")
@shows(PROXYLESS, "recalibrated")
@shows(RESNET, "recalibrated")
def unbiased_variance(monkeypatch: Patch, case: Case) -> None:
    faulty = SimpleNamespace(**{**vars(torch), "var_mean": var_mean})
    monkeypatch.setattr(recalibration, "torch", faulty)


@shows(MBV3, "recalibrated")
@shows(RESNET, "recalibrated")
def batches_weighted_alike(monkeypatch: Patch, case: Case) -> None:
    monkeypatch.setattr(recalibration, "len", lambda batch: 1, raising=False)


# -- squeeze-excite -------------------------------------------------------------------------


def change_blocks(monkeypatch: Patch, change: Callable[[Block, int], Block]) -> None:
    """Change the blocks of stages; ``change`` gets the block and the middle at its widest."""
    right = slots._stage_block

    def faulty(*args: Any, **kwargs: Any) -> Block | None:
        block = right(*args, **kwargs)
        return block and change(block, divisible(6 * block.in_channels))

    monkeypatch.setattr(slots, "_stage_block", faulty)


@shows(MBV3, "forward", "extracted")
def se_units_not_rounded(monkeypatch: Patch, case: Case) -> SearchSpace:
    def unrounded(block: Block, most: int) -> Block:
        mid = block.mid_channels  # the widest is left alone, or loading would show the fault
        return replace(block, se=mid // 4) if block.se and mid < most else block

    change_blocks(monkeypatch, unrounded)
    return case.space


@shows(MBV3, "forward", "extracted")
def se_units_of_the_widest(monkeypatch: Patch, case: Case) -> SearchSpace:
    def widest(block: Block, most: int) -> Block:
        return replace(block, se=divisible(most // 4)) if block.se else block

    change_blocks(monkeypatch, widest)
    return case.space


@shows(MBV3, "forward", "extracted")
def se_units_from_the_input(monkeypatch: Patch, case: Case) -> SearchSpace:
    def of_input(block: Block, most: int) -> Block:
        narrow = block.se and block.mid_channels < most
        return replace(block, se=divisible(block.in_channels // 4)) if narrow else block

    change_blocks(monkeypatch, of_input)
    return case.space


def test_se_units_never_rounded_do_not_even_load(monkeypatch: Patch) -> None:
    def unrounded(block: Block, most: int) -> Block:
        return replace(block, se=block.mid_channels // 4) if block.se else block

    change_blocks(monkeypatch, unrounded)
    with pytest.raises(MismatchError, match=r"misshaped: .*se\.fc\.expand\.weight"):
        supernet(CASES[MBV3])


# -- which blocks, which channels -----------------------------------------------------------


@shows(MBV3, "forward", "extracted")
@shows(PROXYLESS, "forward", "extracted")
@shows(RESNET, "forward", "extracted")
def depth_keeps_the_last_blocks(monkeypatch: Patch, case: Case) -> SearchSpace:
    # A stage's first block stays in any case: no other has its shape.
    right = SearchSpace.lower_named

    def faulty(self: SearchSpace, arch: Arch) -> tuple[tuple[str, Block], ...]:
        found = right(self, arch)
        active = Counter(name.rpartition(".")[0] for name, _ in found)
        return tuple((moved(self, name, active), block) for name, block in found)

    def moved(space: SearchSpace, name: str, active: Counter[str]) -> str:
        stage, _, block = name.rpartition(".")
        if not stage.startswith("stages.") or block == "0":
            return name
        skipped = space.stages[int(stage.split(".")[1])].most - active[stage]
        return f"{stage}.{int(block) + skipped}"

    monkeypatch.setattr(SearchSpace, "lower_named", faulty)
    return case.space


@shows(MBV3, "forward")
@shows(PROXYLESS, "forward")
@shows(RESNET, "forward")
def last_channels_computed(monkeypatch: Patch, case: Case) -> None:
    def faulty(
        x: Tensor, conv: nn.Conv2d, bn: nn.BatchNorm2d, outputs: int, stride: int = 1
    ) -> Tensor:
        weight = conv.weight[-outputs:, : x.shape[1]]
        return elastic._batch_norm(F.conv2d(x, weight, None, stride, conv.padding), bn)

    monkeypatch.setattr(elastic, "_conv_bn", faulty)


@shows(MBV3, "extracted")
@shows(PROXYLESS, "extracted")
@shows(RESNET, "extracted")
def last_channels_extracted(monkeypatch: Patch, case: Case) -> None:
    layer = ElasticBottleneck if case.name == RESNET else ElasticMBConv
    right = layer.weight

    def faulty(self: Any, name: str, block: Block, full: Tensor) -> Tensor:
        if name in ("expand.weight", "conv1.weight"):
            return full[-block.mid_channels :]
        return right(self, name, block, full)

    monkeypatch.setattr(layer, "weight", faulty)


# -- ResNet ---------------------------------------------------------------------------------


def replace_shrink(monkeypatch: Patch, faulty: Callable[[Tensor, int], Tensor]) -> None:
    monkeypatch.setattr(elastic, "shrink", faulty)
    monkeypatch.setattr(modules, "shrink", faulty)


@shows(RESNET, "forward", "extracted")
def shortcut_strided(monkeypatch: Patch, case: Case) -> None:
    replace_shrink(monkeypatch, lambda x, stride: x[:, :, ::stride, ::stride])


@shows(RESNET, "forward", "extracted")
def shortcut_counts_the_outside(monkeypatch: Patch, case: Case) -> None:
    def faulty(x: Tensor, stride: int) -> Tensor:
        overhang = -x.shape[-1] % stride
        return F.avg_pool2d(F.pad(x, (0, overhang, 0, overhang)), stride)

    replace_shrink(monkeypatch, faulty)


@shows(RESNET, "onnx")
def shortcut_strided_in_graphs(monkeypatch: Patch, case: Case) -> None:
    right = builder._Writer.pool

    def faulty(self: Any, operator: str, name: str, x: str, kernel: int, block: Block) -> str:
        kernel = 1 if operator == "AveragePool" else kernel
        return right(self, operator, name, x, kernel, block)

    monkeypatch.setattr(builder._Writer, "pool", faulty)


@shows(RESNET, *PATHS)
def stem_without_identity(monkeypatch: Patch, case: Case) -> SearchSpace:
    monkeypatch.setattr(
        slots, "_conv", lambda **given: Block(kind="conv", **{**given, "residual": False})
    )
    return case.space


@shows(RESNET, "forward")
def no_relu_after_the_sum_computed(monkeypatch: Patch, case: Case) -> None:
    def forward(self: ElasticBottleneck, x: Tensor, block: Block) -> Tensor:
        full, conv_bn = self.full, elastic._conv_bn
        y = conv_bn(x, full.conv1, full.bn1, block.mid_channels).relu()
        y = conv_bn(y, full.conv2, full.bn2, block.mid_channels, block.stride).relu()
        y = conv_bn(y, full.conv3, full.bn3, block.out_channels)
        if block.projects:
            x = modules.shrink(x, block.stride)
            x = conv_bn(x, full.shortcut, full.shortcut_bn, block.out_channels)
        return x + y

    monkeypatch.setattr(ElasticBottleneck, "forward", forward)


@shows(RESNET, "extracted")
def no_relu_after_the_sum_extracted(monkeypatch: Patch, case: Case) -> None:
    def forward(self: Bottleneck, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn3(self.conv3(self.bn2(self.conv2(y)).relu()))
        if self.block.projects:
            x = self.shortcut_bn(self.shortcut(modules.shrink(x, self.block.stride)))
        return cast(Tensor, x + y)

    monkeypatch.setattr(Bottleneck, "forward", forward)


# -- activations ----------------------------------------------------------------------------


def replace_activation(monkeypatch: Patch, name: str, faulty: Callable[[Tensor], Tensor]) -> None:
    right = modules.activate

    def activate(x: Tensor, activation: str) -> Tensor:
        return faulty(x) if activation == name else right(x, activation)

    monkeypatch.setattr(elastic, "activate", activate)
    monkeypatch.setattr(modules, "activate", activate)


@shows(PROXYLESS, "forward", "extracted", "recalibrated")
def relu_for_relu6(monkeypatch: Patch, case: Case) -> None:
    replace_activation(monkeypatch, "relu6", F.relu)


@shows(MBV3, "forward", "extracted", "recalibrated")
def swish_for_hswish(monkeypatch: Patch, case: Case) -> None:
    replace_activation(monkeypatch, "hswish", F.silu)


@shows(PROXYLESS, "onnx")
def relu_for_relu6_in_graphs(monkeypatch: Patch, case: Case) -> None:
    right = builder._Writer.activation

    def faulty(self: Any, name: str, x: str, activation: str) -> str:
        return right(self, name, x, activation.replace("relu6", "relu"))

    monkeypatch.setattr(builder._Writer, "activation", faulty)


@pytest.mark.parametrize(
    "fault", [pytest.param(f, id=f"{f.apply.__name__}-{f.case}-{f.path}") for f in FAULTS]
)
def test_golden_answers_show(fault: Fault, monkeypatch: Patch) -> None:
    case = CASES[fault.case]
    space = fault.apply(monkeypatch, case)
    net = sound(case.name) if space is None else supernet(case, space)
    with pytest.raises(AssertionError, match=f"{fault.path}: .* deviates"):
        check(net, fault.path)
