"""The spaces that ship with ofa_deploy, by name, and those that users write as TOML files."""

from functools import cache
from pathlib import Path

from ofa_deploy.errors import UnknownNameError
from ofa_deploy.space.block import Activation, make_divisible
from ofa_deploy.space.layout import Head, Stage, Stem
from ofa_deploy.space.search_space import SearchSpace

__all__ = ["get_space", "space_names"]

_PUBLISHED_RESOLUTIONS = tuple(range(128, 225, 4))  # what once-for-all trains on
_KERNELS, _EXPANDS = (3, 5, 7), (3, 4, 6)
_SUFFIX = ".toml"


def _fixed_stage(channels: int, activation: Activation) -> Stage:
    """The first block of the mobile spaces: nothing to choose, no expansion."""
    return Stage(
        channels=channels,
        stride=1,
        depths=(1,),
        kernels=(3,),
        expands=(1,),
        activation=activation,
    )


def _mobilenet_v3(
    name: str,
    *,
    width: float = 1.0,
    kernels: tuple[tuple[int, ...], ...] = (_KERNELS,) * 5,
    strides: tuple[int, ...] = (2, 2, 2, 1, 2),
    stem_stride: int = 2,
    resolutions: tuple[int, ...] = _PUBLISHED_RESOLUTIONS,
    classes: int = 1000,
    coupled: bool = False,
) -> SearchSpace:
    """Once-for-all's MobileNetV3 (Cai et al. 2020), and what others made of it."""

    def scaled(channels: int) -> int:
        return make_divisible(channels * width)

    activations: tuple[Activation, ...] = ("relu", "relu", "hswish", "hswish", "hswish")
    stages = zip(
        (24, 40, 80, 112, 160),
        strides,
        kernels,
        activations,
        (False, True, False, True, True),
        strict=True,
    )
    return SearchSpace(
        name=name,
        resolutions=resolutions,
        classes=classes,
        stem=Stem(channels=scaled(16), stride=stem_stride),
        stages=(
            _fixed_stage(scaled(16), "relu"),
            *(
                Stage(
                    channels=scaled(channels),
                    stride=stride,
                    depths=(2, 3, 4),
                    kernels=choices,
                    expands=_EXPANDS,
                    coupled=coupled,
                    activation=activation,
                    se=se,
                )
                for channels, stride, choices, activation, se in stages
            ),
        ),
        head=Head(channels=scaled(960), features=scaled(1280)),
    )


def _proxyless(
    name: str,
    *,
    width: float = 1.0,
    kernels: tuple[int, ...] = _KERNELS,
    resolutions: tuple[int, ...] = _PUBLISHED_RESOLUTIONS,
) -> SearchSpace:
    """Once-for-all's ProxylessNAS; the last stage always has one block."""

    def scaled(channels: int) -> int:
        return make_divisible(channels * width)

    widths, strides = (24, 40, 80, 96, 192, 320), (2, 2, 2, 1, 2, 1)
    depths = (*((2, 3, 4),) * 5, (1,))
    return SearchSpace(
        name=name,
        resolutions=resolutions,
        classes=1000,
        stem=Stem(channels=scaled(32), activation="relu6"),
        stages=(
            _fixed_stage(scaled(16), "relu6"),
            *(
                Stage(
                    channels=scaled(channels),
                    stride=stride,
                    depths=depth,
                    kernels=kernels,
                    expands=_EXPANDS,
                    activation="relu6",
                )
                for channels, stride, depth in zip(widths, strides, depths, strict=True)
            ),
        ),
        head=Head(channels=scaled(1280), features=0, activation="relu6"),
        bn_eps=1e-3,
    )


def _resnet50() -> SearchSpace:
    """Once-for-all's ResNet-50: elastic depth, expansion and width."""
    stages = zip((256, 512, 1024, 2048), (1, 2, 2, 2), (2, 2, 4, 2), strict=True)
    return SearchSpace(
        name="ofa-resnet50",
        resolutions=_PUBLISHED_RESOLUTIONS,
        classes=1000,
        stem=Stem(channels=64, kind="deep", activation="relu", depths=(0, 2)),
        stages=tuple(
            Stage(
                kind="bottleneck",
                channels=channels,
                stride=stride,
                base_depth=base,
                depths=(0, 1, 2),
                kernels=(3,),
                expands=(0.2, 0.25, 0.35),
                activation="relu",
            )
            for channels, stride, base in stages
        ),
        head=Head(channels=0, features=0),
        width_multipliers=(0.65, 0.8, 1.0),
    )


def _nano() -> SearchSpace:
    """For 32x32 images and two CPU cores; the classes are those of the built-in glyphs.

    The later stages keep kernel 3: on a 4x4 map a wider one sees mostly padding, and its weight
    gradient is slow on CPUs without AVX-512.
    """
    depths, expands = (1, 2, 3), (2, 3, 4)
    return SearchSpace(
        name="mbv3-nano-32",
        resolutions=(32,),
        classes=50,
        stem=Stem(channels=16, stride=2),
        stages=(
            _fixed_stage(16, "relu"),
            Stage(
                channels=24,
                stride=2,
                depths=depths,
                kernels=(3, 5),
                expands=expands,
                activation="relu",
            ),
            Stage(channels=32, stride=2, depths=depths, kernels=(3,), expands=expands, se=True),
            Stage(channels=48, stride=1, depths=depths, kernels=(3,), expands=expands, se=True),
        ),
        head=Head(channels=192, features=256),
    )


@cache
def _catalogue() -> dict[str, SearchSpace]:
    seven, imagenet = ((7,),) * 5, (224,)
    spaces = (
        _nano(),
        _mobilenet_v3("ofa-mbv3-w1.0"),
        _mobilenet_v3("ofa-mbv3-w1.2", width=1.2),
        _proxyless("ofa-proxyless-w1.0"),
        _proxyless("ofa-proxyless-w1.3", width=1.3),
        _resnet50(),
        # The DεpS paper's: the kernel is fixed, the resolution too.
        _mobilenet_v3("deps-mbv3", kernels=seven, resolutions=imagenet),
        _proxyless("deps-proxyless", kernels=(7,), resolutions=imagenet),
        _mobilenet_v3(
            "deps-mbv3-32",
            kernels=seven,
            strides=(1, 2, 2, 1, 2),
            stem_stride=1,
            resolutions=(32,),
            classes=10,
        ),
        # CompOFA (Sahni et al. 2021): the kernels are MobileNetV3's own.
        _mobilenet_v3("compofa-mbv3", kernels=((3,), (5,), (3,), (3,), (5,)), coupled=True),
    )
    return {space.name: space for space in spaces}


def space_names() -> tuple[str, ...]:
    """The names of all spaces in the catalogue."""
    return tuple(_catalogue())


def get_space(name: str) -> SearchSpace:
    """The space of that name, or the one that a TOML file describes.

    Args:
        name: one of the catalogue's, or a path that ends in ``.toml``.

    Raises:
        UnknownNameError: listing the nearest names.
        FileFormatError: naming the field of a file that is wrong.
    """
    if name.endswith(_SUFFIX):
        return SearchSpace.from_toml(Path(name))
    if name not in _catalogue():
        hint = "ofa-deploy spaces lists them; a space of your own is a file NAME.toml"
        raise UnknownNameError("space", name, _catalogue(), hint=hint)
    return _catalogue()[name]
