"""Products of arrays as NumPy knows them, each made of ``matmul`` wherever entries are multiplied and summed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain, pairwise
from math import prod
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from microfw.autograd.op import Shape
from microfw.autograd.tensor import Tensor
from microfw.errors import ArgumentError, ShapeError
from microfw.ops.diagonals import diagonal
from microfw.ops.elementwise import multiply
from microfw.ops.layout import moveaxis, ravel, reshape, transpose
from microfw.ops.linalg import matmul
from microfw.ops.mapping import implements, operand
from microfw.ops.repeating import roll

Labels = tuple[str, ...]
"""A name for each axis."""


def _shaped(x: Any, shape: Shape) -> Any:
    return x if x.shape == shape else reshape(x, shape=shape)


def _ordered(x: Any, labels: Labels, order: Labels) -> Any:
    return x if labels == order else transpose(x, axes=tuple(labels.index(k) for k in order))


def contract(a: Any, la: Labels, b: Any, lb: Labels, out: Iterable[str]) -> tuple[Any, Labels]:
    """Multiply two arrays with named axes, summing over the names that are not in ``out``.

    Axes of one name have one length. The result is one matrix product over the axes that are in both and are summed;
    axes in both that are kept are its batch. Without an axis to sum, the product is elementwise.

    Returns
    -------
    array, labels
        The product, and the names of its axes, in order.
    """
    kept = set(out)
    a, la = _summed(a, la, kept | set(lb))
    b, lb = _summed(b, lb, kept | set(la))
    summed = tuple(k for k in la if k in lb and k not in kept)
    batch = tuple(k for k in la if k in lb and k in kept)
    left = tuple(k for k in la if k not in lb)
    right = tuple(k for k in lb if k not in la)
    size = dict(zip(la + lb, a.shape + b.shape, strict=True))

    def sizes(labels: Labels) -> Shape:
        return tuple(size[k] for k in labels)

    if not summed:  # matmul with an inner axis of length 1 would be slower than a product of entries
        a = _shaped(_ordered(a, la, batch + left), sizes(batch + left) + (1,) * len(right))
        b = _shaped(_ordered(b, lb, batch + right), sizes(batch) + (1,) * len(left) + sizes(right))
        return multiply(a, b), batch + left + right
    a = _shaped(_ordered(a, la, batch + left + summed), (*sizes(batch), prod(sizes(left)), prod(sizes(summed))))
    b = _shaped(_ordered(b, lb, batch + summed + right), (*sizes(batch), prod(sizes(summed)), prod(sizes(right))))
    return _shaped(matmul(a, b), sizes(batch + left + right)), batch + left + right


def _summed(x: Any, labels: Labels, kept: set[str]) -> tuple[Any, Labels]:
    axes = tuple(k for k, label in enumerate(labels) if label not in kept)
    return (np.sum(x, axis=axes), tuple(k for k in labels if k in kept)) if axes else (x, labels)


@implements(np.tensordot, np.linalg.tensordot)
def tensordot(a: Any, b: Any, axes: Any = 2) -> Tensor:
    """Sum products over axes of ``a`` and ``b``: the last n of ``a`` and the first n of ``b``, or the given axes."""
    a, b = operand(a), operand(b)
    if np.ndim(axes):
        first, second = (normalize_axis_tuple(k, x.ndim) for k, x in zip(axes, (a, b), strict=True))
    else:
        n = int(axes)
        if not 0 <= n <= min(a.ndim, b.ndim):
            raise ShapeError("tensordot", f"{n} axes in both", (a.shape, b.shape))
        first, second = tuple(range(a.ndim - n, a.ndim)), tuple(range(n))
    if tuple(a.shape[k] for k in first) != tuple(b.shape[k] for k in second):
        raise ShapeError("tensordot", f"axes {first} and {second} of the same lengths", (a.shape, b.shape))
    la = tuple(f"a{k}" for k in range(a.ndim))
    lb = tuple(la[first[second.index(k)]] if k in second else f"b{k}" for k in range(b.ndim))
    out = tuple(k for k in la + lb if not (k in la and k in lb))
    made, labels = contract(a, la, b, lb, out)
    return _ordered(made, labels, out)  # type: ignore[no-any-return]


@implements(np.dot)
def dot(a: Any, b: Any) -> Tensor:
    """Sum products over the last axis of ``a`` and the last but one of ``b``, or its only one.

    Of matrices it is the matrix product. With more axes the result has all the others of ``a``, then those of ``b``.
    """
    a, b = operand(a), operand(b)
    if not a.ndim or not b.ndim:
        return multiply(a, b)
    return tensordot(a, b, ((-1,), (-2,))) if a.ndim > 1 and b.ndim > 2 else matmul(a, b)


@implements(np.inner)
def inner(a: Any, b: Any) -> Tensor:
    """Sum products over the last axes of both."""
    a, b = operand(a), operand(b)
    return tensordot(a, b, ((-1,), (-1,))) if a.ndim and b.ndim else multiply(a, b)


def _require(fits: bool, name: str, expected: str, *operands: Any) -> None:
    if not fits:
        raise ShapeError(name, expected, ", ".join(str(x.shape) for x in operands))


@implements(np.linalg.outer)
def outer_of_vectors(x1: Any, x2: Any) -> Tensor:
    """Multiply each entry of a vector with each of another one."""
    a, b = operand(x1), operand(x2)
    _require(a.ndim == b.ndim == 1, "linalg.outer", "two vectors", a, b)
    return outer(a, b)


@implements(np.outer)
def outer(a: Any, b: Any) -> Tensor:
    """Multiply each entry of ``a`` with each of ``b``."""
    return multiply(reshape(a, shape=(-1, 1)), reshape(b, shape=(1, -1)))


@implements(np.vdot)
def vdot(a: Any, b: Any) -> Tensor:
    """Sum the products of all entries."""
    return matmul(ravel(a), ravel(b))


def _axis_last(a: Any, b: Any, axis: int) -> tuple[Any, Any]:
    """Return two operands with an axis of each at the end, so that the others are broadcast."""
    a, b = operand(a), operand(b)
    return (a, b) if axis == -1 else (moveaxis(a, axis, -1), moveaxis(b, axis, -1))


@implements(np.vecdot, np.linalg.vecdot)
def vecdot(x1: Any, x2: Any, *, axis: int = -1) -> Tensor:
    """Sum products along an axis of both, the others broadcast."""
    x1, x2 = _axis_last(x1, x2, axis)
    fits = x1.ndim and x2.ndim and x1.shape[-1] == x2.shape[-1]
    _require(fits, "vecdot", f"as many entries along axis {axis} of both", x1, x2)
    return multiply(x1, x2).sum(-1)


@implements(getattr(np, "matvec", None))
def matvec(x1: Any, x2: Any) -> Tensor:
    """Multiply matrices with vectors."""
    x1, x2 = operand(x1), operand(x2)
    _require(x1.ndim > 1 and x2.ndim > 0, "matvec", "matrices and vectors", x1, x2)
    return matmul(x1, reshape(x2, shape=(*x2.shape, 1)))[..., 0]


@implements(getattr(np, "vecmat", None))
def vecmat(x1: Any, x2: Any) -> Tensor:
    """Multiply vectors with matrices."""
    x1, x2 = operand(x1), operand(x2)
    _require(x1.ndim > 0 and x2.ndim > 1, "vecmat", "vectors and matrices", x1, x2)
    return matmul(reshape(x1, shape=(*x1.shape[:-1], 1, x1.shape[-1])), x2)[..., 0, :]


@implements(np.kron)
def kron(a: Any, b: Any) -> Tensor:
    """Kronecker product: each entry of ``a`` times all of ``b``, in its place."""
    a, b = operand(a), operand(b)
    ndim = max(a.ndim, b.ndim)
    sa, sb = ((1,) * (ndim - x.ndim) + x.shape for x in (a, b))
    left = reshape(a, shape=tuple(n for s in sa for n in (s, 1)))
    right = reshape(b, shape=tuple(n for s in sb for n in (1, s)))
    return reshape(multiply(left, right), shape=tuple(m * n for m, n in zip(sa, sb, strict=True)))


@implements(np.cross, np.linalg.cross)
def cross(a: Any, b: Any, *, axis: int = -1) -> Tensor:
    """Cross product of vectors of 3 entries along an axis."""
    a, b = _axis_last(a, b, axis)
    for x in (a, b):
        _require(x.shape[-1:] == (3,), "cross", f"3 entries along axis {axis}", x)
    first, second = (multiply(roll(a, shift=-k, axis=-1), roll(b, shift=k, axis=-1)) for k in (1, -1))
    return first - second if axis == -1 else moveaxis(first - second, -1, axis)


@implements(np.linalg.multi_dot)
def multi_dot(arrays: Sequence[Any]) -> Tensor:
    """Multiply matrices, the first and last perhaps vectors, in a good order."""
    given = [operand(x) for x in arrays]
    inner = [x.ndim == 2 or (x.ndim == 1 and k in (0, len(given) - 1)) for k, x in enumerate(given)]
    fits = len(given) > 1 and all(inner) and all(a.shape[-1] == b.shape[0] for a, b in pairwise(given))
    _require(fits, "multi_dot", "two or more matrices that fit, the first and last perhaps vectors", *given)
    axes = [[k, k + 1] if x.ndim == 2 else [k + (k == 0)] for k, x in enumerate(given)]  # a first vector has no rows
    ends = [0] * (given[0].ndim == 2) + [len(given)] * (given[-1].ndim == 2)
    return einsum(*chain(*zip(given, axes, strict=True)), ends)


# Any sum of products


@implements(np.einsum)
def einsum(*operands: Any, optimize: Any = True) -> Tensor:
    """Sum products over named axes, by Einstein's convention as NumPy writes it.

    It never runs NumPy's own loops: two operands at a time become one matrix product, see `contract`, in the
    order that `numpy.einsum_path` finds for more than two.

    Parameters
    ----------
    *operands
        ``"ij,jk->ik"`` and the arrays, or each array followed by a list of its axes' numbers.
    optimize
        Taken for NumPy's sake; there is always an order of products.

    Raises
    ------
    ArgumentError
        If the names make no sense.
    ShapeError
        If they do not fit the arrays.

    Examples
    --------
    >>> import numpy as np, microfw as mf
    >>> a = mf.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    >>> np.einsum("ij,j->i", a, np.array([1.0, 10.0]))
    tensor([21., 43.], op=reshape)
    """
    text, arrays = _read(operands)
    terms, out = _named(text, tuple(x.ndim for x in arrays))
    size: dict[str, int] = {}
    for labels, x in zip(terms, arrays, strict=True):
        for label, n in zip(labels, x.shape, strict=True):
            if size.get(label, 1) not in (1, n) and n != 1:
                raise ShapeError(f"einsum {text}", f"one length of {label!r}", (size[label], n))
            size[label] = size.get(label, 1) if n == 1 else n
    pairs = [_plain(x, labels, size, text) for x, labels in zip(arrays, terms, strict=True)]
    for chosen in _path(tuple(labels for _, labels in pairs), tuple(x.shape for x, _ in pairs), out):
        taken = [pairs.pop(k) for k in sorted(chosen, reverse=True)]
        made, labels = taken.pop()
        while taken:
            rest = {k for _, names in [*taken[:-1], *pairs] for k in names}
            made, labels = contract(made, labels, *taken.pop(), rest.union(out))
        pairs.append((made, labels))
    ((made, labels),) = pairs
    made, labels = _summed(made, labels, set(out))
    made = _ordered(made, labels, out)
    # einsum("i->i", x) returns another Tensor than x, as NumPy returns another array
    return made if isinstance(made, Tensor) and made is not arrays[0] else reshape(made, shape=made.shape)


def _read(operands: tuple[Any, ...]) -> tuple[str, list[Any]]:
    """Return the names as text, and the arrays."""
    if operands and isinstance(operands[0], str):
        return operands[0].replace(" ", ""), [operand(x) for x in operands[1:]]
    n = len(operands) // 2
    texts = [
        "".join("..." if k is Ellipsis else chr(ord("A" if k < 26 else "G") + int(k)) for k in axes)
        for axes in operands[1::2] + operands[2 * n :]
    ]
    return ",".join(texts[:n]) + "".join(f"->{t}" for t in texts[n:]), [operand(x) for x in operands[: 2 * n : 2]]


@lru_cache(256)
def _named(text: str, ndims: tuple[int, ...]) -> tuple[tuple[Labels, ...], Labels]:
    """Return a name for each axis of each operand, and of the result. Those under ``...`` are numbers."""
    inputs, arrow, output = text.partition("->")
    parts = inputs.split(",")
    letters = text.replace("->", "").replace("...", "").replace(",", "")
    if (letters and not (letters.isascii() and letters.isalpha())) or len(parts) != len(ndims) or "," in output:
        raise ArgumentError("einsum", f"names for {len(ndims)} operands, as 'ij,jk->ik'", repr(text))
    terms = []
    for part, ndim in zip(parts, ndims, strict=True):
        before, dots, after = part.partition("...")
        hidden = ndim - len(before) - len(after)
        if hidden < 0 or "." in after or (hidden and not dots):
            raise ShapeError(f"einsum {text}", f"an operand with the axes {part!r}", f"one with {ndim}")
        terms.append((*before, *(str(k) for k in range(hidden, 0, -1)), *after))
    widest = tuple(str(k) for k in range(max((int(k) for t in terms for k in t if k.isdigit()), default=0), 0, -1))
    used = [k for t in terms for k in t]
    if not arrow:
        return tuple(terms), (*widest, *sorted(k for k in set(used) if used.count(k) == 1 and not k.isdigit()))
    before, dots, after = output.partition("...")
    out = (*before, *(widest if dots else ()), *after)
    if len(set(out)) != len(out) or not set(out) <= set(used) or (widest and not dots):
        raise ArgumentError("einsum", "each name of the result once, and in an operand", repr(text))
    return tuple(terms), out


def _plain(x: Any, labels: Labels, size: dict[str, int], text: str) -> tuple[Any, Labels]:
    """Take the diagonal where a name comes twice, and leave out axes of length 1 that broadcasting would repeat."""
    for label in labels:
        if labels.count(label) > 1:
            i, j = [k for k, other in enumerate(labels) if other == label][:2]
            if x.shape[i] != x.shape[j]:
                raise ShapeError(f"einsum {text}", f"one length of {label!r}", (x.shape[i], x.shape[j]))
            rest = tuple(other for k, other in enumerate(labels) if k not in (i, j))
            return _plain(diagonal(x, 0, i, j), (*rest, label), size, text)
    kept = [k for k, label in enumerate(labels) if x.shape[k] == size[label]]
    if len(kept) == len(labels):
        return x, labels
    return reshape(x, shape=tuple(x.shape[k] for k in kept)), tuple(labels[k] for k in kept)


@lru_cache(256)
def _path(terms: tuple[Labels, ...], shapes: tuple[Shape, ...], out: Labels) -> list[tuple[int, ...]]:
    """Return which operands to multiply first, and so on, results going to the end."""
    if len(terms) < 3:
        return [tuple(range(len(terms)))]
    number = {k: i for i, k in enumerate(dict.fromkeys(chain(*terms)))}
    axes = [[number[k] for k in t] for t in (*terms, out)]
    # einsum_path needs arrays for their shapes only; these take no memory
    operands: Any = [np.broadcast_to(0.0, s) for s in shapes]
    return np.einsum_path(*chain(*zip(operands, axes, strict=False)), axes[-1], optimize="greedy")[0][1:]
