"""Wrappers of forward methods, which tag what a method computes with its module."""

from __future__ import annotations

from functools import wraps
from inspect import CO_VARARGS, CO_VARKEYWORDS
from types import FunctionType, MethodType
from typing import Any

from microfw.autograd.scope import THREAD_SCOPE


def tagging(forward: FunctionType) -> Any:
    """Return a forward method that tags what it computes with its module, also where a user calls it directly."""
    code = forward.__code__  # inspect.signature takes many times as long
    plain = not code.co_flags & (CO_VARARGS | CO_VARKEYWORDS) and not code.co_kwonlyargcount
    call: Any
    # Passing on *inputs and **options, a tuple and a dict at each call, takes 0.4 us more than one input of layers, or
    # the three of losses. So these have wrappers of their own, which get the names and defaults of the inputs.
    if plain and code.co_argcount == 2:

        def call(self: Any, x: Any) -> Any:
            scope = THREAD_SCOPE.scope
            if scope is not None and scope[0] is self:
                return forward(self, x)
            return self._enter(MethodType(forward, self), (x,), {})

    elif plain and code.co_argcount == 4:

        def call(self: Any, x: Any, y: Any, z: Any) -> Any:
            scope = THREAD_SCOPE.scope
            if scope is not None and scope[0] is self:
                return forward(self, x, y, z)
            return self._enter(MethodType(forward, self), (x, y, z), {})

    else:
        plain = False

        def call(self: Any, *inputs: Any, **options: Any) -> Any:
            scope = THREAD_SCOPE.scope
            if scope is not None and scope[0] is self:
                return forward(self, *inputs, **options)
            return self._enter(MethodType(forward, self), inputs, options)

    if plain:
        names = code.co_varnames[: code.co_argcount] + call.__code__.co_varnames[code.co_argcount :]
        call.__code__ = call.__code__.replace(co_varnames=names, co_posonlyargcount=code.co_posonlyargcount)
        call.__defaults__ = forward.__defaults__
    call = wraps(forward)(call)
    call.tags = True
    return call
