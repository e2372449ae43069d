"""Ctrl-C: what is said of it decides nothing, and what hides it is seen through."""

import signal

import pytest

from ofa_deploy.terminal import heeding, was_interrupted


@pytest.mark.parametrize(
    "error",
    [BrokenPipeError("nobody reads"), OSError("full"), ValueError("closed"), RuntimeError("again")],
)
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_work_is_stopped_as_promised_where_nobody_can_be_told(
    error: Exception, sent: signal.Signals
) -> None:
    def said() -> None:
        raise error

    with heeding(said) as stop:
        assert not stop.asked
        signal.raise_signal(sent)
        assert stop.asked


def test_ctrl_c_is_seen_behind_other_errors() -> None:
    try:
        try:
            raise KeyboardInterrupt
        finally:
            raise ImportError("initialization failed")
    except ImportError as error:
        assert was_interrupted(error)
    assert not was_interrupted(ImportError("no such module"))
    ring = ImportError("a")
    ring.__context__ = ValueError("b")
    ring.__context__.__context__ = ring
    assert not was_interrupted(ring)
