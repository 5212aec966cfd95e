"""What is demanded of an op at one sample: value, derivatives of first and second order in all modes, manners.

Each check returns what it finds wrong, in words, or None; `prove` runs them. First derivatives are held against
a complex step where the value function turns out to be analytic, which leaves no more than rounding, and
against four-point central differences elsewhere. Which of the two it is the value function alone decides,
so that a wrong rule cannot choose the weaker one.
"""

from __future__ import annotations

import numpy as np

import microfw as mf
from microfw import testing
from tests.cases.samples import plain

STEP = 5e-5
TINY = 1e-30
ANALYTIC, SMOOTH, MODES = 1e-10, 1e-6, 1e-9
"""Relative errors allowed against a complex step, against differences, and between modes of differentiation."""


class Rough(Exception):
    """The value has a kink or a pole near by, so that differences say nothing."""


class Point:
    """A sample in float64: its arrays, random directions for them, and the op as a function of what varies."""

    def __init__(self, case, sample):
        self.case, self.sample = case, sample
        self.rng = np.random.default_rng(len(sample.label))
        self.function, self.inputs = case.call(sample)
        self.varying = [k for k in range(len(sample.inputs)) if case.op.partial(k) is not None]
        self.shape = np.shape(self.value(list(sample.inputs)))
        self.u = self.rng.standard_normal(self.shape)
        self.vs = [self.rng.standard_normal(x.shape) for x in self.inputs]

    def value(self, inputs, function=None):
        """Return the op's value by its bare function of arrays, or by another one."""
        y = (function or self.case.op.value)(*self.sample.arranged(inputs), **self.sample.params)
        return y[0] if isinstance(y, tuple) else y

    def along(self, k, step, function=None):
        """Return the output times ``u``, the varying input ``k`` moved along its direction."""
        inputs = list(self.sample.inputs)
        if isinstance(step, complex):  # all of them, so that the op may work in place
            inputs = [x.astype(complex) if x.dtype.kind == "f" else x for x in inputs]
        inputs[self.varying[k]] = inputs[self.varying[k]] + step * self.vs[k]
        return np.sum(self.u * self.value(inputs, function))

    def complex_step(self, k, function):
        """Return the derivative of `along` at 0 without cancellation; None if the function is not analytic there."""
        try:
            y = self.along(k, TINY * 1j, function)
        except (TypeError, ValueError, ArithmeticError, RuntimeWarning, np.exceptions.ComplexWarning):
            return None
        return float(np.imag(y)) / TINY if np.iscomplexobj(y) else None

    def slope(self, k):
        """Return the derivative of `along` at 0, and how far it can be trusted."""

        def differences(h):
            f = [self.along(k, m * h) for m in (-2, -1, 1, 2)]
            return (8 * (f[2] - f[1]) - (f[3] - f[0])) / (12 * h)

        rough = differences(STEP)
        for function in (self.case.op.value, self.case.analytic):
            exact = self.complex_step(k, function) if function is not None else None
            if exact is not None and abs(exact - rough) <= SMOOTH * max(1.0, abs(exact)):
                return exact, ANALYTIC
        if abs(differences(STEP * 1.7) - rough) > 0.1 * SMOOTH * max(1.0, abs(rough)):
            raise Rough
        return float(rough), SMOOTH


def first_order(point):
    """Backward against complex step or differences, forward against backward."""
    pull = mf.vjp(point.function, *point.inputs)[1]
    gradients = pull(point.u)
    total, size = 0.0, 1.0
    for k, (g, v) in enumerate(zip(gradients, point.vs, strict=True)):
        expected, tolerance = point.slope(k)
        got = float(np.sum(g * v))
        scale = max(1.0, abs(expected), float(np.sum(np.abs(g * v))))
        if not abs(got - expected) <= tolerance * scale:
            how = "a complex step gives" if tolerance == ANALYTIC else "differences give"
            return f"vjp of input {point.varying[k]}: u.Jv is {got:.12g}, {how} {expected:.12g}"
        total, size = total + got, size + scale
    forward = float(np.sum(point.u * mf.jvp(point.function, point.inputs, point.vs)[1]))
    if not abs(forward - total) <= MODES * size:
        return f"jvp: u.Jv is {forward:.12g} forward, {total:.12g} backward"
    for a, b in zip(gradients, pull(point.u), strict=True):
        if not np.array_equal(a, b):
            return "vjp: a second backward gives another gradient"
    if point.u.size == 1:  # a rule may have a shorter way where the gradient is exactly 1, as a loss's is
        for a, b in zip(gradients, pull(np.ones(point.shape)), strict=True):
            if not np.allclose(a, b * point.u, rtol=1e-12, atol=1e-12 * size):
                return "vjp: at a gradient of exactly 1 it is another one"
    return None


def numbers(point):
    """A Python number in place of a 0-d array gives the others the same gradient."""
    inputs = point.sample.inputs
    for k, x in enumerate(inputs):
        if (
            point.case.op.variadic
            or len(inputs) == 1
            or point.sample.layout is not plain
            or np.ndim(x)
            or x.dtype.kind != "f"
        ):
            continue
        others = [x for j, x in enumerate(inputs) if j != k and j in point.varying]
        if not others:
            continue

        def function(*given, k=k, scalar=float(x)):
            given = iter(given)
            mixed = [scalar if j == k else next(given) if j in point.varying else a for j, a in enumerate(inputs)]
            return point.case.op.call(*mixed, **point.sample.params)

        gradients = mf.vjp(point.function, *point.inputs)[1](point.u)
        expected = [g for j, g in zip(point.varying, gradients, strict=True) if j != k]
        for a, b in zip(expected, mf.vjp(function, *others)[1](point.u), strict=True):
            if not np.allclose(a, b, rtol=1e-12, atol=1e-12):
                return f"vjp with a number as input {k}: {b.ravel()[:4]}, with a 0-d array {a.ravel()[:4]}"
    return None


def second_order(point):
    """Hessian times a vector in three ways against one another, and against differences of the gradient."""
    weights = point.rng.standard_normal(point.shape)
    argnums = range(len(point.inputs))

    def scalar(*xs):
        return np.sum(np.square(point.function(*xs) + 0.7) * weights)

    gradient = mf.grad(scalar, argnums)

    def dot(*xs):
        return sum((np.sum(g * v) for g, v in zip(gradient(*xs), point.vs, strict=True)), 0.0)

    def pushed(*xs):
        return mf.jvp(scalar, xs, point.vs)[1]

    recorded, tangents = mf.jvp(gradient, point.inputs, point.vs)
    for k, a, b in zip(point.varying, gradient(*point.inputs), recorded, strict=True):
        if not np.allclose(a, b, rtol=1e-11, atol=1e-11 * max(1.0, float(np.max(np.abs(a), initial=0.0)))):
            return f"vjp of input {k}: on Tensors it is {b.ravel()[:4]}, on arrays {a.ravel()[:4]}"
    ways = {
        "reverse over reverse": mf.grad(dot, argnums)(*point.inputs),
        "forward over reverse": tangents,
        "reverse over forward": mf.grad(pushed, argnums)(*point.inputs),
    }
    others = [point.rng.standard_normal(x.shape) for x in point.inputs]

    def along(h):
        moved = [x + h * v for x, v in zip(point.inputs, point.vs, strict=True)]
        return sum(float(np.sum(g * r)) for g, r in zip(gradient(*moved), others, strict=True))

    expected = (8 * (along(STEP) - along(-STEP)) - (along(2 * STEP) - along(-2 * STEP))) / (12 * STEP)
    first = ways["reverse over reverse"]
    size = max(1.0, abs(expected), sum(float(np.sum(np.abs(h * r))) for h, r in zip(first, others, strict=True)))
    twice = float(mf.jvp(pushed, point.inputs, point.vs)[1])
    products = {name: sum(float(np.sum(h * r)) for h, r in zip(hs, others, strict=True)) for name, hs in ways.items()}
    for name, got in products.items():
        if not abs(got - expected) <= SMOOTH * size:
            return f"second order, {name}: r.Hv is {got:.10g}, differences give {expected:.10g}"
        if not abs(got - products["reverse over reverse"]) <= MODES * size:
            return f"second order, {name}: r.Hv is {got:.12g}, reverse over reverse gives another in the tenth digit"
    curvature = sum(float(np.sum(h * v)) for h, v in zip(first, point.vs, strict=True))
    bound = max(1.0, sum(float(np.sum(np.abs(h * v))) for h, v in zip(first, point.vs, strict=True)))
    if not abs(twice - curvature) <= MODES * bound:
        return f"second order, forward over forward: v.Hv is {twice:.12g}, reverse over reverse gives {curvature:.12g}"
    return None


def singular_point(function, x, slope):
    """Where several slopes are possible it is the stated one, backward and, where that is finite, forward."""
    t = mf.tensor(x, requires_grad=True)
    y = function(t)
    (y.sum() if y.ndim else y).backward()
    if not np.allclose(t.grad, slope, rtol=8 * np.finfo(x.dtype).eps, atol=0, equal_nan=True):
        return f"slope {t.grad}, expected {slope}"
    if np.isfinite(slope).all():
        v = np.linspace(0.5, 2.0, x.size).reshape(x.shape)
        pushed = np.sum(mf.jvp(function, (x,), (v,))[1])
        if not np.allclose(pushed, np.sum(slope * v)):
            return f"forward mode gives {pushed}, backward {np.sum(slope * v)}"
    return None


def tensors(sample, dtype):
    """Return a sample's inputs, those of floats as Tensors that want a gradient."""
    return [mf.tensor(x.astype(dtype), requires_grad=True) if x.dtype.kind == "f" else x.copy() for x in sample.inputs]


def backward(case, sample, dtype):
    """Return the output and the inputs' gradients of ``Tensor.backward``, and what was wrong with it."""
    inputs = tensors(sample, dtype)
    y = case.op.call(*sample.arranged(inputs), **sample.params)
    seed = np.asarray(np.random.default_rng(3).standard_normal(y.shape), y.dtype)
    before = seed.copy()
    varying = [x for k, x in enumerate(inputs) if case.op.partial(k) is not None]
    y.backward(seed, retain_graph=True)
    grads = [x.grad for x in varying]
    for x in varying:
        x.zero_grad()
    y.backward(seed)
    same = all(np.array_equal(a, x.grad) for a, x in zip(grads, varying, strict=True))
    fault = None if same else "a second backward gives another gradient"
    return y, grads, fault if np.array_equal(seed, before) else "the rule wrote to the gradient that it was given"


def single_precision(case, sample):
    """Float32 stays float32, forward and backward, and is close to float64."""
    (y, grads, fault), (wide_y, wide_grads, wide) = (backward(case, sample, d) for d in (np.float32, np.float64))
    if fault or wide:
        return fault or wide
    if not case.op.allow_dtype_change and y.dtype != np.float32:
        return f"value: dtype {y.dtype}"
    for what, a, b in [
        ("value", y.data, wide_y.data),
        *(("gradient", *p) for p in zip(grads, wide_grads, strict=True)),
    ]:
        if what == "gradient" and (a is None or a.dtype != np.float32):
            return f"gradient: {'none' if a is None else a.dtype}"
        if not np.allclose(a, b, rtol=2e-4, atol=2e-5 * max(1.0, float(np.max(np.abs(b), initial=0.0)))):
            return f"{what}: off by {np.max(np.abs(a - b)):.2g} from that in float64"
    return None


def value(case, sample, dtype):
    """The value is the reference's, read-only, and the inputs are left alone."""
    arrays = [x.astype(dtype) if x.dtype.kind == "f" else x for x in sample.arranged()]
    if dtype == np.float64:
        arrays = sample.arranged()
    before = [x.copy() for x in arrays]
    expected = np.asarray(case.reference(*arrays, **sample.params))
    got = case.op.call(*arrays, **sample.params).data
    if got.shape != expected.shape:
        return f"value: shape {got.shape}, expected {expected.shape}"
    if got.dtype.kind != expected.dtype.kind:
        return f"value: dtype {got.dtype}, expected {expected.dtype}"
    if got.flags.writeable:
        return "value: it can be written to"
    if not all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(arrays, before, strict=True)):
        return "value: an input was written to"
    tolerance = 1e-13 if dtype == np.float64 else 1e-5
    largest = (
        float(np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected))) if expected.dtype.kind == "f" else 0
    )
    if not np.allclose(got, expected, rtol=tolerance, atol=tolerance * max(1.0, largest), equal_nan=True):
        return f"value: {got.ravel()[:4]}, expected {expected.ravel()[:4]}"
    return None


def prove(case, sample, second=True, stop=True):
    """Return what is wrong with an op at a sample, each line naming op, sample, dtype and layout."""
    faults = []

    def check(dtype, function, *args):
        if faults and stop:
            return
        try:
            fault = function(*args)
        except Rough:
            raise
        except Exception as error:
            fault = f"{function.__name__}: {type(error).__name__}: {error}"
        if fault:
            faults.append(f"{case.name}, sample {sample.label!r}, {np.dtype(dtype).name}: {fault}")

    check(np.float64, value, case, sample, np.float64)
    check(np.float32, value, case, sample, np.float32)
    if case.op.differentiable and not faults:
        point = Point(case, sample)
        check(np.float64, first_order, point)
        check(np.float64, testing.vjp_out, testing.Trial(case.op, sample.arranged(), sample.params))
        check(np.float64, numbers, point)
        check(np.float32, single_precision, case, sample)
        if second:
            check(np.float64, second_order, point)
    return faults
