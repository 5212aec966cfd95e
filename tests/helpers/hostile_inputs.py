"""Inputs that no layer was made for, by number: of every rank, size, dtype and kind, the same in each run."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

HUGE = 10**12
DTYPES = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", "f2", "g", "?"]
FOREIGN = ["c8", "c16", "U3", "S3", "M8[D]", "m8[s]", "V4", "O"]
THINGS = [
    None, "text", b"bytes", 3, 2.5, 1j, True, [], [1.0, 2.0], [[1.0], [2.0, 3.0]], (), {}, {"a": 1}, {1, 2},
    range(4), object(), int, len, Ellipsis, slice(2), Fraction(1, 3), 10**400, [None, None], [["a", "b"]], np.nan, [[]],
]  # fmt: skip


def numbers(shape, dtype, rng):
    """Return small numbers; nothing is near an edge of its dtype."""
    values = np.round(rng.uniform(-3, 3, shape), 2)
    return np.asarray(np.abs(values) if np.dtype(dtype).kind == "u" else values).astype(dtype)


def foreign(shape, dtype, rng):
    if dtype == "O":
        return np.full(shape, object())
    integers = rng.integers(0, 9, shape)
    return np.zeros(shape, dtype) if dtype == "V4" else np.asarray(integers).astype(dtype)


def any_shape(rng):
    return tuple(int(n) for n in rng.integers(0, 6, rng.integers(0, 7)))


def changed(shape, rng):
    """Return a good shape with an axis longer, shorter, empty, added or left out, or two axes exchanged."""
    sizes = list(shape)
    if not sizes:
        return (1,)
    axis = int(rng.integers(len(sizes)))
    match rng.integers(6):
        case 0:
            sizes[axis] += 1
        case 1:
            sizes[axis] = max(sizes[axis] - 1, 0)
        case 2:
            sizes[axis] = 0
        case 3:
            sizes.insert(axis, 1)
        case 4:
            del sizes[axis]
        case _:
            sizes[axis], sizes[0] = sizes[0], sizes[axis]
    return tuple(sizes)


def frame(shape, rng):
    import pandas as pd

    made = pd.DataFrame(numbers((shape[0] if shape else 2, shape[-1] if shape else 4), "f8", rng))
    match rng.integers(4):
        case 0:
            made["text"] = "a"
        case 1:
            made = made[0] if len(made.columns) else made
        case 2:
            made = made.astype("Float64")
    return made


def hostile(number, shapes):
    """Return hostile input ``number`` for a layer that takes some good shapes."""
    rng = np.random.default_rng(number)
    good = shapes[rng.integers(len(shapes))]
    match number % 10:
        case 0 | 1:
            return numbers(any_shape(rng), rng.choice(["f4", "f8"]), rng)
        case 2 | 3:
            return numbers(changed(good, rng), rng.choice(["f4", "f8"]), rng)
        case 4:
            return numbers(good, DTYPES[number // 10 % len(DTYPES)], rng)
        case 5:
            return foreign(good, FOREIGN[number // 10 % len(FOREIGN)], rng)
        case 6:
            x = numbers(good, rng.choice(["f4", "f8"]), rng)
            x[rng.random(x.shape) < 0.3] = rng.choice([np.nan, np.inf, -np.inf])
            return x
        case 7:  # a number seen from far more places than memory has
            sizes = list(good if number % 3 else any_shape(rng)) or [1]
            sizes[rng.integers(len(sizes))] = HUGE
            sizes = [n or 1 for n in sizes]
            return np.broadcast_to(numbers((), rng.choice(["f4", "f8", "i4", "?"]), rng), sizes)
        case 8:
            return THINGS[number // 10 % len(THINGS)]
        case _:
            return frame(good, rng)
