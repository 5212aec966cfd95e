"""Estimators: L2 penalty, settings of module and optimizer, hooks, and rows with several axes."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPRegressor

import microfw as mf
from microfw import nn
from microfw.errors import ArgumentError, ShapeError
from microfw.estimators import NeuralClassifier, NeuralRegressor
from tests.helpers.errors import raises

RNG = np.random.default_rng(0)
X = RNG.standard_normal((120, 5))
LABELS = (X.sum(axis=1) > 0).astype(int)


class Net(nn.Module):
    def __init__(self, inputs, outputs, rng, width=4):
        self.flat = nn.Flatten()
        self.body, self.head = nn.Dense(int(np.prod(inputs)), width, rng=rng), nn.Dense(width, outputs, rng=rng)

    def forward(self, x):
        return self.head(np.tanh(self.body(self.flat(x))))


def weights(estimator):
    return [p.data for p in estimator.module_.parameters()]


# Subclasses


class Narrow(NeuralClassifier):
    def __init__(self, width=8, random_state=None):
        super().__init__((width,), random_state=random_state, max_iter=3, tol=-1.0 if width == 5 else 0.0)
        self.width = width


class Short(NeuralClassifier):
    def __init__(self, *, max_iter=3):
        super().__init__(max_iter=max_iter, random_state=0)


class Open(NeuralClassifier):
    def __init__(self, extra=1, **settings):
        super().__init__(max_iter=3, random_state=0, **settings)
        self.extra = extra


@pytest.mark.parametrize("model", [Narrow(4, 0), Short(), Open(2), Open(alpha=0.5)], ids=repr)
def test_a_subclass_may_have_a_constructor_with_other_settings(model):
    made = clone(model).fit(X, LABELS)
    assert made.n_iter_ == 3 and made.get_params() == model.get_params()
    assert made.set_params(max_iter=2).partial_fit(X, LABELS).n_iter_ == 4 if "max_iter" in made.get_params() else True


def test_settings_that_a_subclass_passes_on_are_checked():
    with pytest.raises(ArgumentError, match="The 'tol' parameter of Narrow must be"):
        Narrow(5).fit(X, LABELS)


# alpha


@pytest.mark.parametrize("weight", [None, np.linspace(0.5, 2, 120)], ids=["", "sample_weight"])
def test_alpha_is_added_to_the_loss_and_its_gradient(weight):
    y = 2 * X[:, 0]
    options = {"optimizer": "sgd", "optimizer_params": {}, "learning_rate": 0.1, "batch_size": 120, "shuffle": False}
    model = NeuralRegressor((), alpha=3.0, random_state=0, **options).partial_fit(X, y, weight)
    w, b = (values.copy() for values in weights(model))
    model.partial_fit(X, y, weight)
    share = np.ones(120) if weight is None else weight
    error = (X @ w + b)[:, 0] - y
    expected = (share * error**2).sum() / share.sum() + 1.5 * (w**2).sum() / share.sum()
    assert model.loss_ == pytest.approx(expected, rel=1e-12)
    gradient = 2 * X.T @ (share * error) / share.sum() + 3 * w[:, 0] / share.sum()
    np.testing.assert_allclose(weights(model)[0][:, 0], w[:, 0] - 0.1 * gradient, rtol=1e-12)
    np.testing.assert_allclose(weights(model)[1], b - 0.1 * 2 * (share * error).sum() / share.sum(), rtol=1e-12)


def test_alpha_has_the_meaning_of_scikit_learn():
    y = X @ np.arange(5.0)
    ours = NeuralRegressor(
        (), alpha=20.0, optimizer="lbfgs", learning_rate=1.0, batch_size=120, max_iter=50, random_state=0
    ).fit(X, y)
    # scikit-learn halves the squared error, so its penalty counts twice as much
    theirs = MLPRegressor(
        hidden_layer_sizes=(), alpha=10.0, solver="lbfgs", max_iter=2000, tol=1e-12, random_state=0
    ).fit(X, y)
    np.testing.assert_allclose(weights(ours)[0], theirs.coefs_[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "adamw", "rmsprop", "adagrad", "lbfgs"])
def test_every_optimizer_takes_alpha(optimizer):
    norms = []
    for alpha in (0.0, 30.0):
        options = {"optimizer": optimizer, "batch_size": 120, "max_iter": 20, "random_state": 0}
        model = NeuralClassifier(8, alpha=alpha, learning_rate=1.0 if optimizer == "lbfgs" else 0.01, **options).fit(
            X, LABELS
        )
        norms.append(sum((values**2).sum() for values in weights(model) if values.ndim > 1))
    assert norms[1] < 0.95 * norms[0]


def test_steps_with_alpha_are_replayed_and_pickled():
    model = NeuralClassifier(8, alpha=1.0, batch_size=20, max_iter=40, random_state=0).fit(X, LABELS)
    assert model._learner.stepper.replay_policy.step.replays
    other = pickle.loads(pickle.dumps(model))
    for estimator in (model, other):
        estimator.partial_fit(X, LABELS)
    assert model.loss_ == other.loss_
    np.testing.assert_array_equal(weights(model)[0], weights(other)[0])
    assert type(model._learner.loss) is nn.CrossEntropyLoss


def test_alpha_changes_between_calls():
    plain = NeuralClassifier(8, random_state=0).partial_fit(X, LABELS, classes=[0, 1]).partial_fit(X, LABELS)
    changed = NeuralClassifier(8, alpha=5.0, random_state=0).partial_fit(X, LABELS, classes=[0, 1])
    assert changed.set_params(alpha=0.0).partial_fit(X, LABELS).loss_ != plain.loss_
    assert type(changed._learner.stepper.loss) is nn.CrossEntropyLoss
    assert changed.set_params(alpha=7.0).partial_fit(X, LABELS).loss_ > changed._learner.measure(
        changed._validated(X, LABELS, None, fresh=False)
    )


# Settings of module and optimizer


def test_settings_of_the_parts_reach_them():
    model = NeuralClassifier(module=Net, module__width=7, optimizer__betas=(0.8, 0.99), max_iter=2).fit(X, LABELS)
    assert model.module_.body.weight.shape == (5, 7) and model._learner.optimizer.betas == (0.8, 0.99)
    assert {"module__width": 7, "optimizer__betas": (0.8, 0.99)}.items() <= model.get_params().items()
    assert "module__width=7" in repr(model)
    other = clone(model).set_params(module__width=3, optimizer__eps=1e-6).fit(X, LABELS)
    assert other.module_.body.weight.shape == (5, 3) and other._learner.optimizer.eps == 1e-6
    assert model.get_params()["module__width"] == 7


def test_a_search_over_settings_of_the_module():
    search = GridSearchCV(NeuralClassifier(module=Net, max_iter=3, random_state=0), {"module__width": [2, 5]}, cv=2)
    search.fit(X, LABELS)
    assert search.best_estimator_.module_.body.weight.shape[1] == search.best_params_["module__width"]


def test_settings_of_the_parts_change_between_calls():
    model = NeuralClassifier(module=Net, module__width=7, warm_start=True, max_iter=2).fit(X, LABELS)
    model.set_params(optimizer__eps=1e-5).fit(X, LABELS)
    assert model._learner.optimizer.eps == 1e-5
    with raises(
        ArgumentError,
        "NeuralClassifier: expected module__ settings {'width': 7}, with which the network was made, got {'width': 9}; "
        "set it back, or fit a new network with warm_start=False",
    ):
        model.set_params(module__width=9).fit(X, LABELS)


FAULTS = [
    ({"module__width": 3}, "NeuralClassifier: expected a class or function as module for module__width, got no module"),
    ({"module": Net, "module__depth": 3}, "NeuralClassifier: expected module__ settings that module takes, got an unexpected keyword argument 'depth'"),
    ({"optimizer__depth": 3}, "NeuralClassifier: expected an optimizer that takes these settings, got Adam.__init__() got an unexpected keyword argument 'depth'"),
    ({"alpha": -1}, "The 'alpha' parameter of NeuralClassifier must be a float in the range [0.0, inf). Got -1 instead."),
    ({"hooks": 3}, "The 'hooks' parameter of NeuralClassifier must be a list of hooks. Got 3 instead."),
    ({"optimizer_params": {"lr": 0.1}}, "NeuralClassifier: expected an optimizer that takes these settings, got microfw.optim.adam.Adam() got multiple values for keyword argument 'lr'; pass learning_rate"),
    ({"activation": np.tanh}, "NeuralClassifier: expected activation to be a name, or to make a Module, got tanh; pass a class such as nn.Tanh"),
    ({"module": lambda inputs, outputs: None}, "NeuralClassifier: expected module to be a Module or a function (n_features, n_outputs, rng) that returns one, got one with (inputs, outputs)"),
    ({"hooks": [3]}, "NeuralClassifier: expected hooks with some of a Hook's methods, got int; pass an instance"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "text"), FAULTS)
def test_settings_that_do_not_fit(settings, text):
    with raises(ArgumentError, text):
        NeuralClassifier(**settings).fit(X, LABELS)


def test_other_names_are_no_settings():
    with raises(TypeError, "NeuralClassifier.__init__() got an unexpected keyword argument 'width'"):
        NeuralClassifier(width=3)
    with pytest.raises(ValueError, match="Invalid parameter 'width'"):
        NeuralClassifier().set_params(width__x=3)


# Hooks


class Counting(mf.Hook):
    def __init__(self):
        self.epochs = self.gradients = 0

    def on_epoch_end(self, state):
        self.epochs += 1
        state.stop = self.epochs == 3

    def on_gradients(self, state):
        self.gradients += 1


def test_hooks_are_called_in_a_fit_and_can_end_it():
    hook = Counting()
    model = NeuralClassifier(hooks=[hook], batch_size=60, max_iter=10).fit(X, LABELS)
    assert (hook.epochs, hook.gradients, model.n_iter_) == (3, 6, 3)
    model.partial_fit(X, LABELS)
    assert (hook.epochs, hook.gradients) == (3, 8)
    model.set_params(hooks=()).partial_fit(X, LABELS)
    assert hook.gradients == 8


# Rows with several axes


@pytest.mark.parametrize("shape", [(5, 3), (2, 4, 4)])
@pytest.mark.parametrize("kind", [NeuralClassifier, NeuralRegressor])
def test_rows_with_several_axes(shape, kind):
    rows = RNG.standard_normal((60, *shape))
    seen = []

    def module(features, outputs, rng):
        seen.append(features)
        return Net(features, outputs, rng, width=16)

    y = (rows.reshape(60, -1)[:, 0] > 0).astype(int)
    model = kind(module=module, max_iter=60, learning_rate=0.02, random_state=0, early_stopping=True).fit(rows, y)
    assert seen == [shape] and model.score(rows, y) > 0.5 and model.predict(rows[:7]).shape == (7,)
    model.partial_fit(rows, y)
    expected = ", ".join(map(str, shape))
    with raises(ShapeError, f"{kind.__name__}: expected X of shape (N, {expected}), got {rows[..., :1].shape}"):
        model.predict(rows[..., :1])
    with pytest.raises(ValueError, match="Found array with dim"):
        kind().fit(rows, y)


def test_a_module_is_checked_with_a_tensor():
    class Detaching(Net):
        def forward(self, x):
            return super().forward(x.detach())

    assert NeuralClassifier(module=Detaching, max_iter=1).fit(X, LABELS).n_iter_ == 1


def test_sgd_without_momentum_has_no_nesterov():
    sgd = NeuralClassifier((), optimizer="sgd", optimizer__momentum=0.0, max_iter=1, random_state=0).fit(X, LABELS)
    plain = clone(sgd).set_params(optimizer=lambda parameters, lr, momentum: mf.optim.SGD(parameters, lr=lr))
    np.testing.assert_array_equal(sgd.predict_proba(X), plain.fit(X, LABELS).predict_proba(X))


def test_a_hook_is_there_once():
    hook = mf.training.Hook()
    with pytest.raises(ArgumentError, match="expected each hook once, got the same Hook twice; leave one out"):
        NeuralClassifier(hooks=[hook, hook]).fit(X, LABELS)


class Rates(mf.Hook):
    """Notes the rate of each epoch's last step, and halves it then."""

    def __init__(self, event):
        self.used = {}
        setattr(self, event, self.halve)

    def on_gradients(self, state):
        self.used[state.epoch] = state.optimizer.lr

    def halve(self, state):
        state.optimizer.lr /= 2


@pytest.mark.parametrize("event", ["on_epoch_end", "on_step_end"])
@pytest.mark.parametrize("optimizer", ["sgd", "lbfgs"])
def test_the_history_has_the_rate_with_which_an_epoch_was_trained(event, optimizer):
    rates = Rates(event)
    model = NeuralClassifier((4,), max_iter=4, random_state=0, optimizer=optimizer, batch_size=60, hooks=[rates])
    assert model.fit(X, LABELS).history_.column("learning_rate") == list(rates.used.values())
