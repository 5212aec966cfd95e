"""The estimators in pipelines and searches, with scikit-learn's callbacks and without."""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import subprocess
import sys

import joblib
import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import microfw as mf
from microfw.estimators import NeuralClassifier
from tests.helpers.estimators import classifier, needs, needs_callbacks
from tests.helpers.paths import ROOT

# Pipelines, searches, callbacks


def test_a_pipeline_of_a_table_in_a_search():
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    frame = pandas.DataFrame({"age": rng.uniform(18, 80, 200), "town": rng.choice(["A", "B", "C"], 200)})
    y = np.where((frame["age"] > 50) ^ (frame["town"] == "A"), "yes", "no")
    columns = ColumnTransformer([("number", StandardScaler(), ["age"]), ("text", OneHotEncoder(), ["town"])])
    pipeline = make_pipeline(columns, classifier(max_iter=40))
    search = GridSearchCV(pipeline, {"neuralclassifier__hidden_layer_sizes": [(), (16,)]}, cv=3).fit(frame, y)
    assert search.best_params_ == {"neuralclassifier__hidden_layer_sizes": (16,)} and search.best_score_ > 0.9


@pytest.mark.parametrize("wrap", [
    lambda model: model,
    pytest.param(lambda model: make_pipeline(StandardScaler().set_fit_request(sample_weight=True), model), marks=needs_callbacks),
], ids=["alone", "in a pipeline"])  # fmt: skip
def test_metadata_is_routed(wrap, digits):
    """Pipelines of scikit-learn 1.7 and older do not pass weights on to `score`."""
    import sklearn

    X, y = digits
    weights = np.random.default_rng(0).random(len(X))
    with sklearn.config_context(enable_metadata_routing=True):
        model = classifier().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        found = cross_validate(wrap(model), X, y, cv=2, params={"sample_weight": weights})
    assert found["test_score"].min() > 0.7


def test_fits_in_threads_are_those_in_turn(digits):
    X, y = digits
    with joblib.parallel_config("threading"):
        threads = cross_val_score(classifier(dropout=0.2), X, y, cv=4, n_jobs=4)
    np.testing.assert_array_equal(threads, cross_val_score(classifier(dropout=0.2), X, y, cv=4))


SCRIPT = """
from microfw import nn
class Net(nn.Module):
    def __init__(self, inputs, outputs, rng):
        self.dense = nn.Dense(inputs, outputs, rng=rng)
    def forward(self, x):
        return self.dense(x)
"""


def test_a_module_of_a_script_can_be_sent_to_another_process():
    script = {"__name__": "__main__"}
    exec(SCRIPT, script)
    parts = [NeuralClassifier(module=script["Net"], max_iter=2), script["Net"](2, 1, 0)]
    sent = pickle.dumps(joblib.wrap_non_picklable_objects(parts, keep_wrapper=False))
    code = """
import pickle, sys
model, net = pickle.load(sys.stdin.buffer)
print(model.fit([[0.0], [1.0]], [0, 1]).n_iter_, net([[1.0, 2.0]]).shape)
"""
    done = subprocess.run([sys.executable, "-c", code], input=sent, capture_output=True, cwd=ROOT, timeout=60)
    assert done.stdout.decode().strip() == "2 (1, 1)", done.stderr


@needs_callbacks
@needs("rich", "pandas")
@pytest.mark.parametrize("wrap", [
    lambda model: model, lambda model: make_pipeline(StandardScaler(), model),
    lambda model: GridSearchCV(model, {"hidden_layer_sizes": [(4,), (8,)]}, cv=2),
], ids=["alone", "in a pipeline", "in a search"])  # fmt: skip
def test_scikit_learns_callbacks(wrap, digits, capsys):
    from sklearn.callback import ProgressBar, ScoringMonitor

    monitor = ScoringMonitor(scoring="accuracy")
    model = wrap(classifier(max_iter=4).set_callbacks(monitor)).set_callbacks(ProgressBar())
    if isinstance(model, NeuralClassifier):
        model.set_callbacks(ProgressBar(), monitor)
    model.fit(*digits)
    log = monitor.get_logs().data_as_pandas
    assert (log["task_name"] == "epoch").sum() == 4 * (5 if isinstance(model, GridSearchCV) else 1)
    fits = log[log["task_name"] == "fit"].set_index("task_id_path")["accuracy"]
    last = log[log["task_name"] == "epoch"].groupby("parent_task_id_path")["accuracy"].last()
    assert fits.to_dict() == last.to_dict() and len(fits) == (5 if isinstance(model, GridSearchCV) else 1)
    assert model.score(*digits) in fits.tolist()
    assert "100%" in capsys.readouterr().out


class Stops:
    """A callback that ends a fit after a number of epochs."""

    def setup(self, estimator, context):
        self.seen = []

    def teardown(self, estimator, context):
        self.seen.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.seen.append(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context, *, X, y, metadata, fitted_estimator):
        self.seen.append(f"end {context.task_name} {fitted_estimator.score(X, y):.1f} {list(metadata)}")
        assert fitted_estimator.module_ is not estimator.module_
        return context.task_id == 1


@needs_callbacks
def test_a_callback_sees_the_tasks_and_can_stop(digits):
    stops = Stops()
    model = classifier().set_callbacks(stops).fit(*digits, sample_weight=np.ones(400))
    assert model.n_iter_ == 2
    assert [s.split()[:2] for s in stops.seen] == [
        ["begin", "fit"], ["begin", "epoch"], ["end", "epoch"], ["begin", "epoch"], ["end", "epoch"], ["end", "fit"], ["teardown"],
    ]  # fmt: skip
    assert stops.seen[2].endswith("['sample_weight']")


# Releases of scikit-learn that have no callbacks


@pytest.fixture
def no_callbacks(monkeypatch):
    """Make estimators as they are without `sklearn.callback`, on any release."""
    monkeypatch.setitem(sys.modules, "sklearn.callback", None)
    for name in [name for name in sys.modules if name.startswith("microfw.estimators")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(mf, "estimators", None)
    return importlib.import_module("microfw.estimators")


def test_estimators_without_callbacks_train_as_with_them(no_callbacks, digits):
    options = {"hidden_layer_sizes": 8, "max_iter": 3, "batch_size": 50, "random_state": 0}
    one = NeuralClassifier(**options).fit(*digits)
    two = no_callbacks.NeuralClassifier(**options).set_callbacks().fit(*digits)
    assert type(one) is not type(two) and one.loss_curve_ == two.loss_curve_
    np.testing.assert_array_equal(one.predict_proba(digits[0]), two.predict_proba(digits[0]))
    profiled = no_callbacks.NeuralClassifier(profile=True, **options).fit(*digits)
    assert profiled.loss_curve_ == one.loss_curve_
    assert [e.loss for e in profiled.profile_.epochs] == one.loss_curve_
    assert [e.steps for e in profiled.profile_.epochs] == [8, 8, 8]
    assert all(e.backward_ns > 0 and e.untagged_backward_ns >= 0 for e in profiled.profile_.epochs)
    assert no_callbacks.NeuralRegressor(8, max_iter=2).fit(*digits).n_iter_ == 2


def test_callbacks_on_an_older_release_name_the_one_they_need(no_callbacks, digits):
    import sklearn

    model = no_callbacks.NeuralClassifier()
    with pytest.raises(ImportError) as info:
        model.set_callbacks(mf.Profiler())
    expected = f"expected scikit-learn 1.9 or newer, which has callbacks, got {sklearn.__version__}"
    fix = 'pip install "scikit-learn>=1.9"'
    assert str(info.value) == f"NeuralClassifier.set_callbacks: {expected}; {fix}"
    before = vars(model).copy()
    model._skl_callbacks = [mf.Profiler()]  # as unpickled from a newer release
    with pytest.raises(ImportError) as info:
        model.fit(*digits)
    assert str(info.value) == f"NeuralClassifier.fit with callbacks: {expected}; {fix}"
    assert vars(model.set_callbacks()) == before  # nothing is left of the fit that failed
    assert model.set_params(max_iter=1).fit(*digits).n_iter_ == 1


@pytest.mark.slow
def test_the_least_release_of_scikit_learn_is_named():
    code = """
import sklearn, sklearn.utils.validation as v
del v.validate_data
sklearn.__version__ = "1.5.2"
import microfw.estimators
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stderr.endswith(
        'ImportError: microfw.estimators: expected scikit-learn 1.6 or newer, got 1.5.2; pip install "scikit-learn>=1.6"\n'
    )
