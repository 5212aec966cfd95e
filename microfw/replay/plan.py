"""A plan: the calls of a captured step, with memory assigned to every result."""

from __future__ import annotations

from itertools import count
from typing import Any, NamedTuple

import numpy as np

from microfw.autograd.scope import path
from microfw.optim.flat import aligned
from microfw.replay.capture import CapturedStep
from microfw.replay.trace import Array, CapturedArray, CapturedCall, captured_arrays_in, root

CHUNK = 200
"""Calls in one generated function. Python's compiler takes more than linear time for longer ones."""


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
    bytes_planned : int
        Memory of all results, bytes, with reuse.
    bytes_without : int
        The same if each result had its own memory.
    """

    def __init__(self, step: CapturedStep) -> None:
        self.step = step
        self.results = [*step.outputs, *(captured for _, captured in step.shared)]
        self.calls = self._needed(step)
        self.read = {id(root(c)) for c in self.results}
        for call in self.calls:
            self.read |= {id(root(c)) for c in (*call.reads, *(call.fallback.reads if call.fallback else ()))}
        self.impure = any(not call.pure and call.style != "guard" for call in self.calls)
        self.arrays: dict[int, Array] = {}
        self._scratch: dict[Any, Array] = {}
        self.keep_alive: list[Any] = [step]
        self.bytes_planned = self.bytes_without = 0
        self._place()
        self.read_in_place = {
            id(captured): f"a{k}" for k, captured in enumerate(step.inputs) if self._is_read_in_place(captured)
        }
        parts = [set(part) for part in (step.forward, step.backward, step.update)]
        self.passes = [[call for call in self.calls if call in part] for part in parts]
        self.arguments = ", ".join(f"a{k}" for k in range(len(step.inputs)))
        self.numbers = count()
        self.instrumented: list[Part] = []  # by `write_passes`, with readings of the clock

    def _needed(self, step: CapturedStep) -> list[CapturedCall]:
        """Return the calls whose results are used."""
        live = {id(root(c)) for c in self.results}
        kept = []
        for call in reversed(step.forward + step.backward + step.update):
            outs = [root(c) for c in call.outs]
            if call.pure and not any(c.fixed is not None or id(c) in live for c in outs):
                continue
            kept.append(call)
            live |= {id(root(c)) for c in call.reads} | {id(c) for c in outs}
        return kept[::-1]

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
        last: dict[int, int] = {}
        ends = {id(call.node): k for k, call in enumerate(self.calls)}
        apart: set[int] = set()  # filled together by one fallback call, so they must not share memory
        for k, call in enumerate(self.calls):
            for captured in (*call.reads, *call.outs):
                last[id(root(captured))] = max(k, last.get(id(root(captured)), 0))
            if call.fallback is not None:  # the fallback reads its inputs, and fills all results of the op
                for captured in call.fallback.reads:
                    last[id(root(captured))] = max(k, last.get(id(root(captured)), 0))
                for captured in call.fallback.outs:
                    apart.add(id(root(captured)))
                    last[id(root(captured))] = max(ends[id(call.node)], last.get(id(root(captured)), 0))
        for captured in self.results:
            last[id(root(captured))] = len(self.calls)
        free: dict[int, list[Array]] = {}
        blocks: dict[int, Array] = {}
        for k, call in enumerate(self.calls):
            for out in call.outs:
                target = root(out)
                if target.fixed is not None or id(target) in blocks:
                    continue
                size = target.array.nbytes
                self.bytes_without += size
                donor = self._donated_input(call, target, last, k, blocks, apart)
                if donor is not None:  # the same array: NumPy checks two arrays over one memory for overlap
                    blocks[id(target)], self.arrays[id(target)] = blocks.pop(id(donor)), self.arrays[id(donor)]
                    continue
                stack = free.get(size)
                blocks[id(target)] = stack.pop() if stack else self._block(size)
                self.arrays[id(target)] = shaped(blocks[id(target)], target.array)
            for captured in {id(root(c)): root(c) for c in (*call.reads, *call.outs)}.values():
                if last[id(captured)] == k and id(captured) in blocks:
                    free.setdefault(captured.array.nbytes, []).append(blocks.pop(id(captured)))

    def _block(self, size: int) -> Array:
        self.bytes_planned += size
        return aligned(size, np.uint8)

    def _donated_input(
        self,
        call: CapturedCall,
        target: CapturedArray,
        last: dict[int, int],
        k: int,
        blocks: dict[int, Array],
        apart: set[int],
    ) -> CapturedArray | None:
        """Return an input whose last read is this call, and that the result can overwrite entry by entry."""
        if call.style != "ufunc" or call.kwargs or call.function.signature is not None:
            return None
        roots = [root(c) for c in call.reads]
        for captured in call.reads:
            if (
                captured.view is None
                and captured.fixed is None
                and id(captured) in blocks
                and not (id(captured) in apart and id(target) in apart)
                and last[id(captured)] == k
                and sum(r is captured for r in roots) == 1
                and captured.array.dtype == target.array.dtype
                and captured.array.shape == target.array.shape
                and captured.array.strides == target.array.strides
            ):
                return captured
        return None

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
        found = self.arrays.get(id(value))
        if found is None:
            if value.view is None:
                raise AssertionError("a captured array that no call fills")
            function, args, kwargs = value.view
            found = self.arrays[id(value)] = function(*self.array(args), **kwargs)
            self.keep_alive.append(value)
        return found

    def has(self, captured: CapturedArray) -> bool:
        """Return True if a captured array has memory."""
        return captured.fixed is not None or id(root(captured)) in self.arrays

    def is_read(self, captured: CapturedArray) -> bool:
        """Return True if a result is used. An auxiliary result that no derivative needs may be None."""
        return captured.fixed is not None or id(root(captured)) in self.read

    def zeros(self, n: int) -> Array:
        """Return n zeros: the indices that repeat the first row."""
        return self._scratch.setdefault(n, np.zeros(n, np.intp))

    # Code

    def _is_read_in_place(self, captured: CapturedArray) -> bool:
        """Return True if an argument need not be copied: only the array itself and its transpose are read."""
        calls = [c for call in self.calls for c in (call, call.fallback) if c is not None]
        views = [c for call in calls for c in call.reads if root(c) is captured and c is not captured]
        outputs = [root(c) for c in self.results]
        nested = (a for call in calls for a in (*call.args, *call.kwargs.values()) if not isinstance(a, CapturedArray))
        if any(root(c) is captured for c in captured_arrays_in(nested)):
            return False  # in a list, as for np.concatenate: lists are bound when the code is generated
        return all(is_transpose(c) for c in views) and not any(c is captured for c in outputs)


def is_transpose(captured: CapturedArray) -> bool:
    """Return True if a captured array is the transpose of one that is no view."""
    return (
        captured.view is not None
        and captured.view[0] is np.transpose
        and len(captured.view[1]) == 1
        and captured.view[1][0].view is None
    )


def shaped(block: Array, like: Array) -> Array:
    """Return a block of memory as an array with the shape, dtype and axis order of another."""
    return np.ndarray(like.shape, like.dtype, block, strides=np.empty_like(like).strides)
