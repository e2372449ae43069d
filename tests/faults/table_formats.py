"""Formats of tables: latency tables, those of other programs, and networks that others measured."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults import binary_mutations, mutations
from tests.faults.formats import SPACE, Format, dumped, generator, json_format

__all__ = ["block_ms", "table_formats"]


def block_ms(block: Any) -> float:
    """A made-up time of a block."""
    return float(block.macs / 2e6 + 0.003)


def _table() -> Any:
    from ofa_deploy.hardware import NetworkEntry
    from tests.tables import measurement, table_of

    archs = SPACE.decode(SPACE.sample(generator(), 5))
    networks = tuple(
        NetworkEntry(arch=arch.to_dict(), role=role, latency=measurement(0.2 + i / 50))
        for i, arch in enumerate(archs)
        for role in (("calibration",) if i else ("calibration", "holdout"))
    )
    return table_of(SPACE, block_ms, networks=networks, empty_ms=0.001)


def _read_table(folder: Path) -> Any:
    from ofa_deploy.errors import MismatchError
    from ofa_deploy.hardware import LatencyTable
    from ofa_deploy.predict import latency_model

    path = folder / "table.json"
    table = LatencyTable.load(path)
    table.to_frame()
    try:
        model = latency_model(SPACE, table)
        finite = model.predict([SPACE.largest])
        assert 0 < finite[0] < float("inf"), "a latency that is none"
    except MismatchError as error:  # says the table's space, not its file
        raise MismatchError(f"{path}: {error}") from None
    return table


def _table_format() -> Format:
    value = _table().model_dump(mode="json", by_alias=True)
    return json_format("latency table", "table.json", value, _read_table, dumped)


def _lookup() -> dict[str, Any]:
    from ofa_deploy.hardware.ofa_yaml import OFA_YAML

    found: dict[str, Any] = {}
    for block in SPACE.with_resolutions(16).blocks():
        for name in OFA_YAML.names(block)[0]:
            found[name] = {"count": 50, "mean": round(block_ms(block), 5), "std": 0.001}
    return found


def _imported(form: str, folder: Path, name: str) -> Any:
    from ofa_deploy.hardware.table_import import FORMS, import_tables

    path = folder / name
    figures = FORMS[form].read(path).figures
    table = import_tables(form, path, space=SPACE, device="note", resolutions=[16])
    return figures, table


def _agrees_yaml(folder: Path, value: Any) -> str | None:
    import yaml

    figures, _ = value
    said = yaml.load((folder / "16_lookup.yaml").read_text(), Loader=yaml.CSafeLoader)
    if said.keys() != figures.keys():
        return f"keys {sorted(map(str, said.keys() ^ figures.keys()))[0]!r}"
    for key, entry in said.items():
        # YAML 1.1 takes 1e5 for a word, and a reader of numbers for a number.
        if float(entry["mean"]) != figures[key].mean or entry.get("count", 1) != figures[key].count:
            return f"{key}: {entry} was read as {figures[key]}"
    return None


def _yaml_format() -> Format:
    value = _lookup()
    text = "".join(
        f"{key}:\n" + "".join(f"  {field}: {figure}\n" for field, figure in entry.items())
        for key, entry in value.items()
    )
    return Format(
        "OFA YAML",
        {"16_lookup.yaml": text.encode()},
        {
            "tree": lambda _, draw: mutations.yaml_text(value, draw),
            "again": lambda _, draw: mutations.yaml_text(value, draw),
            "bytes": binary_mutations.binary,
        },
        lambda folder: _imported("ofa-yaml", folder, "16_lookup.yaml"),
        _agrees_yaml,
    )


def _agrees_csv(folder: Path, value: Any) -> str | None:
    figures, _ = value
    text = (folder / "table.csv").read_bytes().decode("utf-8-sig")
    rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    header = [cell.strip() for cell in rows[0]]
    said = {}
    for row in rows[1:]:
        cells = {name: cell.strip() for name, cell in zip(header, row, strict=True)}
        said[cells["block"]] = (float(cells["ms"]), float(cells.get("spread") or 0))
    if len(said) != len(rows) - 1:
        return "a row stands twice"
    got = {key: (figure.mean, figure.spread) for key, figure in figures.items()}
    return None if said == got else "other figures were read"


def _csv_format() -> Format:
    from ofa_deploy.hardware import table_csv
    from tests.tables import table_of

    text = table_csv(table_of(SPACE.with_resolutions(16), block_ms))
    return Format(
        "CSV table",
        {"table.csv": text.encode()},
        {
            "cells": lambda _, draw: mutations.csv_text(text, draw),
            "again": lambda _, draw: mutations.csv_text(text, draw),
            "bytes": binary_mutations.binary,
        },
        lambda folder: _imported("csv", folder, "table.csv"),
        _agrees_csv,
    )


def _external_format() -> Format:
    """Networks that others measured, for a report."""
    from ofa_deploy.report.external import read_external

    text = "name,latency_ms,accuracy,device\n" + "".join(
        f"net {i},{0.2 + i / 10},{60.5 + i},bench\n" for i in range(5)
    )

    def agrees(folder: Path, points: Any) -> str | None:
        said = (folder / "others.csv").read_bytes().decode("utf-8-sig")
        rows = [row for row in csv.reader(io.StringIO(said, newline=""), strict=True) if row]
        cells = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
        got = [(p.name, p.latency, p.top1, p.device) for p in points]
        wanted = [
            (
                row["name"].strip(),
                float(row["latency_ms"]),
                float(row["accuracy"]),
                row.get("device", "").strip(),
            )
            for row in cells
        ]
        return None if got == wanted else "other networks were read"

    return Format(
        "external CSV",
        {"others.csv": text.encode()},
        {
            "cells": lambda _, draw: mutations.csv_text(text, draw),
            "again": lambda _, draw: mutations.csv_text(text, draw),
            "bytes": binary_mutations.binary,
        },
        lambda folder: read_external(folder / "others.csv"),
        agrees,
    )


def table_formats() -> dict[str, Callable[[], Format]]:
    """By name, made when asked for."""
    return {
        "OFA YAML": _yaml_format,
        "CSV table": _csv_format,
        "external CSV": _external_format,
        "latency table": _table_format,
    }
