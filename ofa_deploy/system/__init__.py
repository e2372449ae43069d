"""Processes, threads and packages of the Python that runs this."""

from ofa_deploy.system.blas import one_blas_thread
from ofa_deploy.system.optional import optional_import
from ofa_deploy.system.processes import (
    deaf_children,
    end_with_parent,
    module_command,
    module_environment,
    submit,
)

__all__ = [
    "deaf_children",
    "end_with_parent",
    "module_command",
    "module_environment",
    "one_blas_thread",
    "optional_import",
    "submit",
]
