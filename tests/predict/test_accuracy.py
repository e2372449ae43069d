"""Accuracy models: predictions, intervals, files."""

import os
from collections.abc import Callable
from copy import copy
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper
from scipy.stats import kendalltau

from ofa_deploy.errors import FileFormatError, InputError, MismatchError, StorageError
from ofa_deploy.predict import AccuracyModel, fit_accuracy, load_accuracy_model
from ofa_deploy.space import Arch, SearchSpace

Floats = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def model(tiny_space: SearchSpace, archs: list[Arch], top1: Floats) -> AccuracyModel:
    return fit_accuracy(tiny_space, archs[:60], top1[:60])


def test_interval_is_the_prediction_and_its_margin(archs: list[Arch], model: AccuracyModel) -> None:
    low, high = model.interval(archs)
    np.testing.assert_allclose(high - low, 2 * model.margin)
    np.testing.assert_allclose((high + low) / 2, model.predict(archs))


def test_archs_and_populations_give_the_same(
    tiny_space: SearchSpace, archs: list[Arch], model: AccuracyModel
) -> None:
    population = tiny_space.encode(archs)
    np.testing.assert_array_equal(model.predict(population), model.predict(archs))
    one_by_one = np.concatenate([model.predict([arch]) for arch in archs[:5]])
    np.testing.assert_allclose(one_by_one, model.predict(archs[:5]), atol=1e-4)
    assert model.predict([]).shape == (0,)


def test_str_is_one_line_of_figures(model: AccuracyModel) -> None:
    assert str(model) == (
        f"accuracy model from 60 subnets: leave-one-out error {model.rmse:.2f} points, "
        f"rank correlation {model.kendall:.3f}"
    )


@pytest.mark.parametrize(
    ("networks", "kendall", "ranks"),
    [
        (40, -0.112, False),  # 1.645 deviations are 0.181
        (40, 0.17, False),
        (40, 0.19, True),
        (9, 0.40, False),  # and 0.438
        (9, 0.45, True),
        (0, 0.0, True),  # from elsewhere: unknown
    ],
)
def test_a_model_that_does_not_rank_says_so(
    model: AccuracyModel, networks: int, kendall: float, ranks: bool
) -> None:
    judged = copy(model)
    judged.networks, judged.kendall = networks, kendall
    assert (judged.doubt == "") is ranks
    if not ranks:
        assert f"rank correlation {kendall:.3f} from {networks} subnets" in judged.doubt
        assert "\n" not in judged.doubt


def test_chance_gives_so_much_rank_correlation_in_one_case_of_twenty(model: AccuracyModel) -> None:
    rng = np.random.default_rng(5)
    judged = copy(model)
    judged.networks = 12
    ranked = 0
    for _ in range(2000):
        judged.kendall = float(kendalltau(rng.random(12), rng.random(12)).statistic)
        ranked += judged.doubt == ""
    assert 0.03 < ranked / 2000 < 0.07


# -- on disk --------------------------------------------------------------------------------


@pytest.fixture
def saved(model: AccuracyModel, tmp_path: Path) -> Path:
    return model.save(tmp_path / "accuracy.onnx")


def test_loaded_model_is_the_same(
    tiny_space: SearchSpace, archs: list[Arch], model: AccuracyModel, saved: Path
) -> None:
    for loaded in (load_accuracy_model(saved), load_accuracy_model(saved, tiny_space)):
        np.testing.assert_array_equal(loaded.predict(archs), model.predict(archs))
        assert (loaded.margin, loaded.rmse) == (model.margin, model.rmse)
        assert (loaded.kendall, loaded.networks) == (model.kendall, 60)
        assert loaded.space.fingerprint == tiny_space.fingerprint
    again = load_accuracy_model(saved).save(saved.with_name("again.onnx"))
    assert again.read_bytes() == saved.read_bytes()


def test_saved_model_is_plain_onnx(archs: list[Arch], saved: Path) -> None:
    model = onnx.load(saved)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain for entry in model.opset_import} == {""}


def test_model_of_another_space_is_refused(tiny_space: SearchSpace, saved: Path) -> None:
    with pytest.raises(MismatchError, match=r"fitted for space tiny .*, not for tiny"):
        load_accuracy_model(saved, tiny_space.with_classes(7))


def test_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file") as caught:
        load_accuracy_model(tmp_path / "none.onnx")
    assert not isinstance(caught.value, FileFormatError)


def test_unreadable_file_is_said_to_be_unreadable(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def denied(path: object, *flags: int) -> int:
        if path == saved:
            raise PermissionError(13, "Permission denied")
        return opened(path, *flags)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(StorageError, match="Permission denied"):
        load_accuracy_model(saved)


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[:40],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-3],
        lambda whole: b"\xff" * 2_000,
        lambda whole: b"hello, world\n" * 50,
    ],
    ids=["empty", "40 bytes", "half", "three bytes less", "ones", "text"],
)
def test_damaged_file_is_refused(saved: Path, damage: Callable[[bytes], bytes]) -> None:
    saved.write_bytes(damage(saved.read_bytes()))
    with pytest.raises(FileFormatError) as caught:
        load_accuracy_model(saved)
    message = str(caught.value)
    assert message.startswith(f"{saved}: ")
    assert "\n" not in message.rstrip("\n")


def other_onnx() -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "other",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_other_onnx_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    onnx.save(other_onnx(), path)
    with pytest.raises(FileFormatError, match="other.onnx: not an accuracy model .*found None"):
        load_accuracy_model(path)


def edited(saved: Path, key: str, value: str | None) -> Path:
    model = onnx.load(saved)
    facts = {entry.key: entry.value for entry in model.metadata_props} | {key: value}
    facts["sha256"] = None  # or it would be all that is looked at
    del model.metadata_props[:]
    helper.set_model_props(model, {k: v for k, v in facts.items() if v is not None})
    onnx.save(model, saved)
    return saved


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schema", "accuracy-model/2"),
        ("margin", None),
        ("margin", "much"),
        ("networks", None),
        ("networks", "-3"),
        ("networks", "nan"),
        ("kendall", "nan"),
        ("kendall", "1.5"),
        ("rmse", "-1"),
        ("fingerprint", None),
        ("measured", "[[], [50.0]]"),
        ("measured", "[1, 2]"),
        ("measured", "{"),
        ("space_definition", None),
        ("space_definition", "{"),
        ("space_definition", "{}"),
        ("space_definition", "[]"),
    ],
    ids=lambda value: str(value),
)
def test_inconsistent_facts_are_refused(saved: Path, key: str, value: str | None) -> None:
    with pytest.raises(FileFormatError, match="accuracy.onnx: not an accuracy model"):
        load_accuracy_model(edited(saved, key, value))


def test_space_that_is_not_the_fingerprints_is_refused(
    tiny_space: SearchSpace, saved: Path
) -> None:
    with pytest.raises(MismatchError):
        load_accuracy_model(edited(saved, "fingerprint", "0" * 16))
