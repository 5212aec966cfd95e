"""Flat buffers: all parameters in one array, all gradients in another.

An update is then a few NumPy calls for any number of layers. Each parameter is a view of the first array, and its
gradient a view of the second, so nothing is copied between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from math import isfinite
from typing import Any

import numpy as np

from microfw.autograd.graph import Leaf
from microfw.autograd.mode import model_version
from microfw.autograd.pytree import flatten
from microfw.autograd.tensor import Tensor, values_of
from microfw.errors import ArgumentError, DTypeError, GraphError, NonFiniteError, ShapeError

Array = np.ndarray[Any, Any]

_vdot = getattr(np.vdot, "__wrapped__", np.vdot)  # without NumPy's dispatch to arrays of other libraries


def aligned(size: int, dtype: Any) -> Array:
    """Return zeros that start at a cache line."""
    # An operation on aligned arrays takes up to a fifth less time.
    raw = np.zeros(size * np.dtype(dtype).itemsize + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + len(raw) - 64].view(dtype)


class Owner:
    """Marks the leaves of an optimizer.

    Attributes
    ----------
    taken_by : str
        A leaf that another optimizer has taken, or "".
    handed_out : bool
        Whether a leaf may have a gradient outside of the buffer, since code has read it.
    """

    __slots__ = ("handed_out", "taken_by")

    def __init__(self) -> None:
        self.taken_by = ""
        self.handed_out = False


class Flat:
    """Parameters and gradients as views of two buffers.

    Parameters
    ----------
    parameters : iterable of Tensor
        Leaves of one dtype. Repeated ones are counted once.
    where : str
        Name of the caller in error messages.
    squares : bool
        Whether the optimizer squares gradients; then a gradient with a square that overflows is an error.

    Attributes
    ----------
    values : ndarray
        All parameters, shape (P,).
    gradients : ndarray
        All gradients, shape (P,).
    spans : list of slice
        The part of each parameter in both buffers.
    squared : float
        Sum of the squares of all gradients at the last step.
    """

    def __init__(self, parameters: Iterable[Tensor], where: str, squares: bool = False) -> None:
        self.where = where
        self.squares = squares
        self.squared = 0.0
        self.parameters = list({id(p): p for p in parameters}.values())
        if not self.parameters:
            raise ArgumentError(where, "at least one parameter", "none", "pass model.parameters()")
        for p in self.parameters:
            if not isinstance(p, Tensor) or p._leaf is None:
                kind = "the result of an op" if isinstance(p, Tensor) else type(p).__name__
                raise ArgumentError(where, "parameters, which are leaves", kind, "pass model.parameters()")
        dtypes = {p.dtype for p in self.parameters}
        if len(dtypes) > 1 or self.parameters[0].dtype.kind != "f":
            raise DTypeError(where, "parameters of one float dtype", sorted(map(str, dtypes)), "use model.astype first")
        self.adopt()

    def adopt(self) -> None:
        """Move the parameters into new buffers, and mark them as owned."""
        self.owner = Owner()
        model_version.count += 1  # captured plans read the former buffers
        dtype = self.parameters[0].dtype
        ends = np.cumsum([p.size for p in self.parameters]).tolist()
        self.spans = [slice(end - p.size, end) for p, end in zip(self.parameters, ends, strict=True)]
        self.values, self.gradients = aligned(ends[-1], dtype), aligned(ends[-1], dtype)
        self.leaves: list[Leaf] = []
        for p, span in zip(self.parameters, self.spans, strict=True):
            leaf = p._leaf
            assert leaf is not None
            if leaf.owner is not None:
                leaf.owner.taken_by = leaf.where
            gradient = leaf.grad  # kept: a new optimizer may be made between backward and step
            view = self.values[span].reshape(p.shape)
            view[...] = p._array
            p._array = view
            leaf.owner, leaf.grad, leaf.grad_buffer = self.owner, None, self.gradients[span].reshape(p.shape)
            if gradient is not None:
                leaf.accumulate_grad(gradient)
            self.leaves.append(leaf)

    def ready(self) -> None:
        """Check that a step is possible, and sum the squares of the gradients.

        The version of every leaf increases, so that backward through a graph that needs the old values raises.

        Raises
        ------
        GraphError
            If another optimizer, or `Module.astype`, has taken a parameter over.
        NonFiniteError
            If a gradient holds NaN or infinity.
        """
        self.check_owned(f"{self.where}.step")
        if self.owner.handed_out:
            self.collect()
        self.squared = sum([self._square(g) for g in self.joined(self.present())], 0.0)
        for leaf in self.leaves:
            leaf.version += 1

    def collect(self) -> None:
        """Copy gradients that were handed out into the buffer: code that has them may have changed them."""
        own = [leaf for leaf in self.leaves if leaf.grad is not None and leaf.grad is not leaf.grad_buffer]
        self.owner.handed_out = bool(own) and not self.owner.taken_by
        for leaf in own if self.owner.handed_out else ():
            leaf.grad_buffer[...] = leaf.grad  # type: ignore[index]

    def present(self) -> tuple[bool, ...]:
        """Return, for each parameter, whether it has a gradient."""
        return tuple([leaf.grad is not None for leaf in self.leaves])

    def joined(self, present: tuple[bool, ...]) -> list[Array]:
        """Return the gradients of some parameters: those of neighbours as one array."""
        spans: list[slice] = []
        for span, flag in zip(self.spans, present, strict=True):
            if flag and spans and spans[-1].stop == span.start:
                spans[-1] = slice(spans[-1].start, span.stop)
            elif flag:
                spans.append(span)
        return [self.gradients[span] for span in spans]

    def selection(self, present: tuple[bool, ...]) -> tuple[list[tuple[Leaf, bool]], Callable[[], Any], Array]:
        """Return what updates of some parameters need.

        Each leaf with whether its gradient is missing; a function that returns the sum of the squares of the gradients;
        and what a step adds to the step counts.
        """
        missing = [(leaf, not flag) for leaf, flag in zip(self.leaves, present, strict=True)]
        parts = self.joined(present)
        # of one array a call without a frame
        square = partial(_vdot, parts[0], parts[0]) if len(parts) == 1 else partial(_sum_squares, parts)
        return missing, square, np.array(present, np.int64)

    def write(self, values: Any) -> None:
        """Set all parameters. Backward through a graph that needs the old values raises then."""
        self.check_owned(f"{self.where}.write")
        self.values[...] = values
        for leaf in self.leaves:
            leaf.version += 1

    def check_owned(self, where: str) -> None:
        """Raise GraphError if another optimizer, or `Module.astype`, has taken a parameter over."""
        if self.owner.taken_by:
            raise GraphError(
                f"{where}: expected to own its parameters, got {self.owner.taken_by} taken over by another "
                "optimizer or by astype; make one optimizer for all parameters, after astype"
            )

    def set_gradients(self, gradients: Any, where: str) -> None:
        """Set the gradients of the parameters: by name from a dict, else in order.

        Raises
        ------
        ArgumentError, ShapeError
            If names, number or shapes differ; then no gradient has changed.
        """
        names = [leaf.name for leaf in self.leaves]
        if isinstance(gradients, dict) and all(names):
            unknown = [name for name in gradients if name not in names]
            if unknown:
                raise ArgumentError(where, f"gradients of {', '.join(names)}", repr(unknown[0]))
            found = [gradients.get(name) for name in names]
        else:
            found = flatten(gradients)[0]
            if callable(gradients):
                fix = "call it before, then step(); optim.LBFGS takes a closure"
                raise ArgumentError(where, "gradients, or nothing", "a function", fix)
            if len(found) != len(names):
                fix = "pass what mf.grad returns for these parameters"
                raise ArgumentError(where, f"a gradient for each of {len(names)} parameters", len(found), fix)
        arrays = [None if g is None else np.asarray(values_of(g)) for g in found]
        for leaf, name, g in zip(self.leaves, names, arrays, strict=True):
            if g is not None and (g.shape != leaf.shape or g.dtype.kind != "f"):
                raise ShapeError(where, f"a gradient of {name or 'a parameter'}, {leaf.shape}", f"{g.dtype} {g.shape}")
        for p, g in zip(self.parameters, arrays, strict=True):
            p.grad = g

    def named_shapes(self) -> list[Any]:
        """Return ``[name, shape]`` of each parameter, as plain data. A parameter of no module has the name ``""``."""
        return [[leaf.name, list(leaf.shape)] for leaf in self.leaves]

    def check_same_parameters(self, state: Any, where: str) -> None:
        """Raise ArgumentError unless a state is of these parameters, by name, shape and order.

        Parameters
        ----------
        state : dict
            Its "parameters" are what `named_shapes` returned. In states of older versions they are missing.
        where : str
            Name of the caller in error messages.

        Notes
        -----
        A name is the path from the outermost module that has listed its parameters. ``body.0.weight`` and
        ``0.weight`` are the same parameter if ``body`` was used alone in one of the two runs.
        """
        if not isinstance(state, Mapping):
            raise ArgumentError(where, "what state_dict() returned", type(state).__name__)
        saved = state.get("parameters")
        if saved is None:
            return
        fix = "make the optimizer for the same model, in the same order"
        try:
            names, shapes = [str(name) for name, _ in saved], [tuple(map(int, shape)) for _, shape in saved]
        except (TypeError, ValueError):
            raise ArgumentError(where, "parameters, each a name and a shape", repr(saved)[:80]) from None
        for k, (leaf, name, shape) in enumerate(zip(self.leaves, names, shapes, strict=False)):
            # The same parameter may have a longer path in one run, where the model was part of another.
            ours, theirs = (f".{path}" if path else "" for path in (leaf.name, name))
            if not (ours.endswith(theirs) or theirs.endswith(ours)) or tuple(leaf.shape) != shape:
                mine = f"a state for parameter {leaf.name or k} of shape {tuple(leaf.shape)}"
                raise ArgumentError(where, mine, f"one for {name or k} of shape {shape}", fix)
        if len(names) != len(self.leaves):
            own = [leaf.name or str(k) for k, leaf in enumerate(self.leaves)]
            rest = own[len(names) :] or names[len(own) :]
            got = f"{len(names)}, {'without' if len(names) < len(own) else 'with another'} {rest[0] or 'one'}"
            raise ArgumentError(where, f"a state for {len(own)} parameters", got, fix)

    def _square(self, g: Array) -> float:
        squared = float(np.vdot(g, g))  # finite only if all entries are
        if isfinite(squared):
            return squared
        if not np.isfinite(g).all():  # all finite: the sum has overflowed
            self._refuse()
        if self.squares:
            most = float(np.sqrt(np.finfo(g.dtype).max))
            self._refuse(most, f"gradients below {most:.2g}, whose squares are finite", "clip them, or scale the loss")
        return float(np.vdot(g.astype(np.float64), g))  # in float32 the square of 1.9e19 overflows

    def _refuse(self, most: float = np.inf, expected: str = "finite gradients", fix: str = "") -> None:
        for k, leaf in enumerate(self.leaves):
            if leaf.grad is not None and not (np.abs(leaf.grad) < most).all():
                name = leaf.name or f"number {k}"
                bad = leaf.grad[~(np.abs(leaf.grad) < most)].flat[0]
                fix = fix or "lower the learning rate or look for the op that makes it"
                raise NonFiniteError(
                    f"{self.where}.step: expected {expected}, got {bad} for parameter {name}; "
                    f"no parameter was changed; {fix}"
                )

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("where", "squares", "squared", "parameters")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.adopt()


def _sum_squares(gradients: list[Array]) -> float:
    return sum([float(_vdot(g, g)) for g in gradients], 0.0)
