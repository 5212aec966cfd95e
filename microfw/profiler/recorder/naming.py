"""Row names of a profile: the path of each module in the profiled model."""

from __future__ import annotations

import weakref
from collections.abc import Container, Iterable
from typing import Any

from microfw.autograd.scope import Scope, chain
from microfw.nn.module import Module
from microfw.profiler.session import Layer

OUTSIDE_PREFIX = "outside: "
"""Prefix of the names of modules with parameters that are not part of the model."""

Known = tuple[weakref.ref[Any], str, bool]


class LayerNames:
    """Names modules by identity: the name of a module is its first path in the model, from any caller.

    A module outside of the model is named by the type of its outermost module and the path from there. If it has
    parameters, the name has the prefix `OUTSIDE_PREFIX`. Two modules never share a name at the same time. A module
    without parameters, such as a loss that is created in each step, releases its name when the next graph begins.

    A module keeps its name when the model changes. A new one at a path that is the name of another one is named by the
    path and a number, such as ``1#2``.

    Parameters
    ----------
    model : Module, optional
        The model. Without one, names are paths from the outermost module that was called. Paths in the first
        outermost module with submodules have no prefix; all others begin with the name of the outermost module.
    """

    def __init__(self, model: Module | None = None) -> None:
        self.model = model
        self.names: dict[int, str] = {}
        self.structure: object = None
        self.known: dict[int, Known] = {}  # outside of the model: module, name, whether it keeps the name
        self.lent: dict[str, weakref.ref[Any]] = {}  # the module that got a name last, of names that are not kept
        self.first: Any = None
        self.inside: set[str] = set()  # paths in the first
        self.listed: dict[str, Layer] = {}
        self.parts: dict[str, set[str]] = {}  # layers that each outermost module has or had, by its name
        self.holders: dict[str, weakref.ref[Any]] = {}  # modules of the model, by name; also those that it had before
        self.earlier: dict[str, Layer] = {}  # layers of earlier parts of the profile, by name

    def resume(self, earlier: LayerNames | None) -> None:
        """Continue with the names and layers of an earlier part of the profile."""
        if earlier is not None:
            self.holders, self.listed, self.parts = earlier.holders, earlier.listed, earlier.parts
            self.earlier = self.listed.copy()

    def name(self, scope: Scope | None, before: Iterable[Scope | None] = ()) -> str:
        """Return the name of a scope's module; "" outside of any module.

        Parameters
        ----------
        scope : Scope or None
            Scope of an op.
        before : iterable of Scope or None
            Scopes of the earlier ops in the same graph.
        """
        if scope is None:
            return ""
        if self.structure is not Module._structure:
            self._list()
        module: Any = scope[0]
        if (name := self.names.get(id(module))) is not None:
            return name
        known = self.known.get(id(module))
        if known is not None and known[2] and known[0]() is module:
            return known[1]
        holder, paths = self._holder(scope)
        if holder is None:
            return self._label(scope, before)
        top = self.name(holder, before)
        path = paths[id(module)]
        inside = self.first is not None and self.first() is holder[0]
        name = self._claimed(path, module, paths) if inside else f"{top}.{path}"
        self.known[id(module)] = weakref.ref(module), name, self.known[id(holder[0])][2]
        return name

    def inherits(self, scope: Scope, before: Scope, name: str) -> bool:
        """Return True if a scope's module has the name of an earlier scope's module, from the same place in a step.

        A module without parameters that replaces one of its type, such as a loss that is created in each step, takes
        the name over.
        """
        if self.structure is not Module._structure:
            self._list()
        module: Any = scope[0]
        old, holder = before[0], self.lent.get(name)
        if holder is None or id(module) in self.names:
            return False
        known = self.known.get(id(module))
        if known is not None and known[0]() is module:
            return known[1] == name and holder() is module
        outer, outer_before = scope[1], before[1]
        same_caller = outer is outer_before or (outer and outer[0]) is (outer_before and outer_before[0])
        first = self.first is not None and self.first() is old
        # the last holder: two modules of a step never share a name
        if holder() is not old or not same_caller or first:
            return False
        if type(module) is not type(old) or has_parameters(module):
            return False
        self.lent[name] = ref = weakref.ref(module)
        self.known[id(module)] = ref, name, False
        return True

    def _list(self) -> None:
        if self.model is not None:
            parts = dict(self.model.named_modules())
            before = {id(ref()): name for name, ref in self.holders.items()}
            paths = {id(part): path for path, part in parts.items()}
            self.names = {
                id(part): before.get(id(part)) or self._claimed(path, part, paths) for path, part in parts.items()
            }
            self.names[id(self.model)] = title_of(self.model)
        elif self.first is not None and (first := self.first()) is not None:
            self.inside = {path for path, _ in first.named_modules() if path}
        self.structure = Module._structure

    def _claimed(self, path: str, module: Any, paths: dict[int, str]) -> str:
        """Return the path, with a number if it is the name of another module. ``paths``: of the model's modules."""
        name, number = path, 1
        while not self._is_free(name, module, paths) or (number > 1 and name in paths.values()):
            number += 1
            name = f"{path}#{number}"
        self.holders[name] = weakref.ref(module)
        return name

    def _is_free(self, name: str, module: Any, paths: dict[int, str]) -> bool:
        holder = self.holders.get(name)
        before = None if holder is None else holder()
        if before is module:
            return True
        kind, trains = type(module), has_parameters(module)
        if before is None:
            old = self.earlier.get(name)
            return old is None or (not trains and not old.parameters and old.kind == kind.__name__)
        # the same name for an activation that is made in each step
        return not trains and type(before) is kind and id(before) not in paths

    def _holder(self, scope: Scope) -> tuple[Scope | None, dict[int, str]]:
        """Return the scope of the outermost module that contains a scope's module, and the paths in it."""
        found, paths = None, {}
        outer = scope[1]
        while outer is not None and id(outer[0]) not in self.names:
            listed = {id(part): name for name, part in outer[0].named_modules()}
            if id(scope[0]) in listed and outer[0] is not scope[0]:
                found, paths = outer, listed
            outer = outer[1]
        return found, paths

    def _label(self, scope: Scope, before: Iterable[Scope | None]) -> str:
        """Name a module that no other module contains."""
        module: Any
        module, outer = scope
        label = type(module).__name__
        keeps = has_parameters(module)
        if outer is not None:
            label = f"{self.name(outer, before)}.{label}"
        elif keeps and self.model is not None:
            label = OUTSIDE_PREFIX + label
        # copy: threads may share a profile
        kept = [(other(), name) for other, name, keeps_it in self.known.copy().values() if keeps_it]
        kept = [(other, name) for other, name in kept if other is not None and other is not module]
        taken = {*self.names.values()} | {name for _, name in kept}
        if self.model is None and outer is None and (self.first is None or self.first() is None):
            inside = {path: part for path, part in module.named_modules() if path}
            if inside and all(inside.get(name, part) is part for part, name in kept):
                self.first, self.inside = weakref.ref(module), set(inside)
        if self.first is not None and self.first() is not None:
            taken |= self.inside
        if not keeps:
            taken |= {name for other in before for name in self._unkept(other, module)}
        known = self.known.get(id(module))
        name = known[1] if known is not None and known[0]() is module else label
        number = 1
        while name in taken:
            number += 1
            name = f"{label}#{number}"
        self.known[id(module)] = weakref.ref(module), name, keeps
        if keeps:
            self.layers()  # list it while it is alive
        else:
            self.lent[name] = self.known[id(module)][0]
        return name

    def _unkept(self, scope: Scope | None, module: Any) -> Iterable[str]:
        """Yield the names that other modules of a scope have in this graph only."""
        for other in chain(scope):
            known = self.known.get(id(other))
            if other is not module and known is not None and not known[2] and known[0]() is other:
                yield known[1]

    def layers(self) -> list[Layer]:
        """List the modules of the model, and those outside of it that have parameters and have run.

        A parameter that several modules share belongs to the first; as a weight it belongs to each.
        """
        if self.structure is not Module._structure:
            self._list()
        tops = [] if self.model is None else [(title_of(self.model), "", self.model)]
        for ref, name, kept in self.known.copy().values():
            top = ref()
            if kept and top is not None:
                tops.append((name, "" if self.first is not None and self.first() is top else f"{name}.", top))
        modules: set[int] = set()
        owners: dict[int, Layer] = {}
        before = self.listed.copy()
        gone: set[str] = set()  # layers that an outermost module had when it was listed before
        present: set[str] = set()
        for title, prefix, top in tops:
            if id(top) in modules:
                continue
            named = list(top.named_modules())
            own = {name: self._own_name(module) or f"{prefix}{name}" if name else title for name, module in named}
            new = [(name, module) for name, module in named if id(module) not in modules]
            parts, now = self.parts.setdefault(title, set()), {own[name] for name, _ in new}
            gone |= parts - now
            parts |= now
            present |= now if title not in gone else set()  # a layer that is replaced may be alive, on its own
            for name, module in new:
                self.listed[own[name]] = Layer(own[name], type(module).__name__)
            for path, p in top.named_parameters():
                if id(p) not in owners:
                    owners[id(p)] = layer = self.listed[own[owner(path, own)]]
                    layer.parameters += p.size
                    layer.trainable += p.size if p.requires_grad else 0
                    layer.weights += weights_in(p)
            for name, module in new:
                layer = self.listed[own[name]]
                shared = {id(p): p for p in vars(module).values() if owners.get(id(p), layer) is not layer}.values()
                layer.weights += sum(map(weights_in, shared))
                layer.used = layer.trainable + sum(p.size for p in shared if p.requires_grad)
            modules |= {id(module) for _, module in named}
        for name, old in before.items():
            layer = self.listed[name]
            layer.varies = old.varies or old != layer
            layer.gone |= name in gone - present
        return list(self.listed.values())

    def _own_name(self, module: Any) -> str | None:
        """Return the name of a module that has one already."""
        known = self.known.get(id(module))
        return self.names.get(id(module)) or (known[1] if known is not None and known[0]() is module else None)


def has_parameters(module: Module) -> bool:
    """Return True if a module or a part of it has parameters."""
    return any(True for _ in module.named_parameters())


def weights_in(p: Any) -> int:
    """Return the number of trained numbers that can be factors of products: those of a parameter with two axes."""
    return p.size if p.requires_grad and p.ndim > 1 else 0


def title_of(model: Module) -> str:
    """Return the name of a model's own row: its type, with a number if one of its parts has that path."""
    kind, number = type(model).__name__, 1
    title, paths = kind, {path for path, _ in model.named_modules()}
    while title in paths:
        number += 1
        title = f"{kind}#{number}"
    return title


def owner(path: str, modules: Container[str]) -> str:
    """Return the path of the innermost module that contains a parameter with a path; "" for the model itself."""
    while path and (path := path.rpartition(".")[0]) not in modules:
        pass
    return path
