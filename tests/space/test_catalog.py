"""The catalogue against what was published about its spaces."""

from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import pytest

from ofa_deploy.cost import macs_model, params_model
from ofa_deploy.space import Arch, SearchSpace, get_space, space_names

PUBLISHED_RESOLUTIONS = tuple(range(128, 225, 4))

# One stage of the mobile spaces has 9 kinds of blocks, 3 with a fixed kernel; depths are 2, 3, 4.
MOBILE = (9**2 + 9**3 + 9**4) ** 5
FIXED_KERNEL = (3**2 + 3**3 + 3**4) ** 5
RESNET = (2 * 2 * 3**5) * (3**2 + 3**3 + 3**4) ** 3 * (3**4 + 3**5 + 3**6)


@dataclass(frozen=True)
class Form:
    """What the catalogue says of a space.

    Attributes:
        networks: at one resolution.
        widths: output channels of stem, stages and head's convolution (0 without one).
        strides: of stem and stages.
        activations: of stem, stages and head.
        features: hidden units of the classifier.
    """

    networks: int
    resolutions: tuple[int, ...]
    classes: int
    widths: tuple[int, ...]
    strides: tuple[int, ...]
    activations: tuple[str, ...]
    features: int
    bn_eps: float = 1e-5
    se: tuple[bool, ...] = ()


MBV3 = Form(
    networks=MOBILE,
    resolutions=PUBLISHED_RESOLUTIONS,
    classes=1000,
    widths=(16, 16, 24, 40, 80, 112, 160, 960),
    strides=(2, 1, 2, 2, 2, 1, 2),
    activations=("hswish", "relu", "relu", "relu", "hswish", "hswish", "hswish", "hswish"),
    features=1280,
    se=(False, False, True, False, True, True),
)
PROXYLESS = Form(
    networks=9 * MOBILE,
    resolutions=PUBLISHED_RESOLUTIONS,
    classes=1000,
    widths=(32, 16, 24, 40, 80, 96, 192, 320, 1280),
    strides=(2, 1, 2, 2, 2, 1, 2, 1),
    activations=("relu6",) * 9,
    features=0,
    bn_eps=1e-3,
    se=(False,) * 7,
)
FORMS = {
    "ofa-mbv3-w1.0": MBV3,
    # 16 by 1.2 is 19.2: 16 would be more than a tenth less, so 24. 112 by 1.2 is 134.4.
    "ofa-mbv3-w1.2": replace(MBV3, widths=(24, 24, 32, 48, 96, 136, 192, 1152), features=1536),
    "ofa-proxyless-w1.0": PROXYLESS,
    # 41.6, 20.8, 31.2, 52 (half-way, up), 104, 124.8, 249.6, 416, 1664
    "ofa-proxyless-w1.3": replace(PROXYLESS, widths=(40, 24, 32, 56, 104, 128, 248, 416, 1664)),
    "ofa-resnet50": Form(
        networks=RESNET,
        resolutions=PUBLISHED_RESOLUTIONS,
        classes=1000,
        widths=(64, 256, 512, 1024, 2048, 0),
        strides=(2, 1, 2, 2, 2),
        activations=("relu",) * 5 + ("none",),
        features=0,
        se=(False,) * 4,
    ),
    "deps-mbv3": replace(MBV3, networks=FIXED_KERNEL, resolutions=(224,)),
    "deps-proxyless": replace(PROXYLESS, networks=3 * FIXED_KERNEL, resolutions=(224,)),
    "deps-mbv3-32": replace(
        MBV3,
        networks=FIXED_KERNEL,
        resolutions=(32,),
        classes=10,
        strides=(1, 1, 1, 2, 2, 1, 2),
    ),
    "compofa-mbv3": replace(MBV3, networks=3**5),
    "mbv3-nano-32": Form(
        networks=(6 + 6**2 + 6**3) * (3 + 3**2 + 3**3) ** 2,
        resolutions=(32,),
        classes=50,
        widths=(16, 16, 24, 32, 48, 192),
        strides=(2, 1, 2, 2, 1),
        activations=("hswish", "relu", "relu", "hswish", "hswish", "hswish"),
        features=256,
        se=(False, False, True, True),
    ),
}


def test_nothing_else_is_in_the_catalogue() -> None:
    assert set(space_names()) == set(FORMS)
    assert len(space_names()) == 10


@pytest.mark.parametrize("name", FORMS)
def test_size_of_the_space(name: str) -> None:
    form, space = FORMS[name], get_space(name)
    assert space.resolutions == form.resolutions
    assert space.num_archs == form.networks * len(form.resolutions)
    assert space.bn_eps == form.bn_eps


@pytest.mark.parametrize("name", FORMS)
def test_form_of_the_largest_network(name: str) -> None:
    form, space = FORMS[name], get_space(name)
    blocks = dict(space.lower_named(space.largest))
    stem = [block for slot, block in blocks.items() if slot.startswith("stem")]
    firsts = [blocks[f"stages.{i}.0"] for i in range(len(space.stages))]
    head = blocks.get("head")
    widths = [stem[-1].out_channels, *(block.out_channels for block in firsts)]
    assert (*widths, head.out_channels if head else 0) == form.widths
    assert (stem[0].stride, *(block.stride for block in firsts)) == form.strides
    acts = (
        stem[0].activation,
        *(b.activation for b in firsts),
        head.activation if head else "none",
    )
    assert acts == form.activations
    assert tuple(block.se > 0 for block in firsts) == form.se
    last = blocks["classifier"]
    assert (last.in_channels, last.mid_channels) == (
        widths[-1] if not head else head.out_channels,
        form.features,
    )
    assert last.out_channels == form.classes
    assert last.activation == (form.activations[-1] if form.features else "none")
    # Only a stage's first block has a stride; all of a stage are alike otherwise.
    for slot, block in blocks.items():
        if slot.startswith("stages.") and not slot.endswith(".0"):
            first = blocks[slot.rsplit(".", 1)[0] + ".0"]
            assert block.stride == 1 and block.residual
            assert (block.activation, block.se > 0) == (first.activation, first.se > 0)
            assert block.out_channels == block.in_channels == first.out_channels


def test_published_counts() -> None:
    assert f"{get_space('ofa-mbv3-w1.0').num_archs / 25:.2e}" == "2.18e+19"  # Cai et al. 2020
    assert get_space("compofa-mbv3").num_archs == 243 * 25  # Sahni et al. 2021
    # As published, with two stem indices that give one width counted as two.
    networks = get_space("ofa-resnet50").num_archs / 25
    assert f"{networks * 3 / 2:.4g}" == "2.459e+12" and f"{networks:.5g}" == "1.6393e+12"


# Of the reference implementations, in millions, at 224x224.
@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("ofa-mbv3-w1.0", 121.3, 566.2),
        ("ofa-mbv3-w1.2", 193.1, 843.1),
        ("ofa-proxyless-w1.3", 265.5, 1004.9),
        ("ofa-resnet50", 962.2, 7491.6),
        ("deps-mbv3", 151.3, 566.2),
    ],
)
def test_published_macs_of_smallest_and_largest(name: str, least: float, most: float) -> None:
    space = get_space(name).with_resolutions(224)
    found = [space.cost(arch).macs for arch in (space.smallest, space.largest)]
    assert [round(macs / 1e6, 1) for macs in found] == [least, most]
    assert macs_model(space).bounds() == tuple(found)


@pytest.mark.parametrize(
    ("name", "macs"),
    [
        ("deps-mbv3", [151.3, 222.0, 292.7, 383.7, 424.4, 566.2]),
        ("deps-mbv3-32", [45.1, 68.3, 91.5, 120.8, 132.9, 179.7]),
    ],
)
def test_uniform_subnets_of_the_deps_paper(name: str, macs: list[float]) -> None:
    space = get_space(name)
    uniform = [(2, 3), (3, 3), (4, 3), (4, 4), (3, 6), (4, 6)]
    archs = [space.arch(depths=depth, expands=expand) for depth, expand in uniform]
    assert [round(space.cost(arch).macs / 1e6, 1) for arch in archs] == macs
    assert archs[0] == space.smallest and archs[-1] == space.largest
    assert all(set(arch.kernels) == {7} for arch in archs)


# Configs, parameters and MACs at 160 and 224 as the reference counts them
# (mit-han-lab/once-for-all f03b267, width 1.0).
PUBLISHED: list[tuple[dict[str, str], int, int, int]] = [
    (
        {"d": "24243", "ks": "53573373573733355333", "e": "64363366636643336344"},
        4575992,
        129_686_976,
        250_964_928,
    ),
    (
        {"d": "34344", "ks": "33537355533557535757", "e": "44643333336334634433"},
        5008088,
        146_748_448,
        284_279_584,
    ),
    (
        {"d": "44232", "ks": "35735357537555737333", "e": "33646366464366333663"},
        4689576,
        157_735_504,
        305_792_464,
    ),
]


@pytest.mark.parametrize(("config", "params", "at_160", "at_224"), PUBLISHED)
def test_published_subnets(config: dict[str, str], params: int, at_160: int, at_224: int) -> None:
    space = get_space("ofa-mbv3-w1.0")
    depths, kernels, expands = ([int(c) for c in config[key]] for key in ("d", "ks", "e"))
    archs = [
        space.arch(depths=depths, kernels=kernels, expands=expands, resolution=resolution)
        for resolution in (160, 224)
    ]
    assert [space.cost(arch).params for arch in archs] == [params, params]
    assert [space.cost(arch).macs for arch in archs] == [at_160, at_224]
    assert macs_model(space).predict(archs).tolist() == [at_160, at_224]
    assert params_model(space).predict(archs).tolist() == [params, params]


SMALLEST_MBV3 = """
conv_224x224_3-16_k3_s2_hswish
mbconv_112x112_16-16-16_k3_relu_res
mbconv_112x112_16-48-24_k3_s2_relu        mbconv_56x56_24-72-24_k3_relu_res
mbconv_56x56_24-72-40_k3_s2_relu_se24     mbconv_28x28_40-120-40_k3_relu_se32_res
mbconv_28x28_40-120-80_k3_s2_hswish       mbconv_14x14_80-240-80_k3_hswish_res
mbconv_14x14_80-240-112_k3_hswish_se64    mbconv_14x14_112-336-112_k3_hswish_se88_res
mbconv_14x14_112-336-160_k3_s2_hswish_se88  mbconv_7x7_160-480-160_k3_hswish_se120_res
conv_7x7_160-960_k1_hswish                classifier_7x7_960-1280-1000_hswish
"""
LARGEST_NANO = """
conv_32x32_3-16_k3_s2_hswish
mbconv_16x16_16-16-16_k3_relu_res
mbconv_16x16_16-64-24_k5_s2_relu
mbconv_8x8_24-96-24_k5_relu_res           mbconv_8x8_24-96-24_k5_relu_res
mbconv_8x8_24-96-32_k3_s2_hswish_se24
mbconv_4x4_32-128-32_k3_hswish_se32_res   mbconv_4x4_32-128-32_k3_hswish_se32_res
mbconv_4x4_32-128-48_k3_hswish_se32
mbconv_4x4_48-192-48_k3_hswish_se48_res   mbconv_4x4_48-192-48_k3_hswish_se48_res
conv_4x4_48-192_k1_hswish                 classifier_4x4_192-256-50_hswish
"""


def test_block_lists_by_hand() -> None:
    mobile, nano = get_space("ofa-mbv3-w1.0"), get_space("mbv3-nano-32")
    smallest = replace(mobile.smallest, resolution=224)
    assert [block.key for block in mobile.lower(smallest)] == SMALLEST_MBV3.split()
    assert [block.key for block in nano.lower(nano.largest)] == LARGEST_NANO.split()


def test_kernels_of_compofa_are_mobilenets_own() -> None:
    space = get_space("compofa-mbv3")
    assert space.largest.kernels == tuple(chain(*([k] * 4 for k in (3, 5, 3, 3, 5))))
    assert space.smallest.expands == (3,) * 10 and space.largest.expands == (6,) * 20


@pytest.mark.parametrize(
    ("fixed", "elastic", "kernels"),
    [
        ("deps-mbv3", "ofa-mbv3-w1.0", 7),
        ("deps-proxyless", "ofa-proxyless-w1.0", 7),
        ("compofa-mbv3", "ofa-mbv3-w1.0", [3] * 4 + [5] * 4 + [3] * 8 + [5] * 4),
    ],
)
def test_relatives_hold_the_same_networks(fixed: str, elastic: str, kernels: Any) -> None:
    part, whole = get_space(fixed), get_space(elastic)
    depths: list[int] = [*(2, 3, 4, 3, 2), *([1] if "proxyless" in fixed else [])]
    expands = [{2: 3, 3: 4, 4: 6}.get(depth, 6) for depth in depths for _ in range(depth)]
    arch = part.arch(depths=depths, expands=expands)
    same = whole.arch(depths=depths, kernels=kernels, expands=expands)
    assert arch == same and part.lower(arch) == whole.lower(same)


def choices(space: SearchSpace, prefix: str) -> set[tuple[float, ...]]:
    return {gene.choices for gene in space.genes if gene.name.startswith(prefix)}


def test_choices_of_the_published_spaces() -> None:
    for name in ("ofa-mbv3-w1.0", "ofa-mbv3-w1.2", "ofa-proxyless-w1.0", "ofa-proxyless-w1.3"):
        space = get_space(name)
        assert choices(space, "depth") == {(2, 3, 4)}
        assert choices(space, "kernel") == {(3, 5, 7)}
        assert choices(space, "expand") == {(3, 4, 6)}
    resnet = get_space("ofa-resnet50")
    assert choices(resnet, "depth") == {(0, 2), (0, 1, 2)}
    assert choices(resnet, "expand") == {(0.2, 0.25, 0.35)}
    assert choices(resnet, "kernel") == set()


def test_proxyless_ends_with_one_block() -> None:
    space = get_space("ofa-proxyless-w1.3")
    largest = space.largest
    assert largest == Arch(224, (4, 4, 4, 4, 4, 1), (7,) * 21, (6,) * 21)
    assert "depth[6]" not in space.columns and "kernel[6.0]" in space.columns
