"""Published checkpoints: what they compute, what is refused, how they are read."""

import os
import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ofa_deploy.errors import FileFormatError, InputError, MismatchError, WeightsError
from ofa_deploy.supernet import (
    Supernet,
    load_checkpoint,
    load_published_weights,
    read_checkpoint,
)
from tests.supernet.golden import (
    CASES,
    Case,
    arch_of,
    images,
    random_config,
    read,
    state,
    supernet,
)
from tests.supernet.published_names import older, shapes
from tests.supernet.straight import evaluate, recalibrated

State = dict[str, Tensor]
MBV3 = CASES["ofa-mbv3-w1.0"]


@cache
def doubles(case: Case) -> State:
    return {key: tensor.double() for key, tensor in state(case).items()}


def spread(found: Tensor, expected: Tensor) -> float:
    """The largest difference, in standard deviations."""
    return float((found - expected).abs().max() / expected.std())


# -- what they compute ----------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@torch.no_grad()
def test_networks_compute_what_their_configs_say(case: Case) -> None:
    # The second resolution makes maps odd where the first does not.
    sizes = (case.resolution, case.resolution + 6)
    net = supernet(case, case.space.with_resolutions(*sizes))
    rng = np.random.default_rng(3)
    for position in range(4):
        config = random_config(case.family, rng)
        arch = arch_of(net.space, config, sizes[position % 2])
        x = images(f"random {position}", 2, arch.resolution)
        expected = evaluate(case.family, doubles(case), x.double(), config)
        assert spread(net(x, arch), expected) < 1e-4
        assert spread(net.extract(arch)(x), expected) < 1e-4


@pytest.mark.parametrize("name", ["ofa-mbv3-w1.0", "ofa-proxyless-w1.3", "ofa-resnet50"])
@torch.no_grad()
def test_golden_answers_are_those_of_the_straight_line(name: str) -> None:
    case = CASES[name]
    x = images("input", 2, case.resolution).double()
    first, second = (images(f"batch {n}", n, case.resolution).double() for n in (8, 4))
    for record in read()[name][:2]:
        config = record["config"]
        logits = evaluate(case.family, doubles(case), x, config)
        assert spread(logits, torch.tensor(record["logits"]).double()) < 1e-5
    batches = [first, second * 1.5 + 0.5]
    logits = recalibrated(case.family, doubles(case), batches, x, config)
    assert spread(logits, torch.tensor(record["recalibrated"]).double()) < 1e-5


# -- what is loaded -------------------------------------------------------------------------


def fresh() -> Supernet:
    return Supernet(MBV3.space, seed=1)


def snapshot(net: Supernet) -> State:
    return {key: tensor.clone() for key, tensor in net.state_dict().items()}


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def refused(bad: dict[str, Any], *, new_classifier: bool = False) -> str:
    """The message of a refusal that left the net as it was."""
    net = fresh()
    before = snapshot(net)
    with pytest.raises(MismatchError) as caught:
        load_published_weights(net, bad, new_classifier=new_classifier)
    assert same(snapshot(net), before)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_every_tensor_is_loaded() -> None:
    # Each of a net's tensors equals one of the checkpoint's, and each of those is somewhere.
    net = supernet(MBV3)
    theirs, own = state(MBV3), net.state_dict()
    assert len(own) == len(theirs)
    assert sorted(t.double().sum().item() for t in own.values()) == sorted(
        t.double().sum().item() for t in theirs.values()
    )


def undoubled(key: str) -> str:
    return key.replace(".conv.conv.weight", ".conv.weight").replace(".bn.bn.", ".bn.")


def doubled(key: str) -> str:
    """Elastic spelling of the static parts."""
    if key.startswith(("first_conv", "final_expand", "classifier", "blocks.0.")):
        return key.replace(".bn.", ".bn.bn.").replace(".linear.", ".linear.linear.")
    return key


@pytest.mark.parametrize(
    "spelling",
    [older, undoubled, doubled, "module.{}".format, lambda key: "module." + older(key)],
    ids=["older", "undoubled", "doubled", "module", "older module"],
)
def test_spellings_are_one(spelling: Callable[[str], str]) -> None:
    respelt = {spelling(key): tensor for key, tensor in reversed(state(MBV3).items())}
    assert len(respelt) == len(state(MBV3)) and respelt.keys() != state(MBV3).keys()
    net = fresh()
    load_published_weights(net, respelt)
    assert same(snapshot(net), snapshot(supernet(MBV3)))


def test_half_precision_is_loaded() -> None:
    net = fresh()
    load_published_weights(net, {k: t.half() for k, t in state(MBV3).items()})
    assert all(t.dtype in (torch.float32, torch.int64) for t in net.state_dict().values())


def test_missing_extra_and_misshaped_are_all_listed() -> None:
    bad = dict(state(MBV3))
    del bad["blocks.3.conv.point_linear.bn.bn.weight"], bad["first_conv.conv.weight"]
    bad["blocks.99.conv.surprise"] = bad["second_conv.conv.weight"] = torch.zeros(1)
    bad["blocks.5.conv.depth_conv.se.fc.reduce.bias"] = torch.zeros(36)
    bad["blocks.1.conv.depth_conv.conv.7to5_matrix"] = torch.zeros(9, 9)
    message = refused(bad)
    for part in (
        "ofa-mbv3-w1.0",
        "2 missing: blocks.3.conv.point_linear.bn.weight, first_conv.conv.weight;",
        "2 extra: blocks.99.conv.surprise, second_conv.conv.weight;",
        "blocks.5.conv.depth_conv.se.fc.reduce.bias (40 wanted, 36 found)",
        "blocks.1.conv.depth_conv.conv.7to5_matrix (25x25 wanted, 9x9 found)",
    ):
        assert part in message
    assert "new classifier" not in message


@pytest.mark.parametrize(
    "lost",
    [
        "classifier.linear.bias",
        "feature_mix_layer.conv.weight",
        "blocks.20.conv.depth_conv.conv.5to3_matrix",
        "blocks.0.conv.depth_conv.bn.num_batches_tracked",
    ],
)
def test_no_tensor_may_be_missing(lost: str) -> None:
    message = refused({key: t for key, t in state(MBV3).items() if key != lost})
    assert "1 missing: " in message and lost.split(".")[0] in message


def test_other_families_are_refused() -> None:
    for case in (CASES["ofa-resnet50"], CASES["ofa-mbv3-w1.2"]):
        wanted = shapes(case.family, width=case.width)
        message = refused({key: torch.zeros(shape) for key, shape in wanted.items()})
        assert " more" in message and len(message) < 10_000
    assert "475 missing" in refused({})


@pytest.mark.parametrize("respell", [older, undoubled, "module.{}".format])
def test_a_key_under_two_spellings_is_refused(respell: Callable[[str], str]) -> None:
    key = "blocks.2.conv.inverted_bottleneck.conv.conv.weight"
    message = refused({**state(MBV3), respell(key): state(MBV3)[key]})
    assert "blocks.2.conv.inverted_bottleneck.conv.weight twice" in message


@pytest.mark.parametrize("value", [None, 3, "weight", np.zeros(16, np.float32), [1.0] * 16])
def test_values_that_are_no_tensors_are_refused(value: object) -> None:
    message = refused({**state(MBV3), "first_conv.bn.weight": value})
    assert f"first_conv.bn.weight is not a tensor but {type(value).__name__}" in message


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.parametrize("kind", ["sparse", "meta", "complex", "quantised"])
def test_tensors_that_cannot_be_copied_are_refused(kind: str) -> None:
    bias = state(MBV3)["classifier.linear.bias"]  # the last one copied
    made: dict[str, Callable[[], Tensor]] = {
        "sparse": bias.to_sparse,
        "meta": lambda: bias.to("meta"),
        "complex": lambda: bias.to(torch.complex64),
        "quantised": lambda: torch.quantize_per_tensor(bias, 0.1, 0, torch.qint8),
    }
    bad = {**state(MBV3), "classifier.linear.bias": made[kind]()}
    assert "classifier.linear.bias" in refused(bad)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float) -> None:
    bias = state(MBV3)["classifier.linear.bias"].clone()
    bias[1] = value
    message = refused({**state(MBV3), "classifier.linear.bias": bias})
    assert "classifier.linear.bias holds NaN or infinite values" in message


def test_other_classes_are_refused_with_a_hint() -> None:
    wanted = shapes("mbv3", classes=10)
    bad = {key: torch.zeros(shape) for key, shape in wanted.items()}
    message = refused(bad)
    assert "classifier.linear.weight (8x1280 wanted, 10x1280 found)" in message
    assert "another number of classes: ask for a new classifier (train --init" in message
    # Where more is wrong than that, the hint would mislead.
    del bad["first_conv.conv.weight"]
    assert "new classifier" not in refused(bad)
    assert "1 missing" in refused(bad, new_classifier=True)


@pytest.mark.parametrize("classes", [8, 10, None])
def test_a_new_classifier_is_drawn_from_the_seed(classes: int | None) -> None:
    """Whatever classifier the checkpoint has, also where it has none."""
    given = {k: t for k, t in state(MBV3).items() if not k.startswith("classifier.")}
    if classes:
        given["classifier.linear.weight"] = torch.zeros(classes, 1280)
        given["classifier.linear.bias"] = torch.zeros(classes)
    net = fresh()
    torch.nn.init.constant_(net.classifier.full.linear.weight, 7.0)  # as if it had been trained
    load_published_weights(net, given, new_classifier=True, seed=4)
    after, full = snapshot(net), snapshot(supernet(MBV3))
    drawn = {key for key in after if key.startswith("layers.classifier.full.linear.")}
    assert len(drawn) == 2
    for key in after.keys() - drawn:
        assert torch.equal(after[key], full[key]), key
    weight = net.classifier.full.linear.weight.detach().clone()
    assert float(weight.std()) == pytest.approx(1280**-0.5, rel=0.05)
    assert not net.classifier.full.linear.bias.any()
    load_published_weights(net, given, new_classifier=True, seed=4)
    assert torch.equal(net.classifier.full.linear.weight, weight)
    load_published_weights(net, given, new_classifier=True, seed=5)
    assert not torch.equal(net.classifier.full.linear.weight, weight)


def test_resnets_classifier_can_be_new() -> None:
    case = CASES["ofa-resnet50"]
    net = Supernet(case.space.with_classes(3), seed=1)
    with pytest.raises(MismatchError, match="ask for a new classifier"):
        load_published_weights(net, state(case))
    load_published_weights(net, state(case), new_classifier=True)
    assert net.classifier.full.linear.weight.shape == (3, 2048)
    stem: Any = net.layers["stem-0"]
    assert torch.equal(stem.full.conv.weight, state(case)["input_stem.0.conv.conv.weight"])


def test_loaded_weights_are_copies() -> None:
    given = {key: tensor.clone() for key, tensor in state(MBV3).items()}
    net = fresh()
    load_published_weights(net, given)
    before = snapshot(net)
    for tensor in given.values():
        tensor.zero_()
    assert same(snapshot(net), before)
    assert all(p.requires_grad for p in net.parameters())


# -- how they are read ----------------------------------------------------------------------

SMALL = {
    "conv.weight": torch.arange(24.0).reshape(2, 3, 2, 2),
    "bn.running_var": torch.linspace(0.5, 1, 7),
    "bn.num_batches_tracked": torch.tensor(5),
}


def save(value: object, path: Path, *, legacy: bool = False) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=not legacy)
    return path


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("wrapper", ["", "state_dict", "model", "net"])
def test_checkpoints_are_read(wrapper: str, legacy: bool, tmp_path: Path) -> None:
    value = {wrapper: SMALL, "epoch": 3} if wrapper else SMALL
    assert same(read_checkpoint(save(value, tmp_path / "a.pth", legacy=legacy)), SMALL)


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file(SMALL, tmp_path / "a.safetensors")
    assert same(read_checkpoint(str(tmp_path / "a.safetensors")), SMALL)


def test_a_published_file_goes_all_the_way(tmp_path: Path) -> None:
    given = {"state_dict": {older(key): tensor for key, tensor in state(MBV3).items()}}
    net = fresh()
    load_published_weights(net, read_checkpoint(save(given, tmp_path / "a.pth")))
    assert same(snapshot(net), snapshot(supernet(MBV3)))


def test_a_net_of_our_own_goes_all_the_way(tmp_path: Path) -> None:
    theirs = supernet(MBV3)
    path = save(theirs.state_dict(), tmp_path / "a.pth")
    net = fresh()
    load_checkpoint(net, path)
    assert same(snapshot(net), snapshot(theirs))
    other = Supernet(MBV3.space.with_classes(3), seed=1)
    before = snapshot(other)
    with pytest.raises(MismatchError, match="a.pth: .*ask for a new classifier"):
        load_checkpoint(other, path)
    assert same(snapshot(other), before)
    load_checkpoint(other, path, new_classifier=True)
    assert other.classifier.full.linear.weight.shape == (3, 1280)
    features = theirs.classifier.full.features.weight
    assert torch.equal(other.classifier.full.features.weight, features)


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("kind", ["zip", "legacy", "plain"])
def test_code_in_a_checkpoint_does_not_run(kind: str, tmp_path: Path) -> None:
    ran, path = tmp_path / "ran", tmp_path / "a.pth"
    value = {**SMALL, "hook": Hostile(ran)}
    if kind == "plain":
        path.write_bytes(pickle.dumps({"hook": Hostile(ran)}))
    else:
        save(value, path, legacy=kind == "legacy")
    with pytest.raises(FileFormatError, match="a.pth: .*more than tensors|tensors only") as caught:
        read_checkpoint(path)
    assert not ran.exists()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["pth", "legacy.pth", "safetensors"])
def test_truncated_files_are_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "safetensors":
        save_file(SMALL, path)
    else:
        save(SMALL, path, legacy=suffix.startswith("legacy"))
    whole = path.read_bytes()
    for length in [*range(0, len(whole), max(1, len(whole) // 40)), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(FileFormatError, match=path.name):
            read_checkpoint(path)


def test_flipped_bytes_never_give_other_tensors(tmp_path: Path) -> None:
    # A zip has checksums; what it does not cover is padding and names of its own.
    path = save(SMALL, tmp_path / "a.pth")
    whole = path.read_bytes()
    refusals = 0
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            assert same(read_checkpoint(path), SMALL), place
        except FileFormatError:
            refusals += 1
    assert refusals > len(whole) // 7 // 4


@pytest.mark.parametrize("what", ["values", "directory bit"])
def test_damaged_archives_are_refused(what: str, tmp_path: Path) -> None:
    path = save(SMALL, tmp_path / "a.pth")
    whole = bytearray(path.read_bytes())
    if what == "values":
        whole[whole.index(SMALL["conv.weight"].numpy().tobytes()) + 9] ^= 0x55
    else:
        # The central directory's entry of a tensor: as a folder, torch reads it from thin air.
        entry = whole.rindex(b"a/data/0") - 46
        assert whole[entry : entry + 4] == b"PK\x01\x02"
        whole[entry + 38] ^= 0x10
    path.write_bytes(whole)
    with pytest.raises(FileFormatError, match="a.pth: .*damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "value",
    [
        [torch.zeros(2)],
        torch.zeros(2),
        3,
        {"a": torch.zeros(2), "b": 3},
        {"state_dict": {"a": "text"}},
        {"state_dict": 3},
        {"state_dict": {"a": [torch.zeros(2)]}},
        {1: torch.zeros(2)},
    ],
    ids=repr,
)
def test_other_objects_are_refused(value: object, tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="a.pth: expected names and tensors"):
        read_checkpoint(save(value, tmp_path / "a.pth"))


@pytest.mark.timeout(20)
def test_a_wrapper_of_itself_is_refused(tmp_path: Path) -> None:
    value: dict[str, Any] = {}
    value["state_dict"] = value
    with pytest.raises(FileFormatError, match="a.pth: expected names and tensors"):
        read_checkpoint(save(value, tmp_path / "a.pth"))


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_empty_missing_and_folders_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with pytest.raises(InputError, match=f"{name}: no such file"):
        read_checkpoint(path)
    path.touch()
    with pytest.raises(FileFormatError, match=name):
        read_checkpoint(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match=f"{name}: expected a file"):
        read_checkpoint(path)


def test_every_name_is_on_the_error() -> None:
    with pytest.raises(WeightsError) as caught:
        load_published_weights(
            fresh(), {"first_conv.conv.weight": torch.zeros(1), "x" * 999: torch.zeros(1)}
        )
    error = caught.value
    assert len(error.missing) == 474
    assert error.extra == ("x" * 999,)
    assert error.misshaped == ("first_conv.conv.weight (16x3x3x3 wanted, 1 found)",)
    assert len(str(error)) < 2_000


def test_a_tensor_of_no_size_is_not_looked_into() -> None:
    """A view of one number as 4 PB: shapes are compared before values."""
    huge = torch.zeros(1).expand(10**7, 10**8)
    assert "misshaped" in refused({**state(MBV3), "classifier.linear.weight": huge})


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("classifier.linear.bias", torch.full((8,), 1e300, dtype=torch.float64), "infinite"),
        ("classifier.linear.bias", torch.zeros(8, dtype=torch.int32), "holds torch.int32"),
        ("first_conv.bn.running_var", torch.full((16,), -1.0), "negative variance"),
    ],
)
def test_values_of_no_sense_are_refused(key: str, value: Tensor, why: str) -> None:
    assert why in refused({**state(MBV3), key: value})
