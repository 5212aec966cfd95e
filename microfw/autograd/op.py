"""Op: the declaration of an op, with its value, its derivatives, what they save, and its cost.

An op is declared by decorating the function that computes its value on plain arrays::

    @op(vjp=(lambda g, b: g * b, lambda g, a: g * a), jvp="linear", cost=elementwise_cost(1, 1, 1), numpy=np.multiply)
    def multiply(a, b):
        return np.multiply(a, b)

Each derivative names what it needs, and only that is saved: an input by its name, the output as ``y``,
the shape of its own input as ``shape``, a keyword parameter, or an entry of ``aux``. Derivatives work
on arrays and on Tensors alike, so that a backward pass can be recorded and differentiated again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from importlib import import_module
from math import prod
from typing import Any, Literal, NamedTuple, Protocol, overload

import numpy as np

from microfw.autograd.apply import REQUIRED, apply, in_dtype_of_gradient
from microfw.autograd.codegen import RESERVED, compile_lazily, generate
from microfw.autograd.registry import NUMPY, OPS
from microfw.autograd.tensor import Tensor
from microfw.errors import ArgumentError, refuse_former

Shape = tuple[int, ...]
Array = Any
Function = Callable[..., Any]
Rules = Function | Sequence[Function | None] | None


class Written(tuple[Array, ...]):
    """A parameter of an op: arrays to which it writes, such as running statistics, if it is not None."""


class Cost(NamedTuple):
    """Scalar operations of one application of an op, a multiply-add counted as 2.

    ``products`` are those of them that are spent in matrix products and convolutions.
    """

    forward: int
    derivatives: tuple[int, ...]
    products_forward: int = 0
    products_derivatives: tuple[int, ...] = ()


def elementwise_cost(forward: int, *derivatives: int) -> Callable[..., Cost]:
    """Cost of an elementwise op: scalar operations for each entry of the output, forward and for each derivative.

    Where an input was broadcast, the sum that undoes it is part of its derivative.
    """

    def cost(y: Shape, *inputs: Shape, **params: Any) -> Cost:
        n = prod(y)
        sums = [max(n - prod(s), 0) for s in inputs]
        return Cost(forward * n, tuple(d * n + s for d, s in zip(derivatives, sums, strict=False)))

    return cost


def zero_cost(y: Shape, *inputs: Shape, **params: Any) -> Cost:
    """Cost of an op that only moves data: none."""
    return Cost(0, (0,) * len(inputs))


class Partial:
    """An op's derivative with respect to one of its inputs.

    Attributes
    ----------
    index : int
        Which input.
    vjp : callable
        ``vjp(g, *args)``: the share of the gradient that goes to the input.
    jvp : callable or None
        ``jvp(dx, *args)``: the tangent of the output that comes from the input's; None if the op is
        linear in this input, so that its value at the tangent is the answer.
    vjp_out : callable or None
        ``vjp_out(g, *args, out)``: ``vjp`` with its result written to an array. For arrays only.
    sources : tuple of str
        What each of ``args`` is: an input, ``y``, ``shape``, a parameter or an entry of ``aux``.
    """

    __slots__ = ("index", "jvp", "sources", "vjp", "vjp_out")

    def __init__(
        self, index: int, vjp: Function, jvp: Function | None, vjp_out: Function | None, sources: tuple[str, ...]
    ) -> None:
        self.index = index
        self.vjp = vjp
        self.jvp = jvp
        self.vjp_out = vjp_out
        self.sources = sources


class Op:
    """A declaration: what an op computes, its derivatives, what they save, and its cost.

    ``call`` is the function that users call; it carries its declaration as ``call.op``.
    """

    def __init__(
        self,
        value: Function,
        vjp: Rules,
        jvp: Rules | Literal["same", "linear"],
        vjp_out: Rules,
        aux: dict[str, Function] | None,
        cost: Callable[..., Cost] | None,
        no_alias: bool,
        allow_dtype_change: bool,
        name: str | None,
    ) -> None:
        self.name = name or value.__name__.rstrip("_")
        self.value = value
        self.cost = cost
        self.no_alias = no_alias
        self.allow_dtype_change = allow_dtype_change
        self.aux = aux or {}
        self.inputs, self.params, self.variadic = arguments(value)
        if value.__defaults__:
            last = self.inputs[-1]
            raise ArgumentError(
                f"op {self.name}: expected inputs without defaults, got one for {last}; "
                f"put a * before {last} if it is a setting, and leave the default out if it is an input"
            )
        taken = [x for x in self.inputs if x in RESERVED]
        if taken and not self.variadic:
            raise ArgumentError(f"op {self.name}", "inputs whose names are not reserved", taken[0], "rename the input")
        self.differentiable = vjp is not None
        self._rules = (vjp, jvp, vjp_out)
        self.partials: list[Partial | None] = []
        if isinstance(vjp, Sequence) and len(vjp) != len(self.inputs):
            raise ArgumentError(
                f"op {self.name}: expected one vjp for each of the inputs {self.inputs}, got {len(vjp)}; "
                "write None for an input that has no gradient"
            )
        if not self.variadic:
            for k in range(len(self.inputs)):
                self.partial(k)
        self.call = self._call()

    def partial(self, index: int) -> Partial | None:
        """Return the derivative with respect to the input at an index."""
        while len(self.partials) <= index:
            self.partials.append(self._partial(len(self.partials)))
        return self.partials[index]

    def _partial(self, index: int) -> Partial | None:
        vjp: Any
        jvp: Any
        vjp_out: Any
        vjp, jvp, vjp_out = (rule[index] if isinstance(rule, list | tuple) else rule for rule in self._rules)
        if vjp is None:
            return None
        known = (*self.inputs, "y", "shape", *self.params, *self.aux)
        known += ("shapes", "index") if self.variadic else ()
        sources = arguments(vjp)[0][1:]
        for source in sources:
            if source not in known:
                raise ArgumentError(
                    f"op {self.name}: expected a derivative's arguments after g to be among "
                    f"{', '.join(known)}, got {source!r}"
                )
        if not self.allow_dtype_change and not f"{self.value.__module__}".startswith("microfw."):
            vjp = in_dtype_of_gradient(vjp)
        return Partial(index, vjp, vjp if jvp == "same" else None if jvp == "linear" else jvp, vjp_out, sources)

    def _call(self) -> Callable[..., Tensor]:
        call: Callable[..., Tensor]
        if not self.variadic:
            call = compile_lazily(self, self.inputs)
        else:
            counts: dict[int, Callable[..., Tensor]] = {}

            def call(*inputs: Any, **params: Any) -> Tensor:
                if len(inputs) > MAX_GENERATED:
                    return apply(self, inputs, params)
                if len(inputs) not in counts:
                    self.partial(len(inputs) - 1)
                    counts[len(inputs)] = compile_lazily(self, tuple(f"x{k}" for k in range(len(inputs))))
                return counts[len(inputs)](*inputs, **params)

        functools.update_wrapper(call, self.value)
        call.__name__ = self.name
        call.op = self  # type: ignore[attr-defined]
        return call

    @property
    def source(self) -> str:
        """The Python text of the function that applies the op."""
        self.partial(1 if self.variadic else 0)
        return generate(self, self.inputs if not self.variadic else ("x0", "x1"))[0]

    def __repr__(self) -> str:
        return f"<op {self.name}>"


# Most inputs for which an op of any number of inputs is generated; for more, `apply` loops over them.
MAX_GENERATED = 8

# ``inspect.CO_VARARGS``: the flag of a function that takes any number of arguments.
VARARGS = 4


def arguments(function: Function) -> tuple[tuple[str, ...], dict[str, Any], bool]:
    """Return a function's positional arguments, its keyword-only ones with defaults, and if it takes any number."""
    # The code object is read, since `inspect.signature` takes longer than all else in declaring an op.
    code = function.__code__
    positional, n = code.co_argcount, code.co_kwonlyargcount
    names = code.co_varnames
    defaults = function.__kwdefaults__ or {}
    params = {name: defaults.get(name, REQUIRED) for name in names[positional : positional + n]}
    if code.co_flags & VARARGS:
        return (*names[:positional], names[positional + n]), params, True
    return names[:positional], params, False


class Applicable(Protocol):
    """An op as users call it: a function of Tensors, arrays and numbers."""

    op: Op
    __name__: str

    def __call__(self, *inputs: Any, **params: Any) -> Tensor:
        """Apply the op, and record a node where a gradient is needed."""


@overload
def op(value: Function) -> Applicable: ...


@overload
def op(
    value: None = None,
    *,
    vjp: Rules = None,
    jvp: Rules | Literal["same", "linear"] = "same",
    vjp_out: Rules = None,
    aux: dict[str, Function] | None = None,
    cost: Callable[..., Cost] | None = None,
    numpy: Function | Sequence[Function] = (),
    no_alias: bool = False,
    allow_dtype_change: bool = False,
    name: str | None = None,
) -> Callable[[Function], Applicable]: ...


def op(
    value: Function | None = None,
    *,
    vjp: Rules = None,
    jvp: Rules | Literal["same", "linear"] = "same",
    vjp_out: Rules = None,
    aux: dict[str, Function] | None = None,
    cost: Callable[..., Cost] | None = None,
    numpy: Function | Sequence[Function] = (),
    no_alias: bool = False,
    allow_dtype_change: bool = False,
    name: str | None = None,
    **old: Any,
) -> Any:
    """Declare an op by decorating the function that computes its value.

    Parameters
    ----------
    value : callable
        ``value(*inputs, **params)`` on NumPy arrays. Positional arguments are the op's inputs, keyword-only
        ones its parameters. It must not write to its inputs.
    vjp : callable or sequence of callables, optional
        For each input its derivative ``vjp(g, ...)``: the gradient with respect to the input, given ``g``
        with respect to the output. The names of its arguments after ``g`` decide what is saved: an input, ``y``
        (the output), ``shape`` (of the input), a parameter or an entry of ``aux``. None where there is none. A result
        that still has the output's broadcast shape is summed to the input's. Written with operators and
        NumPy functions it can be differentiated again. Without any ``vjp`` the op has no gradient.
    jvp : {"same", "linear"} or callable or sequence of callables
        Forward mode, for each input: ``jvp(dx, ...)`` with the arguments of the vjp; "same" if it is the vjp
        (elementwise ops); "linear" if it is the op itself, applied to the tangent.
    vjp_out : sequence of callables, optional
        ``vjp_out(g, ..., out)``: the vjp with its result written to an array, for speed; never used with Tensors.
    aux : dict of callables, optional
        Further arrays to save: ``value`` returns them after the output, in this order. Each callable
        computes the entry again from the inputs and parameters that it names, for second derivatives.
    cost : callable, optional
        ``cost(y, *inputs, **params)`` on shapes: a `Cost`. Without it the op's operations are not counted,
        and reports mark the op.
    numpy : callable or sequence of callables
        The NumPy functions that become this op when they are called on a Tensor.
    no_alias : bool
        Promise that the value never shares memory with an input.
    allow_dtype_change : bool
        Allow dtypes to differ between inputs and output.
    name : str, optional
        The op's name; that of the function by default.

    Returns
    -------
    callable
        The op as a function of Tensors, arrays and numbers, with its declaration as ``.op``.

    Raises
    ------
    ArgumentError
        If the name is taken, an input has a reserved name such as ``y``, or a derivative asks for something that the
        op does not have.

    Examples
    --------
    >>> import numpy as np, microfw as mf
    >>> @mf.op(vjp=lambda g, x: 3 * x**2 * g)
    ... def cube(x):
    ...     "x to the third power."
    ...     return x**3
    >>> mf.grad(cube)(2.0)
    array(12.)
    >>> mf.grad(mf.grad(cube))(2.0)
    array(12.)
    """
    refuse_former("op", old, into="vjp_out", fresh="no_alias", casts="allow_dtype_change")

    def declare(value: Function) -> Applicable:
        if not (value.__module__ or "").startswith("microfw."):
            import_module("microfw.ops.whole")  # so that no op of the library comes later and is in the way
        functions = tuple(numpy) if isinstance(numpy, Sequence) else (numpy,)
        ufunc = any(isinstance(f, np.ufunc) for f in functions)
        made = Op(value, vjp, jvp, vjp_out, aux, cost, no_alias or ufunc, allow_dtype_change, name)
        if made.name in OPS and not _same_place(OPS[made.name].value, value):
            raise ArgumentError(f"op {made.name}: expected a new name, got one that is taken; pass name=...")
        OPS[made.name] = made
        for function in functions:
            NUMPY[function] = made.call
        return made.call  # type: ignore[return-value]

    return declare if value is None else declare(value)


def _same_place(a: Function, b: Function) -> bool:
    """Return True if two functions are from one module, or from one file that was loaded under two names."""
    files = [getattr(getattr(f, "__code__", None), "co_filename", "<") for f in (a, b)]
    return a.__module__ == b.__module__ or (files[0] == files[1] and not files[0].startswith("<"))  # as "<string>" is
