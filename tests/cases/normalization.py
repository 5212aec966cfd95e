"""Rows of the ops that bring vectors and groups of entries to one size."""

from __future__ import annotations

import numpy as np

from tests.cases.samples import Case, Sample, backwards, choose, floats, repeated, transposed


def normalize(x, weight, bias, axes, eps):
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps) * weight + bias


def normalized(label, shape, weight, axes, layout=None):
    inputs = (floats(shape, seed=1), floats(weight, 0.5, 1.5, seed=2), floats(weight, seed=3))
    return Sample(label, inputs, {"axes": axes, "eps": 1e-3}, *([layout] if layout else []))


def softmax(x, mask, scale=1.0):
    e = np.where(mask, np.exp(x * scale), 0)
    total = e.sum(-1, keepdims=True)
    return e / np.where(total > 0, total, 1)


MASK = choose(0, 3, 4) | (np.arange(4) == np.array([[0], [2], [3]]))


def vectors():
    return [
        Sample("one", (floats((4,)),)),
        Sample("rows", (floats((3, 4)),)),
        Sample("three axes", (floats((2, 3, 4)),)),
        Sample("of one entry", (floats((3, 1), gap=0.1),)),
        Sample("transposed", (floats((4, 3)),), {}, transposed),
        Sample("negative stride", (floats((3, 4)),), {}, backwards),
        Sample("repeated", (floats((4,)),), {}, repeated),
        Sample("none", (np.zeros((0, 4)),)),
    ]


VECTOR = {"0-d": "a vector has an axis"}

CASES = [
    Case(
        "normalize",
        normalize,
        [
            normalized("last axis", (3, 5), (5,), (1,)),
            normalized("first axis", (6, 3), (3,), (0,)),
            normalized("images", (2, 3, 2, 2), (3, 1, 1), (0, 2, 3)),
            normalized("groups", (2, 2, 2, 3), (2, 2, 1), (2, 3)),
            normalized("one weight", (3, 5), (), (1,)),
            normalized("last two axes", (2, 3, 4), (3, 4), (1, 2)),
            normalized("no rows", (0, 5), (5,), (1,)),
            normalized("transposed", (5, 5), (5,), (1,), transposed),
            normalized("negative stride", (5, 5), (5,), (1,), backwards),
            Sample("repeated", (floats((5,), seed=1), np.array([1.5]), np.array([0.5])), {"axes": (1,), "eps": 1e-3}, repeated),
        ],
        protocol=False,
        without={"0-d": "mean and variance are those of an axis"},
    ),
    Case("unit", lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True), vectors(), protocol=False, without=VECTOR),
    Case("length", lambda x: np.linalg.norm(x, axis=-1), vectors(), protocol=False, without=VECTOR),
    Case(
        "masked_softmax",
        softmax,
        [
            Sample("all", (floats((3, 4)), np.ones((3, 4), bool))),
            Sample("some", (floats((3, 4)), MASK), {"scale": 0.7}),
            Sample("mask broadcast", (floats((2, 3, 4)), MASK)),
            Sample("mask of a row", (floats((3, 4)), MASK[0])),
            Sample("none", (floats((3, 4)), np.arange(3)[:, None] > np.arange(4))),
            Sample("transposed", (floats((4, 3)), MASK), {"scale": 2.0}, transposed),
            Sample("negative stride", (floats((3, 4)), MASK), {}, backwards),
            Sample("empty", (np.zeros((0, 4)), np.zeros((0, 4), bool))),
        ],
        protocol=False,
        without={"0-d": "it works along an axis"},
    ),
]  # fmt: skip
