"""The one file that is sent: old Pythons read it, it needs little, and says what its parts say."""

import ast
import re
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy import profiling
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.profiling.remote import bundle
from ofa_deploy.profiling.remote.bundle import STARTER, agent_source, opening

# What Python 3.8 has not, by how it is reached.
NEWER_METHODS = {"removeprefix", "removesuffix", "is_relative_to", "with_stem", "bit_count"}
NEWER_NAMES = {"aiter", "anext", "ExceptionGroup", "BaseExceptionGroup", "EncodingWarning"}
NEWER_IMPORTS = {
    "functools": {"cache"},
    "itertools": {"pairwise", "batched"},
    "typing": {"Self", "TypeAlias", "Annotated", "ParamSpec", "assert_never", "NotRequired"},
    "datetime": {"UTC"},
    "contextlib": {"chdir", "aclosing"},
    "dataclasses": {"KW_ONLY"},
    "enum": {"StrEnum"},
}
NEWER_MODULES = {"tomllib", "zoneinfo", "graphlib"}
NEWER_KEYWORDS = {"zip": {"strict"}, "dataclass": {"kw_only", "slots"}}
PLAIN_TYPES = {"tuple", "list", "dict", "set", "frozenset", "type", "Callable", "Iterator"} | {
    "Iterable",
    "Mapping",
    "Sequence",
    "OrderedDict",
    "Popen",
}


def without_annotations(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes that run; annotations do not, once they are postponed."""
    yield tree
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns"):
            continue
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, ast.AST):
                yield from without_annotations(each)


def too_new(source: str) -> list[str]:
    """What in a file Python 3.8 would stumble over, as ``line: what``; syntax is refused."""
    tree = ast.parse(source, feature_version=(3, 8))
    found: list[tuple[int, str]] = []
    for node in without_annotations(tree):
        match node:
            case ast.Call(func=ast.Name(id=name), keywords=keywords):
                newer = NEWER_KEYWORDS.get(name, set()) & {str(k.arg) for k in keywords}
                found += [(node.lineno, f"{name}({each}=)") for each in newer]
            case ast.Attribute(attr=name) if name in NEWER_METHODS:
                found.append((node.lineno, name))
            case ast.Name(id=name) if name in NEWER_NAMES:
                found.append((node.lineno, name))
            case ast.ImportFrom(module=str(module), names=names):
                newer = NEWER_IMPORTS.get(module, set()) & {alias.name for alias in names}
                newer |= {module} & NEWER_MODULES
                found += [(node.lineno, f"{module}.{each}") for each in newer]
            case ast.Import(names=names):
                newer = {alias.name for alias in names} & NEWER_MODULES
                found += [(node.lineno, each) for each in newer]
            case ast.Subscript(value=ast.Name(id=name)) if name in PLAIN_TYPES:
                found.append((node.lineno, f"{name}[]"))
            case ast.BinOp(op=ast.BitOr(), left=left, right=right):
                if any(isinstance(side, (ast.Dict, ast.DictComp)) for side in (left, right)):
                    found.append((node.lineno, "dict | dict"))
    return [f"{line}: {what}" for line, what in found]


def test_python_3_8_can_read_it() -> None:
    assert too_new(agent_source()) == []


@pytest.mark.parametrize(
    "source",
    [
        "zip(a, b, strict=True)",
        "'a'.removeprefix('b')",
        "from functools import cache",
        "from typing import Self",
        "import tomllib",
        "x = dict[str, int]",
        "{'a': 1} | b",
        "@dataclass(kw_only=True)\nclass A: ...",
    ],
)
def test_what_python_3_8_has_not_is_found(source: str) -> None:
    assert len(too_new(source)) == 1


@pytest.mark.parametrize(
    "source",
    ["with (\n    a as b,\n    c as d,\n):\n    pass", "match a:\n    case 1:\n        pass"],
)
def test_syntax_that_python_3_8_has_not_is_refused(source: str) -> None:
    with pytest.raises(SyntaxError):
        too_new(source)


def test_what_python_3_8_has_is_let_be() -> None:
    text = (
        "def f(x: dict[str, int] | None) -> tuple[int, ...]:\n    y: list[int] = []\n    z = x[1]\n"
    )
    assert too_new(text) == []


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, ast.unparse(node)
            names.add(str(node.module).split(".")[0])
    return names


def test_it_imports_the_standard_library_and_numpy() -> None:
    """And by chance, where they are: engines by their names, and these two."""
    others = imported(ast.parse(agent_source())) - set(sys.stdlib_module_names)
    assert others <= {"numpy", "pynvml", "psutil"}


def test_no_clock_that_can_be_set_is_asked() -> None:
    """Or a jump of the device's clock would be measured."""
    asked = {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(ast.parse(agent_source()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    assert asked >= {"time.perf_counter_ns", "time.monotonic"}
    assert not asked & SETTABLE


SETTABLE = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "time.localtime"}
DATED = "space_table.py"  # a table says when it was made


@pytest.mark.parametrize(
    "path", sorted(Path(profiling.__file__).parent.rglob("*.py")), ids=lambda path: path.name
)
def test_no_clock_that_can_be_set_is_asked_here(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    asked = {name for name in SETTABLE if re.search(rf"\b{re.escape(name)}\(", text)}
    assert asked == ({"datetime.now"} if path.name == DATED else set())


def constants(tree: ast.Module) -> list[object]:
    """All that a module writes down, without docstrings and what only types need."""
    documented = (ast.Module, ast.FunctionDef, ast.ClassDef)
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            skipped.add(id(node.body[0].value))  # type: ignore[attr-defined]
    found = [
        node.value
        for node in without_annotations(tree)
        if isinstance(node, ast.Constant) and id(node) not in skipped
    ]
    return sorted(map(repr, found))


def test_nothing_that_it_says_is_changed() -> None:
    """Texts of several lines keep theirs, though their module is moved to the right."""
    whole = constants(ast.parse(agent_source()))
    names = [line.split()[2] for line in agent_source().splitlines() if line.startswith("# ---- ")]
    assert "ofa_deploy.profiling.protocol" in names
    assert names[-1] == "ofa_deploy.profiling.agent.main"
    for name in names:
        module = bundle._Module.read(name)
        kept = [node for node in module.tree.body if not bundle._assigns_all(node)]
        kept = [node for node in kept if not bundle._only_for_types(node)]
        for each in constants(ast.Module(kept, [])):
            assert each in whole, name


def test_a_person_can_read_it() -> None:
    lines = agent_source().splitlines()
    assert max(map(len, lines)) <= 110
    assert any("A window in which the reference moved is dropped" in line for line in lines)


def module(text: str, name: str = "ofa_deploy.profiling.made") -> "bundle._Module":
    return bundle._Module(name, name.rpartition(".")[0], text, ast.parse(text))


def test_imports_become_names_of_other_parts() -> None:
    text = "from ofa_deploy.errors import A, B as C\nfrom .protocol import D\nimport os\n"
    made = module(text)
    assert list(made.needs()) == ["ofa_deploy.errors", "ofa_deploy.profiling.protocol"]
    wrapped = made.wrapped()
    for line in (
        "    A = _errors.A",
        "    C = _errors.B",
        "    D = _profiling_protocol.D",
        "    import os",
        "_profiling_made = _profiling_made()",
    ):
        assert line in wrapped.splitlines()


def test_a_text_of_several_lines_stays_as_it_is() -> None:
    text = 'A = """one\ntwo\n  three"""\n\n\ndef f():\n    """Doc.\n\n    More."""\n    return A\n'
    scope: dict[str, object] = {}
    exec("from types import SimpleNamespace\n" + module(text).wrapped(), scope)
    assert scope["_profiling_made"].f() == "one\ntwo\n  three"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "text", ["def f():\n    from ofa_deploy.errors import A\n", "import ofa_deploy.errors\n"]
)
def test_imports_that_cannot_be_sent_along_are_refused(text: str) -> None:
    with pytest.raises(OfaDeployError, match=r"ofa_deploy.profiling.made, line 1: "):
        module(text).wrapped()


def test_module_that_is_not_there_is_refused() -> None:
    with pytest.raises(OfaDeployError, match="needs ofa_deploy.profiling.nothing"):
        bundle._Module.read("ofa_deploy.profiling.nothing")


def test_any_python_can_read_what_comes_first() -> None:
    """It must say that a Python is too old, and not stumble itself."""
    assert "'" not in STARTER
    assert "\n" not in STARTER
    first = opening().split(b"\n", 1)[1][: int(opening().split(b"\n", 1)[0])].decode()
    assert not any(word in first for word in ('f"', "print", "nonlocal", "->"))
    ast.parse(first)


def test_the_file_is_small_enough_for_a_slow_line() -> None:
    assert len(opening()) < 80_000
    head, rest = _framed(opening())
    assert b"zlib" in head
    assert zlib.decompress(_framed(rest)[0]).decode() == agent_source()


def _framed(data: bytes) -> tuple[bytes, bytes]:
    """What a line with its length announces, and what follows."""
    length, _, rest = data.partition(b"\n")
    return rest[: int(length)], rest[int(length) :]


def test_several_threads_join_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.11 cannot parse in several threads at the same time."""
    gathered: list[str] = []
    real = bundle._gather

    def gather(name: str, modules: dict[str, Any]) -> None:
        gathered.append(name)
        real(name, modules)

    monkeypatch.setattr(bundle, "_gather", gather)
    bundle._joined_source.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: bundle.agent_source(), range(8)))
    assert len(found) == 1
    assert gathered.count(bundle._AGENT) == 1
