"""Pages of the documentation name only what exists."""

from __future__ import annotations

import importlib
import re

import pytest

from tests.helpers.paths import ROOT

DOCS = ROOT / "docs"
PAGES = sorted((DOCS / "api").glob("*.md")) + sorted((DOCS / "guide").glob("*.md"))
SHORT = {"mf": "microfw", "nn": "microfw.nn", "optim": "microfw.optim"}
KEYS = {"microfw.json", "microfw.sha256"}  # in the metadata of a file, not in Python


def exists(name):
    """Return True if a dotted name can be imported, or is an attribute of what can be imported."""
    parts = name.split(".")
    for k in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:k]))
        except ModuleNotFoundError:
            continue
        for part in parts[k:]:
            fields = getattr(found, "__dataclass_fields__", {})
            if part in fields and part == parts[-1]:
                return True
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def listed(text):
    """Yield the full names that `autosummary`, `autofunction` and similar directives of a page ask for."""
    module = ""
    entries = False
    for line in text.splitlines():
        directive = re.match(r"\.\. (\w+):: ?(.*)", line)
        if directive:
            kind, argument = directive.groups()
            entries = kind == "autosummary"
            if kind in ("currentmodule", "module", "automodule"):
                module = argument
                yield module
            elif kind.startswith("auto") and not entries:
                yield argument if argument.startswith("microfw.") else f"{module}.{argument}"
        elif line and not line.startswith(" "):
            entries = False
        elif entries and line.strip() and not line.strip().startswith(":"):
            yield f"{module}.{line.strip().removeprefix('~')}"


def mentioned(text):
    """Yield the full names of this library's between backquotes in a page."""
    for name in re.findall(r"`~?((?:microfw|mf|nn|optim)(?:\.\w+)+)", text):
        first, rest = name.split(".", 1)
        if name not in KEYS:
            yield f"{SHORT.get(first, first)}.{rest}"


def test_names_are_found_in_directives_and_in_sentences():
    page = (
        ".. currentmodule:: microfw.nn\n\n.. autosummary::\n   :toctree: x\n\n   Dense\n   initializers.normal\n\nEnd"
    )
    assert list(listed(page)) == ["microfw.nn", "microfw.nn.Dense", "microfw.nn.initializers.normal"]
    assert list(mentioned("as `mf.grad(f)`, `optim.SGD` or `microfw.json`")) == ["microfw.grad", "microfw.optim.SGD"]
    assert exists("microfw.nn.initializers.normal")
    assert exists("microfw.profiler.Epoch.steps")
    assert not exists("microfw.ops.no_such.op")
    assert not exists("no_such_package.x")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.stem}")
def test_a_page_names_only_what_exists(page):
    text = page.read_text(encoding="utf-8")
    missing = [name for name in dict.fromkeys([*listed(text), *mentioned(text)]) if not exists(name)]
    assert not missing


def test_the_reference_lists_names():
    names = [name for page in PAGES if page.parent.name == "api" for name in listed(page.read_text(encoding="utf-8"))]
    assert len(names) > 100


def test_the_page_on_architecture_names_only_what_exists():
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    package = ROOT / "microfw"
    words = {word for path in package.rglob("*.py") for word in re.findall(r"\w+", path.read_text(encoding="utf-8"))}
    files = set(re.findall(r"[\w/]+\.py\b", text))
    names = set(re.findall(r"`@?([a-zA-Z_][\w.]*)(?:\(.*?\))?`", text)) - {"README.md"}
    for line in "".join(re.findall(r"^```text\n(.*?)^```", text, re.M | re.S)).splitlines():
        calls = re.findall(r"[a-zA-Z_][\w.]*", line[:34])  # the first column; the second one has the file
        names |= {name for name in calls if re.search(r"[_.]|[a-z][A-Z]", name)}
    assert len(files) > 30
    assert len(names) > 60
    assert [
        name for name in sorted(files) if not any((package / room / name).exists() for room in ("", "autograd"))
    ] == []
    unknown = {name for name in names - files for part in name.strip(".").split(".") if part not in words}
    assert unknown == set()
