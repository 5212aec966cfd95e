"""Generate Python source from the calls of a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from math import isfinite
from time import perf_counter_ns
from types import CodeType, FunctionType
from typing import Any

import numpy as np

from microfw.replay.dependencies import Dependencies
from microfw.replay.plan import CHUNK, Part, Plan
from microfw.replay.trace import Array, CapturedArray, CapturedCall

# These ufuncs warn, which takes time, if the output is given by position.
OUT_BY_KEYWORD = (np.maximum, np.minimum)

# On scalars, an operator is faster than the ufunc that it calls.
OPERATORS = {np.add: "+", np.subtract: "-", np.multiply: "*", np.divide: "/", np.less: "<", np.greater: ">"}


STATEMENTS = {
    **dict.fromkeys(("ufunc", "reduce", "dot"), "{f}({args}, {out}{words})"),
    "out": "{f}({args}{words}, out={out})",
    "cast": "{out}[...] = {0}",
    "get": "{out}[...] = {0}[{1}]",
    "set": "{out}[{1}] = {2}",
    "write": "{f}({args})",
}
"""Statements by the style of a call."""


def indented(lines: Iterable[str], depth: int = 1) -> list[str]:
    """Return indented lines."""
    return ["    " * depth + line for line in lines]


def fill(template: str, flags: dict[str, Any], **parts: Any) -> list[str]:
    """Return a template's lines without those that end with ``# if flag and flag`` where a flag is false.

    A line that names a list is replaced by the list's lines.
    """
    lines = []
    for text, _, flag in [line.partition("  # if ") for line in template.strip("\n").splitlines()]:
        if not flag or all(flags[name] for name in flag.split(" and ")):
            indent, _, name = text.partition("{")
            inner = parts.get(name[:-1])
            lines += [indent + x for x in inner] if isinstance(inner, list) else [text.format(**parts)]
    return lines


def make_function(arguments: str, lines: list[str], names: dict[str, Any]) -> FunctionType:
    """Return a function ``run`` with these lines as its body, and ``names`` as its globals."""
    # Python caches the lookup of a global in the code object, as fast as a local variable. Each function therefore
    # has a code object of its own: `replace` copies it.
    source = "\n".join([f"def run({arguments}):", *indented(lines or ["pass"])])
    return FunctionType(_compiled(source).replace(), names)


@lru_cache(maxsize=16)
def _compiled(source: str) -> CodeType:
    return next(c for c in compile(source, "<plan>", "exec").co_consts if isinstance(c, CodeType))


def guard_expression(inputs: list[Any], depends: Dependencies) -> tuple[str, dict[str, Any]]:
    """Return an expression that is true if a plan can be replayed with arguments ``a0``, ``a1``, ….

    It compares type, dtype, shape and strides of the arguments, and all that ``depends`` lists.

    Returns
    -------
    expression : str
        Python source.
    names : dict
        Objects by their names in the expression.
    """
    names: dict[str, Any] = {"kind": np.ndarray}
    tests = []
    for k, captured in enumerate(inputs):
        names |= {f"d{k}": captured.dtype, f"n{k}": captured.shape, f"e{k}": captured.strides}
        tests.append(f"type(a{k}) is kind and a{k}.dtype is d{k} and a{k}.shape == n{k}")
        single = any(n == 1 for n in captured.shape)  # NumPy may give an axis of length 1 any stride
        long = [f"a{k}.strides[{j}] == {captured.strides[j]}" for j, n in enumerate(captured.shape) if n > 1]
        tests += long if single else [f"a{k}.strides == e{k}"]
    return " and ".join([*tests, *depends.guards]) or "True", names | depends.objects


def write_passes(plan: Plan, mark: Callable[[Any], None] | None = None) -> list[Part]:
    """Generate the source of forward, backward and update.

    With ``mark``, the clock is read between nodes. A plan of more than `CHUNK` calls is split into functions, which
    call ``mark`` with their readings. A shorter one leaves that to the program, so its source is the same for each
    ``mark`` and is generated once.
    """
    if mark is not None and plan.instrumented:
        return plan.instrumented
    read_later = plan.results.union(c.root for call in plan.passes[1] for c in call.reads)
    needed = zip(plan.passes, (read_later, plan.results, plan.results), strict=True)
    parts = [_part(plan, calls, later, mark) for calls, later in needed]
    if mark is not None and len(plan.calls) <= CHUNK:
        plan.instrumented = parts
    return parts


def _part(plan: Plan, calls: list[CapturedCall], later: set[CapturedArray], mark: Any) -> Part:
    is_first, timed = calls is plan.passes[0], mark is not None and calls is not plan.passes[2]
    if len(plan.calls) <= CHUNK:
        writer = Writer(plan, calls, later, timed)
        return Part(writer.body(is_first), writer.names, writer.nodes, writer.readings)
    return _chunks(plan, calls, later, is_first, mark if timed else None)


def _chunks(plan: Plan, calls: list[CapturedCall], later: set[CapturedArray], is_first: bool, mark: Any) -> Part:
    """Return a part that calls one function for each `CHUNK` calls."""
    chunks: list[list[CapturedCall]] = [[]]
    for call in calls:
        # The calls of an op stay together, for its guards.
        if len(chunks[-1]) >= CHUNK and call.node is not chunks[-1][-1].node:
            chunks.append([])
        chunks[-1].append(call)
    made = Part([], {}, [], [])
    for k, chunk in enumerate(chunks):
        rest = {c.root for after in chunks[k + 1 :] for call in after for c in call.reads}
        writer = Writer(plan, chunk, later | rest, mark is not None)
        body = writer.body(first=is_first and not k)
        made.nodes.extend(writer.nodes)
        if writer.readings:
            body.append(f"{writer.name(mark)}(({', '.join(writer.readings)},))")
        if body:
            part = f"part{next(plan.numbers)}"
            made.lines.append(f"{part}({plan.arguments})")
            made.names[part] = make_function(plan.arguments, body, writer.names)
    return made


class Writer:
    """Writes calls as Python statements. Scalars that are read ``later`` are also stored in arrays."""

    def __init__(self, plan: Plan, calls: list[CapturedCall], later: set[CapturedArray], timed: bool) -> None:
        self.plan = plan
        self.calls = calls
        self.count = 0
        self.names: dict[str, Any] = {}
        self.known: dict[Any, str] = {}
        self.scalars: dict[CapturedArray, str] = {}
        self.instrumented = timed
        self.readings: list[str] = []
        self.nodes: list[Any] = []  # what starts at each reading
        maker = {out.root: call.node for call in calls for out in call.outs}
        # Results that are read as arrays, or by another op.
        as_arrays = (c for call in calls for c in call.reads if c.view is not None or maker.get(c) is not call.node)
        by_fallbacks = (c for call in calls if call.fallback is not None for c in call.fallback.reads)
        self.later = later.union(c.root for c in (*as_arrays, *by_fallbacks))

    def body(self, first: bool) -> list[str]:
        """Return the lines. If ``first``, they begin by copying the arguments that are not read in place."""
        inputs = self.plan.step.inputs if first else []
        lines = [
            f"{self.name(captured)}[...] = a{k}"
            for k, captured in enumerate(inputs)
            if captured not in self.plan.read_in_place
        ]
        depth, within = 0, None
        for call, after in zip(self.calls, [*self.calls, None][1:], strict=True):
            if call.node is not within:
                self.close(lines, depth)
                depth, within = 0, call.node
                self.scalars.clear()
                self.read_clock(lines, within)
            if call.style == "get" and after is not None and self.overwrites(after, call):
                self.scalars[call.outs[0]] = f"{self.name(call.args[0])}[{self.name(call.args[1])}]"
                continue
            lines += indented(self.lines(call), depth)
            depth += call.style == "guard"
        self.close(lines, depth)
        self.read_clock(lines, None)
        return lines

    def close(self, lines: list[str], depth: int) -> None:
        """End the lines of a node; its last guard may have nothing left to guard."""
        if depth and lines[-1].endswith("else:"):
            lines += indented(["pass"], depth)

    def overwrites(self, after: CapturedCall, call: CapturedCall) -> bool:
        """Return True if a call overwrites the result of another in place, so that no later call reads that result."""
        if after.style != "ufunc" or after.args[0] is not call.out or after.node is not call.node:
            return False
        return self.plan.array(after.out) is self.plan.array(call.out)

    def read_clock(self, lines: list[str], node: Any) -> None:
        """Add a reading of the clock, if the plan is instrumented."""
        if self.instrumented:
            self.readings.append(f"t{next(self.plan.numbers)}")
            self.nodes.append(node)
            lines.append(f"{self.readings[-1]} = {self.name(perf_counter_ns)}()")

    def name(self, value: Any) -> str:
        """Return the source of a value: a literal, the variable of a scalar, or the name of an object."""
        if isinstance(value, CapturedArray):
            if value in self.scalars:
                return self.scalars[value]
            if value.root in self.plan.read_in_place:
                axes = value.view[1][1:] if value.view is not None else None
                order = "" if axes is None else f".transpose{axes}" if axes else ".T"
                return self.plan.read_in_place[value.root] + order
        value = self.plan.array(value)
        if value is None or type(value) in (bool, int, str) or (type(value) is float and isfinite(value)):
            return f"({value!r})" if type(value) in (int, float) and value < 0 else repr(value)
        key: Any = id(value)
        if hasattr(value, "__self__") and not isinstance(value, np.ndarray):
            key = (id(value.__self__), value.__name__)
        if key not in self.known:
            self.known[key] = f"v{next(self.plan.numbers)}"
            self.names[self.known[key]] = value
        return self.known[key]

    def reads_in_place(self, value: Any) -> bool:
        """Return True if a value is an argument that is read in place, or a view of one."""
        return isinstance(value, CapturedArray) and value.root in self.plan.read_in_place

    def lines(self, call: CapturedCall) -> list[str]:
        """Return the lines of a call."""
        if call.style == "guard":
            assert call.fallback is not None
            test = call.function.format(self.name(call.args[0]))
            test = f"not ({test})" if call.expected else test
            scalars, self.scalars = self.scalars, {}
            lines = [f"if {test}:", f"    {self.line(call.fallback)}", "else:"]
            self.scalars = scalars
            return lines
        text = self.scalar(call)
        if text is None:
            return [self.line(call)]
        self.count += 1
        variable = self.scalars[call.out] = f"s{self.count}"  # type: ignore[index]
        store = [f"{self.name(self.plan.array(call.out))}[()] = {variable}"] if call.out in self.later else []
        return [f"{variable} = {text}", *store]

    def scalar(self, call: CapturedCall) -> str | None:
        """Return a call with a scalar result as an expression; else None."""
        out = call.out
        if out is None or out.array.ndim or out.fixed is not None or out.view is not None or call.kwargs:
            return None
        if any(other.out is out for other in self.plan.calls if other is not call):
            return None
        if call.style == "dot" and all(isinstance(self.plan.array(a), np.ndarray) and a.ndim == 1 for a in call.args):
            return f"{self.name(call.args[0])}.dot({self.name(call.args[1])})"
        if call.style == "ufunc" and call.function in OPERATORS:
            left, right = (self.name(a) for a in call.args)
            return f"{left} {OPERATORS[call.function]} {right}"
        return None

    def line(self, call: CapturedCall) -> str:
        """Return a call that writes into arrays as one line."""
        plan, name, style, function = self.plan, self.name, call.style, ""
        outs = [plan.array(c) if plan.has(c) else None for c in call.outs]
        out: Any = outs[0]
        args, words = [name(a) for a in call.args], "".join(f", {k}={name(v)}" for k, v in call.kwargs.items())
        before = ""
        if style == "ufunc":
            style = "out" if call.function in OUT_BY_KEYWORD else style
            for k, given in enumerate(call.args if call.function.signature is None else ()):  # not of a matrix product
                row = None if self.reads_in_place(given) else plan.array(given)
                if type(row) in (int, float):
                    args[k] = name(plan.number(row, call))
                elif isinstance(row, np.ndarray) and not before and is_row(row, out):
                    rows, repeat = plan.scratch(out, row.dtype), row.reshape(1, -1).take  # faster than broadcasting
                    before = f"{name(repeat)}({name(plan.zeros(len(rows)))}, 0, {name(rows)}, 'clip'); "
                    args[k] = name(rows)
        elif style == "reduce":
            args += [name(call.kwargs.get("axis", 0)), "None"]
            words = f", {name(call.kwargs.get('keepdims', False))}"
        elif style == "dot":
            left = plan.array(call.args[0])
            if isinstance(left, np.ndarray) and out.flags.c_contiguous:
                function = f"{args.pop(0)}.dot" if self.reads_in_place(call.args[0]) else name(left.dot)
                args = args[-1:]
            else:
                style = "copy"
        elif call.function is np.copyto and type(call.args[1]) in (int, float):  # half of the time
            return f"{name(out.fill)}({args[1]})"
        function = function or name(call.function)
        if style in STATEMENTS:
            texts = {"f": function, "args": ", ".join(args), "out": name(out), "words": words}
            return before + STATEMENTS[style].format(*args, **texts)
        value = f"{function}({', '.join(args)}{words})"
        if len(outs) == 1:
            return f"{name(store)}({name(out)}, {value})"
        results = ", ".join(f"r{k}" for k in range(len(outs)))
        copies = "; ".join(
            f"{name(store)}({name(o)}, r{k})"
            for k, (o, captured) in enumerate(zip(outs, call.outs, strict=True))
            if o is not None and (not k or plan.is_read(captured))  # the first for its shape
        )
        return f"{results} = {value}; {copies or 'pass'}"


def is_row(array: Array, out: Array) -> bool:
    """Return True if an array is repeated for each row of a matrix."""
    return out.ndim == 2 and len(out) > 1 and array.shape in (out.shape[1:], (1, *out.shape[1:]))


def store(out: Any, value: Any) -> None:
    """Copy a call's result into ``out``. A result of another shape, as of a longer mask, or dtype ends the replay."""
    if type(value) is not np.ndarray:
        value = np.asarray(value)
    if value.shape != out.shape or value.dtype != out.dtype:
        raise ValueError("a result of another shape or dtype than in the plan")
    out[...] = value
