"""The accuracy model against a Gaussian process written out in numpy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper
from scipy.stats import kendalltau
from sklearn.gaussian_process import GaussianProcessRegressor

from ofa_deploy.errors import FileFormatError, InputError, MismatchError, StorageError
from ofa_deploy.predict import AccuracyModel, fit_accuracy, load_accuracy_model
from ofa_deploy.space import Arch, SearchSpace

Floats = npt.NDArray[np.float64]


def true_top1(space: SearchSpace, arch: Arch) -> float:
    """Grows with cost, with kernels a little, and with depth and width together."""
    cost = space.cost(arch)
    width = sum(arch.expands) / len(arch.expands)
    return (
        20
        + 3 * np.log(cost.macs / 1e4)
        + 0.3 * sum(kernel == 5 for kernel in arch.kernels)
        + 0.8 * sum(arch.depths) * width / 3
        + (1.5 if arch.resolution == 16 else 0)
    )


@pytest.fixture(scope="module")
def archs(tiny_space: SearchSpace) -> list[Arch]:
    """200 networks, all different."""
    rng = np.random.default_rng(11)
    return list(dict.fromkeys(tiny_space.decode(tiny_space.sample(rng, 400))))[:200]


@pytest.fixture(scope="module")
def top1(tiny_space: SearchSpace, archs: list[Arch]) -> Floats:
    """Their accuracies, with the noise of a validation set."""
    noise = np.random.default_rng(12).normal(0, 0.1, len(archs))
    return np.array([true_top1(tiny_space, arch) for arch in archs]) + noise


@dataclass(frozen=True)
class Process:
    """What scikit-learn found: the kernel's numbers."""

    linear: float
    bias: float
    smooth: float
    length: float
    noise: float

    def kernel(self, a: Floats, b: Floats) -> Floats:
        """Covariance without noise, shape (len(a), len(b))."""
        distance = ((a[:, None] - b[None]) ** 2).sum(2)
        return self.linear * (a @ b.T + self.bias**2) + self.smooth * np.exp(
            -distance / (2 * self.length**2)
        )

    def posterior(self, seen: Floats, targets: Floats, asked: Floats) -> Floats:
        """Mean at ``asked``."""
        noisy = self.kernel(seen, seen) + self.noise * np.eye(len(seen))
        return self.kernel(asked, seen) @ np.linalg.solve(noisy, targets)


def features(space: SearchSpace, archs: Sequence[Arch], reference: Sequence[Arch]) -> Floats:
    """One-hot choices, log MACs and log params standardised by the ``reference`` networks'."""
    population = space.encode(archs)
    one_hot = [
        (population[:, column] == choice).astype(float)
        for column, gene in enumerate(space.genes)
        if len(gene.choices) > 1
        for choice in range(len(gene.choices))
    ]

    def logs(networks: Sequence[Arch]) -> Floats:
        costs = [space.cost(arch) for arch in networks]
        return np.log([[cost.macs, cost.params] for cost in costs])

    known = logs(reference)
    standard = (logs(archs) - known.mean(0)) / known.std(0)
    return np.column_stack([*one_hot, standard])


@dataclass(frozen=True)
class Fitted:
    model: AccuracyModel
    process: Process


@pytest.fixture(scope="module")
def fit(tiny_space: SearchSpace, archs: list[Arch], top1: Floats) -> Callable[[int], Fitted]:
    """The model of the first ``n`` networks, and the kernel that was chosen for it."""
    done: dict[int, Fitted] = {}

    def call(n: int) -> Fitted:
        if n not in done:
            kernels: list[Any] = []
            original = GaussianProcessRegressor.fit

            def spy(self: Any, *args: Any) -> Any:
                result = original(self, *args)
                kernels.append(self.kernel_)
                return result

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(GaussianProcessRegressor, "fit", spy)
                model = fit_accuracy(tiny_space, archs[:n], top1[:n].tolist())
            (kernel,) = kernels
            found = {
                name: float(value)
                for name, value in kernel.get_params().items()
                if np.isscalar(value)
            }
            done[n] = Fitted(
                model,
                Process(
                    linear=found["k1__k1__k1__constant_value"],
                    bias=found["k1__k1__k2__sigma_0"],
                    smooth=found["k1__k2__k1__constant_value"],
                    length=found["k1__k2__k2__length_scale"],
                    noise=found["k2__noise_level"],
                ),
            )
        return done[n]

    return call


Fit = Callable[[int], Fitted]


def test_model_is_much_better_than_the_mean(
    tiny_space: SearchSpace, archs: list[Arch], top1: Floats, fit: Fit
) -> None:
    model = fit(60).model
    truth = np.array([true_top1(tiny_space, arch) for arch in archs[60:]])
    error = float(np.sqrt(((model.predict(archs[60:]) - truth) ** 2).mean()))
    of_the_mean = float(np.sqrt(((top1[:60].mean() - truth) ** 2).mean()))
    assert error < 0.2 * of_the_mean
    assert kendalltau(model.predict(archs[60:]), truth).statistic > 0.9


def test_graph_is_the_posterior(
    tiny_space: SearchSpace, archs: list[Arch], top1: Floats, fit: Fit
) -> None:
    model, process = fit(60).model, fit(60).process
    seen = features(tiny_space, archs[:60], archs[:60])
    asked = features(tiny_space, archs, archs[:60])
    shift, spread = top1[:60].mean(), top1[:60].std()
    expected = shift + spread * process.posterior(seen, (top1[:60] - shift) / spread, asked)
    np.testing.assert_allclose(model.predict(archs), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("n", [12, 60])
def test_leave_one_out_equals_refits(
    tiny_space: SearchSpace, archs: list[Arch], top1: Floats, fit: Fit, n: int
) -> None:
    model, process = fit(n).model, fit(n).process
    x = features(tiny_space, archs[:n], archs[:n])
    shift, spread = top1[:n].mean(), top1[:n].std()
    y = (top1[:n] - shift) / spread
    others = [np.arange(n) != i for i in range(n)]
    left_out = np.concatenate([process.posterior(x[rest], y[rest], x[~rest]) for rest in others])
    left_out = shift + spread * left_out
    errors = np.abs(left_out - top1[:n])
    assert model.rmse == pytest.approx(float(np.sqrt((errors**2).mean())), rel=1e-6)
    # Of 12 errors the 12th, of 60 the ceil(61 · 0.9) = 55th.
    assert model.margin == pytest.approx(float(np.sort(errors)[{12: 12, 60: 55}[n] - 1]), rel=1e-6)
    assert model.kendall == pytest.approx(kendalltau(left_out, top1[:n]).statistic)
    assert model.networks == n


def test_interval_is_the_prediction_and_its_margin(archs: list[Arch], fit: Fit) -> None:
    model = fit(60).model
    low, high = model.interval(archs)
    np.testing.assert_allclose(high - low, 2 * model.margin)
    np.testing.assert_allclose((high + low) / 2, model.predict(archs))


def test_interval_covers_unseen_networks(archs: list[Arch], top1: Floats, fit: Fit) -> None:
    low, high = fit(60).model.interval(archs[60:])
    covered = ((low <= top1[60:]) & (top1[60:] <= high)).mean()
    assert covered > 0.8


def test_archs_and_populations_give_the_same(
    tiny_space: SearchSpace, archs: list[Arch], fit: Fit
) -> None:
    model = fit(60).model
    population = tiny_space.encode(archs)
    np.testing.assert_array_equal(model.predict(population), model.predict(archs))
    one_by_one = np.concatenate([model.predict([arch]) for arch in archs[:5]])
    np.testing.assert_allclose(one_by_one, model.predict(archs[:5]), atol=1e-4)
    assert model.predict([]).shape == (0,)


def test_same_measurements_give_the_same_model(
    tiny_space: SearchSpace, archs: list[Arch], top1: Floats, fit: Fit
) -> None:
    again = fit_accuracy(tiny_space, archs[:12], top1[:12].tolist())
    np.testing.assert_array_equal(again.predict(archs), fit(12).model.predict(archs))


def test_equal_accuracies_are_predicted(tiny_space: SearchSpace, archs: list[Arch]) -> None:
    model = fit_accuracy(tiny_space, archs[:10], [50.0] * 10)
    np.testing.assert_allclose(model.predict(archs), 50, atol=1e-3)
    assert (model.rmse, model.kendall) == (pytest.approx(0, abs=1e-6), 0.0)


def test_network_measured_twice(tiny_space: SearchSpace, archs: list[Arch], top1: Floats) -> None:
    model = fit_accuracy(tiny_space, [*archs[:20], *archs[:5]], [*top1[:20], *(top1[:5] + 0.2)])
    assert np.isfinite(model.predict(archs)).all()
    assert model.networks == 25


def test_str_is_one_line_of_figures(fit: Fit) -> None:
    model = fit(60).model
    assert str(model) == (
        f"accuracy model from 60 subnets: leave-one-out error {model.rmse:.2f} points, "
        f"rank correlation {model.kendall:.3f}"
    )


# -- on disk --------------------------------------------------------------------------------


@pytest.fixture
def saved(fit: Fit, tmp_path: Path) -> Path:
    return fit(60).model.save(tmp_path / "accuracy.onnx")


def test_loaded_model_is_the_same(
    tiny_space: SearchSpace, archs: list[Arch], fit: Fit, saved: Path
) -> None:
    model = fit(60).model
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
    def denied(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
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
        ("fingerprint", None),
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


# -- what it is fitted to -------------------------------------------------------------------


@pytest.mark.parametrize(("networks", "accuracies"), [(8, 8), (0, 0), (10, 9), (9, 10)])
def test_numbers_of_networks_and_accuracies(
    tiny_space: SearchSpace, archs: list[Arch], networks: int, accuracies: int
) -> None:
    with pytest.raises(InputError, match=f"at least 9 .* found {networks} and {accuracies}"):
        fit_accuracy(tiny_space, archs[:networks], [50.0] * accuracies)


@pytest.mark.parametrize("wrong", [-0.1, 100.1, float("nan"), float("inf")])
def test_accuracies_are_percent(tiny_space: SearchSpace, archs: list[Arch], wrong: float) -> None:
    with pytest.raises(InputError, match="accuracies must be percent, between 0 and 100"):
        fit_accuracy(tiny_space, archs[:9], [50.0] * 8 + [wrong])


def test_networks_of_another_space_are_refused(tiny_space: SearchSpace, archs: list[Arch]) -> None:
    with pytest.raises(MismatchError, match="resolution = 20"):
        fit_accuracy(tiny_space, [replace(archs[0], resolution=20), *archs[:8]], [50.0] * 9)
    with pytest.raises(InputError, match="expected a population of shape"):
        fit_accuracy(tiny_space, np.zeros((9, 3), np.int8), [50.0] * 9)


def test_nine_networks_are_enough(tiny_space: SearchSpace, archs: list[Arch], top1: Floats) -> None:
    """Of nine errors the ceil(10 · 0.9) = 9th is the margin: the fewest of which one is."""
    model = fit_accuracy(tiny_space, archs[:9], top1[:9].tolist())
    assert model.networks == 9
    assert np.isfinite(model.margin)
