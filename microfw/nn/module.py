"""Module: a part of a model, with named parameters, that tags the ops it runs with its path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from inspect import CO_VARARGS, CO_VARKEYWORDS
from types import FunctionType, MethodType
from typing import Any, ClassVar, Never, Self

import numpy as np

from microfw._other_names import with_other_names
from microfw.autograd.mode import MODE, model_version
from microfw.autograd.scope import THREAD_SCOPE, title
from microfw.autograd.tensor import Tensor
from microfw.errors import ArgumentError, DTypeError, GraphError, printable
from microfw.nn import settings
from microfw.nn.loading import IncompatibleKeys, load_values
from microfw.nn.parameter import Parameter


@with_other_names
class Module:
    """Base of layers, losses and models.

    Write a layer by setting Parameters and other Modules as attributes (also in lists, tuples and dicts)
    and defining ``forward``. Their order is that of assignment, their names are the paths to them.

    Attributes
    ----------
    training : bool
        True while training, which some layers need to know; see `train` and `eval`.

    Examples
    --------
    >>> import numpy as np
    >>> from microfw import nn
    >>> class Scale(nn.Module):
    ...     def __init__(self):
    ...         self.factor = nn.Parameter(2.0)
    ...     def forward(self, x):
    ...         return x * self.factor
    >>> model = nn.Sequential(Scale(), nn.ReLU())
    >>> [name for name, _ in model.named_parameters()]
    ['0.factor']
    >>> model(np.array([-1.0, 3.0], dtype=np.float32)).numpy()
    array([0., 6.], dtype=float32)
    """

    training: bool = True
    ADDED: ClassVar[dict[str, Any]] = {}
    """Settings that were added to a layer, each with the value of layers in older files, which do not have it.

    A file has the setting only if its value is another.
    """
    _structure: ClassVar[object] = object()
    _named: object = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        forward = cls.forward  # the class's own, or one of a base that is no Module
        found = next(vars(base)["forward"] for base in cls.__mro__ if "forward" in vars(base))
        # a static method has no module to tag with
        if isinstance(forward, FunctionType) and not hasattr(forward, "tags") and not isinstance(found, staticmethod):
            cls.forward = tagging(forward)  # type: ignore[method-assign]

    def forward(self, *inputs: Any) -> Any:
        """Compute the output. Users call the module itself."""
        raise GraphError(f"{type(self).__name__}: expected a forward method, got none; define forward(self, x)")

    forward.tags = True  # type: ignore[attr-defined]

    def __call__(self, *inputs: Any, **options: Any) -> Tensor:
        """Compute the output with `forward`, tagging what it computes with the module."""
        # "Tensor", so that editors complete `model(X).`; a forward method may return a tuple or a dict, too
        outer = THREAD_SCOPE.scope
        if outer is None:
            mode = MODE.get()
            timer = mode.timer
            # names are listed again only after a Module or a container was assigned somewhere: one test for a call
            if self._named is not Module._structure or (timer is not None and (timer.enabled or not mode.recording)):
                return self._enter(self.forward, inputs, options)  # type: ignore[no-any-return]
        # `_enter` written out: one more call takes 50 ns, a context manager 400 ns, in every layer
        THREAD_SCOPE.scope = (self, outer)
        try:
            return self.forward(*inputs, **options)  # type: ignore[no-any-return]
        finally:
            THREAD_SCOPE.scope = outer

    def _enter(self, forward: Callable[..., Any], inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Call a forward method; if no other module calls it, name the parameters for errors and time the call."""
        outer, timer, before = THREAD_SCOPE.scope, None, None
        if outer is None:
            mode = MODE.get()
            timer = mode.timer
            if self._named is not Module._structure:
                self._name_leaves()
            # this test saves most calls when sampled
            if timer is not None and (timer.enabled or not mode.recording):
                before = timer.on_module_start(mode.recording)
        THREAD_SCOPE.scope = (self, outer)
        try:
            return forward(*inputs, **options)
        except BaseException:
            if timer is not None and before is None:
                timer.on_module_error()
            raise
        finally:
            THREAD_SCOPE.scope = outer
            if before is not None:
                timer.switch(before)  # type: ignore[union-attr]

    def _name_leaves(self) -> None:
        for name, part in self._walk():
            if isinstance(part, Tensor) and part._leaf is not None:
                part._leaf.name = name  # for errors
        self.__dict__["_named"] = Module._structure  # __setattr__ would count a change of the model

    @property
    def where(self) -> str:
        """How errors name this module: its path and its type."""
        scope = THREAD_SCOPE.scope
        return title(scope if scope is not None and scope[0] is self else (self, scope))

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(vars(self).get(name), Parameter) and not (value is None or isinstance(value, Parameter)):
            where, fix = f"{type(self).__name__}.{name}", "wrap it in nn.Parameter, or assign its .data"
            raise DTypeError(where, "a Parameter in the place of one", type(value).__name__, fix)
        model_version.count += 1  # replays compare this number, and not each attribute
        if name not in settings.names(type(self)) or not settings.change_setting(self, name, value):
            if isinstance(value, Module | list | tuple | dict):
                Module._structure = object()  # names that outermost modules have listed may be out of date
            object.__setattr__(self, name, value)

    # What is in it

    def children(self) -> Iterator[tuple[str, Any]]:
        """Yield the names and values of the attributes, in order of assignment."""
        yield from ((k, v) for k, v in vars(self).items() if k != "_named")

    def _walk(self) -> Iterator[tuple[str, Any]]:
        """Yield every Module and Tensor below, once each, depth first, with its path; raise if two have the same."""
        # a stack and no recursion: Python allows 1,000 calls in each other, and models may be deeper
        seen = {id(self)}
        stack: list[Iterator[tuple[str, Any]]] = [self.children()]
        prefixes = [""]
        found: dict[str, str] = {}  # prefix by path; keys "a.b" and "a" of a dict may give the same path twice
        yield "", self
        while stack:
            for name, value in stack[-1]:
                if not isinstance(value, Module | Tensor | list | tuple | dict) or id(value) in seen:
                    continue
                seen.add(id(value))
                path = prefixes[-1] + str(name)
                if isinstance(value, Module | Tensor):
                    if path in found:  # files would keep one of the two, and a profile would add them up
                        _refuse_path(self, path, found[path], prefixes[-1])
                    found[path] = prefixes[-1]
                    yield path, value
                if not isinstance(value, Tensor):
                    inner = value.children() if isinstance(value, Module) else _items(value)
                    stack.append(inner)
                    prefixes.append(path + ".")
                    break
            else:
                stack.pop()
                prefixes.pop()

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """Yield every Module with its path, this one first, as ``""``."""
        yield from ((name, m) for name, m in self._walk() if isinstance(m, Module))

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield every Parameter with its path; one that is shared comes once, under its first path."""
        for name, p in self._walk():
            if isinstance(p, Parameter):
                if p._leaf is not None and len(name) > len(p._leaf.name):
                    p._leaf.name = name  # for errors: the path from the outermost module is the longest
                yield name, p

    def parameters(self) -> list[Parameter]:
        """Return every Parameter once, in order."""
        return [p for _, p in self.named_parameters()]

    def zero_grad(self) -> None:
        """Set the gradients of all parameters to None."""
        for p in self.parameters():
            p.grad = None

    def requires_grad_(self, flag: bool = True) -> Self:
        """Let all parameters be trained, or freeze them; returns the module."""
        for p in self.parameters():
            p.requires_grad = flag
        return self

    def train(self, mode: bool = True) -> Self:
        """Switch to training, or with False to evaluation; returns the module."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Switch to evaluation: no dropout, fixed statistics; returns the module."""
        return self.train(False)

    def astype(self, dtype: Any) -> Self:
        """Convert all parameters and buffers of floats in place; returns the module.

        Make the optimizer after this call: one made before keeps the old arrays.
        """
        dtype = np.dtype(dtype).newbyteorder("=")
        if dtype not in (np.float32, np.float64):
            raise DTypeError(f"{self.where}.astype", "float32 or float64", dtype)
        for _, t in self._walk():
            if isinstance(t, Tensor) and t.dtype.kind == "f" and t.dtype != dtype:
                t._convert(dtype)
        return self

    # Saving

    def state_dict(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return a copy of every Parameter and buffer (a Tensor that is not trained) by name."""
        return {name: t.data.copy() for name, t in self._walk() if isinstance(t, Tensor)}

    def load_state_dict(self, state: dict[str, Any], strict: bool = True) -> IncompatibleKeys | None:
        """Copy values into the parameters and buffers; all of them, or none if anything is wrong.

        With ``strict=False`` names may be missing or unknown; returns ``(missing_keys, unexpected_keys)``. For weights
        of PyTorch see `import_torch`.

        Raises
        ------
        ArgumentError
            If names are missing or unknown, or the state is no mapping.
        ShapeError
            If a shape differs.
        DTypeError
            If values cannot be cast safely, as from complex numbers or text.
        DataError
            If a finite value is too large for the parameter's dtype.
        """
        own = {name: t for name, t in self._walk() if isinstance(t, Tensor)}
        return load_values(own, state, f"{self.where}.load_state_dict", strict)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_named"}

    # Reading

    def extra_repr(self) -> str:
        """Return the settings to show in the tree, as ``64 -> 32``."""
        return ""

    def __repr__(self) -> str:
        rows = list(_tree(self, "", ""))
        width = max(len(left) for left, _, _ in rows)
        shapes = max(len(middle) for _, middle, _ in rows)
        return printable("\n".join(f"{a:{width}}  {b:{shapes}}  {c}".rstrip() for a, b, c in rows))


def in_microfw(kind: type) -> bool:
    """Return True for a class of this library, such as that of a layer or a loss."""
    return kind.__module__.startswith("microfw.")


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    yield from ((str(k), v) for k, v in (value.items() if isinstance(value, dict) else enumerate(value)))


def _refuse_path(model: Module, path: str, *prefixes: str) -> Never:
    places = " and ".join(f"{path.removeprefix(prefix)!r} in {prefix[:-1] or 'the model'}" for prefix in prefixes)
    fix = "use different keys in a dict, texts without dots"
    raise ArgumentError(type(model).__name__, "a different path for each part", f"{path} for {places}", fix)


def _tree(module: Module, name: str, indent: str) -> Iterator[tuple[str, str, str]]:
    """Yield a row for a module and each one below it: title, own parameters, how many in all."""
    own = [(k, p) for k, p in module.children() if isinstance(p, Parameter)]
    shapes = ", ".join(f"{k} {p.shape}" for k, p in own[:4]) + (f", {len(own) - 4} more" if len(own) > 4 else "")
    count = sum(p.size for p in module.parameters())
    frozen = sum(p.size for p in module.parameters() if not p.requires_grad)
    counts = (f"{count:,} parameters" + (f", {frozen:,} frozen" if frozen else "")) if count else ""
    title = f"{indent}{name + ': ' if name else ''}{type(module).__name__}({module.extra_repr()})"
    yield title, shapes, counts
    parts = [(n, m) for n, m in module.named_modules() if n]
    names = {id(m): n for n, m in parts}
    for key, value in module.children():
        if isinstance(value, Module) and names.get(id(value)) != key:
            yield f"{indent}  {key}: {type(value).__name__}, the same as {names.get(id(value), 'this')}", "", ""
        for at, child in parts:
            if f"{at}.".startswith(f"{key}.") and not any(at.startswith(f"{other}.") for other in names.values()):
                yield from _tree(child, at, indent + "  ")


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
