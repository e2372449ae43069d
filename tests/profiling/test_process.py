"""A measuring process of this machine, from outside: what it may say, and how long it may not."""

from pathlib import Path
from typing import Any

import pytest

from ofa_deploy.errors import DeviceError
from ofa_deploy.profiling import process
from ofa_deploy.profiling.process import run_worker

pytestmark = pytest.mark.timeout(60)
ANSWER = """
import json, os, sys, time
job = json.load(sys.stdin)
{does}
one = {{"p10": 1.0, "p50": 1.0, "p90": 1.0, "p99": 1.0, "runs": 4, "ratio": 1.0}}
print(json.dumps({{"result": {{"": one, "a": one}}, "windows": 1, "rejected": 0}}), flush=True)
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a worker that does something before it answers."""

    def run(does: str) -> dict[str, Any]:
        (tmp_path / "talking_worker.py").write_text(ANSWER.format(does=does))
        monkeypatch.syspath_prepend(str(tmp_path))
        job = {"threads": 1, "protocol": {"rounds": 1}}
        return run_worker(job, ["a"], module="talking_worker", finished=lambda _: None)

    return run


def test_an_engine_that_complains_in_another_encoding(run: Any) -> None:
    assert run(r"os.write(2, b'GPU \xb5-arch\n')")["windows"] == 1
    with pytest.raises(DeviceError, match=r"failed \(exit 3\): GPU \ufffd-arch$"):
        run(r"os.write(2, b'GPU \xb5-arch\n'); os._exit(3)")


def test_an_answer_in_another_encoding(run: Any) -> None:
    with pytest.raises(DeviceError, match=r"answered 'GPU \ufffd-arch', not a result"):
        run(r"os.write(1, b'GPU \xb5-arch\n')")


def test_a_process_that_says_nothing_any_more_is_ended(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_PATIENCE_S", 0.2)
    monkeypatch.setattr(process, "_BUILDING_S", 0.1)
    with pytest.raises(DeviceError, match="said nothing for 0 minutes and was ended; finished wo"):
        run("time.sleep(600)")


def test_more_engines_may_take_longer_to_build() -> None:
    assert process.patience_s(["a"] * 128) > 10 * 3600 > process.patience_s(["a"]) >= 3600
