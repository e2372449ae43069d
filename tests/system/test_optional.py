"""Packages that only some need are named with what brings them."""

import json

import pytest

from ofa_deploy.errors import MissingDependencyError
from ofa_deploy.system import optional_import


def test_optional_import_names_the_extra() -> None:
    assert optional_import("json", extra="nothing") is json
    with pytest.raises(MissingDependencyError, match=r"pip install 'ofa-deploy\[openvino\]'"):
        optional_import("ofa_deploy_no_such_package", extra="openvino")
