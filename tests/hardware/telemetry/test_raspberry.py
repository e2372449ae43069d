"""What vcgencmd prints on a Raspberry Pi 4 and 5, and a Pi made of a script."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_deploy.hardware import Telemetry
from ofa_deploy.hardware.telemetry import (
    parse_clock,
    parse_pmic,
    parse_temperature,
    parse_throttled,
)
from ofa_deploy.hardware.telemetry.raspberry import RaspberrySource

# A Raspberry Pi 5's, as a user published it.
PMIC = """\
 3V7_WL_SW_A current(0)=0.00000000A
   3V3_SYS_A current(1)=0.06245952A
   1V8_SYS_A current(2)=0.16102850A
  DDR_VDD2_A current(3)=0.00780744A
  DDR_VDDQ_A current(4)=0.00000000A
   1V1_SYS_A current(5)=0.17566740A
    0V8_SW_A current(6)=0.32791250A
  VDD_CORE_A current(7)=10.87674000A
   3V3_DAC_A current(17)=0.00036630A
   3V3_ADC_A current(18)=0.00042735A
   0V8_AON_A current(16)=0.00579975A
      HDMI_A current(22)=0.01367520A
 3V7_WL_SW_V volt(8)=3.79999600V
   3V3_SYS_V volt(9)=3.30632200V
   1V8_SYS_V volt(10)=1.79828900V
  DDR_VDD2_V volt(11)=1.10292900V
  DDR_VDDQ_V volt(12)=0.60476130V
   1V1_SYS_V volt(13)=1.10439400V
    0V8_SW_V volt(14)=0.80256330V
  VDD_CORE_V volt(15)=0.89745940V
   3V3_DAC_V volt(20)=3.30494200V
   3V3_ADC_V volt(21)=3.30219400V
   0V8_AON_V volt(19)=0.79736190V
      HDMI_V volt(23)=5.07056000V
     EXT5V_V volt(24)=5.06788000V
      BATT_V volt(25)=3.01110800V
"""


def test_rails_of_a_pi_5() -> None:
    rails = parse_pmic(PMIC)
    assert len(rails) == 12
    assert rails["VDD_CORE"] == pytest.approx(1e3 * 10.87674 * 0.8974594, abs=1e-3)
    assert rails["3V3_SYS"] == pytest.approx(1e3 * 0.06245952 * 3.306322, abs=1e-3)
    assert "EXT5V" not in rails and "BATT" not in rails  # volts alone are no power
    total = Telemetry(power_mw=rails).total_power_mw
    assert total == pytest.approx(sum(rails.values()), abs=1e-2)


@pytest.mark.parametrize(
    ("text", "now", "since_boot"),
    [
        ("throttled=0x0\n", (), ()),
        ("throttled=0x50000", (), ("under-voltage", "throttled")),
        ("throttled=0x50005\n", ("under-voltage", "throttled"), ("under-voltage", "throttled")),
        ("throttled=0xe0008", ("soft temperature limit",),
         ("frequency capped", "throttled", "soft temperature limit")),
        ("throttled=0x20002", ("frequency capped",), ("frequency capped",)),
    ],
)  # fmt: skip
def test_throttling(text: str, now: tuple[str, ...], since_boot: tuple[str, ...]) -> None:
    assert parse_throttled(text) == (now, since_boot)


@pytest.mark.parametrize(
    ("text", "celsius"),
    [("temp=42.2'C\n", 42.2), ("temp=85.0'C", 85.0), ("temp=-3.5'C", -3.5), ("temp=42.2 C", None)],
)
def test_temperatures(text: str, celsius: float | None) -> None:
    assert parse_temperature(text) == celsius


@pytest.mark.parametrize(
    ("text", "mhz"),
    [
        ("frequency(48)=1500398464\n", 1500.398464),  # Pi 4
        ("frequency(0)=2400033792\n", 2400.033792),  # Pi 5
        ("frequency(46)=0", 0.0),
        ("frequency=1", None),
    ],
)
def test_clocks(text: str, mhz: float | None) -> None:
    assert parse_clock(text) == mhz


@pytest.mark.parametrize(
    "text",
    [
        "",
        'error=1 error_msg="Command not registered"',
        "VCHI initialization failed",
        "throttled=0x",
        "throttled=0x123456789",
        "temp=1e9'C",
        "frequency(\u0664)=\u0661",
        "VDD_CORE_A current(7)=nanA",
    ],
)
def test_junk_tells_nothing(text: str) -> None:
    assert parse_throttled(text) is None
    assert parse_temperature(text) is None
    assert parse_clock(text) is None
    assert parse_pmic(text) == {}


PIECES = st.sampled_from(
    [
        "VDD_CORE_A",
        "VDD_CORE_V",
        " current(7)=",
        " volt(7)=",
        "0.5",
        "A",
        "V",
        "\n",
        "throttled=0x",
        "'C",
    ]
)


@given(st.one_of(st.text(), st.lists(PIECES, max_size=60).map("".join)))
def test_whatever_is_read_can_be_sent(text: str) -> None:
    parse_temperature(text)
    parse_clock(text)
    found = Telemetry(throttled=(parse_throttled(text) or ((), ()))[0], power_mw=parse_pmic(text))
    assert Telemetry.from_dict(found.to_dict()) == found


# -- a Pi made of a script -------------------------------------------------------------------


def pi(folder: Path, throttled: str, pmic: str = PMIC) -> tuple[str, ...]:
    """A folder with a vcgencmd in it that answers as given."""
    folder.mkdir(exist_ok=True)
    (folder / "pmic").write_text(pmic)
    script = folder / "vcgencmd"
    script.write_text(
        "#!/bin/sh\n"
        'case "$1 $2" in\n'
        f'"get_throttled ") echo throttled={throttled};;\n'
        '"measure_temp ") echo "temp=61.3\'C";;\n'
        '"measure_clock arm") echo "frequency(0)=2400033792";;\n'
        '"measure_clock v3d") echo "frequency(0)=960012800";;\n'
        f'"pmic_read_adc ") cat {folder}/pmic;;\n'
        "*) exit 1;;\nesac\n"
    )
    script.chmod(0o755)
    return (str(folder),)


def test_all_of_a_pi_5(tmp_path: Path) -> None:
    source = RaspberrySource.find(pi(tmp_path, "0x0"))
    assert source is not None
    found = source.read()
    assert found.temperature_c == 61.3
    assert found.clocks_mhz == {"arm": 2400.034, "v3d": 960.013}
    assert found.throttled == ()
    assert found.power_mw == parse_pmic(PMIC)
    assert source.power().total_power_mw == found.total_power_mw
    assert found.state == {"throttled_since_boot": "never"}


def test_pi_4_meters_no_power(tmp_path: Path) -> None:
    source = RaspberrySource.find(pi(tmp_path, "0x0", pmic="error=1"))
    assert source is not None
    assert source.read().power_mw == {}
    assert source.power().total_power_mw is None


def test_throttling_between_two_readings_is_seen(tmp_path: Path) -> None:
    source = RaspberrySource.find(pi(tmp_path, "0x10000"))
    assert source is not None
    assert source.throttled() == ()  # long ago
    pi(tmp_path, "0x50000")
    assert source.throttled() == ("throttled",)  # and over already
    assert source.throttled() == ()
    pi(tmp_path, "0x50004")
    assert source.throttled() == ("throttled",)
    assert source.read().throttled == ("throttled",)
    assert source.read().state == {"throttled_since_boot": "under-voltage, throttled"}


def test_reasons_are_told_once(tmp_path: Path) -> None:
    source = RaspberrySource.find(pi(tmp_path, "0x0"))
    assert source is not None
    pi(tmp_path, "0x70001")
    assert source.throttled() == ("under-voltage", "frequency capped", "throttled")


def test_no_pi(tmp_path: Path) -> None:
    assert RaspberrySource.find((str(tmp_path),)) is None
    assert RaspberrySource.find(pi(tmp_path, "VCHI failed")) is None


def test_a_glance_at_a_pi(tmp_path: Path) -> None:
    """The clock that it has: the kernel shows the one that was asked for."""
    source = RaspberrySource.find(pi(tmp_path, "0x0"))
    assert source is not None and source.tells_throttling
    found = source.glance((3,))
    assert found.clocks_mhz == {"arm": 2400.034}
    assert found.power_mw == parse_pmic(PMIC)
