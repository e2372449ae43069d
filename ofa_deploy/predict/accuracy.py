"""``AccuracyModel``: top-1 of any subnet, as one ONNX graph from population rows to percent.

The graph is the model: what predicts in the process that fitted it is what is saved and loaded
elsewhere.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from ofa_deploy.cost import as_population
from ofa_deploy.errors import FileFormatError, InputError, MismatchError
from ofa_deploy.files import read_bytes, write_bytes
from ofa_deploy.space import Arch, Population, SearchSpace, choices_within

__all__ = ["AccuracyModel", "accuracy_facts", "load_accuracy_model"]

Floats = npt.NDArray[np.float64]
_SCHEMA = "accuracy-model/1"
_LIMIT = 64 * 2**20
_SEAL, _NO_SEAL = "sha256", "0" * 64
_SURE = 1.645  # standard deviations that chance exceeds upwards in one case of twenty
_CHUNK = 1024  # rows a pass: what lies between two layers stays in the second-level cache


class AccuracyModel:
    """Predicts top-1 in percent.

    Attributes:
        margin: half-width of the 90 % interval, in points, from leave-one-out errors.
        rmse: leave-one-out root mean squared error, in points.
        kendall: leave-one-out rank correlation.
        networks: how many measured subnets it was fitted on; 0 for a model from elsewhere, whose
            error, and with it the three above, is unknown and 0.
        source: where it is from, if from elsewhere.
        measured: what it was fitted on: rows and their top-1 in percent; nothing if from elsewhere.
        fitted_space: the space whose rows those are; ``space`` itself unless put ``onto`` another.
    """

    def __init__(
        self, model: onnx.ModelProto, space: SearchSpace, data: bytes | None = None
    ) -> None:
        import onnxruntime as ort

        self.space = self.fitted_space = space
        self._choices: tuple[npt.NDArray[np.int8], ...] | None = None
        facts = _facts(model)
        if facts["fingerprint"] != space.fingerprint:
            raise MismatchError(
                f"the accuracy model was fitted for space {facts['space']} "
                f"({facts['fingerprint']}), not for {space.name} ({space.fingerprint})"
            )
        self.margin = _within(facts, "margin", 0, 100)
        self.rmse = _within(facts, "rmse", 0, 100)
        self.kendall = _within(facts, "kendall", -1, 1)
        self.networks = int(_within(facts, "networks", 0, 2**31))
        self.source = facts.get("source", "")
        self.measured = _measured(facts.get("measured", ""), space)
        self._bytes = data or model.SerializeToString()
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1  # the same answer at any number of threads
        options.log_severity_level = 4  # as ``runtimes`` does
        self._session = ort.InferenceSession(
            self._bytes, options, providers=["CPUExecutionProvider"]
        )

    @classmethod
    def of(cls, model: onnx.ModelProto, space: SearchSpace, facts: Mapping[str, str]) -> Self:
        """A new model of a graph and what is known of it."""
        helper.set_model_props(model, {**facts, _SEAL: _NO_SEAL})
        onnx.checker.check_model(model)
        data = _sealed(model.SerializeToString())
        return cls(onnx.load_model_from_string(data), space, data)

    def predict(self, archs: "Sequence[Arch] | Population") -> Floats:
        """Top-1 of each network in percent, shape (n,).

        Raises:
            FileFormatError: if the graph gives none, as that of a damaged file may.
        """
        population = as_population(self.space, archs)
        if not len(population):
            return np.empty(0)
        if self._choices is not None:
            population = _translated(population, self._choices)
        rows = population.astype(np.float32)
        chunks = (rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK))
        try:
            found = [self._session.run(None, {"population": chunk})[0] for chunk in chunks]
            top1 = np.concatenate(found).astype(np.float64)
        except Exception as error:  # onnxruntime's own exceptions share no public base
            raise FileFormatError(
                f"the accuracy model cannot predict ({type(error).__name__}); make it anew"
            ) from None
        if top1.shape != (len(rows),) or not np.isfinite(top1).all():
            raise FileFormatError("the accuracy model gives no finite top-1; make it anew")
        return top1

    def interval(self, archs: "Sequence[Arch] | Population") -> tuple[Floats, Floats]:
        """(low, high) in percent, each of shape (n,)."""
        predicted = self.predict(archs)
        return predicted - self.margin, predicted + self.margin

    def onto(self, space: SearchSpace) -> Self:
        """The same model for a space with fewer resolutions.

        Raises:
            MismatchError: if that space has choices that this model does not know.
        """
        other = copy(self)
        other._choices = choices_within(space, self.space)
        other.space = space
        return other

    def save(self, path: Path | str) -> Path:
        """Write the model as ONNX."""
        return write_bytes(path, self._bytes)

    @property
    def doubt(self) -> str:
        """What to say where the model is not seen to rank networks, else nothing.

        That is where its rank correlation is what networks without any order would give: Kendall's
        tau of n pairs then has the variance 2 (2n + 5) / 9n (n - 1).
        """
        n = self.networks
        if n < 2:
            return ""
        by_chance = _SURE * math.sqrt(2 * (2 * n + 5) / (9 * n * (n - 1)))
        if self.kendall > by_chance:
            return ""
        return (
            f"predicted top-1 does not rank these networks: rank correlation {self.kendall:.3f} "
            f"from {n} subnets, and chance alone gives up to {by_chance:.3f}; go by measured "
            "top-1, evaluate more subnets, or train longer if all are about as good"
        )

    def __str__(self) -> str:
        if self.source:
            return f"accuracy model imported from {self.source}: error unknown"
        return (
            f"accuracy model from {self.networks} subnets: leave-one-out error {self.rmse:.2f} "
            f"points, rank correlation {self.kendall:.3f}"
        )


def _within(facts: Mapping[str, str], name: str, least: float, most: float) -> float:
    value = float(facts[name])
    if not least <= value <= most:
        raise FileFormatError(
            f"the accuracy model's {name}: expected {least:g} to {most:g}, found {value:g}"
        )
    return value


def _translated(population: Population, choices: Sequence[npt.NDArray[np.int8]]) -> Population:
    """Rows by the choices that the model knows; inactive stays inactive."""
    rows = population.copy()
    for column, known in enumerate(choices):
        if (known != np.arange(len(known))).any():
            own = population[:, column]
            rows[:, column] = np.where(own < 0, own, known[own])
    return rows


def accuracy_facts(
    space: SearchSpace,
    *,
    networks: int = 0,
    margin: float = 0.0,
    rmse: float = 0.0,
    kendall: float = 0.0,
    source: str = "",
    measured: tuple[Population, Floats] | None = None,
) -> dict[str, str]:
    """What an accuracy model's file says of it; see ``AccuracyModel``."""
    return {
        "schema": _SCHEMA,
        "space": space.name,
        "space_definition": json.dumps(space.to_dict()),
        "fingerprint": space.fingerprint,
        "networks": str(networks),
        "margin": repr(margin),
        "rmse": repr(rmse),
        "kendall": repr(kendall),
        "source": source,
        "measured": json.dumps([each.tolist() for each in measured]) if measured else "",
    }


def _sealed(data: bytes) -> bytes:
    """A model's bytes with their SHA-256 in the place that was kept for it."""
    return data.replace(_NO_SEAL.encode(), hashlib.sha256(data).hexdigest().encode(), 1)


def _check_seal(data: bytes, facts: Mapping[str, str]) -> None:
    """See that a file is as it was written; files of before there was a seal pass."""
    if (seal := facts.get(_SEAL)) is None:
        return
    unsealed = data.replace(seal.encode(), _NO_SEAL.encode(), 1)
    if len(seal) != len(_NO_SEAL) or hashlib.sha256(unsealed).hexdigest() != seal:
        raise ValueError("its SHA-256 differs: it was changed or damaged; make it anew")


def _measured(text: str, space: SearchSpace) -> tuple[Population, Floats]:
    if not text:
        return np.empty((0, len(space.genes)), np.int8), np.empty(0)
    rows, top1 = json.loads(text)
    population = as_population(space, np.array(rows, np.int8))
    if len(population) != len(top1):
        raise ValueError(f"{len(population)} networks, but {len(top1)} accuracies")
    return population, np.array(top1, float)


def load_accuracy_model(path: Path | str, space: SearchSpace | None = None) -> AccuracyModel:
    """Read what ``AccuracyModel.save`` wrote.

    Args:
        space: checked against the one in the file; taken from the file when not given.

    Raises:
        FileFormatError: if the file is damaged or not an accuracy model.
        MismatchError: if it was fitted for another space.
    """
    from google.protobuf.message import DecodeError

    from ofa_deploy.runtimes.onnx_file import check_self_contained

    data = read_bytes(path, limit=_LIMIT)
    try:
        model = onnx.load_model_from_string(data)
        facts = _facts(model)
        _check_seal(data, facts)
        check_self_contained(data)
        found = SearchSpace.from_dict(json.loads(facts["space_definition"]))
        loaded = AccuracyModel(model, found if space is None else space, data)
        loaded.predict([loaded.space.smallest, loaded.space.largest])
        return loaded
    except MismatchError as error:
        raise MismatchError(f"{path}: {error}") from None
    except (DecodeError, KeyError, ValueError, InputError) as error:
        raise FileFormatError(f"{path}: not an accuracy model ({error})") from None
    except Exception as error:  # onnxruntime's own exceptions share no public base
        raise FileFormatError(f"{path}: damaged accuracy model ({type(error).__name__})") from None


def _facts(model: onnx.ModelProto) -> dict[str, str]:
    facts = {entry.key: entry.value for entry in model.metadata_props}
    if facts.get("schema") != _SCHEMA:
        raise FileFormatError(f"expected schema {_SCHEMA!r}, found {facts.get('schema')!r}")
    return facts
