"""A plan: the calls of a captured step, with memory assigned to every result."""

from __future__ import annotations

from itertools import count
from typing import Any, NamedTuple

import numpy as np

from microfw.autograd.scope import path
from microfw.optim.flat import aligned
from microfw.replay.capture import CapturedStep
from microfw.replay.trace import Array, CapturedArray, CapturedCall, captured_arrays_in

# Calls in one generated function. Python's compiler takes more than linear time for longer ones.
CHUNK = 200


MAX_FULL_BYTES = 1 << 20
"""Largest operand, in bytes, that a plan stores as a full array."""


class Part(NamedTuple):
    """Generated source of forward, backward or update.

    Attributes
    ----------
    lines : list of str
        Python statements.
    names : dict
        Objects by their names in the lines.
    nodes : list of OpRecord or None
        The op that starts at each reading of the clock; None at the last reading.
    readings : list of str
        Variables that hold the readings; empty if the lines store the readings themselves.
    """

    lines: list[str]
    names: dict[str, Any]
    nodes: list[Any]
    readings: list[str]


class Plan:
    """The calls to replay, and the memory of their results.

    Attributes
    ----------
    calls : list of CapturedCall
        In order, without those whose results are not used.
    written : set of int
        The ids of arrays that were there before the step and to which the forward pass writes.
    bytes_planned : int
        Memory of all results, bytes, with reuse.
    bytes_without : int
        The same if each result had its own memory.
    """

    def __init__(self, step: CapturedStep) -> None:
        self.step = step
        self.results = {c.root for c in (*step.outputs, *(captured for _, captured in step.shared))}
        parts = step.forward, step.backward, step.update
        needed = self._needed([call for part in parts for call in part])
        self.passes = [[call for call in part if call in needed] for part in parts]
        self.calls = [call for part in self.passes for call in part]
        self.read = self.results | {c.root for call in self.calls for c in call.all_reads}
        roots = (c.root for call in self.passes[0] for c in call.outs)
        self.written = {id(c.fixed) for c in roots if c.fixed is not None}
        self.impure = bool(self.written) or any(not call.pure and call.style != "guard" for call in self.calls)
        self.arrays: dict[CapturedArray, Array] = {}
        self._scratch: dict[Any, Array] = {}
        self.bytes_planned = self.bytes_without = 0
        self._place()
        self.read_in_place = {c: f"a{k}" for k, c in enumerate(step.inputs) if self._is_read_in_place(c)}
        self.arguments = ", ".join(f"a{k}" for k in range(len(step.inputs)))
        self.numbers = count()
        self.instrumented: list[Part] = []  # by `write_passes`, with readings of the clock

    def _needed(self, calls: list[CapturedCall]) -> set[CapturedCall]:
        """Return the calls whose results are used, or whose results have shapes that code may have read."""
        live, needed = {*self.results}, set()
        for call in reversed(calls):
            outs = {c.root for c in call.outs}
            unused = call.pure and live.isdisjoint(outs) and all(c.fixed is None for c in outs)
            if unused and not call.may_change_shape:
                continue
            needed.add(call)
            live |= outs.union(c.root for c in call.all_reads)
        return needed

    def __str__(self) -> str:
        names: dict[int, str] = {}

        def place(captured: CapturedArray) -> str:
            array = self.array(captured)
            where = names.setdefault(array.__array_interface__["data"][0], f"m{len(names)}")
            return f"{where}{list(array.shape)}"

        lines = [
            f"{len(self.calls)} calls, {self.bytes_planned:,} bytes for results; {self.bytes_without:,} without reuse"
        ]
        for phase, calls in zip(("forward", "backward", "update"), self.passes, strict=True):
            for call in calls:
                layer = path(call.node.scope) if call.node is not None else ""
                op = call.node.op.name if call.node is not None else ""
                function = call.function if call.style == "guard" else getattr(call.function, "__name__", "call")
                args = ", ".join(place(a) if isinstance(a, CapturedArray) and self.has(a) else "…" for a in call.args)
                outs = ", ".join(place(c) for c in call.outs if self.has(c))
                lines.append(f"{phase:8} {layer:20} {op:16} {function}({args}){' -> ' + outs if outs else ''}")
        return "\n".join(lines)

    # Memory

    def _place(self) -> None:
        """Assign memory to every result; memory is reused after the last read of a result."""
        last: dict[CapturedArray, int] = {}  # the call that reads or fills it last
        for k, call in enumerate(self.calls):
            last |= dict.fromkeys((c.root for c in (*call.all_reads, *call.outs)), k)
        ends = {call.node: k for k, call in enumerate(self.calls)}
        apart: set[CapturedArray] = set()
        for call in self.calls:
            if call.fallback is not None:  # fills all results of the op at once, so they must not share memory
                outs = {c.root for c in call.fallback.outs}
                last |= {c: max(ends[call.node], last.get(c, 0)) for c in outs}
                apart |= outs
        last |= dict.fromkeys(self.results, len(self.calls))
        free: dict[int, list[Array]] = {}
        blocks: dict[CapturedArray, Array] = {}
        for k, call in enumerate(self.calls):
            ending = [c for c in call.reads if c in blocks and last[c] == k]
            for target in [c.root for c in call.outs]:
                if target.fixed is not None or target in blocks:
                    continue
                size = target.array.nbytes
                self.bytes_without += size
                donor = next((c for c in ending if can_donate(c, call, target) and not {c, target} <= apart), None)
                if donor is not None:  # the same array: NumPy checks two arrays over one memory for overlap
                    blocks[target], self.arrays[target] = blocks.pop(donor), self.arrays[donor]
                    continue
                blocks[target] = free[size].pop() if free.get(size) else self._block(size)
                self.arrays[target] = shaped(blocks[target], target.array)
            for captured in dict.fromkeys(c.root for c in (*call.reads, *call.outs)):
                if last[captured] == k and captured in blocks:
                    free.setdefault(captured.array.nbytes, []).append(blocks.pop(captured))

    def _block(self, size: int) -> Array:
        self.bytes_planned += size
        return aligned(size, np.uint8)

    def scratch(self, like: Array, dtype: Any) -> Array:
        """Return scratch memory with the shape of an array."""
        return self._scratch.setdefault((like.shape, dtype), aligned(like.size, dtype).reshape(like.shape))

    def array(self, value: Any) -> Any:
        """Return the array of a captured array, also inside of lists; other values are returned unchanged."""
        if isinstance(value, tuple | list):
            return type(value)(self.array(v) for v in value)
        if not isinstance(value, CapturedArray):
            return value
        if value.fixed is not None:
            return value.fixed
        if value not in self.arrays:
            function, args, kwargs = value.view
            self.arrays[value] = function(*self.array(args), **kwargs)
        return self.arrays[value]

    def has(self, captured: CapturedArray) -> bool:
        """Return True if a captured array has memory."""
        return captured.fixed is not None or captured.root in self.arrays

    def is_read(self, captured: CapturedArray) -> bool:
        """Return True if a result is used. An auxiliary result that no derivative needs may be None."""
        return captured.fixed is not None or captured.root in self.read

    def zeros(self, n: int) -> Array:
        """Return n zeros: the indices that repeat the first row."""
        return self._scratch.setdefault(n, np.zeros(n, np.intp))

    def number(self, value: Any, call: CapturedCall) -> Any:
        """Return an argument of a ufunc as an array of the others' dtype, if the result is the same."""
        # 0.5 µs less in each call; np.maximum(x, zeros) takes a quarter of the time of np.maximum(x, 0)
        kinds = {c.dtype for c in call.reads}
        dtype = kinds.pop() if len(kinds) == 1 else np.dtype(object)
        if dtype.kind != "f" or not {2 * dtype.char + "->" + end for end in (dtype.char, "?")} & {*call.function.types}:
            return value
        whole = call.function in (np.maximum, np.minimum) and call.outs[0].nbytes <= MAX_FULL_BYTES
        shape = call.outs[0].shape if whole else ()
        key = (repr(value), dtype, shape)
        if key not in self._scratch:
            self._scratch[key] = np.full(shape, value, dtype)
        return self._scratch[key]

    # Code

    def _is_read_in_place(self, captured: CapturedArray) -> bool:
        """Return True if an argument need not be copied: it is read as it is, or with axes in another order."""
        calls = [c for call in self.calls for c in (call, call.fallback) if c is not None]
        lists = [a for c in calls for a in (*c.args, *c.kwargs.values()) if not isinstance(a, CapturedArray)]
        views = [c for call in calls for c in call.reads if c.root is captured and c is not captured]
        # Lists, as for np.concatenate, are bound when the code is generated.
        joined = any(c.root is captured for c in captured_arrays_in(lists))
        return not joined and captured not in self.results and all(map(is_transpose, views))


def can_donate(captured: CapturedArray, call: CapturedCall, target: CapturedArray) -> bool:
    """Return True if a call's result can overwrite an input, entry by entry."""
    mine, its = captured.array, target.array
    alike = (mine.dtype, mine.shape, mine.strides) == (its.dtype, its.shape, its.strides)
    elementwise = call.style == "ufunc" and not call.kwargs and call.function.signature is None
    return elementwise and alike and sum(c.root is captured for c in call.reads) == 1


def is_transpose(view: CapturedArray) -> bool:
    """Return True if a view has the axes of an array that is no view in another order."""
    assert view.view is not None
    function, args, kwargs = view.view
    return function is np.transpose and not kwargs and args[0].view is None


def shaped(block: Array, like: Array) -> Array:
    """Return a block of memory as an array with the shape, dtype and axis order of another."""
    return np.ndarray(like.shape, like.dtype, block, strides=np.empty_like(like).strides)
