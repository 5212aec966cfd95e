"""Layers and losses called with what they were not made for: the right answer, or an error that names the layer."""

from __future__ import annotations

import re
import tracemalloc

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.errors import MicrofwError
from tests.cases.layers import LAYERS, LayerCase, Weighed
from tests.cases.losses import LOSSES, VECTORS
from tests.helpers.hostile_inputs import HUGE, hostile

# Identity, Dropout in evaluation and Lambda pass on what comes, as they say; Weighed is a test's own layer.
PASSING = (nn.Identity, nn.Lambda)
CASES = [c for c in LAYERS if c.kind not in PASSING and not isinstance(c.make(), Weighed) and c.kind is not nn.Dropout]
CASES += [
    LayerCase(nn.Embedding, lambda: nn.Embedding(5, 4, rng=0), ((2, 3), (4,)), ""),
    LayerCase(nn.Embedding, lambda: nn.Embedding(5, 4, 3, rng=0), ((2, 3), (4,)), "", "padding"),
    LayerCase(nn.Dropout, lambda: nn.Dropout(0.5, rng=0), ((2, 3), (4,)), "", "training"),
]
NAMED = re.compile(rf"^(\S+ )?({'|'.join(nn.__all__)}): expected .+, got ")


def last(n, to):
    """Return the contract of a layer of vectors: the last axis goes from one length to another."""
    return lambda s: (*s[:-1], to) if s[-1:] == (n,) else None


def steps(c, to):
    return lambda s: (*s[:2], to) if len(s) == 3 and s[2] == c and s[1] else None


def final(c, to):
    return lambda s: (s[0], to) if len(s) == 3 and s[2] == c and s[1] else None


def windows(channels, to, kernel, stride, pads):
    def contract(s):
        if len(s) != len(kernel) + 2 or channels not in (None, s[1]):
            return None
        places = [(n + 2 * p - k) // t + 1 for n, k, t, p in zip(s[2:], kernel, stride, pads, strict=True)]
        return (s[0], s[1] if to is None else to, *places) if min(places) > 0 else None

    return contract


def same_if(test):
    return lambda s: s if test(s) else None


SAME = same_if(lambda s: True)
CHANNELS = same_if(lambda s: len(s) >= 2 and s[1] == 4)
GROUPED = same_if(lambda s: len(s) >= 2 and s[1] == 4 and 0 not in s[2:])
BATCH = same_if(lambda s: len(s) in (2, 3) and s[1] == 4 and s[0] * (*s, 1)[2] > 1)
ATTENTION = same_if(lambda s: len(s) == 3 and s[2] == 4 and s[1] > 0)
ALONG = {0: same_if(lambda s: len(s) and s[0]), -1: same_if(lambda s: len(s) and s[-1])}

# The output shape for an input shape, by the documentation; None where the layer must raise.
CONTRACTS = {
    "Dense": last(4, 3),
    "Dense without bias": last(4, 3),
    "Conv1D": windows(2, 3, (3,), (1,), (1,)),
    "Conv2D": windows(2, 3, (3, 3), (1, 1), (1, 1)),
    "Conv2D with settings": windows(2, 4, (2, 3), (2, 2), (1, 0)),
    "MaxPool2D": windows(None, None, (2, 2), (2, 2), (0, 0)),
    "MaxPool2D overlapping": windows(None, None, (3, 3), (1, 1), (1, 1)),
    "AvgPool2D": windows(None, None, (2, 2), (2, 2), (0, 0)),
    "GlobalAvgPool2D": lambda s: s[:2] if len(s) == 4 and s[2] * s[3] else None,
    "Softmax": ALONG[-1],
    "Softmax axis 0": ALONG[0],
    "LogSoftmax": ALONG[-1],
    "Flatten": lambda s: (s[0], int(np.prod(s[1:]))) if s else None,
    "PReLU by channel": CHANNELS,
    "BatchNorm1D": BATCH,
    "BatchNorm1D plain": BATCH,
    "BatchNorm2D": same_if(lambda s: len(s) == 4 and s[1] == 3 and s[0] * s[2] * s[3] > 1),
    "LayerNorm": last(4, 4),
    "LayerNorm two axes": same_if(lambda s: s[-2:] == (3, 4)),
    "LayerNorm plain": last(4, 4),
    "GroupNorm": GROUPED,
    "GroupNorm plain": GROUPED,
    "Embedding": lambda s: (*s, 4),
    "Embedding padding": lambda s: (*s, 4),
    "Residual": last(4, 4),
    "Residual shortcut": last(4, 2),
    "RNN": steps(4, 3),
    "RNN relu, state": final(4, 3),
    "GRU": steps(4, 3),
    "GRU without bias, state": final(4, 3),
    "LSTM": steps(4, 3),
    "LSTM without bias, state": final(4, 6),
    "MultiHeadAttention": ATTENTION,
    "MultiHeadAttention causal": ATTENTION,
    "Sequential": last(4, 2),
}  # the others keep every shape


def as_numbers(x):
    """Return what is called with as an array of floats, or None if it holds anything else."""
    try:
        array = np.asarray(x)
        return array.astype(np.float64) if array.dtype.kind in "fiubO" and array.size < HUGE else None
    except (TypeError, ValueError, OverflowError):
        return None


def size(x):
    return x.size if isinstance(x, np.ndarray) else 0


def call(layer, *inputs):
    """Return what a call gives or raises, and the most memory that it held meanwhile."""
    tracemalloc.start()
    try:
        with np.errstate(all="ignore"):
            return layer(*inputs), tracemalloc.get_traced_memory()[1]
    except Exception as error:
        return error, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refused(got, peak):
    assert isinstance(got, ValueError | TypeError), repr(got)
    assert isinstance(got, MicrofwError), repr(got)
    assert NAMED.match(str(got)), str(got)
    assert peak < 2**20


def check(case, number):
    x = hostile(number, case.shapes)
    wanted = CONTRACTS.get(case.name, SAME)
    huge = size(x) >= HUGE
    if huge and wanted(x.shape) is not None:
        return False  # it fits, but for the memory
    values = None if huge else as_numbers(x)
    got, peak = call(case.make(), x)
    if huge or values is None or wanted(values.shape) is None:
        refused(got, peak)
        return True
    indices = case.kind is nn.Embedding
    if indices and (np.asarray(x).dtype.kind == "b" or not np.all(np.isin(values, range(5)))):
        refused(got, peak)
        return True
    assert not isinstance(got, Exception), repr(got)
    data = np.asarray(got if isinstance(got, np.ndarray) else got.data)
    assert data.shape == wanted(values.shape)
    if np.isfinite(values).all():
        assert np.isfinite(data).all()
        if case.name != "Dropout training":  # the same numbers in the layer's own dtype, contiguous
            plain = values.astype(int) if indices else values.astype(np.float32)
            np.testing.assert_allclose(
                data,
                case.make()(plain).data if case.kind is not nn.Flatten else np.asarray(case.make()(plain)),
                rtol=1e-4,
                atol=1e-5,
            )
    return False


def each(count):
    return pytest.mark.parametrize(("case", "numbers"), [pytest.param(c, range(*count), id=c.name) for c in CASES])


def some(case, numbers):
    assert sum(check(case, number) for number in numbers) >= len(numbers) / 20


@each((0, 200, 11))
def test_layers_answer_hostile_inputs_rightly_or_refuse_them(case, numbers):
    some(case, numbers)


@pytest.mark.slow
@each((200,))
def test_layers_two_hundred_times(case, numbers):
    some(case, numbers)


def test_every_layer_has_its_row():
    rows = {c.kind for c in CASES} | set(PASSING)
    assert rows == {c.kind for c in LAYERS}
    assert CONTRACTS.keys() <= {c.name for c in CASES}


def check_loss(name, number):
    """Call a loss with a prediction or a target out of 200 that do not fit the other, or with both."""
    kind, options, target, _ = LOSSES[name]
    target = np.asarray(target)
    labels = kind in (nn.CrossEntropyLoss, nn.NLLLoss)
    shape = (len(target), 3) if labels else target.shape
    x = hostile(number, (shape,))
    loss = kind(**options)
    prediction = mf.tensor(np.full(shape, 0.5))
    turn = number // 2 % 3
    if turn == 1 and as_numbers(x) is not None and size(x) < HUGE:
        prediction = mf.tensor(as_numbers(x))
    elif turn == 1:
        prediction = x
    else:
        target = x
    got, peak = call(loss, prediction, target)
    values = None if size(target) >= HUGE else as_numbers(target)
    fits = isinstance(prediction, mf.Tensor) and values is not None and prediction.size > 0
    if labels:
        fits = fits and prediction.ndim == 2 and prediction.shape[1] > 0 and values.shape == prediction.shape[:1]
    else:
        fits = fits and values.shape == prediction.shape
    if isinstance(got, Exception):
        refused(got, peak)
        assert not (
            fits
            and target is not x
            and np.isfinite(prediction.data).all()
            and kind is not nn.PoissonNLLLoss
            and prediction.shape == shape
        ), repr(got)
        return True
    assert fits, f"{prediction!r} and {target!r} were taken"
    if np.isfinite(values).all() and np.isfinite(prediction.data).all():
        assert np.isfinite(got.data).all()
    return False


@pytest.mark.parametrize("name", LOSSES)
def test_losses_answer_hostile_inputs_rightly_or_refuse_them(name):
    assert sum(check_loss(name, number) for number in range(0, 200, 11)) > 3


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_losses_two_hundred_times(name):
    assert sum(check_loss(name, number) for number in range(200)) > 40


def check_vectors(name, number):
    """Call a loss of vectors with a hostile input in the place of one of its three."""
    kind, options, (second, third), _ = VECTORS[name]
    good = [mf.tensor(second), second, np.asarray(third)]
    place = number // 2 % 3
    shape = good[place].shape
    x = hostile(number, (shape,))
    good[place] = x
    got, peak = call(kind(**options), *good)
    if isinstance(got, Exception):
        refused(got, peak)
        return True
    values = as_numbers(x)
    assert place, "a prediction that is no Tensor was taken"
    assert values is not None
    assert values.shape == shape
    assert got.shape == ()
    assert np.isfinite(got.data) or not np.isfinite(values).all()
    return False


@pytest.mark.parametrize("name", VECTORS)
def test_losses_of_vectors_answer_hostile_inputs_rightly_or_refuse_them(name):
    assert sum(check_vectors(name, number) for number in range(0, 200, 11)) > 5


@pytest.mark.slow
@pytest.mark.parametrize("name", VECTORS)
def test_losses_of_vectors_two_hundred_times(name):
    assert sum(check_vectors(name, number) for number in range(200)) > 100
