"""What a measuring process makes of what it counted."""

from types import SimpleNamespace
from typing import Any

import pytest

from ofa_deploy.profiling.agent import job


def test_energy_is_that_of_one_inference(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call may be several: of what a GPU is done with sooner than its clock can tell."""
    meter = SimpleNamespace(seconds=1.0, least_s=0.3, per_call=lambda call, seconds: 6.0)
    monkeypatch.setattr(job, "energy_meter", lambda sensors, gpu: meter)
    watch: Any = SimpleNamespace(held=lambda: False)
    many: Any = SimpleNamespace(inferences=12)
    found: dict[str, dict[str, float]] = {"": {}, "many": {}}
    told = {"protocol": {"seconds": 0.0}, "gpu": True}
    sensors: Any = None
    job._weigh({"": lambda: None, "many": many}, found, sensors, watch, told)
    assert found == {"": {"energy_mj": 6.0}, "many": {"energy_mj": 0.5}}
