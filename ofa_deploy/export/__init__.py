"""Bundles: files that run on the target, checked before they leave."""

from ofa_deploy.export.bundle import Gate, Manifest, check_out, export_subnet, subnet_graph
from ofa_deploy.export.examiner import DeviceExaminer

__all__ = ["DeviceExaminer", "Gate", "Manifest", "check_out", "export_subnet", "subnet_graph"]
