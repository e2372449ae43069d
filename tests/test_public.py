"""The public face: what is promised can be imported, and nothing else is."""

import ast
import pkgutil
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import ofa_deploy

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTED = {
    "Arch",
    "Candidate",
    "LatencyTable",
    "OfaDeployError",
    "ParetoFront",
    "SearchSpace",
    "Supernet",
    "fit_accuracy",
    "fit_latency",
    "get_space",
    "import_accuracy_model",
    "import_tables",
    "latency_model",
    "load_accuracy_model",
    "load_published_weights",
    "recalibrate",
    "search",
}
PACKAGES = sorted(
    module.name
    for module in pkgutil.walk_packages(ofa_deploy.__path__, "ofa_deploy.")
    if module.ispkg
)
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(ofa_deploy.__path__, "ofa_deploy.")
    if not module.ispkg and not module.name.endswith("__main__")
)


def run(code: str) -> None:
    """Run in a fresh interpreter, without complaint."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr


def test_all_is_what_is_documented() -> None:
    assert set(ofa_deploy.__all__) == DOCUMENTED
    assert ofa_deploy.__all__ == sorted(ofa_deploy.__all__)


def test_readme_uses_public_names_only() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    used = {name for block in blocks for name in re.findall(r"\bofa\.([A-Za-z_]\w*)", block)}
    assert used, "expected a Python example that imports ofa_deploy as ofa"
    assert used <= {*ofa_deploy.__all__, "__version__"}


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_name_is_its_homes(name: str) -> None:
    (home,) = [home for home, names in ofa_deploy._HOMES.items() if name in names]
    value = getattr(ofa_deploy, name)
    assert name in import_module(home).__all__
    if name != "search":  # the package of that name may stand for its function
        assert value is getattr(import_module(home), name)
    assert callable(value)
    assert value.__doc__


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(ofa_deploy.__file__).read_text(encoding="utf-8"))
    guarded = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        (node.module, alias.name)
        for block in guarded
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {(home, name) for home, names in ofa_deploy._HOMES.items() for name in names}


def test_dir_lists_the_public_names() -> None:
    assert set(dir(ofa_deploy)) == DOCUMENTED | {"__version__"}


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'ofa_deploy' has no attribute 'serach'"):
        ofa_deploy.serach  # noqa: B018


def test_star_import_brings_exactly_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from ofa_deploy import *", names)
    assert names.keys() - {"__builtins__"} == DOCUMENTED


@pytest.mark.parametrize("package", PACKAGES)
def test_package_exports_exist(package: str) -> None:
    module = import_module(package)
    if not hasattr(module, "__all__"):
        assert package == "ofa_deploy.cli"
        return
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None, name


@pytest.mark.parametrize("module", MODULES)
def test_module_exports_exist(module: str) -> None:
    loaded = import_module(module)
    for name in getattr(loaded, "__all__", ()):
        assert hasattr(loaded, name), name


@pytest.mark.parametrize("package", PACKAGES)
def test_package_exports_what_its_modules_export(package: str) -> None:
    """A name in a package's ``__all__`` is in the ``__all__`` of the module that defines it."""
    module = import_module(package)
    for name in getattr(module, "__all__", ()):
        home = getattr(getattr(module, name), "__module__", None)
        if isinstance(home, str) and home.startswith(f"{package}."):
            assert name in import_module(home).__all__, f"{home}.{name}"


USE = """
space = ofa_deploy.get_space("mbv3-nano-32")

class Top1:
    def predict(self, archs):
        return archs.sum(1).astype(float)

def found():
    front = ofa_deploy.search(space, accuracy=Top1(), population=8, generations=1)
    assert isinstance(front, ofa_deploy.ParetoFront), front
    return front
"""


IMPORT = "import ofa_deploy.search.evolution"


@pytest.mark.parametrize(
    "lines",
    [(USE, "found()", IMPORT, "found()"), (IMPORT, USE, "found()")],
    ids=["used before and after", "imported first"],
)
def test_search_is_callable_whatever_was_imported(lines: tuple[str, ...]) -> None:
    run("\n".join(("import ofa_deploy", *lines)))


def test_both_searches_are_the_same() -> None:
    run(
        f"import ofa_deploy\n{USE}\none = found()\n"
        "from ofa_deploy.search.evolution import search\n"
        "assert search(space, accuracy=Top1(), population=8, generations=1) == one"
    )


def test_search_package_is_reachable_after_the_function_was_used() -> None:
    run(
        "import ofa_deploy\n"
        "ofa_deploy.search\n"
        "from ofa_deploy.search import verify\n"
        "verify.search_verified\n"
        "import ofa_deploy.search.evolution as evolution\n"
        "evolution.search\n"
        "import ofa_deploy.search.constraints\n"
        "ofa_deploy.search.constraints.parse_constraint\n"
        "ofa_deploy.search.parse_constraint\n"
        "callable(ofa_deploy.search) or exit('no longer callable')"
    )


def test_version_is_the_packages() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{ofa_deploy.__version__}"' in text
