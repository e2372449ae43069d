"""OpenVINO's sessions: what is bound keeps its own images."""

from typing import Any

import numpy as np
import openvino
import pytest

from ofa_deploy.graph import build_onnx
from ofa_deploy.runtimes.openvino import OpenVino
from ofa_deploy.space import SearchSpace


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """All that were made, in their order."""
    made: list[Any] = []
    real = openvino.CompiledModel.create_infer_request

    def create(self: Any) -> Any:
        made.append(real(self))
        return made[-1]

    monkeypatch.setattr(openvino.CompiledModel, "create_infer_request", create)
    return made


def test_bound_calls_keep_to_their_images(
    tiny_space: SearchSpace, rng: np.random.Generator, requests: list[Any]
) -> None:
    runtime = OpenVino()
    session = runtime.load(runtime.build(build_onnx(tiny_space.lower(tiny_space.largest))))
    first, second, third = rng.standard_normal((3, 2, 3, 16, 16)).astype(np.float32)
    expected = {"first": session.run(first), "second": session.run(second)}
    assert np.abs(expected["first"] - expected["second"]).max() > 1e-3
    calls = {}
    for name, images in (("first", first), ("second", second)):
        calls[name] = session.bound(images), requests[-1]
    session.run(third)
    for name, (call, request) in calls.items():
        call()
        np.testing.assert_array_equal(request.get_output_tensor(0).data, expected[name])
    assert len(requests) == 3, "one of run's, and one a bound call"


def test_a_session_keeps_few_models(
    tiny_space: SearchSpace, rng: np.random.Generator, requests: list[Any]
) -> None:
    runtime = OpenVino()
    session: Any = runtime.load(runtime.build(build_onnx(tiny_space.lower(tiny_space.largest))))
    images = rng.standard_normal((6, 3, 16, 16)).astype(np.float32)
    whole = session.run(images)
    for count in range(1, 6):
        np.testing.assert_allclose(session.run(images[:count]), whole[:count], atol=1e-5)
    np.testing.assert_array_equal(session.run(images), whole)
    assert len(requests) == 7, "the first was let go, and made again"
