"""`save` and `load`: a model in a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, NamedTuple

from microfw.autograd.tensor import Tensor
from microfw.errors import CheckpointError
from microfw.nn import Module, Parameter
from microfw.nn.module import in_microfw
from microfw.serialization import architecture, attributes, container, random, tree
from microfw.serialization.container import Contents
from microfw.serialization.output import path_text
from microfw.serialization.strict import FormatError, listed, short, table

Path = str | os.PathLike[str]

CALL = "mf.save(path, model)"

KEYS = ("layers", "frozen", "evaluating", "random")

CHANGED = "changed"
"""Key of the attributes that constructors do not make; not in files of models that have none, or of older versions."""


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
        parts = attributes.parts(model)
        about = describe(model, arrays, parts=parts)
        complete(about, parts, arrays)  # what could not be loaded is refused now, and not when it is needed
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
        about = table(about)
        table({CHANGED: {}, **about}, *KEYS, CHANGED)
        model = make(about, contents, trusted)
        if kind == "model" and contents.unread:
            raise FormatError("arrays of the model alone", short(sorted(contents.unread)))
        return model


def values(model: Module) -> dict[str, Any]:
    """Return the arrays of a model by name, without copies."""
    return {name: t.data for name, t in model._walk() if isinstance(t, Tensor)}


def describe(
    model: Module,
    arrays: dict[str, Any],
    classes: Mapping[str, Any] | None = None,
    parts: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the metadata of a model: architecture, frozen parameters, modes, random states."""
    parts = attributes.parts(model) if parts is None else parts
    about = {
        "layers": architecture.describe(model, classes or {}),
        "frozen": [name for name, p in parts.items() if isinstance(p, Parameter) and not p.requires_grad],
        "evaluating": [name for name, part in parts.items() if isinstance(part, Module) and not part.training],
        "random": tree.pack(random.states(random.generators(model)), "random", arrays),
    }
    return about


class Made(NamedTuple):
    """What the constructors make of an architecture."""

    layers: str
    """The architecture, as JSON."""
    tensors: dict[str, tuple[str, str]]
    """`_tensors` of the model."""
    marks: attributes.Marks
    """`attributes.marks` of the model."""


def complete(about: dict[str, Any], parts: dict[str, Any], arrays: dict[str, Any], made: Made | None = None) -> Made:
    """Add the attributes that the constructors do not make to the metadata of a model.

    Parameters
    ----------
    about : dict
        From `describe`; receives the entry ``changed``, if there are such attributes.
    parts : dict
        `attributes.parts` of the model.
    arrays : dict
        Receives the arrays among the attributes.
    made : Made, optional
        What an earlier call returned; used if the architecture is the same.

    Raises
    ------
    FormatError
        If a model built from the metadata would be another one.
    """
    layers, again = json.dumps(about["layers"]), None
    own = _tensors(parts)
    if made is None or made.layers != layers:
        limit = _value_limit(sum(part.size for part in parts.values() if isinstance(part, Tensor)))
        again = attributes.parts(architecture.build(about["layers"], architecture.own_classes(parts[""]), limit))
        made = Made(layers, _tensors(again), attributes.marks(again))
    for name in [*own, *made.tensors]:
        mine, theirs = own.get(name, ("nothing", "")), made.tensors.get(name, ("nothing", ""))
        if mine != theirs:
            k = mine[0] == theirs[0]
            fix = "do not share or replace parameters of a model before you save it, or define init_arguments"
            raise FormatError(f"a model that its settings create again, with {name} {mine[k]}", theirs[k], fix)
    changed = attributes.changed(parts, made.marks)
    if changed:
        if any(name.startswith(f"{CHANGED}/") for name in own):
            raise FormatError(f"no parameter's name to begin with {CHANGED}/", "one")
        about[CHANGED] = {
            path: {name: tree.pack(value, f"{CHANGED}/{path}.{name}", arrays) for name, value in values.items()}
            for path, values in changed.items()
        }
    if again is not None and not all(in_microfw(type(part)) for part in parts.values()):
        attributes.put(again, changed)
        if json.dumps(architecture.describe(again[""], {})) != layers:
            fix = "let init_arguments return the arguments that the constructor was called with"
            raise FormatError("settings from which the constructors make the same settings", "others", fix)
    return made


def _tensors(parts: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Return the shape, and the kind, of each parameter and buffer."""
    return {name: (str(t.shape), _kind(t)) for name, t in parts.items() if isinstance(t, Tensor)}


def _kind(t: Tensor) -> str:
    parameter = isinstance(t, Parameter)
    return "Parameter" if parameter else f"buffer of kind {t.dtype.kind}, requires_grad={t.requires_grad}"


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
    attributes.put(dict(model.named_modules()), tree.unpack(about.get(CHANGED, {}), contents.array))
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
    frozen, evaluating = listed(about["frozen"], str), listed(about["evaluating"], str)
    if not parameters.keys() >= set(frozen):
        raise FormatError("parameters to freeze", short(frozen))
    if not modules.keys() >= set(evaluating):
        raise FormatError("modules to switch to evaluation", short(evaluating))
    for name, p in parameters.items():
        p.requires_grad = name not in frozen
    for name, module in modules.items():
        if module.training is (name in evaluating):
            module.training = not module.training
    _give_generators(tree.unpack(about["random"], contents.array), model, modules)
    # else an entry would be ignored, or has another meaning; as text, in which 1, 1.0 and True differ
    known = {key: value for key, value in about.items() if key != CHANGED}
    text = json.dumps(known)
    if not any(text == json.dumps(describe(model, {}, naming)) for naming in architecture.namings(classes)):
        raise FormatError("metadata equal to that of the model that it creates", "another")
    return model


def _give_generators(saved: Any, model: Module, modules: dict[str, Module]) -> None:
    """Set Generators with the saved states on the modules; modules that shared a Generator share one again."""
    groups = random.checked(saved)
    for group in groups:
        generator = random.made(group["state"])
        for name in group["names"]:
            path, _, key = name.rpartition(".")
            attributes.put(modules, {path: {key: generator}})
    if sorted(name for group in groups for name in group["names"]) != sorted(random.generators(model)):
        raise FormatError(f"random generators {sorted(random.generators(model))}"[:120], "others")
