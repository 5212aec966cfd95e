"""What is imported when it is first used is there as if it had been imported at once."""

from __future__ import annotations

import subprocess
import sys

import pytest

import microfw as mf
from microfw import nn, ops, optim
from microfw.registry import LATER, OPS


def fresh(code):
    """Return what code prints in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("package", [mf, nn, optim, ops], ids=lambda p: p.__name__)
def test_each_name_is_listed_and_found(package):
    assert {*package.__all__} <= {*dir(package)}
    table = fresh(f"import {package.__name__} as p; print(*sorted(n for n in p.__all__ if not hasattr(p, n)))")
    assert table == ""
    assert fresh(f"from {package.__name__} import *; import {package.__name__} as p; print(len(p.__all__))") == str(
        len(package.__all__)
    )


@pytest.mark.parametrize("package", [mf, nn, optim], ids=lambda p: p.__name__)
def test_other_names_are_not(package):
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'Dnese'"):
        package.Dnese  # noqa: B018


def test_a_dense_net_imports_no_convolution():
    used = fresh(
        "import sys, microfw as mf; from microfw import nn, optim;"
        "m = nn.Sequential(nn.Dense(2, 3), nn.ReLU(), nn.Dense(3, 2)); optim.SGD(m.parameters(), lr=0.1);"
        "nn.CrossEntropyLoss()(m([[1.0, 2.0]]), [0]).backward();"
        "print(*(n for n in sys.modules if n.startswith('microfw.')))"
    ).split()
    assert "microfw.nn.dense" in used
    assert not {"microfw.ops.convolution", "microfw.nn.conv2d", "microfw.optim.adam", "microfw.calculus"} & {*used}


def test_where_an_op_waits_is_where_it_is_declared():
    assert {name: OPS[name].value.__module__ for name in LATER} == LATER
    told = fresh("import microfw as mf; print(*(name for name in mf.ops.LATER if not hasattr(mf.ops, name)))")
    assert told == ""


def test_numpys_functions_find_ops_that_wait():
    asked = "[[2.0, 0.0], [0.0, 4.0]]"
    assert (
        fresh(f"import numpy as np, microfw as mf; print(np.linalg.det(mf.tensor({asked})).item().__round__())") == "8"
    )
    assert fresh(f"import numpy as np, microfw as mf; print(mf.tensor({asked}).trace().item())") == "6.0"


def test_a_name_that_waits_is_taken():
    assert "op conv: expected a new name, got one that is taken" in fresh(
        "import microfw as mf\ntry:\n    mf.op(lambda x: x, name='conv')\nexcept mf.errors.ArgumentError as e:\n    print(e)"
    )
    assert "expected a new name" in fresh(
        "import microfw as mf\nmf.ops.conv\n"
        "try:\n    mf.op(lambda x: x, name='conv')\nexcept mf.errors.ArgumentError as e:\n    print(e)"
    )


def test_a_check_of_gradients_is_a_function_whatever_was_imported_first():
    assert fresh("import microfw.testing, microfw as mf; print(callable(mf.gradcheck), callable(mf.checkpoint))") == (
        "True True"
    )
