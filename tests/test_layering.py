"""The house's layers, what each may load, and what no file may contain."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "ofa_deploy"
SOURCES = sorted(PACKAGE.rglob("*.py"))

# What stands directly in the package, by layer. A module imports from lower layers only.
LAYERS = {
    name: layer
    for layer, names in enumerate(
        (
            ("errors", "files", "terminal", "checks", "system"),
            ("space", "pareto", "data"),
            ("cost", "graph", "hardware", "runtimes"),
            ("supernet", "profiling", "predict"),
            ("train", "search"),
            ("specialize", "export", "report"),
            ("cli", "__init__", "__main__"),
        )
    )
    for name in names
}
# The only imports within a layer: (who imports, what is imported). Never both ways round.
SIDEWAYS = {
    ("files", "checks"),
    ("files", "errors"),
    ("system", "errors"),
    ("pareto", "space"),
    ("runtimes", "graph"),
    ("runtimes", "hardware"),
    ("supernet", "predict"),
    ("__main__", "cli"),
}
TORCH_FREE = (
    "errors",
    "files",
    "terminal",
    "checks",
    "system",
    "space",
    "pareto",
    "data",
    "cost",
    "graph",
    "hardware",
    "runtimes",
    "profiling",
    "search",
    "predict",
)
SLOW_TO_IMPORT = {"torch", "pandas", "sklearn", "matplotlib", "onnx"}


def _imported(tree: ast.Module, package: list[str]) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import, those inside functions and by ``import_module`` too.

    Args:
        tree: a module.
        package: the parts of the package that the module is in, for relative imports.
    """
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = package[: len(package) - level + 1] if level else []
                prefix = ".".join([*base, module] if module else base)
                yield from ((node.lineno, f"{prefix}.{alias.name}") for alias in names)
            case ast.Call(
                func=ast.Name(id="import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name


def _place(dotted: str) -> str | None:
    """Which entry of ``LAYERS`` a dotted name belongs to; None for other packages' names."""
    first, *rest = dotted.split(".")
    if first != "ofa_deploy" or rest == ["__version__"]:
        return None
    if len(rest) == 1 and rest[0] not in LAYERS:
        return "__init__"  # such as: from ofa_deploy import Supernet
    return rest[0] if rest else "__init__"


def violations(package: Path) -> list[str]:
    """Each forbidden import in ``package``, as ``file:line: why``."""
    found = []
    for path in sorted(package.rglob("*.py")):
        relative = path.relative_to(package)
        here = relative.parts[0].removesuffix(".py")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for line, dotted in _imported(tree, [package.name, *relative.parts[:-1]]):
            there = _place(dotted)
            if there is None or there == here or (here, there) in SIDEWAYS:
                continue
            if why := _objection(here, there):
                found.append(f"{package.name}/{relative.as_posix()}:{line}: {why}")
    return found


def _objection(here: str, there: str) -> str | None:
    if missing := [name for name in (here, there) if name not in LAYERS]:
        return f"{missing[0]!r} has no layer; give it one in LAYERS"
    if LAYERS[there] > LAYERS[here]:
        return f"{here} (layer {LAYERS[here]}) imports {there} (layer {LAYERS[there]}), upward"
    if LAYERS[there] == LAYERS[here]:
        return f"{here} imports {there} of the same layer; such a pair must stand in SIDEWAYS"
    return None


def test_imports_go_downward() -> None:
    assert SOURCES
    assert not (found := violations(PACKAGE)), "\n" + "\n".join(found)


def test_every_module_has_a_layer() -> None:
    top = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in SOURCES}
    assert top <= LAYERS.keys()


def test_sideways_pairs_are_within_a_layer_and_one_way() -> None:
    for here, there in SIDEWAYS:
        assert LAYERS[here] == LAYERS[there]
        assert (there, here) not in SIDEWAYS


@pytest.mark.parametrize(
    ("file", "source", "message"),
    [
        ("space/a.py", "import ofa_deploy.cost", "space/a.py:1: space (layer 1) imports cost"),
        ("space/a.py", "\nfrom ofa_deploy import train", "space/a.py:2: space (layer 1) imports"),
        ("space/a.py", "from ofa_deploy.cost.b import c", "upward"),
        ("space/a.py", "from ..search import evolve", "imports search (layer 4), upward"),
        ("space/a.py", "from .. import cli", "imports cli (layer 6), upward"),
        ("space/deep/a.py", "from ...cost import x", "imports cost (layer 2), upward"),
        ("errors.py", "from .space import Arch", "imports space (layer 1), upward"),
        ("cost/a.py", "def f():\n    import ofa_deploy.train.loop", "cost/a.py:2: cost (layer 2)"),
        ("cost/a.py", "import importlib as i\ni.import_module('ofa_deploy.cli')", "a.py:2:"),
        ("search/a.py", "import ofa_deploy", "imports __init__ (layer 6), upward"),
        ("search/a.py", "from ofa_deploy import Supernet", "imports __init__ (layer 6), upward"),
        ("graph/a.py", "from ofa_deploy.runtimes import r", "must stand in SIDEWAYS"),
        ("new/a.py", "from ofa_deploy.space import s", "'new' has no layer"),
        ("cli/a.py", "from ofa_deploy.new import s", "'new' has no layer"),
    ],
)
def test_a_forbidden_import_is_named(tmp_path: Path, file: str, source: str, message: str) -> None:
    path = tmp_path / "ofa_deploy" / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    (found,) = violations(tmp_path / "ofa_deploy")
    assert message in found


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("cost/a.py", "from ofa_deploy.space import Arch\nfrom ofa_deploy.cost.b import c"),
        ("cost/deep/a.py", "from . import b\nfrom .. import c\nfrom ...space import Arch"),
        ("cost/a.py", "from ofa_deploy import __version__, space"),
        ("runtimes/a.py", "from ofa_deploy.graph import build_onnx"),
        ("cli/a.py", "import numpy, torch.nn\nfrom ofa_deploy_other import x"),
    ],
)
def test_an_allowed_import_is_let_be(tmp_path: Path, file: str, source: str) -> None:
    path = tmp_path / "ofa_deploy" / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    assert violations(tmp_path / "ofa_deploy") == []


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _loaded_by(statement: str) -> set[str]:
    """The top-level packages that a fresh process has loaded after ``statement``."""
    tail = "import json, sys; print(json.dumps(list(sys.modules)))"
    result = _run("-c", f"{statement}\n{tail}")
    assert result.returncode == 0, result.stderr
    return {name.partition(".")[0] for name in json.loads(result.stdout)}


def _exists(name: str) -> bool:
    return (PACKAGE / f"{name}.py").exists() or (PACKAGE / name / "__init__.py").exists()


@pytest.mark.parametrize(
    "module", ["ofa_deploy", *(f"ofa_deploy.{name}" for name in TORCH_FREE if _exists(name))]
)
def test_importing_leaves_torch_unloaded(module: str) -> None:
    loaded = _loaded_by(f"import {module}")
    assert "ofa_deploy" in loaded
    assert "torch" not in loaded


def test_what_is_loaded_is_seen() -> None:
    assert "torch" in _loaded_by("import torch")


def test_command_line_starts_light() -> None:
    assert not _loaded_by("import ofa_deploy.cli.main") & SLOW_TO_IMPORT


def test_help_runs_light() -> None:
    result = _run("-X", "importtime", "-m", "ofa_deploy", "--help")
    assert result.returncode == 0, result.stderr
    assert "Usage" in result.stdout
    lines = [line for line in result.stderr.splitlines() if line.startswith("import time:")]
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}
    assert "ofa_deploy" in loaded
    assert not loaded & SLOW_TO_IMPORT


UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {"os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load"}
UNSAFE_METHODS = {"read_pickle", "to_pickle"}
# Keyword, and the one value that may be given for it.
SAFE_VALUE = {"shell": False, "weights_only": True, "allow_pickle": False}


def _unsafe_call(call: ast.Call) -> str | None:
    name = ast.unparse(call.func)
    for keyword in call.keywords:
        safe = SAFE_VALUE.get(keyword.arg or "")
        if safe is not None and ast.unparse(keyword.value) != str(safe):
            return f"{keyword.arg}={ast.unparse(keyword.value)}"
    if name in UNSAFE_CALLS or name.rpartition(".")[2] in UNSAFE_METHODS:
        return name
    if name == "torch.load" and "weights_only" not in {k.arg for k in call.keywords}:
        return "torch.load without weights_only=True"
    return None


def unsafe(source: str) -> list[str]:
    """What in ``source`` may run code that a file or a user brought, as ``line: what``."""
    tree = ast.parse(source)
    found = [
        f"{line}: {dotted}"
        for line, dotted in _imported(tree, [])
        if dotted.partition(".")[0] in UNSAFE_MODULES
    ]
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return found + [f"{call.lineno}: {why}" for call in calls if (why := _unsafe_call(call))]


def test_nothing_unsafe_in_the_package() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{what}"
        for path in SOURCES
        for what in unsafe(path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "def f():\n    import joblib",
        "import importlib\nimportlib.import_module('pickle')",
        "subprocess.run('ls', shell=True)",
        "subprocess.run('ls', shell=chosen)",
        "torch.load(path, weights_only=False)",
        "torch.load(path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text)",
        "os.system('ls')",
        "frame.to_pickle(path)",
    ],
)
def test_the_unsafe_is_found(source: str) -> None:
    assert len(unsafe(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        '"""Nothing is a pickle; shell=True is never used."""',
        "torch.load(path, weights_only=True)",
        "np.load(path, allow_pickle=False)",
        "yaml.safe_load(text)",
        "subprocess.run(['ls'], shell=False)",
        "onnx.load(path)",
    ],
)
def test_the_safe_is_let_be(source: str) -> None:
    assert unsafe(source) == []
