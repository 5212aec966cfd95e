"""Ops of a user's own."""

from __future__ import annotations

import numpy as np

import microfw as mf


@mf.op(name="fuzz_cube", vjp=lambda g, x: g * (3 * x**2))
def cube(x):
    """Return x to the third power."""
    return x**3


@mf.op(name="fuzz_bend", vjp=lambda g, x, slope: g * np.where(x > 0, 1.0, slope).astype(x.dtype))
def bent(x, *, slope):
    """Scale negative entries."""
    return np.where(x > 0, x, slope * x).astype(x.dtype)


@mf.op(name="fuzz_blend", vjp=(lambda g, b: g * b, lambda g, a: g * a), jvp="linear")
def blend(a, b):
    """Multiply."""
    return a * b


@mf.op(
    name="fuzz_root",
    vjp=lambda g, root: g * 0.5 / root,
    aux={"root": lambda x: np.sqrt(np.abs(x) + 1)},
    jvp=lambda dx, root: dx * 0.5 / root,
)
def root_of(x):
    """Return a root of positive entries, and save it."""
    root = np.sqrt(np.abs(x) + 1)
    return np.sign(x) * root, root


@mf.op(name="fuzz_jitter", vjp=lambda g: g)
def jitter(x, *, rng):
    """Add noise from a generator."""
    return x + rng.normal(0, 0.1, x.shape).astype(x.dtype)
