"""The house keeps its shape: imports go one way, files stay short, examples in docstrings run."""

from __future__ import annotations

import ast
import doctest
import graphlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import microfw
from microfw.autograd.registry import OPS
from tests.helpers.paths import ROOT as REPOSITORY

ROOT = Path(microfw.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
MODULES = [
    ".".join(("microfw", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__") for path in FILES
]

ENGINE = [
    "phases", "types", "scope", "graph", "observer", "mode", "registry", "backward", "_arithmetic", "numpy_dispatch",
    "_array_methods", "_tensor_base", "grad_hooks", "leaf_values", "tensor", "double_backward", "apply", "codegen", "op",
    "pytree", "tangents", "functional", "gradcheck", "state_discovery", "anomaly", "__init__",
]  # fmt: skip
ROOMS = [
    "_other_names", "_lazy", "errors", *(f"autograd.{name}" for name in ENGINE), "ops", "derivatives", "nn",
    "serialization", "visualization", "optim", "data", "replay", "training", "profiler", "law", "testing", "estimators",
    "cli", "__init__", "__main__",
]  # fmt: skip


def room(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts) if parts[0] == "autograd" else parts[0]


def room_of(name: str) -> str:
    """Return the room of a dotted name below ``microfw``."""
    parts = name.split(".")[1:]
    if parts[:1] == ["autograd"]:
        return f"autograd.{parts[1]}" if parts[1:] and parts[1] in ENGINE else "autograd.__init__"
    return parts[0] if parts and parts[0] in ROOMS else "__init__"


def is_type_checking(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports(tree, module, is_package, functions=True):
    """Yield (line, full name) of each import, those for annotations included, and those inside of functions if asked.

    A package lists for annotations what it imports on first use, also from rooms below; these are left out.
    """
    stack = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parts = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parts, base]).rstrip(".")
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not functions:
            continue
        stack.extend(node.orelse if is_package and is_type_checking(node) else ast.iter_child_nodes(node))


def rooms_imported(path, module):
    tree = ast.parse(path.read_text())
    for line, name in imports(tree, module, path.name == "__init__.py"):
        if name.split(".")[0] == "microfw" and name != "microfw.__version__":
            yield line, room_of(name)


def test_imports_go_only_to_rooms_above():
    wrong = []
    for path, module in zip(FILES, MODULES, strict=True):
        here, name = ROOMS.index(room(path)), str(path.relative_to(ROOT))
        for line, other in rooms_imported(path, module):
            below = ROOMS.index(other) > here
            front = other == "__init__" and name != "__init__.py"
            wrong += [f"{name}, line {line}: {other}"] if below or front else []
    assert wrong == []


def test_every_room_has_its_place():
    assert {room(path) for path in FILES} <= set(ROOMS)


TEXT = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import a
else:
    import b
def f():
    from . import c
"""


@pytest.mark.parametrize(
    ("is_package", "functions", "expected"),
    [(False, True, {"a", "b", "microfw.c"}), (False, False, {"a", "b"}), (True, True, {"b", "microfw.x.c"})],
)
def test_the_import_parser_sees_what_it_should(is_package, functions, expected):
    found = {name for _, name in imports(ast.parse(TEXT), "microfw.x", is_package, functions)}
    assert found == {"typing.TYPE_CHECKING", *expected}


def test_no_files_import_each_other():
    """Imports of modules, those for annotations included, have an order: each file can be read after its imports."""
    graph = {}
    for path, module in zip(FILES, MODULES, strict=True):
        names = [name for _, name in imports(ast.parse(path.read_text()), module, path.stem == "__init__", False)]
        graph[module] = {n if n in MODULES else n.rpartition(".")[0] for n in names} & set(MODULES) - {module}
    try:
        list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        pytest.fail("these files import each other: " + " -> ".join(error.args[1]))


def test_files_stay_short():
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in FILES}
    assert {name: n for name, n in lines.items() if n > 350} == {}


@pytest.mark.parametrize("module", [m for m in MODULES if not m.endswith("__main__")])
def test_doctests(module):
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in doctest.DocTestFinder().find(importlib.import_module(module)):
        plots = any("plot" in example.source for example in test.examples)
        if not plots or importlib.util.find_spec("matplotlib"):  # an extra
            assert runner.run(test).failed == 0


@pytest.mark.parametrize("name", [n for n, op in OPS.items() if op.value.__module__.startswith("microfw.")])
def test_doctests_of_ops(name):
    call = OPS[name].call
    assert call.__doc__, f"{name} has no docstring"
    names = {"np": np, "mf": microfw, name: call}
    for test in doctest.DocTestFinder(recurse=False).find(call, name, globs=names):
        assert doctest.DocTestRunner(verbose=False).run(test).failed == 0


def test_all_names_exist():
    missing = []
    for module in MODULES:
        loaded = importlib.import_module(module) if not module.endswith("__main__") else None
        exported = getattr(loaded, "__all__", [])
        assert len(set(exported)) == len(exported), module
        missing += [f"{module}.{name}" for name in exported if not hasattr(loaded, name)]
    assert missing == []


def test_nothing_outside_an_ops_declaration_names_it():
    """The walk, the recorder and the derivatives know no op; the operators of Tensor look theirs up by name."""
    for file in ("autograd/graph.py", "autograd/codegen.py", "autograd/op.py"):
        strings = {
            n.value
            for n in ast.walk(ast.parse((ROOT / file).read_text()))
            if isinstance(n, ast.Constant) and isinstance(n.value, str)
        }
        assert not strings & (set(OPS) - {"linear"}), file  # a kind of jvp, too


def test_importing_microfw_imports_no_heavy_package():
    done = subprocess.run(
        [sys.executable, "-c", "import sys, microfw; print(*sys.modules)"], capture_output=True, text=True, timeout=60
    )
    heavy = {"sklearn", "scipy", "tqdm", "matplotlib", "pandas", "torch", "numpy.random"}
    assert "microfw" in done.stdout, done.stderr
    assert heavy.isdisjoint(done.stdout.split())


def test_numpys_global_randomness_is_not_used():
    without_it = {"default_rng", "Generator", "SeedSequence", "BitGenerator", "PCG64"}
    compared = {"RandomState", "get_state"}  # replay compares the states, and never moves them
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "np.random":
                assert node.attr in without_it | compared, f"{path}: np.random.{node.attr}"


def test_files_of_tests_have_at_most_500_lines():
    paths = [path for folder in ("tests", "benchmarks") for path in (REPOSITORY / folder).rglob("*.py")]
    long = [str(path) for path in paths if len(path.read_text(encoding="utf-8").splitlines()) > 500]
    assert paths and not long


def test_folders_of_tests_are_those_of_the_package():
    own = {"audit", "cases", "docs", "fuzzing", "helpers", "peers", "programs", "project"}
    folders = {path.name for path in (REPOSITORY / "tests").iterdir() if (path / "__init__.py").exists()}
    assert folders - own == {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
