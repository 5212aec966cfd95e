"""`save` and `load`: a model in a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

from microfw.autograd.tensor import Tensor
from microfw.errors import CheckpointError
from microfw.nn import Module
from microfw.serialization import architecture, container, random, tree
from microfw.serialization.container import Contents
from microfw.serialization.output import path_text
from microfw.serialization.strict import FormatError, listed, short, table

Path = str | os.PathLike[str]

CALL = "mf.save(path, model)"


def save(path: Path, model: Module) -> None:
    """Save a model: its architecture, parameters, buffers and random state.

    Parameters
    ----------
    path : str or path-like
        Name with the suffix ``.safetensors``, which PyTorch, JAX and others read, or ``.npz``, which NumPy reads.
    model : Module
        Model of the library's layers and of your own classes. Your classes have an attribute for each constructor
        parameter, with the same name (as in scikit-learn), or define ``init_arguments``.

    Raises
    ------
    CheckpointError
        If the model cannot be created again from its settings, or the file cannot be written. An existing file is then
        unchanged.

    Notes
    -----
    Writing is atomic: after a failure the file is complete or unchanged. When the function returns, the file is on the
    disk. The file contains checksums of all content, and no code. See the guide on files.

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
    where = f"saving {path_text(path, 'mf.save', CALL, CheckpointError)}"
    if not isinstance(model, Module):
        raise CheckpointError(where, "a Module", type(model).__name__, f"call {CALL}")
    try:
        arrays: dict[str, Any] = dict(values(model))
        about = describe(model, arrays)
        rehearse(about, model)  # what could not be loaded is refused now, and not when it is needed
    except FormatError as error:
        raise error.with_location(where) from None
    container.write(path, arrays, {"kind": "model", "model": about})


def load(path: Path, classes: Mapping[str, Any] | Iterable[Any] = ()) -> Module:
    """Load a model from a file of `save`, or from a training checkpoint.

    Parameters
    ----------
    path : str or path-like
        The file. It need not be trusted: it can only create the library's layers and the classes that you pass, with
        at most 8 times the size of the file.
    classes : sequence or mapping of str to object
        Your own classes and functions in the model, by name.

    Returns
    -------
    Module
        Model with the values, modes and random states of the saved one.

    Raises
    ------
    ArgumentError
        If ``classes`` is no list or dict of classes and functions.
    CheckpointError
        If the file is not valid; the message names the fault.
    """
    trusted = architecture.named(classes, "mf.load")
    with container.opened(path, "loading") as contents:
        about, kind = contents.meta.get("model"), contents.meta.get("kind")
        if kind not in ("model", "training"):
            raise FormatError("a file of kind 'model' or 'training'", short(kind))
        if set(contents.meta) != {"format", "version", "kind", "model", "sha256", kind}:
            raise FormatError(f"the metadata of a {kind} file", short(sorted(contents.meta)))
        if isinstance(about, str):
            raise FormatError("a file with an architecture", f"one without, since: {about}"[:200])
        model = make(table(about, "layers", "frozen", "evaluating", "random"), contents, trusted)
        if kind == "model" and contents.unread:
            raise FormatError("arrays of the model alone", short(sorted(contents.unread)))
        return model


def values(model: Module) -> dict[str, Any]:
    """Return the arrays of a model by name, without copies."""
    return {name: t.data for name, t in model._walk() if isinstance(t, Tensor)}


def describe(model: Module, arrays: dict[str, Any], classes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the metadata of a model: architecture, frozen parameters, modes, random states."""
    about = {
        "layers": architecture.describe(model, classes or {}),
        "frozen": [name for name, p in model.named_parameters() if not p.requires_grad],
        "evaluating": [name for name, module in model.named_modules() if not module.training],
        "random": tree.pack(random.states(random.generators(model)), "random", arrays),
    }
    return about


def rehearse(about: dict[str, Any], model: Module) -> None:
    """Raise FormatError unless a model built from the metadata has the same parameters and buffers."""
    own = values(model)
    limit = _value_limit(sum(array.size for array in own.values()))
    again = values(architecture.build(about["layers"], architecture.own_classes(model), limit))
    for name in [*own, *again]:
        shapes = [str(side[name].shape) if name in side else "nothing" for side in (own, again)]
        if shapes[0] != shapes[1]:
            fix = "do not share or replace parameters of a model before you save it, or define init_arguments"
            raise FormatError(f"a model that its settings create again, with {name} {shapes[0]}", shapes[1], fix)


def _value_limit(numbers: int) -> int:
    """Return the limit on values that constructors may create: more than the final number, for tied weights."""
    return 8 * numbers + 10_000


def make(about: dict[str, Any], contents: Contents, classes: Mapping[str, Any]) -> Module:
    """Return the model from the metadata and arrays of a file."""
    limit = _value_limit(sum(place.dtype.itemsize * prod(place.shape) for place in contents.places.values()) // 4)
    model = architecture.build(about["layers"], classes, limit)
    for name, t in [(name, t) for name, t in model._walk() if isinstance(t, Tensor)]:
        place = contents.places.get(name)
        if place is None or place.shape != t.shape or place.dtype.kind != t.dtype.kind:
            got = "nothing" if place is None else f"{place.dtype} {place.shape}"
            raise FormatError(f"an array {name} of {t.dtype} {t.shape}", got)
        if place.dtype != t.dtype:  # layers are made in float32; the model may be one of float64
            t._convert(place.dtype)
        values_read = contents.array(name, t._array)
        if values_read is not t._array:
            t._array[...] = values_read
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
    for name in listed(about["frozen"], str):
        if name not in parameters:
            raise FormatError("a parameter to freeze", short(name))
        parameters[name].requires_grad = False
    for name in listed(about["evaluating"], str):
        if name not in modules:
            raise FormatError("a module to switch to evaluation", short(name))
        modules[name].training = False
    _give_generators(tree.unpack(about["random"], contents.array), model, modules)
    # else an entry would be ignored, or has another meaning; as text, in which 1, 1.0 and True differ
    ways = classes, architecture.without_layers(classes)  # a layer that was passed: by its own name, or by that in nn
    if json.dumps(about) not in [json.dumps(describe(model, {}, way)) for way in ways]:
        raise FormatError("metadata equal to that of the model that it creates", "another")
    return model


def _give_generators(saved: Any, model: Module, modules: dict[str, Module]) -> None:
    """Set Generators with the saved states on the modules; modules that shared a Generator share one again."""
    groups = random.checked(saved)
    if sorted(name for group in groups for name in group["names"]) != sorted(random.generators(model)):
        raise FormatError(f"random generators {sorted(random.generators(model))}"[:120], "others")
    for group in groups:
        generator = random.made(group["state"])
        for name in group["names"]:
            path, _, key = name.rpartition(".")
            setattr(modules[path], key, generator)
