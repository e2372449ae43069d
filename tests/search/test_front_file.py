"""Fronts on disk."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy.errors import FileFormatError
from ofa_deploy.hardware import Conditions
from ofa_deploy.pareto import Candidate, ParetoFront
from ofa_deploy.search import FrontFile
from ofa_deploy.space import SearchSpace

CONDITIONS = Conditions(
    device="bench", processor="made up", runtime="onnxruntime", runtime_version="1", threads=2
)


@pytest.fixture
def front(tiny_space: SearchSpace) -> ParetoFront:
    return ParetoFront.of(
        [
            Candidate(
                tiny_space.smallest,
                {"top1": 50.5, "latency": 1.25, "macs": 12_345.0},
                {"latency": (1.1, 1.4)},
                {"latency": 1.3},
                "latency <= 2 ms",
            ),
            Candidate(tiny_space.largest, {"top1": 61.0, "latency": 1.9}),
        ]
    )


@pytest.fixture
def file(tiny_space: SearchSpace, front: ParetoFront) -> FrontFile:
    return FrontFile.build(
        "DεpS", "predicted", tiny_space, front, conditions=CONDITIONS, budgets=(2.0, 3.5)
    )


def test_round_trip(
    file: FrontFile, front: ParetoFront, tiny_space: SearchSpace, tmp_path: Path
) -> None:
    path = file.save(tmp_path / "a.front.json")
    loaded = FrontFile.load(path)
    assert loaded.pareto == front
    assert SearchSpace.from_dict(loaded.space) == tiny_space
    assert (loaded.label, loaded.kind, loaded.budgets) == ("DεpS", "predicted", (2.0, 3.5))
    assert loaded.conditions == CONDITIONS
    assert loaded.save(tmp_path / "b.front.json").read_bytes() == path.read_bytes()


def test_other_objectives_and_no_conditions(tiny_space: SearchSpace, tmp_path: Path) -> None:
    front = ParetoFront.of(
        [Candidate(tiny_space.smallest, {"top1": 50.0, "macs": 1e4})],
        {"top1": "max", "macs": "min"},
    )
    path = FrontFile.build("macs", "measured", tiny_space, front, conditions=None).save(
        tmp_path / "macs.front.json"
    )
    loaded = FrontFile.load(path)
    assert loaded.pareto == front
    assert (loaded.conditions, loaded.budgets, loaded.kind) == (None, (), "measured")


def test_empty_front(tiny_space: SearchSpace, tmp_path: Path) -> None:
    empty = FrontFile.build("none", "predicted", tiny_space, ParetoFront(()), conditions=None)
    assert len(FrontFile.load(empty.save(tmp_path / "none.front.json")).pareto) == 0


def edit(file: FrontFile, path: Path, *keys: Any, value: Any) -> Path:
    """Save with one value changed."""
    content = json.loads(file.save(path).read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("schema",), "subnet/1"),
        (("schema",), None),
        (("label",), 3),
        (("kind",), "guessed"),
        (("budgets",), ["two"]),
        (("budgets",), [float("nan")]),
        (("extra",), 1),
        (("conditions", "batch"), 0),
        (("space", "stages"), []),
        (("space", "classes"), 1),
        (("space",), {}),
        (("front", "candidates"), [3]),
        (("front", "candidates", 0, "arch"), {}),
        (("front", "candidates", 0, "predicted", "top1"), "high"),
        (("front", "candidates", 0, "predicted", "top1"), float("inf")),
        (("front", "objectives"), {}),
        (("front", "objectives"), {"top1": "up"}),
        (("front",), {}),
    ],
    ids=str,
)
def test_damaged_fields_are_refused(
    file: FrontFile, tmp_path: Path, keys: tuple[Any, ...], value: Any
) -> None:
    path = edit(file, tmp_path / "a.front.json", *keys, value=value)
    with pytest.raises(FileFormatError, match="a.front.json"):
        FrontFile.load(path)


def test_newer_schema_asks_for_an_upgrade(file: FrontFile, tmp_path: Path) -> None:
    path = edit(file, tmp_path / "a.front.json", "schema", value="front/2")
    with pytest.raises(FileFormatError, match="newer ofa-deploy .* upgrade"):
        FrontFile.load(path)


def test_candidate_that_is_not_in_the_space_is_refused(
    file: FrontFile, tiny_space: SearchSpace, tmp_path: Path
) -> None:
    foreign = replace(tiny_space.smallest, resolution=20)
    path = edit(
        file, tmp_path / "a.front.json", "front", "candidates", 0, "arch", value=foreign.to_dict()
    )
    with pytest.raises(FileFormatError, match="a.front.json: .*resolution = 20"):
        FrontFile.load(path)


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_truncated_file_is_refused(file: FrontFile, tmp_path: Path, share: float) -> None:
    path = file.save(tmp_path / "a.front.json")
    text = path.read_text()
    path.write_text(text[: int(share * len(text))])
    with pytest.raises(FileFormatError, match="a.front.json: not readable as JSON"):
        FrontFile.load(path)
