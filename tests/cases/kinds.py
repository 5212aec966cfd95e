"""The samples of a row, multiplied by memory layout, and which kind of memory each of them meets.

A layout keeps shape and values and changes only how they lie in memory; "broadcast" alone changes values,
since what is repeated without a copy must be equal along an axis.
"""

from __future__ import annotations

import numpy as np

from tests.cases.samples import Case, Sample, backwards, plain, spaced, stretched, transposed

KINDS = ("C", "Fortran", "negative stride", "broadcast", "empty", "0-d")
LAYOUTS = ("Fortran", "negative stride", "broadcast", "spaced")
DTYPES = (np.float32, np.float64)

ENOUGH = 10
"""Samples a row for each dtype."""


def kinds(sample):
    """Return which kinds of memory the op meets in a sample, as its strides tell."""
    arrays = [np.asarray(x) for x in sample.arranged()]
    floats = [x for x in arrays if x.dtype.kind == "f"] or arrays
    found = set()
    if all(x.ndim == 0 for x in floats):
        return {"0-d"}
    for x in floats:
        strides = [s for s, n in zip(x.strides, x.shape, strict=True) if n > 1]
        if x.size == 0:
            return {"empty"}
        if 0 in strides:
            found.add("broadcast")
        elif any(s < 0 for s in strides):
            found.add("negative stride")
        elif x.flags.f_contiguous and not x.flags.c_contiguous:
            found.add("Fortran")
    return found or {"C"}


STATIC = {
    "Fortran": lambda x, long: np.asfortranarray(x) if len(long) > 1 else x,
    "negative stride": lambda x, long: x[::-1].copy()[::-1],
    "broadcast": lambda x, long: np.broadcast_to(x.take([0], axis=long[0]), x.shape).view(),
    "spaced": lambda x, long: np.repeat(x, 2, axis=0)[::2],
}


def relaid(sample, name):
    """Return a plain sample in another memory layout; None where that would change nothing."""
    inputs, layouts, changed = [], [], False
    floats = any(x.dtype.kind == "f" for x in sample.inputs)
    for x in sample.inputs:
        base, layout = x, plain
        long = [k for k, n in enumerate(np.shape(x)) if n > 1]
        if x.dtype.kind == "f" and long:
            if name == "Fortran" and len(long) > 1:
                base, layout = x.T.copy(), transposed
            elif name == "negative stride":
                base, layout = x[::-1].copy(), backwards
            elif name == "broadcast":
                base, layout = x.take([0], axis=long[0]), stretched(x.shape)
            elif name == "spaced":
                base, layout = np.repeat(x, 2, axis=0), spaced
        elif (
            name in STATIC and not floats and long
        ):  # nothing is differentiated, so that the arrays themselves may lie so
            base = STATIC[name](x, long)
            changed = changed or base is not x
        inputs.append(base)
        layouts.append(layout)
    if not changed and all(layout is plain for layout in layouts):
        return None
    return Sample(f"{sample.label}, {name}", tuple(inputs), sample.params, tuple(layouts))


def defined(case, sample):
    """Whether the value is finite, by NumPy; that of a matrix of equal rows often is not."""
    try:
        with np.errstate(all="ignore"):
            value = np.asarray(case.reference(*sample.arranged(), **sample.params))
    except (ArithmeticError, ValueError, IndexError, RuntimeWarning, np.linalg.LinAlgError):
        return False
    return value.dtype.kind not in "fc" or bool(np.isfinite(value).all())


def scaled(sample, factor):
    """Return a sample with its floats a little smaller, so that signs, order and regularity stay."""
    inputs = tuple(x * factor if x.dtype.kind == "f" else x for x in sample.inputs)
    return Sample(f"{sample.label}, times {factor}", inputs, sample.params, sample.layout)


def expanded(case: Case, full: bool = False) -> list[Sample]:
    """Return a row's samples and, of its plain ones, those in other layouts: all, or enough of each."""
    usual = [s for s in case.samples if s.layout is plain and all(np.size(x) for x in s.inputs)]
    made = list(case.samples)

    def add(sample, name):
        other = None if name in case.without else relaid(sample, name)
        if other is not None and (name != "broadcast" or defined(case, other)):
            made.append(other)

    def enough():
        present = set().union(*(kinds(s) for s in made))
        return len(made) >= ENOUGH and present >= set(KINDS) - {"empty", "0-d"} - set(case.without)

    for turn in range(len(usual)):
        if turn and not full and enough():
            break
        for k, name in enumerate(LAYOUTS):
            add(usual[(turn + k) % len(usual)], name)
    for factor in (0.9375, 0.875, 0.8125):
        for sample in usual:
            if len(made) < ENOUGH:
                made.append(scaled(sample, factor))
    return made
