"""once-for-all's accuracy predictor, from made-up weights in the published form."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ofa_deploy.errors import FileFormatError, MismatchError, UnknownNameError
from ofa_deploy.predict import MLP_RESOLUTIONS, load_accuracy_model, ofa_mlp
from ofa_deploy.space import Arch, SearchSpace, get_space
from ofa_deploy.supernet import import_accuracy_model

Arrays = dict[str, npt.NDArray[np.float32]]
SPACE = get_space("ofa-mbv3-w1.2").with_resolutions(*MLP_RESOLUTIONS)
WIDTHS = (128, 400, 400, 400, 1)


@pytest.fixture(scope="module")
def weights() -> Arrays:
    rng = np.random.default_rng(0)
    made: Arrays = {}
    for layer, (inputs, outputs) in enumerate(pairwise(WIDTHS)):
        scale = (2 / inputs) ** 0.5
        matrix = rng.normal(0, scale, (outputs, inputs))
        made[f"{2 * layer}.weight"] = matrix.astype(np.float32)
        made[f"{2 * layer}.bias"] = rng.normal(0, 0.1, outputs).astype(np.float32)
    return made


def by_hand(weights: Mapping[str, npt.NDArray[Any]], arch: Arch) -> float:
    """The predictor as its description reads, one network at a time."""
    x = np.zeros(128)
    kernels, expands = iter(arch.kernels), iter(arch.expands)
    for stage, depth in enumerate(arch.depths):
        for block in range(depth):
            place = 4 * stage + block
            x[3 * place + (3, 5, 7).index(next(kernels))] = 1
            x[60 + 3 * place + (3, 4, 6).index(int(next(expands)))] = 1
    x[120 + (arch.resolution - 112) // 16] = 1
    for layer in (0, 2, 4):
        x = np.maximum(0, weights[f"{layer}.weight"].astype(float) @ x + weights[f"{layer}.bias"])
    return 100 * float((weights["6.weight"].astype(float) @ x + weights["6.bias"])[0])


def test_every_input_is_where_it_belongs(weights: Arrays) -> None:
    model = ofa_mlp(weights, SPACE)
    drawn = SPACE.decode(SPACE.sample(np.random.default_rng(1), 200))
    archs = [SPACE.smallest, SPACE.largest, *drawn]
    expected = [by_hand(weights, arch) for arch in archs]
    np.testing.assert_allclose(model.predict(archs), expected, atol=1e-3)


def test_absent_blocks_are_zeros(weights: Arrays) -> None:
    """What an absent block's weights are does not matter."""
    changed = {name: array.copy() for name, array in weights.items()}
    changed["0.weight"][:, 9:12] += 5  # kernels of the first stage's last block
    arch, whole = SPACE.smallest, SPACE.largest
    before, after = ofa_mlp(weights, SPACE), ofa_mlp(changed, SPACE)
    assert before.predict([arch])[0] == after.predict([arch])[0]
    assert before.predict([whole])[0] != after.predict([whole])[0]


def test_error_is_unknown_and_said_to_be(weights: Arrays, tmp_path: Path) -> None:
    model = ofa_mlp(weights, SPACE, source="ofa-mlp: x.pth")
    assert str(model) == "accuracy model imported from ofa-mlp: x.pth: error unknown"
    loaded = load_accuracy_model(model.save(tmp_path / "model.onnx"))
    assert str(loaded) == str(model)
    rows = SPACE.sample(np.random.default_rng(0), 50)
    np.testing.assert_array_equal(loaded.predict(rows), model.predict(rows))
    low, high = loaded.interval(rows)
    assert (low == high).all(), "no interval is made up"


def test_fewer_resolutions(weights: Arrays) -> None:
    some = SPACE.with_resolutions(176, 224)
    model = ofa_mlp(weights, SPACE).onto(some)
    drawn = some.decode(some.sample(np.random.default_rng(1), 100))
    expected = ofa_mlp(weights, SPACE).predict(drawn)
    np.testing.assert_array_equal(model.predict(drawn), expected)
    np.testing.assert_array_equal(ofa_mlp(weights, some).predict(drawn), expected)
    with pytest.raises(
        MismatchError, match="160, 192, 208 pixels, which is not known: there are 176, 224"
    ):
        ofa_mlp(weights, some).onto(SPACE)


@pytest.mark.parametrize("form", ["new.pth", "old.pth"])
def test_checkpoint_is_read(weights: Arrays, tmp_path: Path, form: str) -> None:
    path = tmp_path / form
    state = {name: torch.from_numpy(array) for name, array in weights.items()}
    torch.save(state, path, _use_new_zipfile_serialization=form == "new.pth")
    model = import_accuracy_model("ofa-mlp", path, space=SPACE)
    assert model.source == f"ofa-mlp: {form}"
    assert model.predict([SPACE.largest])[0] == ofa_mlp(weights, SPACE).predict([SPACE.largest])[0]


def test_form_must_be_known(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="ofa-mlp"):
        import_accuracy_model("mlp", tmp_path / "none.pth", space=SPACE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("2.bias"), r"2.bias missing \(expected \(400,\)\)"),
        (lambda w: w.update(extra=np.zeros(3)), r"extra \(3,\) \(expected none\)"),
        (lambda w: w.update({"0.weight": np.zeros((400, 60))}), r"0.weight \(400, 60\)"),
        (lambda w: w["4.bias"].__setitem__(3, np.nan), "4.bias is not finite"),
        (lambda w: w["6.weight"].__setitem__((0, 0), np.inf), "6.weight is not finite"),
    ],
)
def test_other_weights_are_refused(weights: Arrays, change: Any, message: str) -> None:
    changed = {name: array.copy() for name, array in weights.items()}
    change(changed)
    with pytest.raises(FileFormatError, match=message):
        ofa_mlp(changed, SPACE)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (get_space("mbv3-nano-32"), "mbv3-nano-32 is another"),
        (get_space("ofa-resnet50"), "ofa-resnet50 is another"),
        (get_space("ofa-mbv3-w1.2").with_resolutions(144, 160), "nonsense at 144 pixels; it knows"),
        (get_space("ofa-mbv3-w1.2").with_resolutions(164), "nonsense at 164 pixels"),
    ],
)
def test_other_spaces_are_refused(weights: Arrays, space: SearchSpace, message: str) -> None:
    with pytest.raises(MismatchError, match=message):
        ofa_mlp(weights, space)
