"""The estimators' calls: settings that change are honoured or refused, and a call that fails leaves no traces."""

from __future__ import annotations

import copy
import math
import pickle
from itertools import product

import numpy as np
import pytest

pytest.importorskip("sklearn", "1.9")

from sklearn.datasets import load_diabetes, load_iris
from sklearn.preprocessing import scale

from microfw import nn, optim
from microfw.errors import ArgumentError, DataError, NonFiniteError, ShapeError
from microfw.estimators import NeuralClassifier, NeuralRegressor
from microfw.optim import schedules
from tests.helpers.thinning import thinned

X, Y = load_iris(return_X_y=True)
X = scale(X)
D, T = (scale(a) for a in load_diabetes(return_X_y=True))


def classifier(**settings):
    return NeuralClassifier(
        **{"hidden_layer_sizes": (8,), "max_iter": 3, "batch_size": 32, "random_state": 0} | settings
    )


def weights(model):
    return np.concatenate([p.data.ravel() for p in model.module_.parameters()])


# Stopping


class Scores:
    """Scores of a list, one an epoch."""

    def __init__(self, scores):
        self.scores = list(scores)
        self.seen = []

    def __call__(self, estimator, X, y):
        self.seen.append(weights(estimator))
        return self.scores[len(self.seen) - 1]


@pytest.mark.parametrize(("scores", "epochs", "best"), [
    ([math.nan, *np.linspace(0.1, 0.9, 40)], 41, 40),
    ([0.1, 0.2, math.nan, 0.3, *([0.25] * 40)], 4 + 6, 3),
    ([math.nan] * 30, 6, None),
    ([0.1, 0.2, math.nan, math.nan, math.nan, math.nan, math.nan, math.nan, 0.9], 2 + 6, 1),
    ([0.5, 0.5 + 5e-5, 0.5 + 9e-5, *([0.1] * 20)], 7, 2),  # below tol: kept, but no improvement
    ([math.inf, 1.0, 2.0, 3, 4, 5, 6, 7], 7, 0),
])  # fmt: skip
def test_the_best_score_wins_whatever_comes_before(scores, epochs, best):
    scorer = Scores(scores)
    model = classifier(early_stopping=True, scoring=scorer, max_iter=len(scores), n_iter_no_change=5)
    expected = min(epochs, len(scores))
    if best is None:
        expected = 6
    model.fit(X, Y)
    assert model.n_iter_ == len(model.validation_scores_) == expected
    if best is None:
        assert math.isnan(model.best_validation_score_)
    else:
        assert model.best_validation_score_ == scores[best]
        np.testing.assert_array_equal(weights(model), scorer.seen[best])


def test_patience_starts_again_with_each_fit():
    scorer = Scores([0.9, 0.1, 0.1, math.nan, math.nan, math.nan, math.nan])
    model = classifier(early_stopping=True, scoring=scorer, n_iter_no_change=2, max_iter=3, warm_start=True).fit(X, Y)
    assert model.n_iter_ == 3 and model.fit(X, Y).n_iter_ == 6


# Settings that change


def went_on(changes, first=None, second=lambda model: model.fit(X, Y), **settings):
    model = classifier(warm_start=True, **settings)
    (first or second)(model)
    return second(model.set_params(**changes))


@pytest.mark.parametrize(
    "call", [lambda m: m.fit(X, Y), lambda m: m.partial_fit(X, Y, [0, 1, 2]), lambda m: m.partial_fit(X.copy(), Y)]
)
def test_a_learning_rate_is_honoured(call):
    model = classifier(warm_start=True, learning_rate=0.01, optimizer="sgd").fit(X, Y)
    before = weights(model)
    call(model.set_params(learning_rate=1e-12))
    np.testing.assert_allclose(weights(model), before, atol=1e-9)
    assert model._learner.optimizer.lr == 1e-12
    model.set_params(learning_rate=schedules.StepDecay(0.5, every=1, factor=0.1))
    call(model)
    assert model._learner.optimizer.lr < 0.5
    call(model.set_params(learning_rate=0.25))
    assert model._learner.optimizer.lr == 0.25


def test_early_stopping_on_and_off():
    model = classifier(warm_start=True).fit(X, Y)
    model.set_params(early_stopping=True).fit(X, Y)
    assert len(model.validation_scores_) == 3 and model.best_validation_score_ == max(model.validation_scores_)
    model.set_params(early_stopping=False).fit(X, Y)
    assert len(model.validation_scores_) == 3 and model.best_validation_score_ is None and model.n_iter_ == 9


@pytest.mark.parametrize(("name", "value", "honoured"), [
    ("batch_size", 50, lambda m: m._learner.state.steps == 15 + 9),
    ("max_iter", 5, lambda m: m.n_iter_ == 8),
    ("n_iter_no_change", 1, lambda m: m.n_iter_ == 6 + 3),
    ("max_grad_norm", 1e-9, lambda m: [hook.norm for hook in m._learner.hooks] == [1e-9]),
    ("optimizer", "rmsprop", lambda m: type(m._learner.optimizer) is optim.RMSprop),
    ("optimizer", optim.LBFGS, lambda m: type(m._learner.optimizer) is optim.LBFGS),
    ("optimizer_params", {"eps": 0.5}, lambda m: m._learner.optimizer.eps == 0.5),
    ("loss", nn.BCEWithLogitsLoss(), lambda m: type(m._learner.loss) is nn.BCEWithLogitsLoss),
    ("loss", nn.CrossEntropyLoss(label_smoothing=0.5), lambda m: m.loss_curve_[-1] > m.loss_curve_[0]),
    ("class_weight", {0: 0.0, 1: 1.0, 2: 1.0}, lambda m: m._learner.state.steps == 15 + 12),
    ("verbose", True, lambda m: True),
    ("profile", True, lambda m: len(m.profile_.epochs) == 3),
    ("shuffle", False, lambda m: True),
    ("warm_start", False, lambda m: m.n_iter_ == 3),
    ("validation_fraction", 0.5, lambda m: True),
])  # fmt: skip
def test_settings_are_honoured_when_a_fit_goes_on(name, value, honoured, capsys):
    tol = {"tol": 10.0, "max_iter": 6} if name == "n_iter_no_change" else {}
    model = went_on({name: value}, **tol)
    assert honoured(model)
    assert bool(capsys.readouterr().out) is (name == "verbose")
    assert model.predict(X).shape == Y.shape
    again = went_on({name: value}, **tol)
    np.testing.assert_array_equal(weights(again), weights(model))


@pytest.mark.parametrize(("name", "before", "after"), [
    ("hidden_layer_sizes", (8,), (16,)), ("activation", "relu", "tanh"), ("norm", None, "batch"), ("dropout", 0.0, 0.5),
    ("dtype", None, np.float32), ("module", None, nn.Dense(4, 3, rng=0)),
])  # fmt: skip
@pytest.mark.parametrize(
    "call", [lambda m: m.fit(X, Y), lambda m: m.partial_fit(X, Y), lambda m: m.partial_fit(X.copy(), Y.copy())]
)
def test_settings_of_the_network_are_refused_when_a_fit_goes_on(name, before, after, call):
    model = classifier(warm_start=True).fit(X, Y)
    old = copy.deepcopy(vars(model))
    old_weights = weights(model)
    model.set_params(**{name: after})
    with pytest.raises(ArgumentError) as info:
        call(model)
    assert str(info.value) == (
        f"NeuralClassifier: expected {name}={before!r}, with which the network was made, got {after!r}; "
        "set it back, or fit a new network with warm_start=False"
    )
    np.testing.assert_array_equal(weights(model), old_weights)
    assert model.loss_curve_ == old["loss_curve_"]
    call(model.set_params(**{name: before}))
    assert model.set_params(**{name: after}, warm_start=False).fit(X, Y).n_iter_ == 3


def test_a_seed_starts_the_order_again():
    one = classifier(warm_start=True, random_state=0).fit(X, Y).set_params(random_state=7).fit(X, Y)
    two = classifier(warm_start=True, random_state=0).fit(X, Y).set_params(random_state=8).fit(X, Y)
    assert not np.array_equal(weights(one), weights(two))


def test_copies_know_the_settings_of_the_last_call():
    model = classifier(warm_start=True, hidden_layer_sizes=[8], optimizer_params={"eps": 0.5}).fit(X, Y)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.fit(X, Y).n_iter_ == 6
        with pytest.raises(ArgumentError, match="expected dropout=0.0"):
            twin.set_params(dropout=0.1).fit(X, Y)
    model.optimizer_params["eps"] = 0.25  # changed in place
    assert model.fit(X, Y).n_iter_ == 6 and model._learner.optimizer.eps == 0.25


def test_lbfgs_is_not_clipped():
    with pytest.raises(
        ArgumentError, match="^NeuralClassifier: expected no max_grad_norm with LBFGS, got 1.0; its line"
    ):
        classifier(optimizer=optim.LBFGS, max_grad_norm=1.0).fit(X, Y)


# Calls that fail


def state(value, seen=None):
    """Return all that an object holds, by content."""
    if isinstance(value, np.random.Generator):
        return str(value.bit_generator.state)
    if isinstance(value, nn.Module):
        return {k: v.tobytes() for k, v in value.state_dict().items()}
    if isinstance(value, optim.Optimizer):
        return {k: state(v) for k, v in value.state_dict().items()}
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, dict):
        apart = ("stepper", "_modules", "_min_rows", "_read", "_version", "hooks")
        return {k: state(v) for k, v in value.items() if k not in apart}
    if isinstance(value, list | tuple):
        return [state(v) for v in value]
    if type(value).__name__ == "Learner":
        return state(vars(value))
    if type(value).__name__ == "TrainState":
        return [value.epoch, value.steps, value.skipped, str(value.loss)]
    return repr(value)


class Fails(nn.Module):
    """Fails at a call in training."""

    def __init__(self, inputs, outputs, rng, error=None, at=10**9):
        self.body = nn.Sequential(
            nn.Dense(inputs, 8, rng=rng), nn.BatchNorm1D(8), nn.Dropout(0.5, rng=rng), nn.Dense(8, outputs, rng=rng)
        )
        self.error, self.calls, self.at = error, [0], at

    def forward(self, x):
        if self.training and x.requires_grad is False:
            self.calls[0] += 1
            if self.calls[0] >= self.at:
                if self.error is not None:
                    raise self.error
                return self.body(x) * np.inf
        return self.body(x)


def failing(error, at):
    """Return a function that makes a module, and the module itself once it is made."""
    made = []

    def module(inputs, outputs, rng):
        made.append(Fails(inputs, outputs, rng, error))
        return made[-1]

    return module, made


BAD = {
    "NaN in X": (lambda X, y: (np.where(np.arange(X.shape[1]) == 1, np.nan, X), y), ValueError),
    "an unknown class": (lambda X, y: (X, np.where(y == 2, 9, y)), ValueError),
    "columns": (lambda X, y: (X[:, :2], y), ValueError),
    "lengths": (lambda X, y: (X, y[:5]), ValueError),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_failed_first_call_leaves_nothing(bad):
    spoil, kind = BAD[bad]
    model = classifier()
    before = dict(vars(model))
    if bad != "columns":
        with pytest.raises(kind):
            model.partial_fit(*spoil(X, Y), classes=[0, 1, 2])
        assert vars(model) == before
    if bad not in ("columns", "an unknown class"):
        with pytest.raises(kind):
            model.fit(*spoil(X, Y))
        assert vars(model) == before
    assert list(model.fit(X[:100], Y[:100]).classes_) == [0, 1]


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("bad", BAD)
def test_a_failed_call_leaves_what_was_trained(bad, warm):
    spoil, kind = BAD[bad]
    model = classifier(dropout=0.5, warm_start=warm).fit(X, Y)
    before = state(vars(model))
    calls = [lambda: model.partial_fit(*spoil(X, Y)), lambda: model.partial_fit(*spoil(X[::4].copy(), Y[::4]))]
    calls += [lambda: model.fit(*spoil(X, Y))] if warm or bad in ("NaN in X", "lengths") else []
    for call in calls:
        with pytest.raises(kind):
            call()
        assert state(vars(model)) == before


def test_a_random_state_with_any_bit_generator_is_put_back():
    random_state = np.random.RandomState(np.random.PCG64(0))
    model = classifier(random_state=random_state).fit(X, Y)
    before = repr(random_state.get_state(legacy=False))
    model.set_params(learning_rate=lambda step: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.fit(X, Y)
    assert repr(random_state.get_state(legacy=False)) == before


def test_a_single_number_as_y_is_refused_by_later_calls_as_by_the_first():
    texts = []
    model = classifier()
    for _ in range(2):
        with pytest.raises(TypeError) as caught:
            model.partial_fit(X, np.array(1), *[] if texts else [[0, 1, 2]])
        texts.append(str(caught.value))
        model.partial_fit(X, Y, classes=[0, 1, 2])
    assert texts[0] == texts[1]


ERRORS = [RuntimeError("no"), None, KeyboardInterrupt()]


WAYS_TO_FAIL = list(product([False, True], [20, 60, 150], ["sgd", "adam", optim.LBFGS], ERRORS))


@pytest.mark.parametrize(("quick", "rows", "optimizer", "error"), thinned(WAYS_TO_FAIL, 4))
def test_a_pass_that_fails_in_the_middle_is_undone_as_a_whole(error, optimizer, rows, quick):
    module, made = failing(error, 1)
    model = classifier(module=module, optimizer=optimizer, batch_size=20).partial_fit(X, Y, classes=[0, 1, 2])
    net = model.module_
    net.at = net.calls[0] + max(rows // 20 // 2, 1)
    before, loss_curve = state(vars(model)), list(model.loss_curve_)
    given = (X[:rows].copy(), Y[:rows].copy()) if quick else (X[:rows].tolist(), Y[:rows].tolist())
    with pytest.raises(NonFiniteError if error is None else type(error)):
        model.partial_fit(*given)
    net.calls[0], net.at = 0, 10**9
    assert state(vars(model)) == before and model.loss_curve_ == loss_curve
    module, _ = failing(error, 1)
    twin = classifier(module=module, optimizer=optimizer, batch_size=20).partial_fit(X, Y, classes=[0, 1, 2])
    np.testing.assert_array_equal(weights(model.partial_fit(*given)), weights(twin.partial_fit(*given)))


def test_an_error_while_small_batches_are_tried_fails_one_call_only():
    class Net(nn.Module):
        failing_call = 0

        def __init__(self):
            self.body = nn.Sequential(nn.Dense(4, 8, rng=0), nn.BatchNorm1D(8), nn.Dense(8, 3, rng=1))

        def forward(self, x):
            self.failing_call -= 1
            if not self.failing_call:
                raise MemoryError
            return self.body(x)

    model = classifier(module=lambda inputs, outputs, rng: Net(), batch_size=13)
    model.partial_fit(X[:39], Y[:39], classes=[0, 1, 2])
    model.module_.failing_call = 2  # the trial of two rows
    with pytest.raises((MemoryError, ShapeError)):
        model.partial_fit(X[:40], Y[:40])
    model.partial_fit(X[:40], Y[:40])


@pytest.mark.parametrize("error", ERRORS[:2], ids=["error", "infinite"])
@pytest.mark.parametrize(
    "changes", [{}, {"optimizer": "sgd"}, {"learning_rate": 0.5}, {"loss": nn.BCEWithLogitsLoss()}], ids=str
)
def test_a_fit_that_goes_on_and_fails_is_undone(error, changes):
    module, _ = failing(error, 1)
    model = classifier(module=module, warm_start=True).fit(X, Y)
    before = state(vars(model))
    settings = {name: getattr(model, name) for name in changes}
    model.set_params(**changes)
    model.module_.at = model.module_.calls[0] + 7
    with pytest.raises(NonFiniteError if error is None else type(error)):
        model.fit(X, Y)
    model.set_params(**settings)
    model.module_.calls[0], model.module_.at = 0, 10**9
    assert state(vars(model)) == before
    module, _ = failing(error, 1)
    twin = classifier(module=module, warm_start=True).fit(X, Y)
    np.testing.assert_array_equal(weights(model.fit(X, Y)), weights(twin.fit(X, Y)))
    np.testing.assert_array_equal(weights(model.partial_fit(X, Y)), weights(twin.partial_fit(X, Y)))


@pytest.mark.parametrize("call", ["fit", "partial_fit"])
def test_a_call_that_fails_restores_the_attributes_of_your_own_modules(call):
    module, _ = failing(ERRORS[0], 1)
    model = classifier(module=module, warm_start=True).fit(X, Y)
    net, calls = model.module_, model.module_.calls[0]
    net.at = calls + 3
    with pytest.raises(type(ERRORS[0])):
        getattr(model, call)(X.tolist(), Y)
    assert model.module_ is net and net.calls == [calls] and net.at == calls + 3


def test_a_new_fit_that_fails_leaves_the_old_network():
    model = NeuralRegressor(8, max_iter=3, random_state=np.random.default_rng(3)).fit(D, T)
    before, predicted = state(vars(model)), model.predict(D)
    with pytest.raises(NonFiniteError):
        model.set_params(learning_rate=1e30, optimizer="sgd").fit(D, T)
    model.set_params(learning_rate=0.001, optimizer="adam")
    assert state(vars(model)) == before
    np.testing.assert_array_equal(model.predict(D), predicted)


def test_an_error_of_a_scorer_is_undone():
    def scorer(estimator, X, y):
        raise RuntimeError("no score")

    model = classifier(warm_start=True).fit(X, Y)
    before = state(vars(model))
    with pytest.raises(RuntimeError, match="no score"):
        model.set_params(early_stopping=True, scoring=scorer).fit(X, Y)
    model.set_params(early_stopping=False, scoring=None)
    assert state(vars(model)) == before


@pytest.mark.parametrize("warm", [False, True])
def test_ctrl_c_keeps_what_was_trained_after_the_first_epoch(warm):
    module, made = failing(KeyboardInterrupt(), 1)
    model = classifier(module=module, warm_start=warm, max_iter=10)
    if warm:
        model.fit(X, Y)
    before = state(vars(model))

    def interrupted(at):
        def again(inputs, outputs, rng):
            net = module(inputs, outputs, rng)
            net.at = at
            return net

        if warm:
            made[-1].calls[0], made[-1].at = 0, at
        else:
            model.module = again
        with pytest.raises(KeyboardInterrupt):
            model.fit(X, Y)
        if warm:
            made[-1].calls[0], made[-1].at = 0, 10**9

    interrupted(3)  # of five steps an epoch
    assert {**state(vars(model)), "module": ""} == {**before, "module": ""}
    interrupted(13)
    epochs = 2 + (10 if warm else 0)
    assert len(model.loss_curve_) == len(model.history_) == epochs and model._learner.state.steps == 5 * epochs + 2
    assert model.best_loss_ == min(model.loss_curve_) and model.predict(X).shape == Y.shape
    made[-1].calls[0], made[-1].at = 0, 10**9
    assert model.partial_fit(X, Y).n_iter_ == epochs + 1


# Rows that do not count


@pytest.mark.parametrize("batch_size", [10, 150])
def test_a_class_of_weight_0_is_left_out(batch_size):
    order = np.argsort(Y, kind="stable")
    options = {"batch_size": batch_size, "shuffle": False, "max_iter": 4}
    left_out = classifier(class_weight={0: 0.0, 1: 1.0, 2: 1.0}, **options).fit(X[order], Y[order])
    assert list(left_out.classes_) == [0, 1, 2] and left_out._learner.state.steps == math.ceil(100 / batch_size) * 4

    def all_classes(inputs, outputs, rng):
        return nn.Sequential(nn.Dense(inputs, 8, rng=rng), nn.ReLU(), nn.Dense(8, 3, rng=rng))

    kept = Y[order] > 0
    twin = classifier(module=all_classes, **options)
    twin.partial_fit(X[order][kept], Y[order][kept], classes=[0, 1, 2], sample_weight=np.ones(100))
    one = classifier(class_weight={0: 0.0, 1: 1.0, 2: 1.0}, module=all_classes, **options)
    one.partial_fit(X[order], Y[order], classes=[0, 1, 2])
    np.testing.assert_array_equal(weights(one), weights(twin))
    assert one.loss_ == twin.loss_


def test_class_weight_0_with_early_stopping_sparse_rows_and_several_labels():
    sparse = pytest.importorskip("scipy.sparse")
    weight = {0: 0.0, 1: 1.0, 2: 1.0}
    assert classifier(class_weight=weight, early_stopping=True).fit(sparse.csr_array(X), Y).n_iter_ == 3
    hot = np.eye(3, dtype=int)[Y]
    assert classifier(class_weight=[{0: 0.0, 1: 1.0}, {0: 1.0, 1: 1.0}, {0: 1.0, 1: 1.0}]).fit(X, hot).n_iter_ == 3


def test_a_pass_without_rows_that_count_moves_nothing():
    nothing = {0: 0.0, 1: 0.0, 2: 0.0}
    with pytest.raises(DataError, match="^NeuralClassifier: expected a row with a positive weight, got none"):
        classifier(class_weight=nothing).fit(X, Y)
    model = classifier(class_weight=nothing).partial_fit(X, Y, classes=[0, 1, 2])
    assert model.n_iter_ == 0 and model.loss_curve_ == [] and math.isnan(model.loss_)
    before = weights(model)
    model.partial_fit(X, Y)
    np.testing.assert_array_equal(weights(model), before)
    model.set_params(class_weight=None).partial_fit(X, Y)
    assert model.n_iter_ == 1 and model.loss_ > 0


def test_losses_with_ignored_labels_and_class_weights():
    loss = nn.CrossEntropyLoss(weight=[1, 10, 1], ignore_index=0)
    model = classifier(loss=loss, batch_size=10, shuffle=False, max_iter=1, learning_rate=1e-12).fit(X, np.sort(Y))
    assert model._learner.state.skipped == 5 and model.history_[0]["skipped"] == 5
    assert model.loss_ == pytest.approx(model._learner.measure(model._validated(X, np.sort(Y), None, False)), rel=1e-6)
    model.partial_fit(X[:10], np.zeros(10, int))
    assert len(model.loss_curve_) == 1 == model.n_iter_
    with pytest.raises(DataError, match="^NeuralClassifier.fit: expected rows that count in the loss, got none of 100"):
        classifier(loss=nn.CrossEntropyLoss(weight=[0, 0, 1])).fit(X[:100], Y[:100] * 1)
    text = "^NeuralClassifier: expected no label -100, the ignore_index of the loss, got some; leave its rows out$"
    with pytest.raises(DataError, match=text):
        classifier(loss=nn.CrossEntropyLoss(ignore_index=-100)).fit(X, np.where(np.arange(len(Y)) % 2, Y, -100))
    classifier(loss=nn.CrossEntropyLoss(ignore_index=-100), max_iter=1).fit(X, Y)
