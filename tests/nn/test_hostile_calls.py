"""Layers and losses called with what they were not made for: the right answer, or an error that names the layer."""

from __future__ import annotations

import re
import tracemalloc

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.errors import ArgumentError, DTypeError, MicrofwError
from tests.cases.layers import LAYERS, LayerCase, Ragged, Weighed
from tests.cases.losses import LOSSES, VECTORS
from tests.helpers.hostile_inputs import HUGE, hostile


def vectors(shape):
    return (*shape, 4)


# Identity, Dropout in evaluation and Lambda pass on what comes, as they say; Weighed and Ragged are a test's own layers.
PASSING = (nn.Identity, nn.Lambda)
OTHERS = (Weighed, Ragged, nn.Dropout)
CASES = [c for c in LAYERS if c.kind not in PASSING and not isinstance(c.make(), OTHERS)]
CASES += [
    LayerCase(nn.Embedding, lambda: nn.Embedding(5, 4, rng=0), ((2, 3), (4,)), "", contract=vectors),
    LayerCase(nn.Embedding, lambda: nn.Embedding(5, 4, 3, rng=0), ((2, 3), (4,)), "", "padding", contract=vectors),
    LayerCase(nn.Dropout, lambda: nn.Dropout(0.5, rng=0), ((2, 3), (4,)), "", "training"),
]
NAMED = re.compile(rf"^(\S+ )?({'|'.join(nn.__all__)}): expected .+, got ")


@pytest.mark.parametrize("call", [
    lambda: nn.Dense(3, 2, "relu"), lambda: nn.Conv2D(1, 2, 3, bias="no"), lambda: nn.LSTM(3, 2, bidirectional="no"),
    lambda: nn.LayerNorm(3, affine="no"), lambda: nn.GroupNorm(2, 4, 1e-5, "no"), lambda: nn.BatchNorm1D(3, 1e-5, 0.1, None),
    lambda: nn.TransformerEncoderLayer(4, 2, 8, norm_first="no"), lambda: nn.TripletMarginLoss(1.0, 2),
    lambda: nn.PoissonNLLLoss("no"), lambda: nn.PoissonNLLLoss(True, "sum"), lambda: nn.GaussianNLLLoss("sum"),
])  # fmt: skip
def test_flags_are_true_or_false(call):
    with pytest.raises(ArgumentError, match="to be True or False, got .*; name each setting, as in"):
        call()


@pytest.mark.parametrize("values", [None, np.array([1j]), "a", [[1], [1, 2]]], ids=str)
def test_a_parameter_holds_real_numbers(values):
    with pytest.raises((DTypeError, ValueError)):
        nn.Parameter(values)


@pytest.mark.parametrize("make", [nn.ReLU, nn.GELU, nn.Softmax, nn.LogSoftmax, lambda: nn.Dropout(0.5, rng=0)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_of_another_byte_order_keep_their_precision(make, dtype):
    x = np.array([[1.0000000001, 2.0, 3.0]], dtype)
    swapped = x.astype(np.dtype(dtype).newbyteorder())
    assert make()(swapped).dtype == dtype
    np.testing.assert_array_equal(make()(swapped).numpy(), make()(x).numpy())
    np.testing.assert_array_equal(mf.grad(lambda t: (t * x).sum())(swapped), x)
    assert nn.Dense(3, 2, rng=0).astype(swapped.dtype)(x).dtype == dtype


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
    wanted = case.contract
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
    assert not isinstance(got, Exception), f"the row's contract allows the shape {values.shape}, but got {got!r}"
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


def check_loss(name, number):
    """Call a loss with a prediction or a target out of 200 that do not fit the other, or with both."""
    kind, options, target, _ = LOSSES[name]
    target = np.asarray(target)
    labels = kind in (nn.CrossEntropyLoss, nn.NLLLoss) and target.ndim == 1
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
