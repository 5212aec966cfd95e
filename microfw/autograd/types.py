"""Protocols: what earlier files need to know of classes that later files define."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

ResultT = TypeVar("ResultT")
"""The class of an op's result: `microfw.Tensor`."""

Gradient = Any
"""An array; a Tensor where the backward pass itself is recorded."""


class ScopedModule(Protocol):
    """A module, as far as scopes need it."""

    def named_modules(self) -> Iterator[tuple[str, Any]]:
        """Yield each module with its path, this one first."""


class Partial(Protocol):
    """An op's derivative with respect to one of its inputs; see `microfw.autograd.op.Partial`."""

    index: int
    sources: tuple[str, ...]
    vjp: Callable[..., Any]
    jvp: Callable[..., Any] | None
    vjp_out: Callable[..., Any] | None


class GradientHooks(Protocol):
    """Functions that replace a gradient; see `microfw.autograd.grad_hooks.GradientHooks`."""

    def __call__(self, g: Gradient) -> Gradient:
        """Return the gradient after all hooks."""

    def clear(self) -> None:
        """Remove all hooks."""


class Op(Protocol):
    """An op's declaration; see `microfw.autograd.op.Op`."""

    name: str
    inputs: tuple[str, ...]
    params: dict[str, Any]
    aux: dict[str, Callable[..., Any]]
    variadic: bool
    no_alias: bool
    allow_dtype_change: bool
    value: Callable[..., Any]
    call: Callable[..., Any]
    cost: Callable[..., Any] | None

    @property
    def partials(self) -> Sequence[Partial | None]:
        """The derivatives with respect to the inputs; of an op of any number of inputs, those used so far."""

    def partial(self, index: int) -> Partial | None:
        """Return the derivative with respect to the input at an index."""
