"""Generate Python source from the calls of a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from math import isfinite
from time import perf_counter_ns
from types import CodeType, FunctionType
from typing import Any

import numpy as np

from microfw.replay.plan import CHUNK, Part, Plan
from microfw.replay.trace import CapturedArray, CapturedCall, root

OUT_BY_KEYWORD = (np.maximum, np.minimum)
"""Ufuncs that warn, which takes time, if the output is given by position."""

OPERATORS = {np.add: "+", np.subtract: "-", np.multiply: "*", np.divide: "/", np.less: "<", np.greater: ">"}
"""Operators by the ufunc that they call."""


def indented(lines: Iterable[str], depth: int = 1) -> list[str]:
    """Return indented lines."""
    return ["    " * depth + line for line in lines]


def make_function(arguments: str, lines: list[str], names: dict[str, Any]) -> FunctionType:
    """Return a function ``run`` with these lines as its body, and ``names`` as its globals."""
    # Python caches the lookup of a global in the code object, as fast as a local variable. Each function therefore
    # has a code object of its own: `replace` copies it.
    source = "\n".join([f"def run({arguments}):", *indented(lines or ["pass"])])
    return FunctionType(_compiled(source).replace(), names)


@lru_cache(maxsize=16)
def _compiled(source: str) -> CodeType:
    return next(c for c in compile(source, "<plan>", "exec").co_consts if isinstance(c, CodeType))


def write_passes(plan: Plan, mark: Callable[[Any], None] | None = None) -> list[Part]:
    """Generate the source of forward, backward and update.

    With ``mark``, the clock is read between nodes. A plan of more than `CHUNK` calls is split into functions, which
    call ``mark`` with their readings. A shorter one leaves that to the program, so its source is the same for each
    ``mark`` and is generated once.
    """
    if mark is not None and plan.instrumented:
        return plan.instrumented
    kept = {id(root(c)) for c in plan.results}
    read_later = kept | {id(root(c)) for call in plan.passes[1] for c in call.reads}
    needed = zip(plan.passes, (read_later, kept, kept), strict=True)
    parts = [_part(plan, calls, later, mark) for calls, later in needed]
    if mark is not None and len(plan.calls) <= CHUNK:
        plan.instrumented = parts
    return parts


def _part(plan: Plan, calls: list[CapturedCall], later: set[int], mark: Any) -> Part:
    chunks: list[list[CapturedCall]] = [[]]
    for call in calls:
        if (
            len(chunks[-1]) >= CHUNK and call.node is not chunks[-1][-1].node
        ):  # the calls of an op stay together, for its guards
            chunks.append([])
        chunks[-1].append(call)
    made = Part([], {}, [], [])
    for k, chunk in enumerate(chunks):
        rest = {id(root(c)) for after in chunks[k + 1 :] for call in after for c in call.reads}
        writer = Writer(plan, chunk, later | rest, mark is not None and calls is not plan.passes[2])
        body = writer.body(first=calls is plan.passes[0] and not k)
        made.nodes.extend(writer.nodes)
        if len(plan.calls) <= CHUNK:
            return Part(body, writer.names, writer.nodes, writer.readings)
        if writer.readings:
            body.append(f"{writer.name(mark)}(({', '.join(writer.readings)},))")
        if body:
            part = f"part{next(plan.numbers)}"
            made.lines.append(f"{part}({plan.arguments})")
            made.names[part] = make_function(plan.arguments, body, writer.names)
    return made


class Writer:
    """Writes calls as Python statements. Scalars that are read ``later`` are also stored in arrays."""

    def __init__(self, plan: Plan, calls: list[CapturedCall], later: set[int], timed: bool) -> None:
        self.plan = plan
        self.calls = calls
        self.later = set(later)
        self.count = 0
        self.names: dict[str, Any] = {}
        self.known: dict[Any, str] = {}
        self.scalars: dict[int, str] = {}
        self.instrumented = timed
        self.readings: list[str] = []
        self.nodes: list[Any] = []  # what starts at each reading
        maker = {id(root(out)): call.node for call in calls for out in call.outs}
        for call in calls:  # results that are read as arrays, or by another op
            if call.fallback is not None:
                self.later |= {id(root(c)) for c in call.fallback.reads}
            for captured in call.reads:
                if captured.view is not None or maker.get(id(captured)) is not call.node:
                    self.later.add(id(root(captured)))

    def body(self, first: bool) -> list[str]:
        """Return the lines. If ``first``, they begin by copying the arguments that are not read in place."""
        inputs = self.plan.step.inputs if first else []
        lines = [
            f"{self.name(captured)}[...] = a{k}"
            for k, captured in enumerate(inputs)
            if id(captured) not in self.plan.read_in_place
        ]
        depth, within = 0, None
        for call, after in zip(self.calls, [*self.calls, None][1:], strict=True):
            if call.node is not within:
                self.close(lines, depth)
                depth, within = 0, call.node
                self.scalars.clear()
                self.read_clock(lines, within)
            if call.style == "get" and after is not None and self.overwrites(after, call):
                self.scalars[id(call.out)] = f"{self.name(call.args[0])}[{self.name(call.args[1])}]"
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
            scalar = self.scalars.get(id(value))
            if scalar is not None:
                return scalar
            if id(root(value)) in self.plan.read_in_place:
                return self.plan.read_in_place[id(root(value))] + (".T" if value.view is not None else "")
            value = self.plan.array(value)
        if isinstance(value, tuple | list):
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
        return isinstance(value, CapturedArray) and id(root(value)) in self.plan.read_in_place

    def lines(self, call: CapturedCall) -> list[str]:
        """Return the lines of a call."""
        if call.style == "guard":
            assert call.fallback is not None
            test = call.function.format(self.name(call.args[0]))
            test = f"not ({test})" if call.expected else test
            keep = {**self.scalars}
            self.scalars.clear()
            lines = [f"if {test}:", f"    {self.line(call.fallback)}", "else:"]
            self.scalars = keep
            return lines
        text = self.scalar(call)
        if text is None:
            return [self.line(call)]
        self.count += 1
        variable = self.scalars[id(call.out)] = f"s{self.count}"
        lines = [f"{variable} = {text}"]
        if id(root(call.out)) in self.later:  # type: ignore[arg-type]
            array = self.plan.array(call.out)
            lines.append(f"{self.name(array)}[()] = {variable}")
        return lines

    def scalar(self, call: CapturedCall) -> str | None:
        """Return a call with a scalar result as an expression, else None: operators are faster on scalars."""
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
        plan, name = self.plan, self.name
        outs = [plan.array(c) if plan.has(c) else None for c in call.outs]
        out = outs[0] if outs else None
        words = "".join(f", {k}={name(v)}" for k, v in call.kwargs.items())
        texts = ", ".join(name(a) for a in call.args)
        if call.style == "ufunc":
            place, before = "out=" if call.function in OUT_BY_KEYWORD else "", ""
            row = None if self.reads_in_place(call.args[-1]) else plan.array(call.args[-1])
            if isinstance(row, np.ndarray) and out is not None and row.ndim == 1 and out.shape[1:] == row.shape:
                rows, repeat = plan.scratch(out, row.dtype), row.reshape(1, -1).take  # faster than broadcasting
                before = f"{name(repeat)}({name(plan.zeros(len(rows)))}, 0, {name(rows)}, 'clip'); "
                texts = f"{name(call.args[0])}, {name(rows)}"
            return f"{before}{name(call.function)}({texts}, {place}{name(out)}{words})"
        if call.style == "reduce":
            axis, keepdims = call.kwargs.get("axis", 0), call.kwargs.get("keepdims", False)
            return f"{name(call.function.reduce)}({texts}, {name(axis)}, None, {name(out)}, {name(keepdims)})"
        if call.style == "dot":
            left = plan.array(call.args[0])
            if isinstance(left, np.ndarray) and out is not None and out.flags.c_contiguous:
                method = f"{name(call.args[0])}.dot" if self.reads_in_place(call.args[0]) else name(left.dot)
                return f"{method}({name(call.args[1])}, {name(out)})"
        if call.style == "cast":
            return f"{name(out)}[...] = {texts}"
        if call.style == "get":
            return f"{name(out)}[...] = {name(call.args[0])}[{name(call.args[1])}]"
        if call.style == "set":
            return f"{name(out)}[{name(call.args[1])}] = {name(call.args[2])}"
        if call.style == "write":
            return f"{name(call.function)}({texts})"
        if call.style == "out":
            return f"{name(call.function)}({texts}{words}, out={name(out)})"
        value = f"{name(call.function)}({texts}{words})"
        if len(outs) == 1:
            return f"{name(store)}({name(out)}, {value})"
        results = ", ".join(f"r{k}" for k in range(len(outs)))
        copies = "; ".join(
            f"{name(store)}({name(o)}, r{k})"
            for k, (o, captured) in enumerate(zip(outs, call.outs, strict=True))
            if o is not None and plan.is_read(captured)
        )
        return f"{results} = {value}; {copies or 'pass'}"


def store(out: Any, value: Any) -> None:
    """Copy a call's result into ``out``. A result of another shape, as of a longer mask, or dtype ends the replay."""
    if type(value) is not np.ndarray:
        value = np.asarray(value)
    if value.shape != out.shape or value.dtype != out.dtype:
        raise ValueError("a result of another shape or dtype than in the plan")
    out[...] = value
