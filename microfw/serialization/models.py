"""save and load: a model in a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

from microfw.autograd.tensor import Tensor
from microfw.errors import CheckpointError, message
from microfw.nn import Module
from microfw.serialization import architecture, container, random, tree
from microfw.serialization.container import Contents
from microfw.serialization.output import path_text
from microfw.serialization.strict import Refused, listed, short, table

Path = str | os.PathLike[str]

SWAPPED = "mf.save(path, model)"


def save(path: Path, model: Module) -> None:
    """Save a model: its architecture, parameters, buffers and random state.

    Parameters
    ----------
    path : str or path-like
        Ends with ``.safetensors``, which PyTorch, JAX and others read, or with ``.npz``, which NumPy reads.
    model : Module
        Of the library's layers, and of classes of your own whose constructors' parameters are attributes of the same
        names, as in scikit-learn, or that define ``init_arguments``.

    Raises
    ------
    CheckpointError
        If the model cannot be made anew from its settings, or the file cannot be written. A file that was there
        before is then as it was.

    Notes
    -----
    The file is there wholly or not at all, whatever happens, and it is on the disk when this returns; it holds a
    checksum for everything in it. No code is saved. See the guide on files.

    Examples
    --------
    >>> import os, tempfile, microfw as mf
    >>> model = mf.nn.Sequential(mf.nn.Dense(4, 8, rng=0), mf.nn.ReLU(), mf.nn.Dense(8, 3, rng=1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.npz")
    ...     mf.save(path, model)
    ...     again = mf.load(path)
    >>> again
    Sequential()                                  67 parameters
      0: Dense(4 -> 8)  weight (4, 8), bias (8,)  40 parameters
      1: ReLU()
      2: Dense(8 -> 3)  weight (8, 3), bias (3,)  27 parameters
    """
    where = f"saving {path_text(path, 'mf.save', SWAPPED, CheckpointError)}"
    if not isinstance(model, Module):
        raise CheckpointError(message(where, "a Module", type(model).__name__, f"call {SWAPPED}"))
    try:
        arrays: dict[str, Any] = dict(values(model))
        about = describe(model, arrays)
        rehearse(about, model)
    except Refused as refused:
        raise refused.error(where) from None
    container.write(path, arrays, {"kind": "model", "model": about})


def load(path: Path, classes: Mapping[str, Any] | Iterable[Any] = ()) -> Module:
    """Load a model from a file that `save`, or a training checkpoint, left.

    Parameters
    ----------
    path : str or path-like
        The file. It is not trusted: it can name no class but the library's layers and those that you pass, and it
        makes nothing more than 8 times as large as itself.
    classes : sequence or mapping of str to object
        Classes and functions of your own that the model is made of, by their names.

    Returns
    -------
    Module
        With the values, the modes and the random states of the one that was saved.

    Raises
    ------
    CheckpointError
        If anything is wrong with the file: it says what.
    """
    with container.opened(path, "loading") as contents:
        about, kind = contents.meta.get("model"), contents.meta.get("kind")
        if kind not in ("model", "training"):
            raise Refused("a file of kind 'model' or 'training'", short(kind))
        if set(contents.meta) != {"format", "version", "kind", "model", "sha256", kind}:
            raise Refused(f"what a file of a {kind} says", short(sorted(contents.meta)))
        if isinstance(about, str):
            raise Refused("a file with an architecture", f"one without, since: {about}"[:200])
        model = make(table(about, "layers", "frozen", "evaluating", "random"), contents, architecture.named(classes))
        if kind == "model" and contents.unread:
            raise Refused("arrays of the model alone", short(sorted(contents.unread)))
        return model


def values(model: Module) -> dict[str, Any]:
    """Return the arrays of a model by name, not copied."""
    return {name: t.data for name, t in model._walk() if isinstance(t, Tensor)}


def describe(model: Module, arrays: dict[str, Any], classes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what a file says about a model besides its values; ``classes`` are those of other names in files."""
    about = {
        "layers": architecture.describe(model, classes or {}),
        "frozen": [name for name, p in model.named_parameters() if not p.requires_grad],
        "evaluating": [name for name, module in model.named_modules() if not module.training],
        "random": tree.pack(random.states(random.generators(model)), "random", arrays),
    }
    return about


def rehearse(about: dict[str, Any], model: Module) -> None:
    """Raise unless a model that is made from its description has the same parameters and buffers."""
    own = values(model)
    limit = _room(sum(array.size for array in own.values()))
    again = values(architecture.build(about["layers"], architecture.own_classes(model), limit))
    for name in [*own, *again]:
        shapes = [str(side[name].shape) if name in side else "nothing" for side in (own, again)]
        if shapes[0] != shapes[1]:
            fix = "do not share or replace parameters of a model that is to be saved, or define init_arguments"
            raise Refused(f"a model that its settings make anew, with {name} {shapes[0]}", shapes[1], fix)


def _room(numbers: int) -> int:
    """Return how many numbers constructors may make for so many in the end: some are replaced, as tied weights are."""
    return 8 * numbers + 10_000


def make(about: dict[str, Any], contents: Contents, classes: Mapping[str, Any]) -> Module:
    """Return the model of a file."""
    limit = _room(sum(place.dtype.itemsize * prod(place.shape) for place in contents.places.values()) // 4)
    model = architecture.build(about["layers"], classes, limit)
    for name, t in [(name, t) for name, t in model._walk() if isinstance(t, Tensor)]:
        place = contents.places.get(name)
        if place is None or place.shape != t.shape or place.dtype.kind != t.dtype.kind:
            got = "nothing" if place is None else f"{place.dtype} {place.shape}"
            raise Refused(f"an array {name} of {t.dtype} {t.shape}", got)
        if place.dtype != t.dtype:
            t._convert(place.dtype)
        values_read = contents.array(name, t._array)
        if values_read is not t._array:
            t._array[...] = values_read
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
    for name in listed(about["frozen"], str):
        if name not in parameters:
            raise Refused("a parameter to freeze", short(name))
        parameters[name].requires_grad = False
    for name in listed(about["evaluating"], str):
        if name not in modules:
            raise Refused("a module to switch to evaluation", short(name))
        modules[name].training = False
    _give_generators(tree.unpack(about["random"], contents.array), model, modules)
    if json.dumps(describe(model, {}, classes)) != json.dumps(about):  # nothing that would be lost, or be another thing
        raise Refused("a description as it is written of the model that it makes", "another")
    return model


def _give_generators(saved: Any, model: Module, modules: dict[str, Module]) -> None:
    """Give the modules Generators in the saved states, one for all that shared one."""
    groups = random.checked(saved)
    if sorted(name for group in groups for name in group["names"]) != sorted(random.generators(model)):
        raise Refused(f"random generators {sorted(random.generators(model))}"[:120], "others")
    for group in groups:
        generator = random.made(group["state"])
        for name in group["names"]:
            path, _, key = name.rpartition(".")
            setattr(modules[path], key, generator)
