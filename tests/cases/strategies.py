"""Random samples for a row, by hypothesis: shapes from 0-d to 4-d, axes of length 0, layouts, arguments.

A row may bring its own ``random(draw)``. For the others `random_sample` reads from the row's samples what kind of
op it is: elementwise (also of several inputs, broadcast), a reduction with ``axis`` and ``keepdims``, one that
works along an ``axis``; of anything else the row's samples come in other layouts and with other values.
"""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.cases.kinds import LAYOUTS, relaid
from tests.cases.samples import Sample, floats, plain

LARGEST = 60
"""Entries of an input, at most; more would only take time."""

seeds = st.integers(0, 2**16)


def shapes(low=0, high=4, shortest=0):
    return hnp.array_shapes(min_dims=low, max_dims=high, min_side=shortest, max_side=4).filter(
        lambda s: np.prod(s) <= LARGEST
    )


def axes(draw, ndim, several=False, none=False):
    """Draw an axis, also a negative one; several or None where the op takes those."""
    kinds = ["one"] * (ndim > 0) + ["several"] * (several and ndim > 0) + ["none"] * none
    kind = draw(st.sampled_from(kinds)) if kinds else "none"
    if kind == "none":
        return None
    if kind == "one":
        return draw(st.integers(-ndim, ndim - 1))
    chosen = draw(st.lists(st.integers(0, ndim - 1), min_size=1, unique=True))
    return tuple(a - ndim if draw(st.booleans()) else a for a in chosen)


class Domain:
    """Where a row's samples take the values of one input from."""

    def __init__(self, samples, index):
        values = [np.asarray(s.inputs[min(index, len(s.inputs) - 1)]) for s in samples]
        self.kind = values[0].dtype.kind
        flat = np.concatenate([v.ravel() for v in values])
        flat = flat[np.isfinite(flat)]
        self.flat = flat if flat.size else np.zeros(1, values[0].dtype)
        self.low, self.high = self.flat.min(), self.flat.max()
        self.gap = np.abs(self.flat).min() if self.low < 0 < self.high else 0.0

    def draw(self, draw, shape):
        seed = draw(seeds)
        if self.kind != "f" or set(np.unique(self.flat)) <= {0.0, 1.0}:
            return np.random.default_rng(seed).choice(self.flat, shape).astype(self.flat.dtype)
        span = self.high - self.low
        made = floats(shape, self.low, self.high - 0.02 * span, self.gap, seed)
        return np.asarray(made + 0.003 * span * np.random.default_rng(seed).random(), float)


def laid(draw, sample):
    """Put a sample in a layout that hypothesis chooses."""
    if sample.layout is not plain:
        return sample
    return relaid(sample, draw(st.sampled_from(("C", *LAYOUTS)))) or sample


def elementwise(case, draw):
    n = len(case.samples[0].inputs)
    params = draw(st.sampled_from([s.params for s in case.samples]))
    if n == 1:
        wanted = [draw(shapes())]
    else:
        wanted = draw(
            hnp.mutually_broadcastable_shapes(num_shapes=n, min_dims=0, max_dims=4, min_side=0, max_side=4).filter(
                lambda b: np.prod(b.result_shape) <= LARGEST
            )
        ).input_shapes
    inputs = [Domain(case.samples, k).draw(draw, shape) for k, shape in enumerate(wanted)]
    return Sample(f"random {wanted} {params or ''}", tuple(inputs), params)


def along(case, draw):
    """One input and an axis of it: a reduction, or what keeps the shape."""
    known = [s.params for s in case.samples]
    several = any(isinstance(p.get("axis"), tuple) for p in known)
    none = any("axis" in p and p["axis"] is None for p in known) or case.op.params["axis"] is None
    low = min(np.ndim(s.inputs[0]) for s in case.samples)
    params = dict(draw(st.sampled_from(known)))
    shape = draw(shapes(low=low, shortest=draw(st.integers(0, 1))))
    params["axis"] = axes(draw, len(shape), several, none)
    if "keepdims" in case.op.params:
        params["keepdims"] = draw(st.booleans())
    return Sample(f"random {shape} {params}", (Domain(case.samples, 0).draw(draw, shape),), params)


def again(case, draw):
    """One of the row's samples, its numbers scaled a little: what is sorted, positive or regular stays so."""
    sample = draw(st.sampled_from(case.samples))
    scale = draw(st.sampled_from([1.0, 0.95, 0.875]))
    inputs = tuple(x * scale if np.asarray(x).dtype.kind == "f" else x for x in sample.inputs)
    return Sample(f"{sample.label}, times {scale}", inputs, sample.params, sample.layout)


def kind(case):
    """Return the kind of a row's op, from its samples."""
    single = all(len(s.inputs) == 1 for s in case.samples) and not case.op.variadic
    if single and "axis" in case.op.params and set(case.op.params) <= {"axis", "keepdims", "ddof"}:
        return along
    for sample in case.samples:
        if case.op.variadic or any(isinstance(p, list | tuple | np.ndarray) for p in sample.params.values()):
            return again
        given = [np.shape(x) for x in sample.arranged()]
        try:
            if np.shape(case.reference(*sample.arranged(), **sample.params)) != np.broadcast_shapes(*given):
                return again
        except ValueError:
            return again
    nothing = any(all(np.ndim(x) == 0 for x in s.inputs) for s in case.samples)
    return elementwise if nothing else again


def random_sample(case, draw):
    """Draw a random sample of an op."""
    if case.random is not None:
        return laid(draw, case.random(draw))
    with np.errstate(all="ignore"):
        return laid(draw, kind(case)(case, draw))


# Rows name these as their ``random``


def reshape(draw):
    shape = draw(shapes())
    total = int(np.prod(shape))
    new = draw(st.permutations(shape))
    if total and draw(st.booleans()):
        factors = [d for d in range(1, total + 1) if total % d == 0]
        first = draw(st.sampled_from(factors))
        new = draw(st.sampled_from([(first, total // first), (first, -1), (-1,), (1, total, 1)]))
    return Sample(f"random {shape}", (floats(shape, seed=draw(seeds)),), {"shape": tuple(new)})


def transpose(draw):
    shape = draw(shapes())
    order = draw(st.permutations(range(len(shape))))
    axes_ = tuple(a - len(shape) if draw(st.booleans()) else a for a in order)
    return Sample(f"random {shape}", (floats(shape, seed=draw(seeds)),), {"axes": draw(st.sampled_from([None, axes_]))})


def broadcast_to(draw):
    to = draw(shapes())
    shape = tuple(1 if draw(st.booleans()) else n for n in to)[draw(st.integers(0, len(to))) :]
    return Sample(f"random {shape}", (floats(shape, seed=draw(seeds)),), {"to": to})


def concatenate(draw):
    shape = draw(shapes(low=1, high=3))
    axis = axes(draw, len(shape))
    parts = []
    for n in draw(st.lists(st.integers(0, 3), min_size=1, max_size=4)):
        new = list(shape)
        new[axis] = n
        parts.append(floats(tuple(new), seed=draw(seeds)))
    return Sample(f"random {shape}", tuple(parts), {"axis": axis})


def keys(draw, shape):
    """Draw what an array of a shape can be indexed with: basic, integer arrays, masks."""
    choices = ["basic"] + ["mask"] + ["integers"] * (bool(shape) and all(shape))
    how = draw(st.sampled_from(choices))
    if how == "mask":
        return np.random.default_rng(draw(seeds)).random(shape) < 0.5
    if how == "integers":
        return draw(hnp.integer_array_indices(shape, result_shape=hnp.array_shapes(max_dims=2, max_side=3)))
    return draw(hnp.basic_indices(shape, allow_newaxis=True))


def undefined(draw):
    shape = draw(shapes())
    inputs = floats(shape, seed=draw(seeds)), floats(shape[1:], seed=draw(seeds)), np.zeros(shape, bool)
    return Sample(f"random {shape}", inputs)


def getitem(draw):
    shape = draw(shapes())
    return Sample(f"random {shape}", (floats(shape, seed=draw(seeds)),), {"key": keys(draw, shape)})


def put(draw):
    shape = draw(shapes())
    key = keys(draw, shape)
    return Sample(
        f"random {shape}", (floats(np.shape(np.zeros(shape)[key]), seed=draw(seeds)),), {"shape": shape, "key": key}
    )


def take_along_axis(draw):
    shape = draw(shapes(low=1, high=3, shortest=1))
    axis = axes(draw, len(shape))
    count = list(shape)
    count[axis] = draw(st.integers(0, 4))
    index = np.random.default_rng(draw(seeds)).integers(0, shape[axis], count)
    return Sample(f"random {shape}", (floats(shape, seed=draw(seeds)), index), {"axis": axis})


def matmul(draw):
    both = draw(hnp.mutually_broadcastable_shapes(signature=np.matmul.signature, max_dims=2, min_side=0, max_side=3))
    a, b = both.input_shapes
    return Sample(f"random {a} @ {b}", (floats(a, seed=draw(seeds)), floats(b, seed=draw(seeds))))


def linear(draw):
    batch, m = draw(shapes(high=3)), draw(st.integers(1, 4))
    n = draw(st.integers(0, 4))
    inputs = floats((*batch, n), seed=draw(seeds)), floats((n, m), seed=draw(seeds)), floats((m,), seed=draw(seeds))
    return Sample(f"random {batch}, {n} to {m}", inputs)


def cross_entropy(draw):
    n, classes = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    labels = np.random.default_rng(draw(seeds)).integers(0, classes, n)
    scale = draw(st.sampled_from([1.0, 30.0]))
    return Sample(f"random ({n}, {classes}) times {scale}", (floats((n, classes), seed=draw(seeds)) * scale, labels))


def squared_error(draw):
    shape = draw(shapes(high=3, shortest=1))
    return Sample(f"random {shape}", (floats(shape, seed=draw(seeds)), floats(shape, seed=draw(seeds)) * 0.7))
