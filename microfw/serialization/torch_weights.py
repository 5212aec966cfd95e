"""`import_torch`: the weights of a PyTorch model into a model of the library's layers."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from microfw import nn
from microfw.autograd.tensor import Tensor
from microfw.errors import ArgumentError, CheckpointError, DTypeError, ShapeError
from microfw.nn import Dense, Embedding, Module, MultiHeadAttention
from microfw.nn.loading import IncompatibleKeys, as_values, load_values, named_errors
from microfw.serialization import safetensors
from microfw.serialization.container import META, reading
from microfw.serialization.layout import Array, read_array
from microfw.serialization.output import path_text
from microfw.serialization.strict import FormatError, Limit

Rename = Mapping[str, str | None] | Callable[[str], str | None]

BF16 = np.dtype([("bfloat16", "<u2")])
"""How bytes of bfloat16, which NumPy does not have, are read."""

IGNORED = "num_batches_tracked"
"""A count of batches that batch norm in PyTorch keeps, and needs for ``momentum=None`` alone."""


CONTAINERS = (Module, list, tuple, dict)

LAYERS = (nn.RNN, nn.GRU, nn.LSTM)
RECURRENT = (*LAYERS, *(getattr(nn, name) for name in nn.__all__ if name.endswith("Cell")))


RECURRENT_NAMES = re.compile(r"(weight_ih|weight_hh|bias_hh|bias)((?:_l\d+)?(?:_reverse)?)")

MAPS = ("query", "key", "value", "out")
"""Modules of an attention whose weights have other names in PyTorch."""


class Source(NamedTuple):
    """Where a value comes from: PyTorch's names below a path with their shapes, and a function of these arrays."""

    shapes: dict[str, tuple[int, ...]]
    make: Callable[..., Array]


def import_torch(
    model: Module,
    source: Mapping[str, Any] | str | os.PathLike[str],
    rename: Rename | None = None,
    strict: bool = True,
) -> IncompatibleKeys | None:
    """Copy the weights of a PyTorch model into a model of the same structure, in the layouts used here.

    Parameters
    ----------
    model : Module
        A model whose layers have the same paths as PyTorch's, or get them by ``rename``.
    source : mapping, str or path-like
        A ``state_dict()`` of Tensors of PyTorch or arrays; or the path of a ``.safetensors`` file of one, which is read
        without PyTorch.
    rename : mapping or callable, optional
        From PyTorch's names to those here. A mapping has names, or their first parts up to a dot, the longest of which
        counts: ``{"features": "body.0"}``. A function takes a name. To None means to leave the value out.
    strict : bool
        Whether each name must have its counterpart.

    Returns
    -------
    IncompatibleKeys or None
        With ``strict=False``, ``(missing_keys, unexpected_keys)``: PyTorch's names of what keeps its values, and of
        what was not used.

    Raises
    ------
    ArgumentError
        If names are missing, unexpected or ambiguous; the message has all of them. Nothing is matched by shape.
    ShapeError
        If shapes differ; the message has all of them.
    DTypeError
        If a value is no array of numbers.
    DataError
        If a finite value is too large for the parameter's dtype.
    CheckpointError
        If the file is not valid.

    Notes
    -----
    A failed call changes nothing. Weights of `Dense` and of recurrent layers are transposed; the two biases of `RNN`
    and `LSTM` are added; ``in_proj_weight`` of attention is cut into query, key and value; ``num_batches_tracked`` is
    ignored. Values of 16 bits are widened to the parameters' dtype. A parameter with several names here may have one or
    all of them in PyTorch; values of all must then be equal. Join the dicts of a model in several files before the
    call, ``{**first, **second}``: a parameter may be made of values in two of them.

    Examples
    --------
    >>> import numpy as np, microfw as mf
    >>> theirs = {"fc.weight": np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), "fc.bias": np.zeros(2)}
    >>> model = mf.nn.Sequential(mf.nn.Dense(3, 2, rng=0))
    >>> mf.import_torch(model, theirs, rename={"fc": "0"})
    >>> model(np.array([[1.0, 0.0, 0.0]])).numpy()
    array([[1., 4.]], dtype=float32)
    """
    if not isinstance(model, Module):
        raise ArgumentError("import_torch", "a Module of microfw first", type(model).__name__)
    if not isinstance(strict, bool | np.bool_):
        raise ArgumentError("import_torch", "strict to be True or False", repr(strict))
    if isinstance(source, Mapping):
        _refuse_checkpoint(source)
        return _fill(model, {str(name): partial(_plain, value, name) for name, value in source.items()}, rename, strict)
    if hasattr(source, "state_dict"):
        ours = isinstance(source, Module)
        fix = "call model.load_state_dict(source.state_dict())" if ours else "pass its state_dict()"
        raise ArgumentError("import_torch", "a state_dict of PyTorch, or a path", type(source).__name__, fix)
    call = "mf.import_torch(model, path)"
    path = path_text(source, "import_torch", call, CheckpointError)
    place = f"import_torch {path}"
    if not path.endswith(".safetensors"):
        fix = "write one in PyTorch with safetensors.torch.save_file(model.state_dict(), path), or pass a state_dict"
        raise CheckpointError(place, "a state_dict, or a name that ends with .safetensors", repr(path), fix)
    with reading(path, place) as (file, size):
        dtypes = {**safetensors.NAMES, "BF16": BF16}
        notes, places = safetensors.index(file, size, Limit(size), dtypes)
        if META in notes:  # its Dense weights are (in, out) already
            raise FormatError("a file of PyTorch's weights", "one of mf.save", "read it with mf.load")
        return _fill(model, {name: partial(_read, file, at, size) for name, at in places.items()}, rename, strict)


def _refuse_checkpoint(source: Mapping[str, Any]) -> None:
    """Raise for a dict with a state_dict in it, as of an epoch, a model and an optimizer."""
    for name, value in source.items():
        inner = isinstance(value, Mapping) and any(hasattr(entry, "shape") for entry in value.values())
        if inner and not str(name).endswith("_extra_state"):  # an entry of a module that is no array
            fix = f"pass source[{name!r}]"
            raise ArgumentError("import_torch", "a state_dict", f"a dict with one as its entry {name!r}", fix)


def _read(file: Any, place: Any, size: int) -> Array:
    array = read_array(file, place, size)
    if array.dtype != BF16:
        return array
    # bfloat16 is the upper half of a float32
    return (array.view("<u2").astype("<u4") << 16).view("<f4")


def _plain(value: Any, name: str) -> Array:
    """Return a Tensor of PyTorch or of microfw, or an array, as an array."""
    where, fix = f"import_torch: {name}", "pass model.state_dict()"
    if callable(getattr(value, "detach", None)) and callable(getattr(value, "cpu", None)):
        with named_errors(where, "cast it in PyTorch with .float()"):
            value = value.detach().cpu()
            value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    array = as_values(value, where, fix)
    if array.dtype.name == "bfloat16":  # of the package ml_dtypes
        return array.astype(np.float32)
    if array.dtype.kind not in "fiub":
        raise DTypeError(where, "an array of numbers", type(value).__name__, fix)
    return array


def _fill(
    model: Module, values: Mapping[str, Callable[[], Array]], rename: Any, strict: bool
) -> IncompatibleKeys | None:
    given = _renamed(values, rename)
    wanted = _sources(model)
    used: set[str] = set()
    missing, found = [], {}
    for key, (_, sources) in wanted.items():
        complete = [source for source in sources if all(name in given for name in source.shapes)]
        found[key] = complete
        used.update(name for source in complete for name in source.shapes)
        if not complete:
            missing += [name for name in sources[0].shapes if name not in given]
    missing = list(dict.fromkeys(missing))
    unexpected = [name for path, names in given.items() if path not in used for name in names]
    wrong = []
    if strict:
        wrong = [f"missing {missing}"] * bool(missing) + [f"unexpected {unexpected}"] * bool(unexpected)
    arrays: dict[str, list[Array]] = {path: [values[name]() for name in given[path]] for path in used}
    several = [names for path, names in given.items() if path in used and not _equal(arrays[path])]
    bad = [
        f"{given[path][0]} of shape {shape}, got {arrays[path][0].shape}"
        for sources in found.values() for source in sources for path, shape in source.shapes.items()
        if arrays[path][0].shape != shape
    ]  # fmt: skip
    made = {}
    if not bad:
        for key, sources in found.items():
            each = [source.make(*(arrays[path][0] for path in source.shapes)) for source in sources]
            if not _equal(each):
                several.append([given[path][0] for source in sources for path in source.shapes])
            made.update({key: each[0]} if each else {})
    wrong += [f"ambiguous {names}, of different values" for names in several]
    if wrong:
        fix = "pass rename={theirs: ours}, or strict=False"
        raise ArgumentError("import_torch", "PyTorch's names to be those of the model", ", ".join(wrong), fix)
    if bad:
        raise ShapeError(f"import_torch: expected {'; expected '.join(dict.fromkeys(bad))}")
    load_values({key: wanted[key][0] for key in made}, made, "import_torch", True)
    return None if strict else IncompatibleKeys(missing, unexpected)


def _equal(arrays: list[Array]) -> bool:
    return all(np.array_equal(array, arrays[0], equal_nan=True) for array in arrays[1:])


def _renamed(names: Iterable[str], rename: Any) -> dict[str, list[str]]:
    """Return PyTorch's names by what they are called here."""
    given: dict[str, list[str]] = {}
    used = set()
    if not (rename is None or isinstance(rename, Mapping) or callable(rename)):
        expected = "rename to be a dict of names, a function or None"
        raise ArgumentError("import_torch", expected, repr(rename), "pass rename={theirs: ours}")
    for name in names:
        path: str | None = name
        ignored = name.rpartition(".")[2] == IGNORED
        if isinstance(rename, Mapping):
            ends = [k for k, c in enumerate(name) if c == "."] + [len(name)]
            first = next((name[:end] for end in reversed(ends) if name[:end] in rename), None)
            if first is not None:
                used.add(first)
                to = rename[first]
                path = None if to is None else f"{to}{name[len(first) :]}".removeprefix(".")
        elif rename is not None and not ignored:
            path = rename(name)
        if path is not None and not ignored:
            given.setdefault(path, []).append(name)
    if isinstance(rename, Mapping) and len(used) < len(rename):
        unused = [name for name in rename if name not in used]
        raise ArgumentError("import_torch", "rename of names that are given", f"{unused}", "these begin no name")
    return given


def _sources(model: Module) -> dict[str, tuple[Tensor, list[Source]]]:
    """Return each parameter and buffer by its name here, with its sources: one for each path to it."""
    found: dict[int, list[Source]] = {}
    stack: list[tuple[str, Any, tuple[int, ...]]] = [("", model, ())]
    while stack:
        prefix, part, above = stack.pop()
        for tensor, source in _own(part, prefix):
            found.setdefault(id(tensor), []).append(source)
        above = (*above, id(part))
        attention = isinstance(part, MultiHeadAttention)
        inner = [(name, child) for name, child in _children(part) if not (attention and name in MAPS)]
        nested = [(f"{prefix}{name}.", child, above) for name, child in inner]
        stack += reversed([item for item in nested if isinstance(item[1], CONTAINERS) and id(item[1]) not in above])
    return {name: (t, found[id(t)]) for name, t in model._walk() if isinstance(t, Tensor)}


def _children(part: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(part, Module | dict):
        return part.children() if isinstance(part, Module) else part.items()
    return enumerate(part)


def _own(part: Any, prefix: str) -> Iterator[tuple[Tensor, Source]]:
    """Yield the parameters and buffers of a module or container itself, with their sources."""
    if isinstance(part, MultiHeadAttention):
        e, maps = part.embed_dim, (part.query, part.key, part.value)
        for k, map_ in enumerate(maps):
            rows = slice(k * e, (k + 1) * e)
            yield map_.weight, Source({f"{prefix}in_proj_weight": (3 * e, e)}, lambda a, rows=rows: a[rows].T)
            if map_.bias is not None:
                yield map_.bias, Source({f"{prefix}in_proj_bias": (3 * e,)}, lambda a, rows=rows: a[rows])
        yield from _own(part.out, f"{prefix}out_proj.")
    for name, t in _children(part):
        if not isinstance(t, Tensor):
            continue
        # a class that inherits such a layer may have more parameters
        if isinstance(part, RECURRENT) and (match := RECURRENT_NAMES.fullmatch(name)):
            yield t, _recurrent(part, match[1], match[2], t.shape, prefix)
        elif isinstance(part, Dense) and name == "weight":
            yield t, Source({prefix + name: t.shape[::-1]}, np.transpose)
        elif isinstance(part, Embedding) and part.padding_idx is not None:
            yield t, Source({prefix + name: t.shape}, partial(_padded, part.padding_idx, prefix + name))
        else:
            yield t, Source({prefix + name: t.shape}, np.asarray)


def _recurrent(part: Any, kind: str, suffix: str, shape: tuple[int, ...], prefix: str) -> Source:
    if isinstance(part, LAYERS) and not suffix.startswith("_l"):  # the first layer; cells have none
        suffix = f"_l0{suffix}"
    if kind.startswith("weight"):
        return Source({f"{prefix}{kind}{suffix}": shape[::-1]}, np.transpose)
    if kind == "bias_hh":
        return Source({f"{prefix}bias_hh{suffix}": shape}, np.asarray)
    names = ("bias_ih",) if hasattr(part, "bias_hh") else ("bias_ih", "bias_hh")
    return Source({f"{prefix}{n}{suffix}": shape for n in names}, _added)


def _added(*biases: Array) -> Array:
    return np.asarray(np.sum(biases, axis=0, dtype=np.float64))


def _padded(index: int, name: str, table: Array) -> Array:
    if table[index].any():  # PyTorch returns the row, an Embedding here zeros
        fix = "make the Embedding without padding_idx"
        raise ArgumentError(f"import_torch: {name}", f"zeros in row {index}, the padding_idx", "others", fix)
    return table
