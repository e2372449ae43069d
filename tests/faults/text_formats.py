"""Formats of text: fronts, archs, what a person writes, journals."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ofa_deploy.space import SearchSpace
from tests.faults import binary_mutations, mutations
from tests.faults.formats import (
    SPACE,
    Format,
    dumped,
    generator,
    json_format,
    json_ways,
    says_toml,
    strict_json,
)

__all__ = ["candidate", "text_formats"]


# -- networks -------------------------------------------------------------------------------


def candidate(arch: Any) -> Any:
    """An arch of which everything is known."""
    from ofa_deploy.pareto import Candidate

    return Candidate(
        arch,
        {"top1": 61.5, "latency": 0.3},
        {"latency": (0.2, 0.4)},
        {"top1": 60.25, "latency": 0.31},
        "latency <= 0.4 ms",
        "ort-int8",
    )


def _front_format() -> Format:
    from ofa_deploy.cli._fronts import read_fronts
    from ofa_deploy.pareto import ParetoFront
    from ofa_deploy.search import FrontFile
    from tests.tables import SOMEWHERE

    front = ParetoFront.of([candidate(SPACE.smallest), candidate(SPACE.largest)])
    file = FrontFile.build("ours", "measured", SPACE, front, conditions=SOMEWHERE, budgets=(0.4,))

    def read(folder: Path) -> Any:
        path = folder / "our.front.json"
        found = FrontFile.load(path)
        read_fronts([path], None, ())  # as a report takes them
        found.pareto.to_frame()
        if found.pareto:
            found.pareto.hypervolume(dict.fromkeys(found.pareto.objectives, 0.0))
        return found

    def dump(found: Any) -> Any:
        whole = dumped(found)
        space = SearchSpace.from_dict(found.space).to_dict()
        front = found.pareto.to_dict()
        for each in front["candidates"]:
            each.setdefault("target", "")  # left out where there is none
        return whole | {"front": front, "space": json.loads(json.dumps(space))}

    return json_format("front", "our.front.json", dumped(file), read, dump)


def _arch_format() -> Format:
    from ofa_deploy.space import read_arch

    def read(folder: Path) -> Any:
        arch = read_arch(SPACE, str(folder / "arch.json"))
        SPACE.cost(arch)
        return arch

    value = SPACE.largest.to_dict()
    return json_format("arch", "arch.json", value, read, lambda arch: arch.to_dict())


def _config_format() -> Format:
    """A published network's config."""
    from ofa_deploy.space import read_arch

    value = {"ks": [3, 5], "e": [2, 3], "d": [2], "r": [16]}

    def dump(arch: Any) -> Any:
        full = {"ks": list(arch.kernels), "e": list(arch.expands), "d": list(arch.depths)}
        return full | {"r": arch.resolution}

    def agrees(folder: Path, arch: Any) -> str | None:
        try:
            said = strict_json((folder / "net.json").read_bytes())
        except (ValueError, RecursionError) as error:
            return f"accepted, though {error}"
        found = dump(arch)
        for key, value in said.items():
            if value is None:
                continue
            if key not in found:
                return f"{key} was not read"
            expected = found[key]
            values = value if isinstance(value, list) else [value]
            wanted = expected if isinstance(expected, list) else [expected]
            one = len(set(wanted)) == 1 and len(set(map(repr, values))) == 1
            if not one and values[: len(wanted)] != wanted:
                return f"{key}: {value!r:.60} was read as {expected}"
            if any(isinstance(each, bool | str) for each in values):
                return f"{key}: {value!r:.60} was read as numbers"
        return None

    return Format(
        "published config",
        {"net.json": json.dumps(value).encode()},
        json_ways(value),
        lambda folder: read_arch(SPACE, str(folder / "net.json")),
        agrees,
    )


# -- what a person writes -------------------------------------------------------------------


def _space_format() -> Format:
    value = json.loads(json.dumps(SPACE.to_dict()))

    def read(folder: Path) -> Any:
        space = SearchSpace.from_toml(folder / "small.toml")
        assert space.num_archs >= 1
        return space

    return Format(
        "space TOML",
        {"small.toml": mutations.toml_text_of(value)},
        {
            "tree": lambda _, draw: mutations.toml_text(value, draw),
            "again": lambda _, draw: mutations.toml_text(value, draw),
            "bytes": binary_mutations.binary,
        },
        read,
        says_toml("small.toml", lambda s: json.loads(json.dumps(s.to_dict()))),
    )


DEVICE = {
    "schema": "device/1",
    "id": "board",
    "name": "A board",
    "kind": "jetson",
    "connection": "ssh://user@board.local:2222",
    "runtimes": ["onnxruntime", "tensorrt"],
    "precisions": ["fp32", "fp16"],
    "architecture": "aarch64",
    "interpreter": "/usr/bin/python3",
    "cores": [4, 5],
    "cool_down_s": 2.5,
    "power": {"modes": ["15W", "MAXN"], "mode": "15W", "clocks": "fixed"},
    "limits": {"memory_mib": 4096, "temperature_c": 85.0},
    "supported": [{"system": "JetPack 6", "python": "3.10", "note": "as it comes"}],
    "note": "in the rack",
}


def _device_format() -> Format:
    from ofa_deploy.hardware import load_device

    def read(folder: Path) -> Any:
        import os

        before = Path.cwd()
        os.chdir(folder)
        try:
            device = load_device("board")
        finally:
            os.chdir(before)
        _ = device.refusal, device.connection and device.ssh
        return device

    return Format(
        "device TOML",
        {"devices/board.toml": mutations.toml_text_of(DEVICE)},
        {
            "tree": lambda _, draw: mutations.toml_text(DEVICE, draw),
            "again": lambda _, draw: mutations.toml_text(DEVICE, draw),
            "bytes": binary_mutations.binary,
        },
        read,
        says_toml("devices/board.toml", dumped),
        names=("device 'board'",),
    )


def _settings_format(name: str, build: Callable[..., Any], value: dict[str, Any]) -> Format:
    from ofa_deploy.cli._settings import given_settings

    def read(folder: Path) -> Any:
        settings = given_settings(folder / "settings.toml", {}, None)
        method = settings.pop("method", value["method"])
        if not isinstance(method, str):
            from ofa_deploy.errors import InputError

            raise InputError("training settings: method")
        return build(method, **settings)

    return Format(
        name,
        {"settings.toml": mutations.toml_text_of(value)},
        {
            "tree": lambda _, draw: mutations.toml_text(value, draw),
            "again": lambda _, draw: mutations.toml_text(value, draw),
            "bytes": binary_mutations.binary,
        },
        read,
        says_toml("settings.toml", lambda c: c.model_dump(mode="json")),
        names=(
            "training settings: ",
            "unknown method",
        ),  # of the file, the flags and --set together
    )


def _train_format() -> Format:
    from ofa_deploy.train import build_config

    value = {"method": "progressive", "batch": 32, "lr": 0.05, "depth_epochs": [5, 10], "seed": 3}
    value |= {"augment": "crop+flip", "zero_gamma": True, "depth_lr": [0.1, 0.2]}
    return _settings_format("training TOML", build_config, value)


def _specialize_format() -> Format:
    from ofa_deploy.specialize import build_specialize_config

    value = {"method": "wide-narrow", "imitate_epochs": [1.0, 2.0], "relative": False, "lr": 0.01}
    value |= {"start": ["inherited", "random"], "trains": "below", "seed": 1}
    return _settings_format("specialising TOML", build_specialize_config, value)


# -- journals -------------------------------------------------------------------------------

IDENTITY = {"weights": "ab" * 32, "calibration": 100}


def _journal_format() -> Format:
    """A journal of evaluations; what is not whole is left out, so that it is made again."""
    from ofa_deploy.files import Journal

    records = [
        {"arch": arch.to_dict(), "top1": 60.5 + i}
        for i, arch in enumerate(SPACE.decode(SPACE.sample(generator(), 6)))
    ]

    def written() -> bytes:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            journal = Journal(Path(folder) / "made.jsonl", IDENTITY)
            for record in records:
                journal.append(record)
            return journal.path.read_bytes()

    def lines(data: bytes, draw: random.Random) -> bytes:
        whole = data.splitlines(keepends=True)
        for _ in range(draw.choice((1, 1, 2))):
            at = draw.randrange(len(whole))
            match draw.choice(("tree", "tree", "tree", "drop", "twice", "swap", "bytes")):
                case "tree":
                    said = json.loads(data.splitlines()[at % len(records)])
                    whole[at] = mutations.json_text(said, draw) + b"\n"
                case "drop":
                    del whole[at]
                case "twice":
                    whole.insert(at, whole[at])
                case "swap":
                    other = draw.randrange(len(whole))
                    whole[at], whole[other] = whole[other], whole[at]
                case "bytes":
                    whole[at] = binary_mutations.binary(whole[at], draw)
            whole = whole or [b""]
        return b"".join(whole)

    def agrees(_: Path, found: Any) -> str | None:
        odd = [record for record in found if record not in records]
        return f"{odd[0]!r:.80} was never written" if odd else None

    return Format(
        "journal",
        {"evaluations.jsonl": written()},
        {"lines": lines, "again": lines, "bytes": binary_mutations.binary},
        lambda folder: Journal(folder / "evaluations.jsonl", IDENTITY).records,
        agrees,
    )


def text_formats() -> dict[str, Callable[[], Format]]:
    """By name, made when asked for."""
    return {
        "front": _front_format,
        "arch": _arch_format,
        "published config": _config_format,
        "space TOML": _space_format,
        "device TOML": _device_format,
        "training TOML": _train_format,
        "specialising TOML": _specialize_format,
        "journal": _journal_format,
    }
