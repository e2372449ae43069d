"""The models of a search, from an accuracy model and latency tables, on the space they share."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ofa_deploy.errors import InputError, UnknownNameError
from ofa_deploy.hardware import LatencyTable, table_space
from ofa_deploy.predict import AccuracyModel, LatencyModel, energy_model, latency_model
from ofa_deploy.search.constraints import Constraint, GeneConstraint, split_metric
from ofa_deploy.space import SearchSpace, common_space

__all__ = [
    "Models",
    "for_device",
    "latency_metrics",
    "metric_for_device",
    "metric_on_tables",
    "models_of",
    "on_tables",
    "shared_space",
]


@dataclass(frozen=True)
class Models:
    """What a search asks.

    Attributes:
        space: of the resolutions that accuracy and all tables know.
        latency: by device; the one there is, where there is one.
        metrics: percentiles and energy, as constraints and objectives name them.
        dropped: resolutions that some of them do not know.
    """

    space: SearchSpace
    accuracy: AccuracyModel
    latency: LatencyModel | Mapping[str, LatencyModel]
    metrics: Mapping[str, LatencyModel]
    dropped: tuple[int, ...]

    def latency_on(self, device: str) -> LatencyModel:
        """The latency model of one of its devices."""
        return self.latency[device] if isinstance(self.latency, Mapping) else self.latency

    def whole(self, table: LatencyTable) -> SearchSpace:
        """The space that one of its tables was made for."""
        return _own_space(table, self.space)


def shared_space(space: SearchSpace, tables: Sequence[LatencyTable]) -> SearchSpace:
    """The space of the resolutions that ``space`` has and all tables know.

    Raises:
        MismatchError: if they differ in more than resolutions, or share none.
    """
    return common_space([space, *(_own_space(table, space) for table in tables)])


def models_of(
    accuracy: AccuracyModel, tables: Sequence[LatencyTable], wanted: Iterable[str] = ()
) -> Models:
    """Models of accuracy and of every table's device.

    Args:
        wanted: metrics that constraints and objectives name, as ``on_tables`` gives them.

    Raises:
        InputError: if there is no table, two are of one device, or a table lacks what is wanted.
        MismatchError: if they are of spaces that differ in more than resolutions.
    """
    if not tables:
        raise InputError("expected at least one latency table")
    space = shared_space(accuracy.space, tables)
    by_device = _by_device(tables)
    latency = {device: latency_model(space, table) for device, table in by_device.items()}
    spaces = [accuracy.space, *(_own_space(table, space) for table in tables)]
    known = {r for each in spaces for r in each.resolutions}
    return Models(
        space,
        accuracy.onto(space),
        latency if len(tables) > 1 else next(iter(latency.values())),
        _others(space, by_device, wanted),
        tuple(sorted(known - set(space.resolutions))),
    )


def latency_metrics(
    space: SearchSpace, tables: Sequence[LatencyTable], wanted: Iterable[str] = ()
) -> dict[str, LatencyModel]:
    """Models of every table's latency, and of what else is wanted, by metric name."""
    by_device = _by_device(tables)
    latency = {
        _named("latency", device, "") if len(tables) > 1 else "latency": latency_model(space, table)
        for device, table in by_device.items()
    }
    return {**latency, **_others(space, by_device, wanted)}


def _by_device(tables: Sequence[LatencyTable]) -> dict[str, LatencyTable]:
    devices = [table.conditions.device for table in tables]
    if twice := {device for device in devices if devices.count(device) > 1}:
        raise InputError(
            f"expected one latency table a device, found several of {', '.join(sorted(twice))}"
        )
    return dict(zip(devices, tables, strict=True))


def _own_space(table: LatencyTable, like: SearchSpace) -> SearchSpace:
    return like if table.fingerprint == like.fingerprint else table_space(table, like)


def _others(
    space: SearchSpace, tables: Mapping[str, LatencyTable], wanted: Iterable[str]
) -> dict[str, LatencyModel]:
    """Percentiles and energy, of one device or, where none is named, of each."""
    found = {}
    for metric in wanted:
        base, named, percentile = split_metric(metric)
        if base not in ("latency", "energy") or (base == "latency" and not percentile):
            continue
        for device, table in tables.items():
            if named in ("", device):
                name = _named(base, device, percentile) if len(tables) > 1 else metric
                found[name] = (
                    energy_model(space, table)
                    if base == "energy"
                    else latency_model(space, table, percentile)
                )
    return found


def _named(base: str, device: str, percentile: str) -> str:
    return _unnamed(f"{base}[{device}]", percentile)


def on_tables(
    constraints: Sequence[Constraint | GeneConstraint], tables: Sequence[LatencyTable]
) -> tuple[Constraint | GeneConstraint, ...]:
    """Constraints in terms of the tables there are, as ``metric_on_tables`` says.

    Raises:
        UnknownNameError: if one names a device of which there is no table.
    """
    return tuple(
        replace(c, metric=metric_on_tables(c.metric, tables)) if isinstance(c, Constraint) else c
        for c in constraints
    )


def metric_on_tables(metric: str, tables: Sequence[LatencyTable]) -> str:
    """A metric in terms of the tables there are: where all are of one device it is not named.

    Raises:
        UnknownNameError: if it names a device of which there is no table.
    """
    devices = dict.fromkeys(table.conditions.device for table in tables)
    base, named, percentile = split_metric(metric)
    if named and named not in devices:
        raise UnknownNameError("device", named, devices, hint="no table is of it")
    if len(devices) > 1 or not named:
        return metric
    return _unnamed(base, percentile)


def for_device(constraint: Constraint, device: str) -> Constraint | None:
    """A constraint as it is for one device alone; None if it speaks of another."""
    metric = metric_for_device(constraint.metric, device)
    return None if metric is None else replace(constraint, metric=metric)


def metric_for_device(metric: str, device: str) -> str | None:
    """A metric as it is called where there is one device alone; None if it is another's."""
    base, named, percentile = split_metric(metric)
    return _unnamed(base, percentile) if named in ("", device) else None


def _unnamed(base: str, percentile: str) -> str:
    return base + (f".{percentile}" if percentile else "")
