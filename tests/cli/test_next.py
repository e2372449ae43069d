"""What commands propose next is what the run still needs."""

import shlex
from pathlib import Path

import pytest

from ofa_deploy.cli._next import evaluate_first, search_command
from tests.docs.commands import parse
from tests.tables import SOMEWHERE

INT8 = SOMEWHERE.model_copy(update={"runtime": "openvino", "precision": "int8"})


def test_a_run_is_evaluated_before_it_is_searched(tmp_path: Path) -> None:
    (first,) = evaluate_first(tmp_path, SOMEWHERE)
    assert first == f"ofa-deploy evaluate {tmp_path} --subnets 40"
    (tmp_path / "accuracy.onnx").touch()
    assert evaluate_first(tmp_path, SOMEWHERE) == []
    assert evaluate_first(None, SOMEWHERE) == []


def test_int8_needs_an_accuracy_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "accuracy.onnx").touch()
    (first,) = evaluate_first(tmp_path, INT8)
    assert first.endswith("--runtime openvino --precision int8")
    (tmp_path / "accuracy-openvino-int8.onnx").touch()
    assert evaluate_first(tmp_path, INT8) == []


@pytest.mark.parametrize("run", [None, Path("my run")])
def test_the_commands_are_ones_that_there_are(run: Path | None, tmp_path: Path) -> None:
    proposed = [search_command(run, Path("a table.json"), 0.1534), *evaluate_first(run, INT8)]
    for each in proposed:
        words = shlex.split(each)
        assert words[0] == "ofa-deploy"
        parse(tuple(words[1:]))
    assert "'latency <= 0.153 ms'" in proposed[0]


def test_a_budget_is_no_power_of_ten() -> None:
    assert "'latency <= 1234 ms'" in search_command(None, Path("t.json"), 1234.4)
