"""Once-for-all's tables, damaged and hostile: each is refused in one line."""

import os
import re
from pathlib import Path

import pytest

from ofa_deploy.errors import FileFormatError, InputError, MismatchError
from ofa_deploy.space import SearchSpace
from tests.hardware.yaml_folder import edited, only, read


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mean", ".nan"),
        ("mean", "nan"),
        ("mean", ".inf"),
        ("mean", "-0.5"),
        ("mean", "0"),
        ("mean", "0.0"),
        ("mean", "1e999"),
        ("mean", "true"),
        ("mean", "1_000"),
        ("mean", "0x1F"),
        ("mean", "fast"),
        ("mean", "'1.5'"),
        ("mean", "[1.5]"),
        ("mean", "{a: 1}"),
        ("mean", ""),
        ("mean", "!!float 1.5"),
        ("mean", "&a 1.5"),
        ("std", "-0.1"),
        ("std", ".nan"),
        ("count", "-3"),
        ("count", "0"),
        ("count", "2.5"),
        ("count", "true"),
        ("count", "99999999999999"),
    ],
)
def test_value_that_makes_no_sense_names_file_and_key(
    folder: Path, tiny_space: SearchSpace, field: str, value: str
) -> None:
    file = edited(only(folder), rf"(Conv-.*\n(?:.*\n)*?  {field}:) .*", rf"\1 {value}")
    with pytest.raises(FileFormatError, match=re.escape(str(file))) as error:
        read(file, tiny_space)
    assert "Conv-input:16x16x3" in str(error.value) or "line " in str(error.value)


def test_duplicate_key_is_refused_not_overwritten(folder: Path, tiny_space: SearchSpace) -> None:
    file = only(folder)
    file.write_text(file.read_text() + "Conv-input:16x16x3-output:8x8x8:\n  mean: 9\n")
    with pytest.raises(FileFormatError, match="'Conv-input:16x16x3-output:8x8x8' stands twice"):
        read(file, tiny_space)
    edited(file, r"Conv-input:.*\n  mean: 9\n", "")
    edited(file, r"  mean: (.*)", r"  mean: \1\n  mean: 7")
    with pytest.raises(FileFormatError, match="'mean' stands twice"):
        read(file, tiny_space)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n# nothing\n",
        "- 1\n- 2\n",
        "just words\n",
        "a: 1\n",
        "a: [1, 2]\n",
        "[a]: {mean: 1}\n",
        "? {a: 1}\n: {mean: 1}\n",
        "a: {mean: 1}\n---\nb: {mean: 1}\n",
        "a: {mean: {mean: 1}}\n",
        "a: {std: 1}\n",
        "a: {}\n",
        "a: {mean: 1\n",
        "a: {mean: 1}}\n",
        "\ta: {mean: 1}\n",
        "a: &x {mean: 1}\nb: *x\n",
        "a: &x [x,x]\nb: &y [*x,*x]\nc: [*y,*y]\n",
        "<<: {mean: 1}\na: *b\n",
        "a: !!python/object/apply:os.system ['true']\n",
        "!!python/name:os.system : {mean: 1}\n",
        "a: !!python/object/new:tuple [mean]\n",
        "{" * 5_000,
        "a: " + "[" * 5_000,
        "a\x00b: {mean: 1}\n",
        "a: {mean: 1, std: 1}\nb: {mean: 1}\n",
    ],
)
def test_other_yaml_is_refused(tiny_space: SearchSpace, tmp_path: Path, text: str) -> None:
    file = tmp_path / "table.yaml"
    file.write_text(text)
    with pytest.raises(FileFormatError, match=re.escape(str(file))) as error:
        read(file, tiny_space)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
def test_truncated_file_is_refused(folder: Path, tiny_space: SearchSpace, kept: float) -> None:
    file = only(folder)
    data = file.read_bytes()
    for end in range(int(kept * len(data)), int(kept * len(data)) + 60):
        file.write_bytes(data[:end])
        with pytest.raises((FileFormatError, MismatchError), match=re.escape(str(file))):
            read(file, tiny_space)


def test_key_with_a_newline_stays_in_one_line(folder: Path, tiny_space: SearchSpace) -> None:
    file = only(folder)
    file.write_text(f'"Conv\\nerror: \\x1b[31mforged": {{mean: -1}}\n{file.read_text()}')
    with pytest.raises(FileFormatError) as error:
        read(file, tiny_space)
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)


def test_bytes_that_are_not_utf8_are_refused(folder: Path, tiny_space: SearchSpace) -> None:
    file = only(folder)
    file.write_bytes(file.read_bytes().replace(b"Logits", b"Log\xff\xfets"))
    with pytest.raises(FileFormatError, match="not UTF-8"):
        read(folder, tiny_space)


def test_large_file_is_refused_unread(folder: Path, tiny_space: SearchSpace) -> None:
    with (folder / "huge.yaml").open("wb") as file:
        file.truncate(100 * 2**20)
    with pytest.raises(FileFormatError, match="104,857,600 bytes, more than"):
        read(folder, tiny_space)


def test_what_is_no_file_is_refused(folder: Path, tiny_space: SearchSpace, tmp_path: Path) -> None:
    odd = folder / "20.yaml"
    odd.mkdir()
    with pytest.raises(InputError, match="20.yaml: expected a file"):
        read(folder, tiny_space)
    odd.rmdir()
    os.mkfifo(odd)
    with pytest.raises(InputError, match="20.yaml: expected a file"):
        read(folder, tiny_space)
    odd.unlink()
    odd.symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="20.yaml: no such file"):
        read(folder, tiny_space)
    with pytest.raises(InputError, match="nowhere: no such file"):
        read(tmp_path / "nowhere", tiny_space)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no .yaml file there"):
        read(tmp_path / "empty", tiny_space)


def test_symlink_to_a_file_is_that_file(folder: Path, tiny_space: SearchSpace) -> None:
    expected = read(folder, tiny_space).blocks
    kept = folder.parent / "elsewhere.yaml"
    (folder / "12_lookup_table.yaml").rename(kept)
    (folder / "12_lookup_table.yaml").symlink_to(kept)
    assert read(folder, tiny_space).blocks == expected
