"""Tensor: an array and its node in the graph, with NumPy's operators and functions."""

from __future__ import annotations

from typing import Any

import numpy as np

from microfw.autograd._tensor_base import Array, TensorBase, native, refuse_masked, warn_of_detaching, writable
from microfw.autograd.backward import backward_pass
from microfw.autograd.grad_hooks import GradientHook, GradientHooks, Handle, node_hooks
from microfw.autograd.graph import Leaf, Node
from microfw.autograd.leaf_values import leaf_values
from microfw.autograd.mode import MODE, model_version
from microfw.errors import DTypeError, GraphError, ShapeError


class Tensor(TensorBase["Tensor"]):
    """An array that remembers how it was computed.

    Parameters
    ----------
    data : array_like
        The values; copied. The dtype is kept.
    requires_grad : bool
        Whether `backward` is to leave a gradient in `grad`.

    Raises
    ------
    DTypeError
        If the values are not numbers, are float16 or longer than float64, or need a gradient and are no floats.

    See Also
    --------
    tensor : the same, with a dtype.

    Examples
    --------
    >>> import numpy as np, microfw as mf
    >>> x = mf.tensor([1.0, 2.0], requires_grad=True)
    >>> y = np.sum(np.exp(x) * 2)
    >>> y.backward()
    >>> x.grad
    array([ 5.43656366, 14.7781122 ])
    """

    __slots__ = ("__weakref__", "_array", "_leaf", "_node")

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        if isinstance(data, Tensor) and data._node is not None:
            warn_of_detaching(*_COPY)
        if type(data) is not np.ndarray:
            refuse_masked(data, "Tensor")
        array = native(np.array(values_of(data)))
        if array.dtype.kind not in "fiub" or (array.dtype.kind == "f" and array.dtype.char not in "fd"):
            raise DTypeError("Tensor", "float32, float64, integers or booleans", array.dtype, "cast it with .astype")
        self._array = array
        self._leaf = Leaf(array.shape, array.dtype)
        self._node = None
        if requires_grad:
            self.requires_grad = True

    @property
    def data(self) -> Array:
        """The values, read-only. Assigning, as in ``p.data -= step``, copies into place, and backward notices."""
        return self.numpy() if self._leaf is None else leaf_values(self)

    @data.setter
    def data(self, values: Any) -> None:
        if self._leaf is None:
            raise GraphError(
                "Tensor.data: expected a leaf to assign to, got the result of an op; "
                "results are read-only: make a new Tensor with mf.tensor"
            )
        values = np.asarray(values_of(values))
        if values.shape != self.shape:
            raise ShapeError("Tensor.data", f"an array of shape {self.shape}", values.shape)
        if not np.can_cast(values.dtype, self.dtype, "same_kind"):
            raise DTypeError("Tensor.data", f"values of {self.dtype}", values.dtype, "cast them with .astype")
        if self._node is None:  # not for a parameter, whose version replay compares
            self._values("assigns")
        self._assign(values)

    # The graph

    @property
    def requires_grad(self) -> bool:
        """Whether a gradient flows to this Tensor. Can be assigned on a leaf."""
        return self._node is not None

    @requires_grad.setter
    def requires_grad(self, flag: bool) -> None:
        if self._leaf is None:
            fix = "use detach() for a value that no gradient flows through"
            raise GraphError("Tensor.requires_grad", "a leaf", "the result of an op", fix)
        if flag and self.dtype.kind != "f":
            raise DTypeError("Tensor.requires_grad", "float32 or float64", self.dtype, "cast it with .astype")
        self._node = self._leaf if flag else None
        model_version.count += 1

    @property
    def grad(self) -> Array | None:
        """The gradient that backward left here, or None. Backward after `zero_grad` does not change this array."""
        self._values()  # only to notify: a step that reads gradients cannot be replayed
        return None if self._leaf is None else self._leaf.hand_out()

    @grad.setter
    def grad(self, values: Any) -> None:
        if self._leaf is None:
            raise GraphError("Tensor.grad: expected a leaf, got the result of an op, which keeps no gradient")
        if values is None:
            self._leaf.grad = None
            return
        values = np.asarray(values_of(values))
        if values.shape != self.shape:
            raise ShapeError("Tensor.grad", f"an array of shape {self.shape}", values.shape)
        if values.dtype.kind not in "fiub":
            raise DTypeError("Tensor.grad", f"numbers to cast to {self.dtype}", values.dtype)
        if values is not self._leaf.grad:
            self._leaf.grad = None
            self._leaf.accumulate_grad(values)

    def zero_grad(self) -> None:
        """Set the gradient to None."""
        self.grad = None

    def backward(self, gradient: Any = None, *, retain_graph: bool = False, create_graph: bool = False) -> None:
        """Add the gradient of this Tensor with respect to every leaf to the leaf's `grad`.

        Parameters
        ----------
        gradient : array_like, optional
            The gradient with respect to this Tensor; 1 for a scalar.
        retain_graph : bool
            Keep what the graph saved, so that backward can be called again.
        create_graph : bool
            Not possible here, since a leaf's `grad` is an array; `mf.grad` nests.

        Raises
        ------
        GraphError
            If nothing here needs a gradient, this is not a scalar and no gradient was given, the graph was freed by an
            earlier call, or an array that it needs was written to. No leaf's gradient changes then.
        ShapeError
            If the gradient has another shape.
        """
        node = self._node
        if node is None or create_graph:
            raise _backward_error(create_graph)
        if gradient is None and not self._array.ndim and self._array.dtype.char in _UNITS:
            gradient = _UNITS[self._array.dtype.char]
        else:
            gradient = self._seed(gradient)
        mode = MODE.get()
        observer, timer = mode.observer, mode.timer
        if observer is not None and observer.enabled:
            observer.before_backward(self, retain_graph)
        before = timer.on_backward_start(self._array) if timer is not None else 0
        try:
            for leaf, g in backward_pass(((node, gradient),), retain=retain_graph).items():
                if leaf.hooks is not None:
                    g = leaf.hooks(g)
                if leaf.grad is None and g is leaf.grad_buffer:  # type: ignore[union-attr]
                    leaf.grad = g  # type: ignore[union-attr]
                else:
                    leaf.accumulate_grad(g)  # type: ignore[union-attr]
            if observer is not None and observer.enabled:
                observer.after_backward(self, retain_graph)
        finally:
            if timer is not None and timer.enabled:
                timer.on_backward_end(before)

    def _seed(self, gradient: Any) -> Array:
        """Return the gradient with which `backward` starts, in this Tensor's shape and dtype."""
        if gradient is None:
            if self.size != 1:
                raise GraphError(
                    f"backward: expected a scalar, got shape {self.shape}; "
                    "reduce it with .sum() or .mean(), or pass backward(gradient)"
                )
            return np.ones(self.shape, self.dtype)
        gradient = np.asarray(values_of(gradient))
        if gradient.dtype.kind not in "fiub":
            raise DTypeError("backward", "a gradient of real numbers", gradient.dtype)
        gradient = np.array(gradient, self.dtype)  # a copy: it may be a buffer that this backward pass writes to
        if gradient.shape != self.shape:
            raise ShapeError("backward", f"a gradient of shape {self.shape}", gradient.shape)
        return gradient  # type: ignore[no-any-return]

    def register_hook(self, hook: GradientHook) -> Handle:
        """Have a function called with the gradient with respect to this Tensor, whenever one has been computed.

        Parameters
        ----------
        hook : callable
            ``hook(grad)`` gets the complete gradient as a read-only copy. It returns None, or an array of the same
            shape and dtype that replaces the gradient. Hooks are called in the order of their registration.

        Returns
        -------
        Handle
            ``handle.remove()`` removes the hook.

        Raises
        ------
        GraphError
            If no gradient flows to this Tensor, or backward has been here already.

        Notes
        -----
        On a leaf, hooks are called in `backward`, before the gradient is added to `grad`; derivative functions
        such as `mf.grad` leave a leaf's hooks alone, as they leave its `grad`. On the result of an op, and on an
        argument inside of a function that `mf.grad` or another derivative function calls, they are called in every
        backward pass; `mf.jvp` has none. Where derivatives nest they can read, but not replace. Copies and
        pickles have none. An exception in a hook passes through; gradients of leaves that were added up before
        stay.

        Examples
        --------
        >>> import numpy as np, microfw as mf
        >>> x = mf.tensor([1.0, 2.0], requires_grad=True)
        >>> y = x * 3.0
        >>> handle = y.register_hook(lambda g: np.clip(g, -1.0, 1.0))
        >>> np.sum(y * y).backward()
        >>> x.grad
        array([3., 3.])
        """
        node = self._node
        if node is None:
            raise GraphError(
                "Tensor.register_hook: expected a Tensor that a gradient flows to, got one without; "
                "set requires_grad=True, or compute it outside of no_grad"
            )
        if isinstance(node, Node):
            return node_hooks(node).add(hook)
        if node.hooks is None:
            node.hooks = GradientHooks()
        return node.hooks.add(hook)  # type: ignore[attr-defined, no-any-return]

    def detach(self) -> Tensor:
        """Return the same values as a constant: no gradient flows through it."""
        return result(self._array if self._leaf is None else _locked(self._copied()), None)

    def _convert(self, dtype: Any) -> None:
        """Cast a leaf in place, away from any optimizer's buffers."""
        leaf = self._leaf
        assert leaf is not None
        model_version.count += 1
        if leaf.owner is not None:
            leaf.owner.taken_by = leaf.where
        self._array = native(self._array.astype(dtype))
        leaf.dtype, leaf.grad, leaf.grad_buffer, leaf.owner = self._array.dtype, None, None, None
        leaf.version += 1

    # Copies

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), np.array(self._values()), self.requires_grad and self._leaf is not None))

    def __copy__(self) -> Tensor:
        if self._node is not None and self._leaf is None:
            warn_of_detaching(*_COPY)
        return _rebuild(*self.__reduce__()[1])

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if self._node is not None and self._leaf is None:
            warn_of_detaching(*_COPY)
        memo[id(self)] = copied = _rebuild(*self.__reduce__()[1])
        return copied


_COPY = "copying a Tensor that needs a gradient into a new one", "t.detach()"


def _locked(array: Array) -> Array:
    array.setflags(write=False)
    return array


_UNITS = {char: _locked(np.ones((), char)) for char in "fd"}
"""The gradient of a scalar with respect to itself."""


def _backward_error(create_graph: bool) -> GraphError:
    if create_graph:
        return GraphError(
            "backward: expected create_graph=False, got True; use mf.grad(f), which nests: mf.grad(mf.grad(f))"
        )
    return GraphError(
        "backward: expected a Tensor computed from leaves with requires_grad=True, got one without a graph; "
        "was it computed under no_grad, or from .data?"
    )


def _rebuild(kind: type[Tensor], array: Array, requires_grad: bool) -> Tensor:
    made = kind.__new__(kind)
    made._array = native(writable(array))
    made._leaf = Leaf(array.shape, made._array.dtype)
    made._node = made._leaf if requires_grad else None
    return made


def result(array: Array, node: Node | Leaf | None) -> Tensor:
    """Return an op's output as a Tensor. The array must be locked."""
    made = _new(Tensor)
    made._array = array
    made._node = node
    made._leaf = None
    return made


_new = Tensor.__new__


def values_of(x: Any) -> Any:
    """Return a Tensor's values, read-only, and anything else as it is."""
    return x.data if isinstance(x, Tensor) else x


def tensor(data: Any, dtype: Any = None, *, requires_grad: bool = False) -> Tensor:
    """Make a Tensor of array-like values, copying them.

    Parameters
    ----------
    data : array_like
        Numbers: nested lists, an array, a frame.
    dtype : dtype, optional
        float32, float64, an integer type or bool; that of the data by default.
    requires_grad : bool
        Whether `Tensor.backward` is to leave a gradient in `Tensor.grad`.

    Returns
    -------
    Tensor

    Raises
    ------
    DTypeError
        If the values are not numbers of such a dtype.

    Examples
    --------
    >>> import microfw as mf
    >>> mf.tensor([1, 2], dtype="float32")
    tensor([1., 2.], dtype=float32)
    """
    if isinstance(data, Tensor) and data._node is not None:
        warn_of_detaching(*_COPY)
    data = values_of(data)
    return Tensor(data if dtype is None else np.asarray(data, dtype), requires_grad)
