"""An engine and what must be known of it before TensorRT may see it.

TensorRT crashes on bytes that are no engine, and on any bytes where there is no GPU. So a plan
travels with a record (``engine.json``): its hash and size, what built it, and for which GPUs.
``unpack`` checks the first, ``check_target`` the second.
"""

import hashlib
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ofa_deploy.checks import problem
from ofa_deploy.errors import DeviceError, FileFormatError
from ofa_deploy.files import digest, read_bytes, read_model, write_bytes, write_model
from ofa_deploy.runtimes.parts import pack_parts, unpack_parts
from ofa_deploy.runtimes.trt.settings import EngineSettings

__all__ = [
    "EngineRecord",
    "check_target",
    "machine",
    "pack",
    "read_plan",
    "record_path",
    "unpack",
    "write_plan",
]

Capability = tuple[int, int]
MAX_BYTES = 2**31
_SCHEMA = "tensorrt-engine/1"
_RECORD, _PLAN = "engine.json", "model.plan"


def machine() -> str:
    """What a plan is bound to beside the GPU, such as ``linux-aarch64``."""
    return f"{platform.system()}-{platform.machine()}".lower()


class EngineRecord(BaseModel):
    """What is known of an engine.

    Engines of one ONNX and one set of settings differ byte by byte from build to build, so
    ``build`` says whether two are the same.

    Attributes:
        runtime, version: what built it.
        sha256, size: of the plan; size in bytes.
        onnx_sha256: of the ONNX, precision included.
        capabilities: of the GPU that built it, or those it was built for.
        gpu: what built it; empty if no GPU took part.
        machine: system and processor that it runs on; empty if any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_: Literal["tensorrt-engine/1"] = Field("tensorrt-engine/1", alias="schema")
    runtime: Literal["tensorrt", "tensorrt-rtx"]
    version: str = Field(pattern=r"^\d+\.\d+[\w.+-]*$", max_length=64)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(gt=0, le=MAX_BYTES)
    onnx_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    precision: Literal["fp32", "fp16", "int8"]
    settings: EngineSettings
    capabilities: tuple[Capability, ...] = Field(min_length=1, max_length=16)
    gpu: str = Field("", max_length=256)
    machine: str = Field("", max_length=64)

    @property
    def build(self) -> str:
        """A digest of what was asked for, 16 hexadecimal digits: the same for equal builds."""
        asked = ("runtime", "version", "onnx_sha256", "settings", "capabilities")
        return digest(self.model_dump(mode="json", include=set(asked)))


def pack(record: EngineRecord, plan: bytes) -> bytes:
    """A record and its plan as one artefact: a zip with both."""
    text = json.dumps(record.model_dump(mode="json", by_alias=True))
    return pack_parts({_RECORD: text.encode(), _PLAN: plan})


def unpack(artefact: bytes) -> tuple[EngineRecord, bytes]:
    """Record and plan of an artefact, once the plan has the hash that the record says.

    Raises:
        FileFormatError: if it is no artefact, or a damaged one.
    """
    try:
        text, plan = unpack_parts(artefact, (_RECORD, _PLAN))
        record = EngineRecord.model_validate_json(text)
    except ValidationError as error:
        raise FileFormatError(f"not an engine of ofa-deploy: {problem(error)}") from None
    except ValueError as error:
        raise FileFormatError(f"not an engine of ofa-deploy: {error}") from None
    _check_plan(record, plan, "the engine")
    return record, plan


def record_path(path: Path | str) -> Path:
    """Where the record of a plan lies: ``NAME.plan.json`` beside ``NAME.plan``."""
    path = Path(path)
    return path.with_name(f"{path.name}.json")


def write_plan(path: Path | str, artefact: bytes) -> EngineRecord:
    """Write an artefact as two files: a plan that TensorRT's own tools read, and its record."""
    record, plan = unpack(artefact)
    write_bytes(path, plan)
    write_model(record_path(path), record)
    return record


def read_plan(path: Path | str) -> bytes:
    """The artefact that ``write_plan`` wrote.

    Raises:
        InputError: if the plan or its record is missing.
        FileFormatError: if they do not belong together.
    """
    record = read_model(record_path(path), EngineRecord, schema=_SCHEMA)
    plan = read_bytes(path, limit=MAX_BYTES)
    _check_plan(record, plan, str(path))
    return pack(record, plan)


def _check_plan(record: EngineRecord, plan: bytes, what: str) -> None:
    found = (len(plan), hashlib.sha256(plan).hexdigest())
    if found != (record.size, record.sha256):
        raise FileFormatError(
            f"{what} is damaged or not the one its record names: expected {record.size:,} bytes, "
            f"SHA-256 {record.sha256[:12]}…, found {found[0]:,} bytes, {found[1][:12]}…; build it "
            "anew"
        )


def check_target(record: EngineRecord, runtime: str, version: str, capability: Capability) -> None:
    """See that an engine is one for this runtime, machine and GPU.

    Raises:
        DeviceError: naming what it was built for.
    """
    found: Sequence[tuple[str, str, str, bool]] = (
        ("runtime", record.runtime, runtime, record.runtime == runtime),
        ("version", record.version, version, _version_fits(record, version)),
        ("machine", record.machine, machine(), record.machine in ("", machine())),
        (
            "compute capability",
            ", ".join(f"{major}.{minor}" for major, minor in record.capabilities),
            f"{capability[0]}.{capability[1]}",
            _capability_fits(record, capability),
        ),
    )
    for what, built, here, fits in found:
        if not fits:
            raise DeviceError(
                f"{runtime}: the engine was built for {what} {built}, this is {here}; build it anew"
            )


def _version_fits(record: EngineRecord, version: str) -> bool:
    if record.version == version:
        return True
    built, here = (_numbers(each) for each in (record.version, version))
    return record.settings.version_compatible and built <= here


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def _capability_fits(record: EngineRecord, capability: Capability) -> bool:
    if record.runtime == "tensorrt" and record.settings.hardware == "ampere+":
        return capability >= (8, 0)
    return capability in record.capabilities
