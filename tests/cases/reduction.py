"""Rows of the reductions."""

from __future__ import annotations

import numpy as np
import scipy.special

from tests.cases.samples import Case, Sample, backwards, choose, floats, repeated, transposed


def reductions(*axes):
    x = floats((3, 4))
    samples = [
        Sample("all", (x,)),
        Sample("0-d", (floats(()),)),
        Sample("transposed", (x,), {"axis": 0}, transposed),
        Sample("negative stride", (x,), {"axis": 1, "keepdims": True}, backwards),
        Sample("repeated", (floats((4,)),), {"axis": 1}, repeated),
        Sample("one entry", (floats((1, 1)),), {"axis": 1}),
        Sample("empty, kept axis", (np.zeros((0, 3)),), {"axis": 1}),
    ]
    for axis in (0, 1, -1, (0, 2), (-1, 0), None):
        for keepdims in (False, True):
            params = {"axis": axis, "keepdims": keepdims}
            samples.append(Sample(f"axis {axis}, keepdims {keepdims}", (floats((2, 3, 4)),), params))
    return samples


def no_empty_for_all(samples):
    return [s for s in samples if 0 not in s.inputs[0].shape or s.params]


def along(**params):
    x = floats((3, 4), -3, 3)
    return [
        Sample("last axis", (x,)),
        Sample("first axis", (x,), {"axis": 0}),
        Sample("three axes", (floats((2, 3, 4)),), {"axis": 1}),
        Sample("vector", (floats((5,)),)),
        Sample("transposed", (x,), {}, transposed),
        Sample("negative stride", (x,), {}, backwards),
        Sample("repeated", (floats((4,)),), {}, repeated),
        Sample("no rows", (np.zeros((0, 3)),)),
    ]


def with_zeros(samples):
    """Return the samples, and some again with one zero and with two."""
    more = []
    for s in samples[::4]:
        for zeros in (1, 2):
            x = s.inputs[0].copy()
            x.reshape(-1)[::2][:zeros] = 0
            more.append(Sample(f"{s.label}, {zeros} zeros", (x,), s.params, s.layout))
    return samples + more


def running():
    x = floats((3, 4))
    samples = [
        Sample("flattened", (x,)),
        Sample("0-d", (floats(()),)),
        Sample("vector", (floats((5,)),), {"axis": 0}),
        Sample("one entry", (floats((1, 1)),), {"axis": 1}),
        Sample("transposed", (x,), {"axis": 0}, transposed),
        Sample("transposed and flattened", (x,), {}, transposed),
        Sample("negative stride", (x,), {"axis": 1}, backwards),
        Sample("repeated", (floats((4,)),), {"axis": 0}, repeated),
        Sample("empty", (np.zeros((0, 3)),)),
        Sample("empty along", (np.zeros((0, 3)),), {"axis": 0}),
        Sample("empty other axis", (np.zeros((0, 3)),), {"axis": 1}),
    ]
    return samples + [Sample(f"axis {axis}", (floats((2, 3, 4)),), {"axis": axis}) for axis in (0, 1, 2, -1, -3)]


def spread_out(samples, **params):
    """Return the samples with more than one entry in a row: where a deviation is smooth, and can be corrected."""
    return [
        Sample(s.label, s.inputs, s.params | params, s.layout)
        for s in samples
        if s.label not in ("0-d", "one entry") and (0 not in s.inputs[0].shape or s.params)
    ]


def answers(function):
    some = np.array([[0.0, 1.0], [0.0, 0.0], [2.0, 3.0]])
    samples = [
        Sample("all", (some,)),
        Sample("none", (np.zeros(3),)),
        Sample("axis", (some,), {"axis": 0}),
        Sample("negative axis, kept", (some,), {"axis": -1, "keepdims": True}),
        Sample("two axes", (choose(1, 2, 3, 4),), {"axis": (0, -1)}),
        Sample("0-d", (np.array(True),)),
        Sample("empty", (np.zeros((0, 3)),)),
    ]
    return Case(function.__name__, function, samples)


def places(function):
    x = floats((3, 4))
    samples = [
        Sample("all", (x,)),
        Sample("axis", (x,), {"axis": 1}),
        Sample("ties", (np.array([[1.0, 2.0, 2.0], [3.0, 3.0, 1.0]]),), {"axis": -1, "keepdims": True}),
        Sample("all, kept", (x,), {"keepdims": True}),
        Sample("three axes", (floats((2, 3, 4)),), {"axis": 1}),
        Sample("transposed", (x,), {"axis": 0}, transposed),
        Sample("0-d", (floats(()),)),
        Sample("empty, kept axis", (np.zeros((0, 3)),), {"axis": 1}),
    ]
    return Case(function.__name__, function, samples)


def euclidean(x, axis=None, keepdims=False):
    return np.sqrt(np.sum(np.square(x), axis=axis, keepdims=keepdims))


def logsumexp(x, **params):
    """In the shape that NumPy's reductions have; SciPy gives that of a number an axis, and older ones no empty sum."""
    if x.size == 0:
        return np.log(np.sum(np.exp(x), **params))
    return scipy.special.logsumexp(x, **params).reshape(np.sum(x, **params).shape)


def softmax(x, axis=-1):
    return scipy.special.softmax(x, axis=axis)


def log_softmax(x, axis=-1):
    return scipy.special.log_softmax(x, axis=axis)


CASES = [
    Case("sum", np.sum, [*reductions(), Sample("empty", (np.zeros((0, 3)),))]),
    Case("mean", np.mean, no_empty_for_all(reductions())),
    Case("max", np.max, no_empty_for_all(reductions())),
    Case("min", np.min, no_empty_for_all(reductions())),
    Case("prod", np.prod, [*with_zeros(reductions()), Sample("empty", (np.zeros((0, 3)),))]),
    Case("cumsum", np.cumsum, running()),
    Case("cumprod", np.cumprod, with_zeros(running())),
    Case("var", np.var, [*no_empty_for_all(reductions()), *spread_out(reductions()[::4], ddof=1)]),
    Case(
        "std",
        np.std,
        [*spread_out(reductions()), *spread_out(reductions()[::4], ddof=1)],
        without={"0-d": "a single number's deviation is 0, where it has a kink"},
    ),
    Case("norm", euclidean, [*reductions(), Sample("empty", (np.zeros((0, 3)),))], protocol=np.linalg.vector_norm),
    Case(
        "logsumexp",
        logsumexp,
        [
            *no_empty_for_all(reductions()),
            Sample("large", (floats((3, 4), 700, 1100),), {"axis": 0}),
            Sample("empty along both axes", (np.zeros((0, 0)),), {"axis": 0}),
        ],
        protocol=False,
    ),
    places(np.argmax),
    places(np.argmin),
    answers(np.any),
    answers(np.all),
    answers(np.count_nonzero),
    Case("log_softmax", log_softmax, along(), protocol=False, without={"0-d": "it works along an axis"}),
    Case("softmax", softmax, along(), protocol=False, without={"0-d": "it works along an axis"}),
]
