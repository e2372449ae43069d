"""Connections: what may stand in one, since it ends up in an ssh command."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ofa_deploy.errors import InputError
from ofa_deploy.hardware import Connection


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("local", None),
        ("ssh://orin", Connection(host="orin")),
        ("ssh://me@orin.local", Connection(host="orin.local", user="me")),
        ("ssh://me@orin:2222", Connection(host="orin", user="me", port=2222)),
        ("ssh://10.0.0.7:22", Connection(host="10.0.0.7", port=22)),
        ("ssh://a.b-c_d@my_box-1", Connection(host="my_box-1", user="a.b-c_d")),
        ("ssh://[fe80::1]:22", Connection(host="fe80::1", port=22)),
        ("ssh://me@[2001:DB8::0:1]", Connection(host="2001:db8::1", user="me")),
    ],
)
def test_what_is_a_connection(text: str, expected: Connection | None) -> None:
    assert Connection.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected 'local' or ssh://"),
        ("orin", "expected 'local' or ssh://"),
        ("SSH://orin", "expected 'local' or ssh://"),
        ("local\n", "expected 'local' or ssh://"),
        ("ssh:/orin", "expected 'local' or ssh://"),
        ("ssh://", "'' is no host's name"),
        ("ssh://-oProxyCommand=reboot", "'-oProxyCommand=reboot' is no host's name"),
        ("ssh://me@-oProxyCommand=x", "is no host's name"),
        ("ssh://-l@orin", "'-l' is no user's name"),
        ("ssh://@orin", "'' is no user's name"),
        ("ssh://a@b@orin", "is no user's name"),
        ("ssh://me @orin", "is no user's name"),
        ("ssh://orin\n", "is no host's name"),
        ("ssh://orin -v", "is no host's name"),
        ("ssh://orin\x00", "is no host's name"),
        ("ssh://orin/", "is no host's name"),
        ("ssh://$(reboot)", "is no host's name"),
        ("ssh://%h", "is no host's name"),
        ("ssh://örin", "is no host's name"),
        ("ssh://" + "a" * 300, "is no host's name"),
        ("ssh://orin:", "'' is no port"),
        ("ssh://orin:0", "'0' is no port"),
        ("ssh://orin:65536", "'65536' is no port"),
        ("ssh://orin:22 ", "is no port"),
        ("ssh://orin:22:22", "is no port"),
        ("ssh://orin:٢٢", "is no port"),
        ("ssh://[fe80::1", "is no host's name"),
        ("ssh://[fe80::1%eth0]", "is no IPv6 address"),
        ("ssh://[-x]", "is no IPv6 address"),
        ("ssh://[::1]x", "'x' after the address"),
    ],
)
def test_what_is_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as error:
        Connection.parse(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["ssh://me:secret@orin", "http://me:secret@orin", "me:secret@orin"]
)
def test_password_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(InputError) as error:
        Connection.parse(text)
    assert "secret" not in str(error.value)


def test_destination_is_what_ssh_takes() -> None:
    assert Connection(host="orin").destination == "orin"
    assert Connection(host="orin", user="me", port=2222).destination == "me@orin"
    assert str(Connection(host="::1", user="me", port=22)) == "ssh://me@[::1]:22"


@given(st.text(max_size=60))
@example("me@-x")
@example("me@host:22")
def test_whatever_is_accepted_is_harmless(text: str) -> None:
    try:
        found = Connection.parse(f"ssh://{text}")
    except InputError:
        return
    assert found is not None
    assert re.fullmatch(r"[A-Za-z0-9_:.@-]+", found.destination)
    assert not found.destination.startswith("-") and not found.host.startswith("-")
    assert Connection.parse(str(found)) == found
