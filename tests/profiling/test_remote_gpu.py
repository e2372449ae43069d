"""A device behind an agent whose graphics card is another one when it is reached again."""

from pathlib import Path

import pytest

from ofa_deploy.errors import DeviceError
from ofa_deploy.profiling import Subject
from tests.profiling.fakes import agent, dying, taken

CARD = "\nhello['telemetry']['state'].update(gpu='H100', gpu_id='a1')\n"


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ("hello['telemetry']['state']['gpu_id'] = 'b2'", "H100 b2"),
        ("hello['telemetry']['state']['gpu'] = 'A2'", "A2 a1"),
    ],
)
def test_a_card_that_was_swapped_is_another_device(
    tiny_subjects: dict[str, Subject], tmp_path: Path, then: str, now: str
) -> None:
    transport = agent(CARD + dying(tmp_path / "seen", 1, then=then))
    message = rf"is another device than before, or was changed .*: gpu \(H100 a1, {now}\)"
    with pytest.raises(DeviceError, match=message):
        taken(tiny_subjects, transport, journal=tmp_path)


def test_the_same_card_goes_on(tiny_subjects: dict[str, Subject], tmp_path: Path) -> None:
    transport = agent(CARD + dying(tmp_path / "seen", 1))
    assert taken(tiny_subjects, transport)["large"].ms == pytest.approx(2.0)
    assert transport.started == 2
