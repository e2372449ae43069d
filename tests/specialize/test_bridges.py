"""Maps between units of different widths: where they stand, and that merging them is exact."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ofa_deploy.space import Arch, Block, Head, SearchSpace, Stage, Stem
from ofa_deploy.specialize import Parent, Student, bridge_mode, bridges, merge, units_of
from ofa_deploy.specialize.bridges import training
from ofa_deploy.supernet import Subnet, recalibrate
from ofa_deploy.supernet.modules import MBConv, initialise

RESNET = SearchSpace(
    name="resnet",
    resolutions=(16,),
    classes=5,
    stem=Stem(channels=16, kind="deep", activation="relu", depths=(0, 2)),
    stages=tuple(
        Stage(
            kind="bottleneck",
            channels=channels,
            stride=stride,
            base_depth=1,
            depths=(0, 1),
            kernels=(3,),
            expands=(0.25, 0.75),
            activation="relu",
        )
        for channels, stride in ((32, 1), (64, 2))
    ),
    head=Head(channels=0, features=0),
    width_multipliers=(0.5, 1.0),
)


def mobile(widths: tuple[int, ...], strides: tuple[int, ...] = (1, 2, 1, 1)) -> SearchSpace:
    """Stages that meet in every way: with a residual first block, or without expansion."""
    return SearchSpace(
        name="mobile",
        resolutions=(16,),
        classes=5,
        stem=Stem(channels=widths[0]),
        stages=tuple(
            Stage(channels=c, stride=s, depths=(1,), kernels=(3,), expands=(e,), activation="relu")
            for c, s, e in zip(widths, strides, (1, 3, 3, 3), strict=True)
        ),
        head=Head(channels=40, features=24),
    )


THIN, WIDE = mobile((8, 16, 16, 24)), mobile((16, 24, 24, 32))
# Behind the stem a depthwise kernel reads; stages 2 begins with a residual block.
MODES = {"stem": "side", "stages.0": "next", "stages.1": "previous", "stages.2": "next"}


def student(space: SearchSpace, arch: Arch, parent: tuple[SearchSpace, Arch]) -> Student:
    """With random weights, maps and BN statistics."""
    units = units_of(space, arch)
    subnet = Subnet.of(space.lower(arch), space.bn_eps)
    widths = [unit.blocks[-1].out_channels for unit in units_of(*parent)]
    made = Student(subnet, units, widths)
    generator = torch.Generator().manual_seed(4)
    initialise(subnet, generator)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.startswith("bridges") or parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return made


def resnet() -> Student:
    thin = RESNET.arch(depths=[2, 1, 0], expands=0.25, widths=0)
    return student(RESNET, thin, (RESNET, RESNET.largest))


def mobilenet() -> Student:
    return student(THIN, THIN.largest, (WIDE, WIDE.largest))


def images() -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(9)
    for _ in range(3):
        yield torch.randn(12, 3, 16, 16, generator=generator)


def modes(made: Student) -> dict[str, str]:
    return {
        unit.name: bridge.mode
        for index, unit in enumerate(made.units)
        if (bridge := made.bridge(index)) is not None
    }


def test_maps_stand_where_widths_differ() -> None:
    assert modes(resnet()) == {"stem": "next", "stages.0": "next", "stages.1": "next"}
    assert modes(mobilenet()) == {**MODES, "stages.3": "next"}
    same = student(THIN, THIN.largest, (THIN, THIN.largest))
    assert not modes(same)


def conv(**changes: object) -> Block:
    return replace(
        Block(kind="conv", in_channels=8, out_channels=8, size=8, activation="relu"),
        **changes,  # type: ignore[arg-type]
    )


MBCONV = conv(kind="mbconv", mid_channels=24, kernel=3)
BOTTLENECK = conv(kind="bottleneck", mid_channels=8, kernel=3)


@pytest.mark.parametrize(
    ("before", "after", "width", "mode"),
    [
        (conv(), conv(), 8, "none"),
        (conv(), conv(), 6, "side"),  # the student is the wider
        (conv(), conv(kernel=3), 12, "next"),  # zero padding stays zero: the maps have no bias
        (conv(), conv(residual=True), 12, "side"),
        (conv(), MBCONV, 12, "next"),
        (conv(), replace(MBCONV, residual=True), 12, "side"),
        (conv(), replace(MBCONV, mid_channels=8), 12, "side"),  # a depthwise kernel reads first
        (MBCONV, replace(MBCONV, residual=True), 12, "previous"),
        (replace(MBCONV, residual=True), replace(MBCONV, residual=True), 12, "side"),
        (MBCONV, replace(MBCONV, mid_channels=8), 12, "previous"),
        (BOTTLENECK, BOTTLENECK, 12, "next"),
        (BOTTLENECK, replace(BOTTLENECK, residual=True), 12, "side"),
        (conv(), conv(kind="maxpool"), 12, "side"),
        (conv(), conv(kind="classifier"), 12, "next"),
    ],
)
def test_where_maps_are_merged(before: Block, after: Block, width: int, mode: str) -> None:
    assert bridge_mode(before, after, width) == mode


def test_maps_begin_by_handing_channels_through() -> None:
    units = units_of(THIN, THIN.largest)
    subnet = Subnet.of(THIN.lower(THIN.largest), THIN.bn_eps).eval()
    initialise(subnet, torch.Generator().manual_seed(1))
    made = Student(
        subnet, units, [unit.blocks[-1].out_channels for unit in units_of(WIDE, WIDE.largest)]
    ).eval()
    (batch, *_) = images()
    torch.testing.assert_close(made(batch), subnet(batch))


@pytest.mark.parametrize("make", [resnet, mobilenet])
def test_merged_and_unmerged_agree(make: Callable[[], Student]) -> None:
    unmerged, merged = make(), make()
    recalibrate(unmerged, images())
    merge(merged, images)
    assert not modes(merged)
    (batch, *_) = images()
    torch.testing.assert_close(merged.eval()(batch), unmerged.eval()(batch), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(merged.subnet(batch), merged(batch))
    plain = Subnet.of([b for unit in merged.units for b in unit.blocks])
    plain.load_state_dict(merged.subnet.state_dict())  # an ordinary subnet again


def test_a_merge_into_the_next_holds_in_training_too() -> None:
    unmerged, merged = resnet(), resnet()
    merge(merged, images)
    (batch, *_) = images()
    with torch.no_grad():
        found, expected = training(merged)(batch), training(unmerged)(batch)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_a_merge_into_the_previous_leaves_bn_that_normalises() -> None:
    merged = mobilenet()
    merge(merged, images)
    block = merged.subnet.blocks[merged.units[2].stop - 1]
    assert isinstance(block, MBConv)
    seen: list[Tensor] = []
    block.project.register_forward_hook(lambda _, __, z: seen.append(z))
    merged.eval()
    with torch.no_grad():
        for batch in images():
            merged(batch)
    z = torch.cat(seen)
    statistics = dict(block.project_bn.named_buffers())
    mean, variance = z.mean((0, 2, 3)), z.var((0, 2, 3), correction=0)
    torch.testing.assert_close(statistics["running_mean"], mean, atol=1e-4, rtol=0)
    torch.testing.assert_close(statistics["running_var"], variance, atol=0, rtol=1e-3)


def test_a_side_branch_leaves_no_trace() -> None:
    made = mobilenet()
    bridge = made.bridge(0)
    assert bridge is not None and bridge.down is None
    stem = made.subnet.get_parameter("blocks.0.conv.weight")
    before = stem.detach().clone()
    (batch, *_) = images()
    first = made.imitation(batch, 0, below=False)
    assert first.shape[1] == 16  # through U
    expected = made.subnet.blocks[0](batch)
    torch.testing.assert_close(made.unit(0, batch), expected)
    torch.testing.assert_close(bridge(expected), expected)
    merge(made, images)
    assert torch.equal(stem, before)


def test_a_wrong_merge_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridges, "_into_next", lambda *_: None)
    made = resnet()
    before = {name: tensor.clone() for name, tensor in made.subnet.named_parameters()}
    with pytest.raises(AssertionError, match="merging the maps changed the outputs by"):
        merge(made, images)
    assert all(torch.equal(p, before[name]) for name, p in made.subnet.named_parameters())


def test_imitation_of_a_wider_unit_reaches_its_maps_only() -> None:
    made = resnet()
    (batch, *_) = images()
    training(made)
    loss = made.imitation(batch, 1, below=False).square().mean()
    named = dict(made.named_parameters())
    gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    moved = {name for name, found in zip(named, gradients, strict=True) if found is not None}
    own = {f"subnet.blocks.{i}." for i in range(made.units[1].start, made.units[1].stop)}
    assert {name for name in moved if name.startswith("subnet")} == {
        name for name, _ in made.named_parameters() if name.startswith(tuple(own))
    }
    # V before the unit and U behind it learn; U before it is reached, but not in ``parts``.
    held = {id(p) for p in made.parts(1).parameters()}
    learned = {name for name, p in made.named_parameters() if id(p) in held}
    maps = {name for name in learned if name.startswith("bridges")}
    assert maps == {"bridges.0.down.weight", "bridges.1.up.weight"}


def test_parents_units_are_what_its_blocks_give() -> None:
    space = RESNET
    subnet = Subnet.of(space.lower(space.largest), space.bn_eps).eval()
    initialise(subnet, torch.Generator().manual_seed(2))
    made = Parent(space, space.largest, subnet, "0" * 64)
    (batch, *_) = images()
    assert made.through(batch, 0).shape == (12, 16, 4, 4)
    assert made.through(batch, 2).shape == (12, 64, 2, 2)
    torch.testing.assert_close(made.soft_labels(batch), subnet(batch).softmax(1))
