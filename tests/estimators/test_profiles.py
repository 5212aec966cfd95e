"""Profiles of the estimators' fits, and of searches in threads, processes and on a cluster."""

from __future__ import annotations

import contextlib
import gc
import pickle
import subprocess
import sys
import threading
from collections import Counter

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import microfw as mf
from microfw.autograd.mode import MODE, PLAIN
from microfw.errors import NonFiniteError
from microfw.profiler import FitProfile, fits_report
from tests.helpers.estimators import classifier, needs, needs_callbacks, regressor


def test_profile_is_left_on_the_estimator(digits):
    X, y = digits
    model = classifier(profile=True, max_iter=3).fit(X, y)
    session = pickle.loads(pickle.dumps(model)).profile_
    assert [e.steps for e in session.epochs] == [13, 13, 13]
    assert [e.loss for e in session.epochs] == model.loss_curve_
    assert [layer.name for layer in session.layers] == ["Sequential", "0", "1", "2"]
    assert all(e.untagged_backward_ns >= 0 and e.backward_ns > 0 for e in session.epochs)
    plain = classifier(max_iter=3).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), plain.predict_proba(X))
    assert not hasattr(plain, "profile_")


@needs_callbacks
def test_a_profiler_that_is_set_leaves_its_profile(digits):
    profiler = mf.Profiler()
    model = classifier(profile=True, max_iter=2).set_callbacks(profiler).fit(*digits)
    assert model.profile_ is profiler.fits[0].session


@needs_callbacks
def test_a_profiler_follows_a_search_in_two_processes(digits):
    X, y = digits
    profiler = mf.Profiler()
    model = make_pipeline(StandardScaler(), classifier(max_iter=3).set_callbacks(profiler))
    grid = {"neuralclassifier__hidden_layer_sizes": [(4,), (32,)]}
    GridSearchCV(model, grid, cv=2, n_jobs=2).fit(X, y)
    check_fits(profiler, 5)
    text = profiler.report()
    assert "5 fits of NeuralClassifier, 15 epochs" in text and "hidden_layer_sizes=(32,)" in text
    row = profiler.fits[0].rows()[0]
    assert row["epoch"] == 1 and row["backward_s"] > 0 and row["estimator"] == "NeuralClassifier"
    assert all(len(line) <= 100 for line in text.splitlines())


def check_fits(profiler, count):
    assert len(profiler.fits) == count
    assert Counter(fit.parameters["hidden_layer_sizes"] for fit in profiler.fits) >= Counter({"(4,)": 2, "(32,)": 2})
    for fit in profiler.fits:
        assert fit.tasks[0] == "GridSearchCV fit" and fit.tasks[-1] == "NeuralClassifier fit"
        assert [e.epoch for e in fit.session.epochs] == [1, 2, 3]
        assert all(e.backward_ns > 0 and e.untagged_backward_ns >= 0 for e in fit.session.epochs)
    assert len({tuple(fit.place) for fit in profiler.fits}) == count


@needs_callbacks
def test_fits_in_threads_are_profiled_apart(digits):
    profiler = mf.Profiler(every=2)
    search = GridSearchCV(
        classifier(max_iter=3).set_callbacks(profiler), {"hidden_layer_sizes": [(4,), (32,)]}, cv=2, n_jobs=2
    )
    with joblib.parallel_config("threading"):
        search.fit(*digits)
    check_fits(profiler, 5)
    assert {fit.session.every for fit in profiler.fits} == {2}


@needs_callbacks
@pytest.mark.slow
@needs("distributed")
@pytest.mark.filterwarnings("ignore")
def test_a_search_on_two_dask_workers(digits):
    from dask.distributed import Client, LocalCluster

    profiler = mf.Profiler()
    search = GridSearchCV(classifier(max_iter=3).set_callbacks(profiler), {"hidden_layer_sizes": [(4,), (32,)]}, cv=2)
    alone = clone(search).fit(*digits)
    profiler.fits.clear()
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster),
        joblib.parallel_config("dask"),
    ):
        search.fit(*digits)
    check_fits(profiler, 5)
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"])


@needs_callbacks
def test_a_profile_of_a_fit_that_fails_is_kept(diabetes):
    profiler = mf.Profiler()
    model = regressor(max_grad_norm=None, learning_rate=1e3, dtype=np.float32).set_callbacks(profiler)
    with pytest.raises(NonFiniteError):
        model.fit(*diabetes)
    assert len(profiler.fits) == 1 and MODE.get() is PLAIN


@needs_callbacks
def test_a_copy_of_a_profiler_sends_home_while_there_is_one(digits):
    profiler = mf.Profiler()
    model = pickle.loads(pickle.dumps(classifier(max_iter=1).set_callbacks(profiler)))
    model.fit(*digits)
    assert len(profiler.fits) == 1
    del profiler
    gc.collect()
    model.fit(*digits)
    assert len(model._skl_callbacks[0].fits) == 1


def test_who_has_no_key_is_not_let_in():
    from multiprocessing import AuthenticationError
    from multiprocessing.connection import Client

    from microfw.profiler.inbox import opened

    class Owner:
        pass

    owner, taken = Owner(), []
    address = opened(taken.append, owner, "localhost")
    with contextlib.suppress(OSError, EOFError), pytest.raises(AuthenticationError):
        Client(address.place, authkey=b"guess")
    with pytest.raises(AuthenticationError):
        address._replace(key=b"another").send(b"x")
    threads = [threading.Thread(target=address.send, args=(b"%d" % k,)) for k in range(5)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert sorted(taken) == [b"0", b"1", b"2", b"3", b"4"]


def test_report_of_many_fits():
    assert fits_report([]) == "microfw profile: 0 fits, 0 epochs, forward 0.00 ms, backward 0.00 ms"
    profile = mf.profiler.Session(epochs=[mf.profiler.Epoch(k, 3, backward_ns=k * 1000) for k in range(1, 13)])
    fits = [FitProfile("E", ["a"], [k], {"p": str(k % 2)}, profile) for k in range(50)]
    text = fits_report(fits, most=3, epochs=4)
    assert "the 3 dearest of 50" in text and "50 fits of E, 600 epochs" in text
    assert "fit     1     2     3    12" in text and text.count("p=1") == 1
    assert FitProfile.from_bytes(fits[0].to_bytes()) == fits[0]
    assert len(fits[0].rows()) == 12 and fits[0].rows()[0]["p"] == "0"


def test_importing_microfw_leaves_scikit_learn_alone():
    code = (
        "import sys, microfw; assert 'sklearn' not in sys.modules; microfw.estimators; assert 'sklearn' in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
