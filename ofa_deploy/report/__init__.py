"""Reports: Pareto fronts as points, tables, pictures, a page, and compared with each other."""

from ofa_deploy.report.compare import Comparison, FrontFigures, Offer, compare
from ofa_deploy.report.curves import write_curves
from ofa_deploy.report.html import write_html
from ofa_deploy.report.png import write_png
from ofa_deploy.report.series import Point, Series
from ofa_deploy.report.table import (
    Row,
    TextTable,
    csv_text,
    front_rows,
    front_table,
    rich_table,
)

__all__ = [
    "Comparison",
    "FrontFigures",
    "Offer",
    "Point",
    "Row",
    "Series",
    "TextTable",
    "compare",
    "csv_text",
    "front_rows",
    "front_table",
    "rich_table",
    "write_curves",
    "write_html",
    "write_png",
]
