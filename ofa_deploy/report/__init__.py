"""Reports: Pareto fronts as points, tables, pictures, a page, and compared with each other.

::

    series.py, panels.py       fronts as points, and which of them stand on common axes
    external.py                points from elsewhere
    compare.py, resample.py    volume, dominance, gains, and how sure they are
    agreement.py               measured against predicted
    changes.py                 two runs of the same thing
    few.py                     which networks stand for a front
    table.py                   their networks as rows and text
    content.py                 all of that for one report
    style.py, picture.py       PNG and SVG; curves.py is of training
    network.py                 a network as a drawing
    store.py, payload.py       what the page is given; html.py writes it, assets/ is its script
"""

from ofa_deploy.report.changes import Changes, changes
from ofa_deploy.report.compare import Comparison, FrontFigures, Gain, Offer, compare
from ofa_deploy.report.content import Report
from ofa_deploy.report.curves import write_curves
from ofa_deploy.report.external import ExternalPoint, read_external
from ofa_deploy.report.few import MOST
from ofa_deploy.report.html import write_html
from ofa_deploy.report.network import BlockShare, network_svg, shares
from ofa_deploy.report.panels import panels_of
from ofa_deploy.report.picture import write_png, write_svg
from ofa_deploy.report.series import Context, Point, Series
from ofa_deploy.report.table import (
    Row,
    csv_text,
    few_rows,
    front_rows,
    front_table,
    rich_table,
)

__all__ = [
    "MOST",
    "BlockShare",
    "Changes",
    "Comparison",
    "Context",
    "ExternalPoint",
    "FrontFigures",
    "Gain",
    "Offer",
    "Point",
    "Report",
    "Row",
    "Series",
    "changes",
    "compare",
    "csv_text",
    "few_rows",
    "front_rows",
    "front_table",
    "network_svg",
    "panels_of",
    "read_external",
    "rich_table",
    "shares",
    "write_curves",
    "write_html",
    "write_png",
    "write_svg",
]
