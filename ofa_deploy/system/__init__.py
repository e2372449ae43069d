"""Processes, threads and packages of the Python that runs this."""

from ofa_deploy.system.blas import one_blas_thread
from ofa_deploy.system.optional import optional_import
from ofa_deploy.system.processes import (
    end_with_parent,
    interrupts_held,
    module_command,
    module_environment,
)

__all__ = [
    "end_with_parent",
    "interrupts_held",
    "module_command",
    "module_environment",
    "one_blas_thread",
    "optional_import",
]
