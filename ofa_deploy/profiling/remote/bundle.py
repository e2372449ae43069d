"""The agent as one file: the modules that it needs, each in a function of its own.

A module's names are those of its function, so that two modules may use the same one; what it
imports from another module of this package is taken from what that one's function gave. The rest
stands as it was written. The file needs Python 3.8, numpy and an engine.
"""

import ast
import functools
import importlib.util
import io
import threading
import tokenize
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ofa_deploy.errors import OfaDeployError

__all__ = ["READY", "STARTER", "agent_source", "opening"]

_ONE_AT_A_TIME = threading.Lock()
_AGENT = "ofa_deploy.profiling.agent.main"
_ROOT = "ofa_deploy"
_HEAD = '''"""What measures on a device for ofa-deploy: sent over SSH, run, and gone.

Put together from the modules that are named below.
"""

from __future__ import annotations

from types import SimpleNamespace

'''
# Python 2.7 and all later ones can read this, so that an old one is named and not just a syntax
# error. Folders that are not absolute are taken from the path: a numpy.py may lie anywhere.
_OPENING = """\
import json, sys
sys.dont_write_bytecode = True
def refuse(what, found):
    sys.stdout.write(json.dumps({"refused": what, "found": str(found)[:200]}) + "\\n")
    sys.stdout.flush()
    sys.exit(3)
if sys.version_info < (3, 8):
    refuse("python", "%d.%d.%d" % sys.version_info[:3])
try:
    import numpy
except Exception as error:
    refuse("numpy", error)
if sys.platform != "linux":
    refuse("system", sys.platform)
import zlib
SOURCE = zlib.decompress(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))
exec(compile(SOURCE, "ofa-deploy-agent", "exec"))
"""
READY = "ofa-deploy-ready"
# On one line and without quotes of a shell: any shell reads it. It says that it is there, since
# what is sent to a command that could not be started is lost, and with it the reason.
STARTER = (
    'import sys;sys.path=[p for p in sys.path if p];f=getattr(sys.stdin,"buffer",sys.stdin);'
    f'print("{READY}");sys.stdout.flush();exec(f.read(int(f.readline())))'
)
_TEXTS = {tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
_STATEMENT_STARTS = {tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT}


@functools.cache
def opening(source: str = "") -> bytes:
    """What ``STARTER`` reads first: it looks at Python, reads the agent and runs it.

    Args:
        source: another agent.
    """
    first, agent = _OPENING.encode(), zlib.compress((source or agent_source()).encode(), 9)
    return b"%d\n%b%d\n%b" % (len(first), first, len(agent), agent)


def agent_source() -> str:
    """The agent's file.

    Raises:
        OfaDeployError: if a module imports what cannot be sent along.
    """
    with _ONE_AT_A_TIME:  # Python 3.11 cannot parse in several threads: SystemError, now and then
        return _joined_source()


@functools.cache
def _joined_source() -> str:
    modules: dict[str, _Module] = {}
    _gather(_AGENT, modules)
    last = _function(_AGENT)
    end = (
        'if __name__ == "__main__":\n'
        f'    {last}.main(SOURCE if "SOURCE" in globals() else open(__file__, "rb").read())\n'
    )
    return _HEAD + "".join(module.wrapped() for module in modules.values()) + end


def _gather(name: str, modules: "dict[str, _Module]") -> None:
    """Add a module, behind those that it needs."""
    module = _Module.read(name)
    for needed in module.needs():
        if needed not in modules:
            _gather(needed, modules)
    modules[name] = module


def _function(name: str) -> str:
    return "_" + name.removeprefix(f"{_ROOT}.").replace(".", "_")


@dataclass(frozen=True)
class _Module:
    """A module of this package.

    Attributes:
        package: that relative imports start from.
    """

    name: str
    package: str
    text: str
    tree: ast.Module = field(repr=False)

    @classmethod
    def read(cls, name: str) -> "_Module":
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise OfaDeployError(f"the agent needs {name}, which cannot be found")
        text = Path(spec.origin).read_text(encoding="utf-8")
        package = name if spec.submodule_search_locations else name.rpartition(".")[0]
        return cls(name, package, text, ast.parse(text))

    def needs(self) -> Iterator[str]:
        """The modules that it imports from."""
        for node in self.tree.body:
            if isinstance(node, ast.ImportFrom) and (module := self._source(node)):
                yield module

    def _source(self, node: ast.ImportFrom) -> str | None:
        """The module of this package that an import is from, if it is one."""
        parts = self.package.split(".")
        base = parts[: len(parts) - node.level + 1] if node.level else []
        name = ".".join([*base, node.module] if node.module else base)
        return name if name.split(".")[0] == _ROOT else None

    def wrapped(self) -> str:
        """The module as a function, and a call of it."""
        replaced = self._replaced()
        lines = [
            "    " + line if start and line.strip() else line
            for start, line in zip(_line_starts(self.text), self._lines(), strict=True)
        ]
        kept = [replaced.get(number, line) for number, line in enumerate(lines, 1)]
        body = "".join(line for line in kept if line is not None).strip("\n")
        function = _function(self.name)
        return (
            f"# ---- {self.name} " + "-" * max(1, 90 - len(self.name)) + "\n\n\n"
            f"def {function}():\n{body}\n    return SimpleNamespace(**locals())\n\n\n"
            f"{function} = {function}()\n\n\n"
        )

    def _lines(self) -> list[str]:
        return self.text.splitlines(keepends=True)

    def _replaced(self) -> dict[int, str | None]:
        """Line number to what stands there instead; None is nothing."""
        replaced: dict[int, str | None] = {}
        for node in self.tree.body:
            if isinstance(node, ast.ImportFrom) and (module := self._source(node)):
                new: str | None = "".join(
                    f"    {alias.asname or alias.name} = {_function(module)}.{alias.name}\n"
                    for alias in node.names
                )
            elif _only_for_types(node) or _is_future(node) or _assigns_all(node):
                new = None
            else:
                self._check(node)
                continue
            numbers = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            replaced.update(dict.fromkeys(numbers))
            replaced[node.lineno] = new
        return replaced

    def _check(self, node: ast.stmt) -> None:
        for inner in ast.walk(node):
            names = [alias.name for alias in inner.names] if isinstance(inner, ast.Import) else []
            inside = isinstance(inner, ast.ImportFrom) and self._source(inner)
            if inside or any(name.split(".")[0] == _ROOT for name in names):
                raise OfaDeployError(
                    f"{self.name}, line {node.lineno}: an agent's modules import from "
                    f"{_ROOT} at their top, and names only"
                )


def _only_for_types(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def _assigns_all(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"


def _line_starts(text: str) -> list[bool]:
    """Of each line, whether it may be moved: it does not begin inside a text that is used."""
    starts = [True] * len(text.splitlines())
    before = tokenize.NEWLINE
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in _TEXTS and before not in _STATEMENT_STARTS:  # a docstring may be moved
            for number in range(token.start[0] + 1, token.end[0] + 1):
                starts[number - 1] = False
        before = token.type
    return starts
