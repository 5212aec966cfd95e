"""Breaks derivative rules on purpose, one at a time, and counts how many the harness notices.

    python -m tests.mutation              # every mutant
    python -m tests.mutation --sample 300 --seed 0

Two kinds of mutants. In the text: the source of each rule and of the helpers that it calls is parsed, one
operator, number, argument, comparison or branch is changed, and the function's code replaced. In the rule as a
whole: its sign, a factor, nothing at all, the neighbouring axis, the other input's rule; and in the walk, no sum
over broadcast axes. A mutant is killed if `op_checks.prove` finds a fault, at any of the row's samples, or
the table of singular points does.
Left alone is what only chooses between two ways of computing the same, tests of a type and of a size, an array of
which only the dtype is read, and what only writes an error's text.
"""

from __future__ import annotations

import argparse
import ast
import copy
import functools
import importlib.util
import inspect
import random
import re
import sys
import types
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from microfw.autograd import backward
from tests.cases.kinds import expanded
from tests.cases.ops import CASES
from tests.cases.points import POINTS
from tests.cases.second_derivatives import FIXED
from tests.helpers import op_checks

BY_NAME = {case.name: case for case in CASES}
SCALES = ("_scaled", "_inverse")  # choose a scale on which no result depends, so that another one changes nothing
SINGULAR = ("_nowhere",)  # gives NaN or 0 only, at singular points: tests/ops/test_singular_points.py holds where
# choose between two ways to compute the same, or where to
CHOOSERS = ("_in_place", "_zeros", "as_rows", "zeros", "empty")
SAME = {  # tests of shapes and of what is kept that choose between two ways to compute the same
    "axes == (x.ndim - 1,)", "axes == (*range(x.ndim - 1),)", "axis in (-1, y.ndim - 1)", "geo.tiles",
    "_in_place(kind, mask, rows, s0)", "_in_place(kind, mask, rows, g, s0, y, kept)",
    "zeros is not None and zeros.dtype is y.dtype",
    "b.ndim == 2 and a.ndim > 2", "products.shape[1] > 1", "row < column", "2 * d < n",
    "plain", "ones is None or ones.dtype is not g.dtype",
    "zeros is None or zeros.dtype is not x.dtype", "x.dtype.kind == 'f' and type(zeros) is np.ndarray",
    "g.dtype.kind == 'f'", "x.ndim < 3", "y.size < 1 << 13",
}  # fmt: skip
NO_SLOPE = {("undefined", 1)}  # its rule is `_nowhere`


@dataclass(frozen=True)
class Mutant:
    """One broken rule: what was done, to which ops, and a context that does it."""

    label: str
    ops: tuple[str, ...]
    broken: Callable


# In the text


SIZE = re.compile(r"\.size$|^(len|type)\(")
SYMMETRIC = re.compile(r"^np\.(add|multiply|hypot|maximum|minimum|logical_and|logical_or)$")

SWAPS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
         ast.Gt: ast.Lt, ast.Lt: ast.Gt, ast.GtE: ast.Lt, ast.LtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
         ast.And: ast.Or, ast.Or: ast.And, ast.In: ast.NotIn, ast.NotIn: ast.In}  # fmt: skip


def changes(node, names):
    """Yield (what, new node) for each way to break one node."""
    if isinstance(node, ast.BinOp):
        if type(node.op) in SWAPS:
            other = SWAPS[type(node.op)]
            yield f"{type(node.op).__name__} to {other.__name__}", ast.BinOp(node.left, other(), node.right)
        yield "right operand dropped", node.left
        yield "left operand dropped", node.right
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
        yield f"{type(node.op).__name__} dropped", node.operand
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        other = SWAPS[type(node.ops[0])]
        yield (
            f"{type(node.ops[0]).__name__} to {other.__name__}",
            ast.Compare(node.left, [other(), *node.ops[1:]], node.comparators),
        )
    elif isinstance(node, ast.BoolOp):
        yield "and, or swapped", ast.BoolOp(SWAPS[type(node.op)](), node.values)
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield f"{node.value} to {node.value + 1}", ast.Constant(node.value + 1)
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        yield f"{node.value} to {not node.value}", ast.Constant(not node.value)
    elif isinstance(node, ast.IfExp):
        yield "branches swapped", ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.Call):
        args = node.args
        if (
            len(args) > 1
            and not SYMMETRIC.search(ast.unparse(node.func))
            and not any(isinstance(a, ast.Starred) for a in args[-2:])
        ):
            yield "arguments swapped", ast.Call(node.func, [*args[:-2], args[-1], args[-2]], node.keywords)
        if len(args) == 1 and isinstance(node.func, ast.Attribute) and ast.unparse(node.func).startswith("np."):
            yield f"{node.func.attr} dropped", args[0]
        for k, keyword in enumerate(node.keywords):
            if keyword.arg in ("axis", "keepdims"):
                yield f"{keyword.arg} dropped", ast.Call(node.func, args, node.keywords[:k] + node.keywords[k + 1 :])
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names:
        other = names[(names.index(node.id) + 1) % len(names)]
        if other != node.id:
            yield f"{node.id} to {other}", ast.Name(other, ast.Load())


def codes(code, path=()):
    """Yield every code object in another one, with its path."""
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    for k, c in enumerate(inner):
        yield (*path, k), c
        yield from codes(c, (*path, k))


def rules(op):
    """Return the functions that an op's derivatives run: the rules and the helpers that they call."""
    partials = [op.partial(k) for k in range(2 if op.variadic else len(op.inputs))]
    waiting = [f for p in partials if p for f in (p.vjp, p.jvp, p.vjp_out) if f is not None]
    waiting += list(op.aux.values())
    found = []
    while waiting:
        f = waiting.pop()
        if not isinstance(f, types.FunctionType) or f in found or hasattr(f, "op"):
            continue
        if hasattr(f, "__wrapped__"):  # keeps the shapes that it has worked out, and would not run again
            continue
        if f.__module__.startswith("microfw.ops"):
            found.append(f)
            names = [*f.__code__.co_names, *(n for _, c in codes(f.__code__) for n in c.co_names)]
            waiting += [f.__globals__[n] for n in names if n in f.__globals__]
    return found


def functions_in(tree):
    """Yield every function and lambda of a module, with where its code says it ends."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Lambda | ast.FunctionDef):
            yield node


def lines_of(code):
    return {line for *_, line in code.co_lines() if line is not None}


def node_of(code, tree):
    """Return the function of a module's tree that a code object was compiled from."""
    for k, node in enumerate(functions_in(tree)):
        if isinstance(node, ast.FunctionDef):
            if code.co_name == node.name and node.lineno in (code.co_firstlineno, *lines_of(code)):
                return k
        elif code.co_name == "<lambda>" and code.co_firstlineno == node.lineno:
            start, end = (node.body.lineno, node.body.col_offset), (node.body.end_lineno, node.body.end_col_offset)
            spans = [((a, c), (b, d)) for a, b, c, d in code.co_positions() if c is not None and (c, d) != (0, 0)]
            if all(start <= first and last <= end for first, last in spans):
                return k
    return None


def text_mutants():
    users: dict = {}
    for case in CASES:
        if case.op.differentiable:
            for f in rules(case.op):
                users.setdefault(f, []).append(case.name)
    for f, ops in users.items():
        if f.__name__ in SCALES + SINGULAR + CHOOSERS or f.__annotations__.get("return") == "str":
            continue
        yield from mutants_of(f, tuple(ops))


@functools.cache
def parsed(module):
    text = inspect.getsource(sys.modules[module])
    tree = ast.parse(text)
    return tree, compile(tree, sys.modules[module].__file__, "exec")


def mutants_of(f, ops):
    tree, whole = parsed(f.__module__)
    path = next((p for p, c in codes(whole) if c == f.__code__), None)
    place = node_of(f.__code__, tree)
    if path is None or place is None:
        raise LookupError(f"{f.__module__}.{f.__qualname__}: its source was not found")
    function = list(functions_in(tree))[place]
    names = operands(function)
    top = list(ast.walk(function))
    inside = [k for k, node in enumerate(top) if not isinstance(node, ast.arg | ast.arguments)]
    skipped = annotations(function) | dispatch(function) | messages(function) | dtypes(function)
    for k in inside:
        if id(top[k]) in skipped:
            continue
        for what, _ in changes(top[k], names):
            yield Mutant(
                f"{f.__module__.split('.')[-1]}:{getattr(top[k], 'lineno', '?')} {f.__name__}: {what}",
                ops,
                functools.partial(changed, f, path, place, k, what),
            )


def annotations(function):
    """Return the ids of nodes that say a type or a default, and compute no derivative."""
    parts = [function.args, getattr(function, "returns", None), *getattr(function, "decorator_list", ())]
    return {id(inner) for part in parts if part is not None for inner in ast.walk(part)}


def operands(function):
    """Return the names of a function's parameters, without `where`, which names the op in an error."""
    return [a.arg for a in function.args.args if a.arg != "where"]


def below(nodes):
    """Return the ids of some nodes and of all below them."""
    return {id(inner) for node in nodes for inner in ast.walk(node)}


def messages(function):
    """Return the ids of what only writes an error's text."""
    whole = list(ast.walk(function))
    named = [n for n in whole if isinstance(n, ast.Call) and any(getattr(a, "id", "") == "where" for a in n.args)]
    return below(n for n in whole if isinstance(n, ast.Raise)) | {id(n) for n in named}


def dtypes(function):
    """Return the ids of arrays of which only the dtype is read, which all arguments share, and of ``strict=True``."""
    whole = list(ast.walk(function))
    strict = [n.value for n in whole if isinstance(n, ast.keyword) and n.arg == "strict"]
    return below([n.value for n in whole if isinstance(n, ast.Attribute) and n.attr == "dtype"] + strict)


def chooses(test):
    """Whether a test only chooses between two ways to compute the same: by type, by size, by `SAME`."""
    if ast.unparse(test) in SAME:
        return True
    if isinstance(test, ast.BoolOp):
        return any(map(chooses, test.values))
    if isinstance(test, ast.Call):
        return ast.unparse(test.func) == "isinstance"
    return isinstance(test, ast.Compare) and bool(SIZE.search(ast.unparse(test.left)))


def dispatch(function):
    """Return the ids of such tests, and of the expressions that they choose between."""
    whole = list(ast.walk(function))
    tests = [n for n in whole if isinstance(n, ast.Call | ast.Compare | ast.BoolOp) and chooses(n)]
    chosen = {id(n) for n in whole if isinstance(n, ast.IfExp) and chooses(n.test)}
    return below(tests) | chosen


@contextmanager
def changed(f, path, place, k, what):
    tree = copy.deepcopy(parsed(f.__module__)[0])
    function = list(functions_in(tree))[place]
    node = list(ast.walk(function))[k]
    new = dict(changes(node, operands(function)))[what]
    new = ast.copy_location(copy.deepcopy(new), node)
    for parent in ast.walk(function):
        for name, value in ast.iter_fields(parent):
            if value is node:
                setattr(parent, name, new)
            elif isinstance(value, list):
                setattr(parent, name, [new if item is node else item for item in value])
    whole = compile(ast.fix_missing_locations(tree), "<mutant>", "exec")
    before = f.__code__
    f.__code__ = dict(codes(whole))[path]
    try:
        yield
    finally:
        f.__code__ = before


# In the rule as a whole


@contextmanager
def replaced(rule, make):
    """Put another function in a function's place, in its code, so that every reference to the function runs the other."""
    whole = copied(rule)
    code, free = rule.__code__, rule.__code__.co_freevars
    args = ", ".join(code.co_varnames[: code.co_argcount])
    keep = f"({', '.join(free)},); " if free else ""  # code must close over the same names as before
    text = f"def outer({', '.join(free)}):\n def inner({args}): {keep}return _mutant({args})"
    outer = next(c for _, c in codes(compile(text, "<mutant>", "exec")) if c.co_name == "outer")
    rule.__globals__["_mutant"] = make(whole)
    rule.__code__ = next(c for _, c in codes(outer) if c.co_name == "inner")
    try:
        yield
    finally:
        rule.__code__ = code
        del rule.__globals__["_mutant"]


def next_axis(place, rule):
    def wrong(g, *args):
        args = list(args)
        axis = args[place]
        if isinstance(axis, int):
            args[place] = axis - 1 if axis > 0 else axis + 1
        elif isinstance(axis, tuple):
            args[place] = axis[:-1]
        return rule(g, *args)

    return wrong


def copied(f):
    return types.FunctionType(f.__code__, f.__globals__, closure=f.__closure__)


def instead(other, rule):
    return other


def differ(rule, other):
    """Whether two rules are different functions, so that to have one for the other breaks something."""
    given = [np.random.default_rng(k).random((2, 3)) + 0.5 for k in range(rule.__code__.co_argcount)]
    try:
        with np.errstate(all="ignore"):
            return not np.array_equal(rule(*given), other(*given))
    except Exception:  # what it was given makes no sense for it
        return rule is not other


def flat(case):
    """Whether an op's gradient is 0 everywhere, as that of rounding, so that no factor breaks its rule."""
    grads = [g for sample in case.samples for g in op_checks.backward(case, sample, np.float64)[1]]
    return not any(g is not None and g.any() for g in grads)


def whole_mutants(*only):
    wrong = {
        "sign flipped": lambda rule: lambda g, *args: -rule(g, *args),
        "twice": lambda rule: lambda g, *args: 2 * rule(g, *args),
        "nothing": lambda rule: lambda g, *args: 0 * rule(g, *args),
    }
    for case in only or CASES:
        if not case.op.differentiable:
            continue
        partials = [case.op.partial(k) for k in range(2 if case.op.variadic else len(case.op.inputs))]
        zero = flat(case)
        for partial in filter(None, partials):
            for name in ("vjp", "jvp"):
                rule = getattr(partial, name)
                if rule is None:
                    continue
                if (case.name, partial.index) in NO_SLOPE:
                    continue
                made = {"all of it": lambda rule: lambda g, *args: g} if zero else dict(wrong)
                if "axis" in partial.sources:
                    made["next axis"] = functools.partial(next_axis, partial.sources.index("axis"))
                for other in filter(None, partials):
                    theirs = getattr(other, name)
                    if other is partial or theirs is None or len(other.sources) != len(partial.sources):
                        continue
                    if differ(rule, theirs):
                        made["the other input's"] = functools.partial(instead, copied(theirs))
                for what, new in made.items():
                    yield Mutant(
                        f"{case.name}: {name} of input {partial.index}: {what}",
                        (case.name,),
                        functools.partial(replaced, rule, new),
                    )
    for case in only or CASES:
        if not case.op.differentiable or case.op.variadic or not any(broadcasts(s) for s in case.samples):
            continue
        yield Mutant(
            f"{case.name}: no sum over broadcast axes",
            (case.name,),
            functools.partial(replaced, backward.unbroadcast, lambda rule: lambda g, shape, node: np.resize(g, shape)),
        )


def broadcasts(sample):
    shapes = {np.shape(x) for x in sample.inputs if np.asarray(x).dtype.kind == "f"}
    return len(shapes) > 1 and all(np.size(x) for x in sample.inputs)


# The verdict


def killed(mutant):
    """Return the fault that gives a mutant away; None if it survives."""
    with mutant.broken(), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        for name in mutant.ops:
            for sample in expanded(BY_NAME[name]):
                faults = op_checks.prove(BY_NAME[name], sample)
                if faults:
                    return faults[0]
        return at_singular_points() or second_order_and_extremes()


def second_order_and_extremes():
    """Return what is wrong with second derivatives at singular points, and with very large and small numbers."""
    for name, (made, right) in FIXED.items():
        try:
            found = made()
        except Exception as error:
            return f"{name}: {type(error).__name__}: {error}"
        if not np.allclose(found, right, rtol=1e-5, atol=1e-12, equal_nan=True):
            return f"{name}: {found}"
    return None


def singular():
    """Return the table of singular points, rows of (name, function, where, slope)."""
    for module in ("tests.cases.singular", "tests.ops.test_singular_points", "tests.ops.test_table"):
        if importlib.util.find_spec(module):
            table = importlib.import_module(module)
            if hasattr(table, "SINGULAR"):
                return table.SINGULAR + POINTS
            if hasattr(table, "GROUPS"):
                known = [p for group in table.GROUPS.values() for p in group if not isinstance(p.value, str)]
                return [(p.name, functools.partial(p.function, np), p.x, p.slope) for p in known] + POINTS
    raise LookupError("the table of singular points was not found")


def at_singular_points():
    """Return what is wrong at the points where the gradient is one of several, backward or forward."""
    for name, function, x, slope in singular():
        x, slope = np.array(x, float), np.array(slope, float)
        try:
            fault = op_checks.singular_point(function, x, slope)
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
        if fault:
            return f"{name}: {fault}"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=0, help="how many mutants; all if 0")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    mutants = chosen(options.sample, options.seed)
    survivors = [m for m in mutants if killed(m) is None]
    for mutant in survivors:
        print(f"survived: {mutant.label}  ({', '.join(mutant.ops)})")
    dead = len(mutants) - len(survivors)
    print(f"{dead} of {len(mutants)} mutants killed, {100 * dead / len(mutants):.1f} %")


def chosen(sample=0, seed=0):
    mutants = [*text_mutants(), *whole_mutants()]
    return random.Random(seed).sample(mutants, min(sample, len(mutants))) if sample else mutants


if __name__ == "__main__":
    main()
