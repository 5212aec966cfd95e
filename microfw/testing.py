"""Checks of an op, yours or one of the library: value, derivatives, dtypes, side effects and cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from microfw.autograd.backward import unbroadcast
from microfw.autograd.functional import jvp, vjp
from microfw.autograd.gradcheck import gradcheck, gradgradcheck
from microfw.autograd.mode import mode
from microfw.autograd.observer import Observer
from microfw.autograd.op import Cost, Op
from microfw.autograd.tensor import Tensor
from microfw.errors import ArgumentError, GradientError, MicrofwError
from microfw.profiler.operations import count_operations as count_operations

__all__ = ["check_op", "count_operations"]


def __dir__() -> list[str]:
    return sorted(__all__)


RTOL = 1e-6
"""Largest relative error of derivatives against differences."""


def check_op(op: Callable[..., Any], *inputs: Any, **params: Any) -> None:
    """Check an op as the library's own ops are checked.

    The value is a new read-only array, equal to that of the declared function for any memory layout of the inputs;
    inputs are not written to. First and second derivatives, backward and forward, agree with differences. A second
    backward pass gives the same bits; rules do not write to their gradient; float32 stays float32 and is close to
    float64; costs are numbers of operations.

    Parameters
    ----------
    op : callable
        What `microfw.op` returned.
    *inputs : array_like
        Where to check: floats as float64, away from kinks, in the shapes that matter.
    **params
        The op's parameters.

    Raises
    ------
    GradientError
        Names the op and the check that failed, with the difference.
    ArgumentError
        If ``op`` is no op.

    Examples
    --------
    >>> import numpy as np, microfw as mf
    >>> @mf.op(vjp=lambda g, x, power: g * power * x ** (power - 1))
    ... def raised(x, *, power):
    ...     "x to a power."
    ...     return x**power
    >>> mf.testing.check_op(raised, np.array([[0.5, 1.5]]), power=3)
    """
    declared = getattr(op, "op", None)
    if not isinstance(declared, Op):
        raise ArgumentError(f"check_op: expected an op, got {op!r}; declare it with mf.op")
    check(Trial(declared, [np.array(x, float if np.asarray(x).dtype.kind == "f" else None) for x in inputs], params))


def check(trial: Trial) -> None:
    """Do all checks of a trial; see `check_op`."""
    for name, checking in CHECKS.items():
        try:
            checking(trial)
        except Exception as error:
            text = str(error) if isinstance(error, MicrofwError | AssertionError) else repr(error)
            raise GradientError(f"check_op: {trial.op.name}: {name}: {text.strip()}") from error


@dataclass
class Trial:
    """An op with inputs to try it on.

    Attributes
    ----------
    op : Op
        The declaration.
    inputs : sequence of ndarray
        Floats are float64.
    params : dict
        The op's parameters.
    arrange : callable
        Turns an input of floats, a Tensor or an array, into the layout to try; part of what is differentiated.
    """

    op: Op
    inputs: Sequence[Any]
    params: dict[str, Any] = field(default_factory=dict)
    arrange: Callable[[Any], Any] = lambda x: x

    def arranged(self, inputs: Sequence[Any] | None = None) -> list[Any]:
        """Return inputs in the layout to try."""
        return [self.arrange(x) if x.dtype.kind == "f" else x for x in (self.inputs if inputs is None else inputs)]

    def __call__(self, inputs: Sequence[Any] | None = None) -> Tensor:
        """Apply the op to these inputs, or to others."""
        return self.op.call(*self.arranged(inputs), **self.params)

    @property
    def varying(self) -> list[int]:
        """Which inputs have a derivative."""
        return [k for k, x in enumerate(self.inputs) if self.op.partial(k) is not None and x.dtype.kind == "f"]

    def function(self, *given: Any) -> Tensor:
        """Apply the op to others of the inputs that have a derivative."""
        inputs = list(self.inputs)
        for k, x in zip(self.varying, given, strict=True):
            inputs[k] = x
        return self(inputs)

    @property
    def points(self) -> list[Any]:
        """The inputs that have a derivative."""
        return [self.inputs[k] for k in self.varying]

    def leaves(self, dtype: Any = np.float64) -> list[Any]:
        """Return the inputs, those of floats as Tensors that want a gradient."""
        return [Tensor(x.astype(dtype), requires_grad=True) if x.dtype.kind == "f" else x.copy() for x in self.inputs]

    def numbers(self, seed: int) -> Any:
        """Return random numbers in the shape of the output."""
        return np.random.default_rng(seed).uniform(-2, 2, self().shape)


def _equal(got: Any, expected: Any, what: str, rtol: float = 0.0, atol: float = 0.0) -> None:
    np.testing.assert_allclose(got, expected, rtol, atol, err_msg=what, strict=True)


def _expect(right: bool, what: str) -> None:
    if not right:
        raise GradientError(what)


def value(trial: Trial) -> None:
    """The declared function's value, in a read-only array."""
    arrays = [np.array(x) for x in trial.arranged()]
    y = trial.op.call(*arrays, **trial.params)
    _expect(not y.data.flags.writeable, "expected a read-only value, got one that can be written to")
    declared = trial.op.value(*arrays, **trial.params)  # which sees these arrays, where the op may have copied them
    for k, (x, old) in enumerate(zip(arrays, trial.arranged(), strict=True)):
        _equal(x, old, f"the op wrote to input {k}")
        _expect(x.flags.writeable, f"expected input {k} to stay writeable, got it locked")
    made = np.asarray(declared[0] if trial.op.aux else declared)
    close = (
        8 * float(np.finfo(made.dtype).eps) if made.dtype.kind == "f" else 0.0
    )  # a copy in another order: other sums
    size = float(np.max(np.abs(made), initial=0, where=np.isfinite(made))) if close else 0.0
    _equal(y.data, made, "the op's value is not its function's", close, close * size)
    result = y.data.copy()
    for x in arrays:
        x[...] = 1 if x.dtype.kind == "b" else 0
    _equal(y.data, result, "the value changed when the inputs were written to later")


def layouts(trial: Trial) -> None:
    """The same value and gradients for each memory layout of the inputs."""
    plain = [np.ascontiguousarray(x) if np.ndim(x) else x for x in trial.arranged()]
    others = [
        [np.array(x, order="F") for x in plain],
        [x[::-1].copy()[::-1] if x.ndim else x for x in plain],
        [np.repeat(x, 2, axis=-1)[..., ::2] if x.ndim else x for x in plain],
    ]
    apart = Trial(trial.op, plain, trial.params)
    y, g = apart(), apart.numbers(1)
    for arrays in others:
        other = Trial(trial.op, arrays, trial.params)
        _equal(other().data, y.data, "another memory layout gave another value", 1e-13, 1e-14)
        if trial.varying:
            pulled = [vjp(t.function, *t.points)[1](g) for t in (apart, other)]
            for a, b in zip(*pulled, strict=True):
                _equal(b, a, "another memory layout gave another gradient", 1e-12, 1e-13)


def first_order(trial: Trial) -> None:
    """Backward and forward mode against central differences."""
    gradcheck(trial.function, *trial.points, rtol=RTOL)


def second_order(trial: Trial) -> None:
    """Rules differentiated again: reverse over reverse and forward over reverse."""
    gradgradcheck(trial.function, *trial.points, rtol=RTOL, projections=1)


def second_order_forward(trial: Trial) -> None:
    """Tangents differentiated again."""
    tangents = [np.random.default_rng(5).uniform(-2, 2, x.shape) for x in trial.points]

    def pushed(*xs: Any) -> Any:
        return jvp(lambda *ys: np.square(trial.function(*ys)), xs, tangents)[1]

    gradcheck(pushed, *trial.points, rtol=RTOL, projections=1)


def second_backward(trial: Trial) -> None:
    """Walking the same graph again gives the same, and the gradient that was handed in is left alone."""
    inputs = trial.leaves()
    y, g = trial(inputs), trial.numbers(3)
    before, grads = g.copy(), []
    for _ in range(2):
        y.backward(g, retain_graph=True)
        _equal(g, before, "a rule wrote to the gradient that it was given")
        grads.append([x.grad for x in inputs if isinstance(x, Tensor) and x.grad is not None])
        for x in inputs:
            if isinstance(x, Tensor):
                x.zero_grad()
    _expect(bool(grads[0]), "expected gradients, got none")
    for a, b in zip(*grads, strict=True):
        _equal(b, a, "a second backward gave another gradient")


class _Shares(Observer):
    """An observer that collects what rules give."""

    wants_grad_inputs = True

    def __init__(self) -> None:
        self.dtypes: list[tuple[str, Any]] = []

    def backward(self, node: Any, gradient: Any, grad_inputs: list[Any] | None, start_ns: int) -> None:
        """Note the dtypes."""
        self.dtypes += [(node.op.name, np.asarray(share).dtype) for share in grad_inputs or ()]


def float32(trial: Trial) -> None:
    """In float32 all stays float32, and close to float64."""
    grads = []
    for dtype in (np.float32, np.float64):
        inputs, grad_inputs = trial.leaves(dtype), _Shares()
        with mode(observer=grad_inputs, timer=None):
            y = trial(inputs)
            if not trial.op.allow_dtype_change:
                _expect(y.dtype == dtype, f"expected a value of {np.dtype(dtype)}, got {y.dtype}")
            y.backward(np.ones(y.shape, y.dtype))
        for name, got in grad_inputs.dtypes:
            _expect(
                trial.op.allow_dtype_change or got == dtype,
                f"expected {name}'s rule to give {np.dtype(dtype)}, got {got}",
            )
        grads.append([x.grad for x in inputs if isinstance(x, Tensor) and x.grad is not None])
    for a, b in zip(*grads, strict=True):
        _equal(a.astype(float), b, "float32 gives a gradient far from float64's", 2e-4, 2e-5)


def vjp_out(trial: Trial) -> None:
    """A rule written into an array gives what the general one gives."""
    arrays = [np.ascontiguousarray(x) if np.ndim(x) else x for x in trial.arranged()]
    for k, x in enumerate(arrays):
        partial = trial.op.partial(k)
        if partial is None or partial.vjp_out is None:
            continue
        made = trial.op.value(*arrays, **trial.params)
        y, *saved = made if trial.op.aux else (made,)
        known = trial.op.params | trial.params | dict(zip(trial.op.inputs, arrays, strict=False))
        known |= {"y": y, "shape": x.shape} | dict(zip(trial.op.aux, saved, strict=True))
        args = [known[source] for source in partial.sources]
        g = trial.numbers(9)
        general = unbroadcast(np.asarray(partial.vjp(g, *args)), x.shape)
        out = np.full(x.shape, np.nan)
        partial.vjp_out(g, *args, out)
        _equal(out, general, f"vjp_out gives another gradient for input {k}", 1e-13, 1e-14)


def cost(trial: Trial) -> None:
    """Numbers of operations, one for each derivative. Without a cost rule there is nothing to check."""
    if trial.op.cost is None:
        return
    shapes = [np.shape(x) for x in trial.arranged()]
    counted = trial.op.cost(trial().shape, *shapes, **trial.op.params | trial.params)
    _expect(isinstance(counted, Cost), f"expected a Cost, got {type(counted).__name__}")
    numbers = (counted.forward, *counted.derivatives, counted.products_forward, *counted.products_derivatives)
    _expect(all(type(n) is int and n >= 0 for n in numbers), f"expected ints from 0 up, got {counted}")
    for k in range(len(shapes)):
        if trial.op.partial(k) is not None:
            _expect(k < len(counted.derivatives), f"expected a cost for the derivative of input {k}, got {counted}")
            few = bool(counted.products_derivatives) and k >= len(counted.products_derivatives)
            _expect(not few, f"expected products for the derivative of input {k} too, got {counted}")
    _expect(counted.products_forward <= counted.forward, f"expected products among forward operations, got {counted}")
    _compare_cost(trial, counted)


def _compare_cost(trial: Trial, declared: Cost) -> None:
    """Compare a cost with what runs, within a factor of 2: rules may take shortcuts."""
    size = trial().size
    if not size:
        return
    try:
        counted = count_operations(trial.op, trial.arranged(), trial.params)
    except Exception:  # code that is not written for arrays that count
        return
    slack = 2 * (size + sum(np.size(x) for x in trial.inputs))  # passes over all entries, as a check of labels
    where = [f"of the derivative of input {k}" for k in range(len(trial.inputs))]
    numbers = zip((declared.forward, *declared.derivatives), (counted.forward, *counted.derivatives), strict=False)
    for what, (got, n) in zip(["of the value", *where], numbers, strict=False):
        right = got <= 2 * n + slack and n <= 2 * got + slack
        _expect(right or not n, f"expected about {n} operations {what}, got {got}; they are counted as it runs")


def _differentiable(checking: Callable[[Trial], None]) -> Callable[[Trial], None]:
    return lambda trial: checking(trial) if trial.varying else None


CHECKS: dict[str, Callable[[Trial], None]] = {
    "value": value,
    "memory layouts": layouts,
    "derivatives": _differentiable(first_order),
    "derivatives of rules": _differentiable(second_order),
    "derivatives of tangents": _differentiable(second_order_forward),
    "second backward": _differentiable(second_backward),
    "float32": _differentiable(float32),
    "vjp_out": _differentiable(vjp_out),
    "cost": cost,
}
"""The checks by name, in the order in which `check_op` does them."""
