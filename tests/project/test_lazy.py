"""What is imported when it is first used is there as if it had been imported at once."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import microfw as mf
from microfw import nn, ops, optim
from microfw._lazy import EXPORT
from microfw.autograd.registry import OPS


def fresh(code):
    """Return what code prints in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("package", [mf, nn, optim, ops], ids=lambda p: p.__name__)
def test_each_name_is_listed_and_found(package):
    assert {*package.__all__} <= {*dir(package)}
    table = fresh(f"import {package.__name__} as p; print(*sorted(n for n in p.__all__ if not hasattr(p, n)))")
    assert table == ""
    assert fresh(f"from {package.__name__} import *; import {package.__name__} as p; print(len(p.__all__))") == str(
        len(package.__all__)
    )


def test_no_exported_function_has_the_name_of_its_module():
    """Importing the module would put it in the place of the function: `mf.summary` was a module after `Summary`."""
    for stub in Path(mf.__file__).parent.rglob("__init__.pyi"):
        package = ".".join(("microfw", *stub.parent.relative_to(Path(mf.__file__).parent).parts))
        for module, several, one in EXPORT.findall(stub.read_text(encoding="utf-8")):
            names = [part.rpartition(" as ")[2].strip() for part in (several or one).split(",")]
            assert module not in {f"{package}.{name}" for name in names}, stub


@pytest.mark.parametrize("package", [mf, nn, optim], ids=lambda p: p.__name__)
def test_an_unknown_name_is_an_attribute_error(package):
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
    assert not {"microfw.ops.convolution", "microfw.nn.conv2d", "microfw.optim.adam", "microfw.autograd.functional"} & {
        *used
    }


def test_each_op_is_found_by_its_name_before_its_family_is_imported():
    own = {name for name, op in OPS.items() if op.value.__module__.startswith("microfw.ops.")}
    late = [name for name in own if OPS[name].value.__module__.removeprefix("microfw.ops.") in ops.FAMILIES]
    assert {OPS[name].value.__module__.removeprefix("microfw.ops.") for name in late} <= set(ops.FAMILIES)
    found = fresh(
        f"import microfw as mf; print(*(n for n in {sorted(late)} if not hasattr(mf.ops, n)), mf.ops.conv.op)"
    )
    assert found == "<op conv>"
    assert own <= set(dir(ops))


def test_stubs_list_what_packages_export():
    for stub in sorted(Path(mf.__file__).parent.rglob("__init__.pyi")):
        name = ".".join(("microfw", *stub.parent.relative_to(Path(mf.__file__).parent).parts))
        package = importlib.import_module(name)
        names = [a.asname for node in ast.walk(ast.parse(stub.read_text())) for a in getattr(node, "names", ())]
        assert package.__all__ == sorted(names)
        assert [n for n in names if not hasattr(package, n)] == []


def test_numpys_functions_find_ops_that_wait():
    asked = "[[2.0, 0.0], [0.0, 4.0]]"
    assert (
        fresh(f"import numpy as np, microfw as mf; print(np.linalg.det(mf.tensor({asked})).item().__round__())") == "8"
    )
    assert fresh(f"import numpy as np, microfw as mf; print(mf.tensor({asked}).trace().item())") == "6.0"


def test_an_op_of_code_without_a_module_is_taken():
    code = (
        "import microfw as mf; names = {'mf': mf}\n"
        "exec('@mf.op(vjp=lambda g, x: g)\\ndef same(x): return x * 1', names)\n"
        "print(names['same'](2.0).item(), 'same' in dir(mf.ops), hasattr(mf.ops, 'same'))"
    )
    assert fresh(code) == "2.0 False False"


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


def test_no_op_of_the_library_comes_later_and_takes_a_function_of_numpy_back():
    code = (
        "import numpy as np, microfw as mf\n"
        "@mf.op(vjp=lambda g, x: g, numpy=np.linalg.det)\n"
        "def my_det(x): return np.asarray(42.0)\n"
        "mf.ops.inv; print(np.linalg.det(mf.tensor(np.eye(2))).item())"
    )
    assert fresh(code) == "42.0"


@pytest.mark.slow
def test_threads_that_use_names_first_do_not_meet_half_of_a_module():
    names = ("load", "save", "Trainer", "data", "compile", "Profiler", "hessian", "draw")
    code = (
        "import sys, threading, microfw as mf\n"
        "sys.setswitchinterval(1e-5)\n"
        f"names = {names}; barrier, wrong = threading.Barrier(len(names)), []\n"
        "def use(name):\n"
        "    barrier.wait()\n"
        "    try: getattr(mf, name)\n"
        "    except BaseException as error: wrong.append((name, repr(error)))\n"
        "threads = [threading.Thread(target=use, args=(name,)) for name in names]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]; print(wrong)"
    )
    for _ in range(5):
        assert fresh(code) == "[]"


@pytest.mark.parametrize(
    "name", ["mf.nn.losses.CrossEntropyLoss", "mf.nn.dense", "mf.optim.sgd", "mf.autograd.functional", "mf.ops.factors"]
)
def test_modules_are_found_by_their_names(name):
    assert fresh(f"import microfw as mf; print(bool({name}))") == "True"
