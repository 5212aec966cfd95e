"""Rows of the reductions."""

from __future__ import annotations

import numpy as np
import scipy.special

from cases.samples import Case, Sample, backwards, floats, repeated, transposed


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


def winners():
    return [
        Sample("all", (floats((3, 4)),)),
        Sample("first axis", (floats((3, 4)),), {"axis": 0}),
        Sample("last axis", (floats((3, 4)),), {"axis": -1}),
        Sample("three axes", (floats((2, 3, 4)),), {"axis": 1}),
        Sample("0-d", (floats(()),)),
        Sample("empty, kept axis", (np.zeros((0, 3)),), {"axis": 1}),
    ]


def softmax(x, axis=-1):
    return scipy.special.softmax(x, axis=axis)


def log_softmax(x, axis=-1):
    return scipy.special.log_softmax(x, axis=axis)


CASES = [
    Case("sum", np.sum, [*reductions(), Sample("empty", (np.zeros((0, 3)),))]),
    Case("mean", np.mean, no_empty_for_all(reductions())),
    Case("max", np.max, no_empty_for_all(reductions())),
    Case("min", np.min, no_empty_for_all(reductions())),
    Case("argmax", np.argmax, winners()),
    Case("argmin", np.argmin, winners()),
    Case("log_softmax", log_softmax, along(), protocol=False, without={"0-d": "it works along an axis"}),
    Case("softmax", softmax, along(), protocol=False, without={"0-d": "it works along an axis"}),
]
