"""Names and shapes of the tensors in published once-for-all checkpoints.

Written from how the published networks are defined; the importer under test is not used. The two
generations of names differ in what stands after a mobile block's number.
"""

from collections.abc import Iterator

__all__ = ["FAMILIES", "divisible", "older", "shapes"]

FAMILIES = ("mbv3", "proxyless", "resnet50")
Shape = tuple[int, ...]
Entry = tuple[str, Shape]

_MOBILE_WIDTHS = {
    "mbv3": (16, 16, 24, 40, 80, 112, 160),  # stem, first block, stages
    "proxyless": (32, 16, 24, 40, 80, 96, 192, 320),
}
_WITH_SE = {"mbv3": (1, 3, 4), "proxyless": ()}  # stages
_RESNET_STAGES = ((256, 4), (512, 4), (1024, 6), (2048, 4))  # channels and blocks at most


def divisible(value: float) -> int:
    """Channels as a multiple of 8, at least 8, never below 90 % of ``value``."""
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * value else rounded


def shapes(family: str, *, width: float = 1.0, classes: int = 1000) -> dict[str, Shape]:
    """Every key of a checkpoint and its tensor's shape, in the newer generation of names.

    Args:
        family: one of ``FAMILIES``.
        width: multiplies the channels of the mobile families.
    """
    if family == "resnet50":
        return dict(_resnet50(classes))
    return dict(_mobile(family, width, classes))


def older(key: str) -> str:
    """The older generation's spelling of a key of a mobile family."""
    first, number, *rest = key.split(".")
    if first == "blocks" and rest[0] == "conv":
        rest[0] = "mobile_inverted_conv"
    return ".".join([first, number, *rest])


def _norm(prefix: str, channels: int) -> Iterator[Entry]:
    for name in ("weight", "bias", "running_mean", "running_var"):
        yield f"{prefix}.{name}", (channels,)
    yield f"{prefix}.num_batches_tracked", ()


def _layer(prefix: str, shape: Shape, *, elastic: bool = False) -> Iterator[Entry]:
    """A convolution and its BN; elastic ones double the last part of their names."""
    conv, norm = ("conv.conv", "bn.bn") if elastic else ("conv", "bn")
    yield f"{prefix}.{conv}.weight", shape
    yield from _norm(f"{prefix}.{norm}", shape[0])


def _linear(prefix: str, outputs: int, inputs: int) -> Iterator[Entry]:
    yield f"{prefix}.weight", (outputs, inputs)
    yield f"{prefix}.bias", (outputs,)


def _mobile(family: str, width: float, classes: int) -> Iterator[Entry]:
    stem, first, *stages = (divisible(channels * width) for channels in _MOBILE_WIDTHS[family])
    yield from _layer("first_conv", (stem, 3, 3, 3))
    yield from _layer("blocks.0.conv.depth_conv", (stem, 1, 3, 3))
    yield from _layer("blocks.0.conv.point_linear", (first, stem, 1, 1))
    before, number = first, 1
    for stage, channels in enumerate(stages):
        for _ in range(1 if stage == 5 else 4):  # ProxylessNAS's last stage has one
            se = stage in _WITH_SE[family]
            yield from _mobile_block(f"blocks.{number}.conv", before, channels, se=se)
            before, number = channels, number + 1
    if family == "mbv3":
        wide, last = divisible(960 * width), divisible(1280 * width)
        yield from _layer("final_expand_layer", (wide, before, 1, 1))
        yield "feature_mix_layer.conv.weight", (last, wide, 1, 1)
    else:
        last = divisible(1280 * width)
        yield from _layer("feature_mix_layer", (last, before, 1, 1))
    yield from _linear("classifier.linear", classes, last)


def _mobile_block(prefix: str, inputs: int, outputs: int, *, se: bool) -> Iterator[Entry]:
    mid = divisible(6 * inputs)
    yield from _layer(f"{prefix}.inverted_bottleneck", (mid, inputs, 1, 1), elastic=True)
    yield f"{prefix}.depth_conv.conv.5to3_matrix", (9, 9)
    yield f"{prefix}.depth_conv.conv.7to5_matrix", (25, 25)
    yield from _layer(f"{prefix}.depth_conv", (mid, 1, 7, 7), elastic=True)
    if se:
        hidden = divisible(mid // 4)
        for name, shape in (("reduce", (hidden, mid, 1, 1)), ("expand", (mid, hidden, 1, 1))):
            yield f"{prefix}.depth_conv.se.fc.{name}.weight", shape
            yield f"{prefix}.depth_conv.se.fc.{name}.bias", shape[:1]
    yield from _layer(f"{prefix}.point_linear", (outputs, mid, 1, 1), elastic=True)


def _resnet50(classes: int) -> Iterator[Entry]:
    yield from _layer("input_stem.0", (32, 3, 3, 3), elastic=True)
    # The residual convolution of the stem is a layer within a layer.
    yield from _layer("input_stem.1.conv", (32, 32, 3, 3), elastic=True)
    yield from _layer("input_stem.2", (64, 32, 3, 3), elastic=True)
    before, number = 64, 0
    for channels, blocks in _RESNET_STAGES:
        mid = divisible(round(0.35 * channels))
        for block in range(blocks):
            prefix = f"blocks.{number}"
            yield from _layer(f"{prefix}.conv1", (mid, before, 1, 1), elastic=True)
            yield from _layer(f"{prefix}.conv2", (mid, mid, 3, 3), elastic=True)
            yield from _layer(f"{prefix}.conv3", (channels, mid, 1, 1), elastic=True)
            if block == 0:
                shape = (channels, before, 1, 1)
                yield from _layer(f"{prefix}.downsample", shape, elastic=True)
            before, number = channels, number + 1
    yield from _linear("classifier.linear.linear", classes, before)
