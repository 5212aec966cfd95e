"""NumPy's errors in an op's value: where, which shapes, and NumPy's text."""

from __future__ import annotations

import re
import traceback

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.autograd.apply import apply
from microfw.errors import ArgumentError, DataError, DTypeError, MicrofwError, ShapeError

X = np.ones((2, 4), np.float32)


def x():
    return mf.tensor(X, requires_grad=True)


class Custom(nn.Module):
    def __init__(self, function):
        self.w = nn.Parameter(np.ones((5, 3)))
        self.function = function

    def forward(self, x):
        return self.function(x, self.w)


REFUSED = {
    "matmul": (lambda x, w: x @ w, "a (2, 4), b (5, 3)", "size 5 is different from 4"),
    "add": (lambda x, w: x + w, "a (2, 4), b (5, 3)", "operands could not be broadcast together with shapes (2,4) (5,3)"),
    "reshape": (lambda x, w: x.reshape(3, 3), "x (2, 4)", "cannot reshape array of size 8 into shape (3,3)"),
    "concatenate": (lambda x, w: np.concatenate([x, w]), "xs[0] (2, 4), xs[1] (5, 3)", "must match exactly"),
    "where": (lambda x, w: np.where(True, x, w), "a (2, 4), b (5, 3)", "could not be broadcast together"),
    "transpose": (lambda x, w: np.transpose(x, (0, 1, 2)), "x (2, 4)", "axes don't match array"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_shape_error_names_the_layer_both_shapes_and_numpys_text(name):
    function, shapes, text = REFUSED[name]
    model = nn.Sequential(nn.Dense(4, 4, rng=0), nn.Sequential(Custom(function)))
    with pytest.raises(ShapeError) as caught:
        model(X)
    message = str(caught.value)
    assert message.startswith(f"1.0 Custom: {name}: expected shapes that fit, got ")
    assert shapes in message and text in message
    assert isinstance(caught.value, ValueError)
    cause = caught.value.__cause__
    assert type(cause) is ValueError and message.endswith(f"; {cause}")


def test_a_dtype_error_names_the_layer_as_a_shape_error_does():
    wide = mf.tensor(np.ones((2, 4)), dtype=np.float64)
    model = nn.Sequential(nn.Dense(4, 4, rng=0), nn.Sequential(Custom(lambda x, w: x + wide)))
    with pytest.raises(DTypeError, match=r"^1\.0 Custom: add: expected Tensors of one dtype"):
        model(X)


def test_an_error_of_a_module_that_is_not_called_names_this_module():
    class Reloading(nn.Module):
        def __init__(self):
            self.inner = nn.Dense(4, 4, rng=0)

        def forward(self, x):
            self.inner.load_state_dict({})

    with pytest.raises(ArgumentError, match=r"^0\.inner Dense\.load_state_dict: "):
        nn.Sequential(Reloading())(X)


def test_an_op_outside_of_any_layer():
    with pytest.raises(
        ShapeError, match=r"^multiply: expected shapes that fit, got a \(2, 4\), b \(3,\); operands could"
    ):
        x() * np.ones(3, np.float32)


def test_the_model_itself_has_its_type():
    with pytest.raises(ShapeError, match=r"^Custom: matmul: expected shapes that fit, got a \(2, 4\), b \(5, 3\); "):
        Custom(lambda x, w: x @ w)(x())


def test_many_inputs_are_listed_in_part():
    parts = [x() for _ in range(12)]
    with pytest.raises(ShapeError, match=r"xs\[7\] \(2, 4\), … 6 more; "):
        np.concatenate([*parts, x()[0], x()[0]])


def test_the_general_way_to_run_an_op_says_the_same():
    inputs = (x(), np.ones((5, 3), np.float32))
    texts = []
    for run in (lambda op: op.call(*inputs), lambda op: apply(op, inputs, {})):
        with pytest.raises(ShapeError) as caught:
            run(mf.ops.matmul.op)
        texts.append(str(caught.value))
    assert texts[0] == texts[1]


# Errors that are not about shapes keep their type and get a note


@pytest.mark.parametrize(
    ("function", "kind", "note"),
    [
        (lambda x, w: x[5], IndexError, "raised in 0 Custom: getitem, with inputs of shapes x (2, 4)"),
        (
            lambda x, w: x.sum(axis=4),
            np.exceptions.AxisError,
            "raised in 0 Custom: sum, with inputs of shapes x (2, 4)",
        ),
    ],
)
def test_another_error_keeps_its_type_and_gets_a_note(function, kind, note):
    with pytest.raises(kind) as caught:
        nn.Sequential(Custom(function))(x())
    assert not isinstance(caught.value, MicrofwError) and caught.value.__notes__ == [note]


def test_a_warning_that_is_an_error_names_the_layer():
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError) as caught:
        nn.Sequential(Custom(lambda x, w: np.log(x - 1)))(x())
    assert "raised in 0 Custom: log, with inputs of shapes x (2, 4)" in traceback.format_exception(caught.value)[-1]


def test_errors_of_the_library_stay_as_they_are():
    with pytest.raises(MicrofwError) as caught:
        np.split(x(), 3)
    assert not hasattr(caught.value, "__notes__") and caught.value.__cause__ is None
    with pytest.raises(ShapeError, match=r"^0 Dense: expected x of shape \(N, 5\), got \(2, 4\)") as caught:
        nn.Sequential(nn.Dense(5, 2, rng=0))(x())
    assert caught.value.__cause__ is None


def test_an_op_of_your_own():
    @mf.op
    def refused(x):
        raise ValueError("expected a wider range")

    @mf.op
    def bad_shape(x):
        return np.reshape(x, (3, 3))

    with pytest.raises(ValueError, match="^expected a wider range") as caught:
        refused(x())
    assert type(caught.value) is ValueError and caught.value.__notes__ == [
        "raised in refused, with inputs of shapes x (2, 4)"
    ]
    with pytest.raises(ShapeError, match=r"^bad_shape: expected shapes that fit, got x \(2, 4\); cannot reshape"):
        bad_shape(x())


# Modes


def test_a_step_that_is_replayed_profiled_or_searched_for_nan_raises_the_same():
    model = nn.Sequential(nn.Dense(4, 5, rng=0), Custom(lambda x, w: x @ w + np.ones((2, 1), np.float32)))
    loss = nn.CrossEntropyLoss()
    step = mf.compile(lambda X, y: loss(model(X), y), optim.SGD(model.parameters(), lr=0.1))
    for _ in range(5):
        step(X, np.arange(2))
    text = re.escape("1 Custom: add: expected shapes that fit, got a (3, 3), b (2, 1); ")
    wrong = np.ones((3, 4), np.float32)
    with pytest.raises(ShapeError, match=f"^{text}"):
        step(wrong, np.arange(3))
    with mf.Profiler(model), pytest.raises(ShapeError, match=f"^{text}"):
        model(wrong)
    with mf.detect_anomaly(), pytest.raises(ShapeError, match=f"^{text}"):
        model(wrong)
    with mf.no_grad(), pytest.raises(ShapeError, match=f"^{text}"):
        model(wrong)
    assert np.isfinite(step(X, np.arange(2)).item())


def test_a_failed_op_keeps_no_array():
    import gc
    import weakref

    held = np.ones((3, 4))
    alive = weakref.ref(held)
    try:
        mf.tensor(np.ones((2, 4))) + held
    except ShapeError:
        pass
    del held
    gc.collect()
    assert alive() is None


MASKED = np.ma.array([[1.0, 2.0], [3.0, 99.0]], mask=[[0, 0], [0, 1]], dtype="f4")
Z = mf.tensor(np.ones((2, 2), np.float32), requires_grad=True)


@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("subtract", lambda: Z - MASKED),
        ("where", lambda: np.where(MASKED > 2, Z, 0)),
        ("stack", lambda: np.stack([Z, MASKED])),
        ("relu", lambda: mf.ops.relu(MASKED)),
        ("Tensor", lambda: mf.tensor(MASKED)),
        ("Dense", lambda: nn.Dense(2, 2, rng=0)(MASKED)),
        ("MSELoss", lambda: nn.MSELoss()(Z, MASKED)),
        ("MSELoss", lambda: nn.MSELoss()(Z, np.ones((2, 2), np.float32), np.ma.array([1.0, 2.0], mask=[0, 1]))),
        ("CrossEntropyLoss", lambda: nn.CrossEntropyLoss()(Z, np.ma.array([0, 1], mask=[0, 1]))),
        ("compiled step", lambda: mf.compile(lambda x: Z.sum(), optim.SGD([Z], lr=0.1))(MASKED)),
    ],
)
def test_masked_entries_are_refused(name, use):
    with pytest.raises(DataError, match=f"^{name}: expected an array without masked entries, got some; pass x.filled"):
        use()


def test_masked_arrays_without_masked_entries_are_arrays():
    whole = np.ma.array(np.full((2, 2), 3.0, np.float32))
    assert (Z - whole).numpy().tolist() == [[-2, -2], [-2, -2]]
    assert nn.MSELoss()(Z, whole).item() == 4
