"""An agent's place on a device: who else comes and goes there, and disks that take no more."""

import errno
import hashlib
import io
import json
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ofa_deploy.profiling.agent import folder as folder_module
from ofa_deploy.profiling.agent.folder import Folder
from ofa_deploy.profiling.agent.main import _Session


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("moment", ["before it looks", "before it locks"])
def test_one_that_leaves_takes_nothing_from_one_that_comes(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The last one takes the folder of all along, while another is about to enter it."""
    leaving, honest = Folder.claim("leaving"), folder_module._check_own

    def check(root: Path) -> None:
        monkeypatch.setattr(folder_module, "_check_own", honest)
        if moment == "before it looks":
            leaving.remove()
        honest(root)
        leaving.remove() if moment == "before it locks" else None

    monkeypatch.setattr(folder_module, "_check_own", check)
    coming = Folder.claim("coming")
    assert coming.path.is_dir()
    assert not leaving.path.exists()
    coming.remove()
    assert not [*temporary.iterdir()]


def test_what_an_agent_of_the_same_host_had_is_taken_over(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But what was half-written, and engines that nobody would look at before they are used."""
    monkeypatch.setattr(folder_module, "_ended", lambda pid, lock: True)
    stranger, first = Folder.claim("stranger"), Folder.claim("mine")
    model = "0123456789abcdef" * 4
    for claimed in (stranger, first):
        for name in (model, "partial", "agent.py"):
            (claimed.path / name).write_text(name)
        for name in ("tensorrt-engines", "onnxruntime-engines"):
            (claimed.path / name).mkdir()
            (claimed.path / name / "engine").touch()
    second = Folder.claim("mine")
    assert second.others == 1
    assert not first.path.exists()
    assert {path.name for path in second.path.iterdir()} == {"lock", model, "tensorrt-engines"}
    assert (second.path / "tensorrt-engines" / "engine").exists()
    assert len([*stranger.path.iterdir()]) == 6
    for each in (stranger, second):
        each.remove()
    assert not [*temporary.iterdir()]


def test_a_temporary_folder_that_is_gone_is_an_error(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "gone"))
    with pytest.raises(FileNotFoundError):
        Folder.claim("any")


def test_a_link_in_its_place_is_not_followed(temporary: Path) -> None:
    claimed = Folder.claim("any")
    root = claimed.path.parent
    claimed.remove()
    root.symlink_to(temporary / "nowhere")
    with pytest.raises(OSError, match="is not a folder of this user alone; remove it"):
        Folder.claim("any")


def test_a_disk_that_takes_no_more_files_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then there is not even half a model to remove."""
    really = Path.open

    def opened(path: Path, *args: Any, **options: Any) -> Any:
        if path.name == "partial":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return really(path, *args, **options)

    monkeypatch.setattr(Path, "open", opened)
    # Which would end this process later on.
    monkeypatch.setattr(_Session, "_end_when_silent", lambda session: None)
    data, said = b"x" * 10, io.BytesIO()
    put = {"do": "put", "put": hashlib.sha256(data).hexdigest(), "size": len(data)}
    asked = io.BytesIO(json.dumps(put).encode() + b"\n" + data + b'{"do": "ping"}\n')
    session = _Session(b"", asked, said)
    session._folder = SimpleNamespace(path=tmp_path / "mine", others=0)  # type: ignore[assignment]
    (tmp_path / "mine").mkdir()
    session.run()
    first, second = map(json.loads, said.getvalue().splitlines())
    assert first == {"error": f"No space left on device in {tmp_path}"}
    assert second == {"pong": True}
