"""Notebooks among the examples: stored without outputs, and each cell does what the text around it says."""

from __future__ import annotations

import ast
import importlib.util
import json
import re

import pytest

from tests.helpers.paths import ROOT

NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
RAISES = "raises-exception"  # the tag of cells that show an error: nbconvert continues after them

ERRORS = {  # the errors that a notebook shows, in order
    "train_profile_explain.ipynb": [
        r"^$",  # KeyboardInterrupt
        r"^1 Scale: multiply: expected shapes that fit, got a \(2, 10\), b \(9,\); operands could not be broadcast",
        r"^Trainer\.fit: expected epochs .*; pass the data as one argument, \(X, y\)$",
        r"^metrics: expected .*, got 'acc'; did you mean 'accuracy'\?$",
    ]
}


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def code(cell):
    return "".join(cell["source"])


def tags(cell):
    return cell["metadata"].get("tags", [])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_it_is_a_notebook_without_outputs_whose_code_compiles(path):
    notebook = read(path)
    assert (notebook["nbformat"], notebook["metadata"]["kernelspec"]["name"]) == (4, "python3")
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids) > 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            compile(code(cell), f"<{cell['id']}>", "exec")
            assert set(tags(cell)) <= {RAISES}
        else:
            assert cell["cell_type"] == "markdown" and "outputs" not in cell
    assert sum(RAISES in tags(cell) for cell in notebook["cells"]) == len(ERRORS[path.name])


def test_every_notebook_is_tested():
    assert [path.name for path in NOTEBOOKS] == sorted(ERRORS)


def run(cell, names):
    """Run a cell, and return the value of its last expression as a notebook would show it."""
    *body, last = ast.parse(code(cell)).body
    if not isinstance(last, ast.Expr):
        body, last = [*body, last], None
    exec(compile(ast.Module(body, []), cell["id"], "exec"), names)
    value = None if last is None else eval(compile(ast.Expression(last.value), cell["id"], "eval"), names)
    if last is None or code(cell).endswith(";"):
        return None
    return value._repr_html_() if hasattr(value, "_repr_html_") else repr(value)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs Matplotlib")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_its_cells_run_and_show_something(path, tmp_path, monkeypatch, capsys):
    from matplotlib import pyplot

    pyplot.switch_backend("Agg")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    errors = iter(ERRORS[path.name])
    for cell in read(path)["cells"]:
        if cell["cell_type"] == "code" and RAISES in tags(cell):
            try:
                run(cell, names)
            except BaseException as error:
                assert re.search(next(errors), str(error)), (code(cell), error)
            else:
                raise AssertionError(f"expected an error of the cell: {code(cell)}")
        elif cell["cell_type"] == "code":
            shown = run(cell, names)
            assert shown or code(cell).endswith(";"), code(cell)
            assert shown is None or len(shown) < 200_000
    pyplot.close("all")
    assert names["resumed"].column("loss") == names["straight"].column("loss"), "resumed bit for bit"
    assert list(tmp_path.iterdir()) == []
