"""A plan: captured calls with a place in memory for every array, written out as straight-line Python."""

from __future__ import annotations

from itertools import count
from typing import Any, NamedTuple

import numpy as np

from microfw.autograd.scope import path
from microfw.optim.flat import aligned
from microfw.replay.capture import Captured
from microfw.replay.trace import Array, Call, Cell, cells_in, root

CHUNK = 200
"""Calls in one function: the compiler takes more than linear time over longer ones."""


class Part(NamedTuple):
    """A pass, or the update, as lines of Python, and what the names in them stand for.

    ``nodes`` are what begins at readings of the clock; ``readings`` their names, if they are for somebody to take.
    """

    lines: list[str]
    names: dict[str, Any]
    nodes: list[Any]
    readings: list[str]


class Plan:
    """The calls that are needed, and the memory that they work in.

    Attributes
    ----------
    calls : list of Call
        What is left after dropping what nothing reads.
    bytes_planned, bytes_without : int
        Memory of results: with reuse, and if each had its own.
    """

    def __init__(self, captured: Captured) -> None:
        self.captured = captured
        self.results = [*captured.outputs, *(cell for _, cell in captured.shared)]
        self.calls = self._needed(captured)
        self.read = {id(root(c)) for c in self.results}
        for call in self.calls:
            self.read |= {id(root(c)) for c in (*call.reads, *(call.instead.reads if call.instead else ()))}
        self.impure = any(not call.pure and call.style != "guard" for call in self.calls)
        self.arrays: dict[int, Array] = {}
        self.beside: dict[Any, Array] = {}
        self.held: list[Any] = [captured]
        self.bytes_planned = self.bytes_without = 0
        self._place()
        self.direct = {id(cell): f"a{k}" for k, cell in enumerate(captured.inputs) if self._direct(cell)}
        parts = [set(part) for part in (captured.forward, captured.backward, captured.update)]
        self.passes = [[call for call in self.calls if call in part] for part in parts]
        self.arguments = ", ".join(f"a{k}" for k in range(len(captured.inputs)))
        self.numbers = count()
        self.timed: list[Part] = []  # by `write_passes`, with readings of the clock

    def _needed(self, captured: Captured) -> list[Call]:
        """Drop the calls whose results nothing reads."""
        live = {id(root(c)) for c in self.results}
        kept = []
        for call in reversed(captured.forward + captured.backward + captured.update):
            outs = [root(c) for c in call.outs]
            if call.pure and not any(c.fixed is not None or id(c) in live for c in outs):
                continue
            kept.append(call)
            live |= {id(root(c)) for c in call.reads} | {id(c) for c in outs}
        return kept[::-1]

    def __str__(self) -> str:
        names: dict[int, str] = {}

        def place(cell: Cell) -> str:
            array = self.array(cell)
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
                args = ", ".join(place(a) if isinstance(a, Cell) and self.has(a) else "…" for a in call.args)
                outs = ", ".join(place(c) for c in call.outs if self.has(c))
                lines.append(f"{phase:8} {layer:20} {op:16} {function}({args}){' -> ' + outs if outs else ''}")
        return "\n".join(lines)

    # Memory

    def _place(self) -> None:
        """Give every result memory; a result that is dead leaves its own to later ones."""
        last: dict[int, int] = {}
        ends = {id(call.node): k for k, call in enumerate(self.calls)}
        apart: set[int] = set()  # results that one call may fill together, so that none takes another's memory
        for k, call in enumerate(self.calls):
            for cell in (*call.reads, *call.outs):
                last[id(root(cell))] = max(k, last.get(id(root(cell)), 0))
            if call.instead is not None:  # what would take over reads its inputs, and fills all results of the op
                for cell in call.instead.reads:
                    last[id(root(cell))] = max(k, last.get(id(root(cell)), 0))
                for cell in call.instead.outs:
                    apart.add(id(root(cell)))
                    last[id(root(cell))] = max(ends[id(call.node)], last.get(id(root(cell)), 0))
        for cell in self.results:
            last[id(root(cell))] = len(self.calls)
        free: dict[int, list[Array]] = {}
        blocks: dict[int, Array] = {}
        for k, call in enumerate(self.calls):
            for out in call.outs:
                target = root(out)
                if target.fixed is not None or id(target) in blocks:
                    continue
                size = target.array.nbytes
                self.bytes_without += size
                heir = self._heir(call, target, last, k, blocks, apart)
                if heir is not None:  # its very array: of two over the same memory, NumPy works out what they share
                    blocks[id(target)], self.arrays[id(target)] = blocks.pop(id(heir)), self.arrays[id(heir)]
                    continue
                stack = free.get(size)
                blocks[id(target)] = stack.pop() if stack else self._block(size)
                self.arrays[id(target)] = shaped(blocks[id(target)], target.array)
            for cell in {id(root(c)): root(c) for c in (*call.reads, *call.outs)}.values():
                if last[id(cell)] == k and id(cell) in blocks:
                    free.setdefault(cell.array.nbytes, []).append(blocks.pop(id(cell)))

    def _block(self, size: int) -> Array:
        self.bytes_planned += size
        return aligned(size, np.uint8)

    def _heir(
        self, call: Call, target: Cell, last: dict[int, int], k: int, blocks: dict[int, Array], apart: set[int]
    ) -> Cell | None:
        """Return an input that ends here and may be overwritten by the result, entry by entry."""
        if call.style != "ufunc" or call.kwargs or call.function.signature is not None:
            return None
        roots = [root(c) for c in call.reads]
        for cell in call.reads:
            if (
                cell.view is None
                and cell.fixed is None
                and id(cell) in blocks
                and not (id(cell) in apart and id(target) in apart)
                and last[id(cell)] == k
                and sum(r is cell for r in roots) == 1
                and cell.array.dtype == target.array.dtype
                and cell.array.shape == target.array.shape
                and cell.array.strides == target.array.strides
            ):
                return cell
        return None

    def scratch(self, like: Array, dtype: Any) -> Array:
        """Return memory that a call may use on the side."""
        return self.beside.setdefault((like.shape, dtype), aligned(like.size, dtype).reshape(like.shape))

    def array(self, value: Any) -> Any:
        """Return what stands at replay for a cell, or for cells inside of lists."""
        if isinstance(value, tuple | list):
            return type(value)(self.array(v) for v in value)
        if not isinstance(value, Cell):
            return value
        if value.fixed is not None:
            return value.fixed
        found = self.arrays.get(id(value))
        if found is None:
            if value.view is None:
                raise AssertionError("a cell that no call fills")
            function, args, kwargs = value.view
            found = self.arrays[id(value)] = function(*self.array(args), **kwargs)
            self.held.append(value)
        return found

    def has(self, cell: Cell) -> bool:
        """Whether a cell has memory."""
        return cell.fixed is not None or id(root(cell)) in self.arrays

    def is_read(self, cell: Cell) -> bool:
        """Whether anything reads a result; an auxiliary one that no derivative needs may be None."""
        return cell.fixed is not None or id(root(cell)) in self.read

    def zeros(self, n: int) -> Array:
        """Return as many zeros: the indices that repeat the first row."""
        return self.beside.setdefault(n, np.zeros(n, np.intp))

    # Code

    def _direct(self, cell: Cell) -> bool:
        """Whether an argument can be read where it is: nothing but the array itself and its transpose is needed."""
        calls = [c for call in self.calls for c in (call, call.instead) if c is not None]
        views = [c for call in calls for c in call.reads if root(c) is cell and c is not cell]
        outputs = [root(c) for c in self.results]
        nested = (a for call in calls for a in (*call.args, *call.kwargs.values()) if not isinstance(a, Cell))
        if any(root(c) is cell for c in cells_in(nested)):
            return False  # in a list, as for np.concatenate: such arrays are written into the plan as they are
        return all(is_transpose(c) for c in views) and not any(c is cell for c in outputs)


def is_transpose(cell: Cell) -> bool:
    """Whether a cell is the transpose of one with memory of its own."""
    return (
        cell.view is not None
        and cell.view[0] is np.transpose
        and len(cell.view[1]) == 1
        and cell.view[1][0].view is None
    )


def shaped(block: Array, like: Array) -> Array:
    """Return a block of memory as an array with the shape, dtype and order of axes of another."""
    return np.ndarray(like.shape, like.dtype, block, strides=np.empty_like(like).strides)
