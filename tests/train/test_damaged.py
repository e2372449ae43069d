"""Run folders that are damaged, busy or full are refused, and say how to go on."""

import errno
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ofa_deploy.data import DataSplits
from ofa_deploy.errors import BusyError, FileFormatError, StorageError
from ofa_deploy.space import SearchSpace
from ofa_deploy.train import DepsConfig, train
from tests.train.runs import Train, Watch, assert_same_outcome, stop_at


@pytest.fixture(scope="module")
def checkpoint(
    config: DepsConfig,
    small_space: SearchSpace,
    data: DataSplits,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, bytes]:
    """The files of a run that stopped after its first epoch."""
    run = tmp_path_factory.mktemp("stopped")
    with pytest.raises(KeyboardInterrupt):
        train(config, small_space, data, run, progress=stop_at(5))
    return {name: (run / name).read_bytes() for name in ("run.json", "state.pt", "metrics.csv")}


@pytest.fixture
def state(run: Path, checkpoint: dict[str, bytes]) -> Path:
    """``state.pt`` in a folder that can be resumed."""
    run.mkdir()
    for name, content in checkpoint.items():
        (run / name).write_bytes(content)
    return run / "state.pt"


def test_undamaged_checkpoint_is_resumed(go: Train, state: Path) -> None:
    watch = stop_at(5)
    with pytest.raises(KeyboardInterrupt):
        go(progress=watch)
    assert watch.said == ["resuming training at step 4 of 12"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[:10],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-1],
        lambda whole: b"\0" * len(whole),
        lambda whole: b"hello",
        lambda whole: pickle.dumps({"schema": "training-state/1"}),
    ],
    ids=["empty", "10 bytes", "half", "last byte gone", "zeros", "text", "plain pickle"],
)
def test_damaged_checkpoint_is_refused(
    go: Train, state: Path, damage: Callable[[bytes], bytes]
) -> None:
    damaged = damage(state.read_bytes())
    state.write_bytes(damaged)
    with pytest.raises(FileFormatError) as caught:
        go()
    message = str(caught.value)
    assert message.startswith(f"{state}: ") and "\n" not in message
    assert state.read_bytes() == damaged
    assert not (state.parent / "supernet.safetensors").exists()


def test_checkpoint_with_a_flipped_bit_is_refused(go: Train, state: Path) -> None:
    """A resume from it would not end bit-identical."""
    weights = torch.load(state, weights_only=True)["net"]["layers.head.full.conv.weight"]
    content = bytearray(state.read_bytes())
    place = content.find(weights.permute(0, 2, 3, 1).contiguous().numpy().tobytes())
    assert place > 0
    content[place + 3] ^= 0x80  # the sign of the first weight
    state.write_bytes(content)
    with pytest.raises(FileFormatError):
        go()


@pytest.mark.parametrize("schema", ["training-state/2", "latency-table/1", None])
def test_checkpoint_of_another_schema_is_refused(
    go: Train, state: Path, schema: str | None
) -> None:
    content = torch.load(state, weights_only=True)
    torch.save({**content, "schema": schema}, state)
    with pytest.raises(FileFormatError, match="state.pt: expected a checkpoint of schema"):
        go()


@pytest.mark.parametrize("value", [[1, 2], torch.zeros(3)], ids=["list", "tensor"])
def test_checkpoint_that_is_no_dictionary_is_refused(go: Train, state: Path, value: object) -> None:
    torch.save(value, state)
    with pytest.raises(FileFormatError, match="state.pt: expected a checkpoint of schema"):
        go()


@pytest.mark.parametrize("key", ["step", "sums", "rows", "cost", "net", "frozen", "optimizer"])
def test_checkpoint_without_a_part_is_refused(go: Train, state: Path, key: str) -> None:
    content = torch.load(state, weights_only=True)
    del content[key]
    torch.save(content, state)
    with pytest.raises(FileFormatError, match=f"state.pt: checkpoint without {key}$"):
        go()


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_pickle_bomb_is_not_executed(go: Train, state: Path, tmp_path: Path, form: str) -> None:
    bomb = Bomb(tmp_path / "exploded")
    if form == "torch":
        content = torch.load(state, weights_only=True)
        torch.save({**content, "rows": bomb}, state)
    else:
        state.write_bytes(pickle.dumps(bomb))
    with pytest.raises(FileFormatError, match="state.pt: unreadable checkpoint"):
        go()
    assert not bomb.path.exists()
    with (tmp_path / "proof").open("wb") as file:  # the bomb itself is live
        pickle.dump(Bomb(tmp_path / "proven"), file)
    pickle.loads((tmp_path / "proof").read_bytes()).close()
    assert (tmp_path / "proven").exists()


def test_deleting_a_damaged_checkpoint_starts_over(go: Train, state: Path) -> None:
    state.unlink()
    watch = stop_at(1)
    with pytest.raises(KeyboardInterrupt):
        go(progress=watch)
    assert watch.said == []


def test_damaged_run_file_is_refused(go: Train, state: Path, run: Path) -> None:
    (run / "run.json").write_text((run / "run.json").read_text()[:-20])
    with pytest.raises(FileFormatError, match="run.json"):
        go()


# -- busy and full --------------------------------------------------------------------------


HOLDS = """
import sys
from ofa_deploy.files import exclusive

with exclusive(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_second_process_is_turned_away(go: Train, run: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(run)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BusyError, match="another ofa-deploy is at work"):
            go()
        assert not (run / "run.json").exists()
        holder.communicate("", timeout=30)
    assert holder.returncode == 0
    with pytest.raises(KeyboardInterrupt):
        go(progress=stop_at(1))


@pytest.mark.usefixtures("save_every_step")
def test_full_disk_keeps_the_checkpoint_before(
    go: Train, run: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:

        def fill(steps: int) -> None:
            if steps == 6:
                patch.setattr(os, "fsync", full)

        with pytest.raises(StorageError, match=r"state.pt: the disk is full; free some space"):
            go(progress=Watch(fill))
    assert not list(run.glob(".*.tmp"))
    watch = Watch(lambda steps: None)
    go(progress=watch)
    assert watch.said == ["resuming training at step 6 of 12"]
    assert_same_outcome(run, finished)
