"""Profiles of the estimators' fits, and of searches in threads, processes and on a cluster."""

from __future__ import annotations

import copy
import os
import pickle
import re
import signal
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import microfw as mf
from microfw.autograd.mode import MODE, PLAIN
from microfw.errors import ArgumentError, FileError, NonFiniteError
from microfw.profiler import FitProfile, fits_report, load_fits
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
    model.set_params(profile=False).fit(X, y)
    assert not hasattr(model, "profile_")


@pytest.mark.parametrize("own", [{"profile": True}, pytest.param({}, marks=needs_callbacks)])
def test_a_profile_has_the_settings_of_the_optimizer(own, digits):
    profiler = mf.Profiler()
    model = classifier(max_iter=1, optimizer__weight_decay=0.1, **own)
    (model if own else model.set_callbacks(profiler)).fit(*digits)
    assert len(model.profile_.epochs) == 1
    assert [fit.parameters["optimizer__weight_decay"] for fit in profiler.fits] == [] if own else ["0.1"]


@needs_callbacks
def test_a_profiler_that_is_set_leaves_its_profile(digits):
    profiler = mf.Profiler()
    model = classifier(profile=True, max_iter=2).set_callbacks(profiler).fit(*digits)
    assert model.profile_ is profiler.fits[0].session
    assert "1 fit of NeuralClassifier, 2 epochs" in profiler._repr_html_()
    with pytest.raises(
        mf.errors.ArgumentError, match=r"got 1 fits of estimators; call profiler.fits\[0\].session.save"
    ):
        profiler.save("never.json")
    model.set_params(profile=False).fit(*digits)
    assert [fit.session for fit in profiler.fits][1:] == [model.profile_]


@pytest.mark.slow
@needs_callbacks
def test_a_search_in_two_processes_leaves_its_profiles_in_a_folder(digits, tmp_path):
    X, y = digits
    profiler = mf.Profiler(folder=tmp_path / "new" / "folder")
    model = make_pipeline(StandardScaler(), classifier(max_iter=3).set_callbacks(profiler))
    grid = {"neuralclassifier__hidden_layer_sizes": [(4,), (32,)]}
    GridSearchCV(model, grid, cv=2, n_jobs=2).fit(X, y)
    check_fits(profiler, 5)
    text = profiler.report()
    assert "5 fits of NeuralClassifier, 15 epochs" in text and "hidden_layer_sizes=(32,)" in text
    row = profiler.fits[0].rows()[0]
    assert row["epoch"] == 1 and row["backward_s"] > 0 and row["estimator"] == "NeuralClassifier"
    assert all(len(line) <= 100 for line in text.splitlines())
    assert load_fits(profiler.folder) == profiler.fits and profiler.fits[0] is profiler.fits[0]
    assert [fit.session.epochs[0].steps for fit in profiler.fits] == [7, 7, 7, 7, 13]  # the last fit is of all rows
    names = [path.name.split("-") for path in Path(profiler.folder).iterdir()]
    assert len(names) == 5 and {name[-3] for name in names} > {str(os.getpid())}  # written by two processes


def check_fits(profiler, count):
    assert len(profiler.fits) == count
    assert Counter(fit.parameters["hidden_layer_sizes"] for fit in profiler.fits) >= Counter({"(4,)": 2, "(32,)": 2})
    for fit in profiler.fits:
        assert fit.tasks[0] == "GridSearchCV fit" and fit.tasks[-1] == "NeuralClassifier fit"
        assert [e.epoch for e in fit.session.epochs] == [1, 2, 3]
        assert all(e.backward_ns > 0 and e.untagged_backward_ns >= 0 for e in fit.session.epochs)
    assert len({tuple(fit.place) for fit in profiler.fits}) == count


@needs_callbacks
@pytest.mark.parametrize("own", [False, True])
def test_ctrl_c_after_the_training_keeps_the_profile(own, digits, monkeypatch, measured_overhead):
    profiler = mf.Profiler()
    model = classifier(profile=own, max_iter=1)
    (model if own else model.set_callbacks(profiler)).fit(*digits)
    with monkeypatch.context() as patch:
        patch.setattr("microfw.profiler.profiler.overhead", lambda *args: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            model.set_params(max_iter=2).fit(*digits)
    assert model.n_iter_ == 2 and len(model.profile_.epochs) == 2 and model.profile_.overhead == {}
    assert [len(fit.session.epochs) for fit in profiler.fits] == ([] if own else [1, 2])


def test_an_interrupted_fit_has_no_profile_of_an_earlier_one(digits):
    class Stop(mf.training.Hook):
        def on_epoch_start(self, state):
            if state.epoch == 2:
                raise KeyboardInterrupt

    model = classifier(profile=True, max_iter=1).fit(*digits)
    with pytest.raises(KeyboardInterrupt):
        model.set_params(profile=False, max_iter=3, hooks=[Stop()]).fit(*digits)
    assert model.n_iter_ == 1 and not hasattr(model, "profile_")


@needs_callbacks
@pytest.mark.parametrize("folder", [False, True])
def test_fits_in_threads_are_profiled_apart(digits, folder, tmp_path):
    profiler = mf.Profiler(every=2, folder=tmp_path if folder else None)
    search = GridSearchCV(
        classifier(max_iter=3).set_callbacks(profiler), {"hidden_layer_sizes": [(4,), (32,)]}, cv=2, n_jobs=2
    )
    with joblib.parallel_config("threading"):
        search.fit(*digits)
    check_fits(profiler, 5)
    assert {fit.session.every for fit in profiler.fits} == {2}
    assert load_fits(tmp_path) == (profiler.fits if folder else [])


@needs_callbacks
@pytest.mark.slow
@needs("distributed")
@pytest.mark.filterwarnings("ignore")
def test_a_search_on_two_dask_workers(digits, tmp_path):
    from dask.distributed import Client, LocalCluster

    profiler, grid = mf.Profiler(folder=tmp_path), {"hidden_layer_sizes": [(4,), (32,)]}
    search = GridSearchCV(classifier(max_iter=3).set_callbacks(profiler), grid, cv=2)
    alone = GridSearchCV(classifier(max_iter=3), grid, cv=2).fit(*digits)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster),
        joblib.parallel_config("dask"),
    ):
        search.fit(*digits)
    check_fits(profiler, 5)
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"])


@needs_callbacks
def test_a_profile_of_a_fit_that_fails_is_kept(diabetes, tmp_path):
    profiler = mf.Profiler(folder=tmp_path)
    first = regressor(max_grad_norm=None, learning_rate=1e3, dtype=np.float32).set_callbacks(profiler)
    for model in (first, pickle.loads(pickle.dumps(first))):
        with pytest.raises(NonFiniteError):
            model.fit(*diabetes)
        assert not hasattr(model, "profile_") and MODE.get() is PLAIN
    assert len(profiler.fits) == 2 and load_fits(tmp_path) == profiler.fits


@pytest.mark.slow
@needs_callbacks
def test_a_fit_in_another_process_warns_once_if_there_is_no_folder(digits):
    def fit_twice(model):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.fit(*digits).fit(*digits)
        return [str(warning.message) for warning in caught], model

    profiler = mf.Profiler()
    model = classifier(max_iter=1).set_callbacks(profiler)
    for texts, fitted in joblib.Parallel(n_jobs=2)([joblib.delayed(fit_twice)(model)] * 2):
        assert texts == [
            'Profiler: expected folder="profiles" for fits in other processes, got none. '
            "The profile stays in this process: in profile_ of the estimator."
        ]
        assert len(fitted.profile_.epochs) == 1
    assert profiler.fits == [] and fit_twice(model)[0] == [] and len(profiler.fits) == 2


@needs_callbacks
def test_a_folder_of_two_profilers(digits, tmp_path):
    first, second = mf.Profiler(folder=tmp_path, every=2, name="first"), mf.Profiler(folder=str(tmp_path))
    model = classifier(max_iter=1).set_callbacks(first).fit(*digits)
    pickle.loads(pickle.dumps(model)).fit(*digits)
    model.set_callbacks(second).fit(*digits)
    assert [fit.session.every for fit in load_fits(tmp_path)] == [2, 2, 1]
    assert [fit.session.name for fit in first.fits] == ["first", "first"]
    assert [fit.session for fit in second.fits] == [model.profile_]
    assert copy.deepcopy(second).fits == second.fits and mf.Profiler(folder=tmp_path).fits == []


BAD_PROFILES = {
    "cut": b'{"estimator": "E", "pla', "binary": b"\xff\0\x1b[31m", "empty": b"", "a list": b"[]", "no session": b"{}",
    "deep": b"[" * 100_000, "place": b'{"place": ["a"]}', "tasks": b'{"tasks": [1]}', "settings": b'{"parameters": {"a": 1}}',
    "other key": b'{"__class__": 1}', "session": b'{"session": {"epochs": 1}}', "number": b'{"place": [%s]}' % (b"9" * 5000),
}  # fmt: skip


@pytest.mark.parametrize("content", BAD_PROFILES.values(), ids=BAD_PROFILES)
def test_a_file_that_is_no_profile_is_skipped_with_a_warning(content, tmp_path):
    (tmp_path / "2.json").write_bytes(FitProfile("E").to_bytes())
    (tmp_path / ".hidden").write_bytes(content)
    (tmp_path / "1\x1b.json").write_bytes(content)
    with pytest.warns(UserWarning, match="expected the profile of a fit") as caught:
        assert load_fits(tmp_path) == [FitProfile("E")]
    (text,) = [str(warning.message) for warning in caught]
    assert text.startswith(rf"{tmp_path}{os.sep}1\x1b.json: expected the profile of a fit, got ")
    assert text.endswith("; the file is skipped") and text.isprintable() and len(text) < 400


def test_a_folder_or_a_pipe_among_profiles_is_skipped_with_a_warning(tmp_path):
    (tmp_path / "folder").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
    with pytest.warns(UserWarning, match="got no regular file; the file is skipped") as caught:
        assert load_fits(tmp_path) == []
    assert len(caught) == len(list(tmp_path.iterdir()))


@needs_callbacks
def test_a_damaged_profile_of_a_search_is_named(digits, tmp_path):
    profiler = mf.Profiler(folder=tmp_path)
    model = pickle.loads(pickle.dumps(classifier(max_iter=1).set_callbacks(profiler)))
    model.fit(*digits).fit(*digits)
    path = min(tmp_path.iterdir())
    path.write_bytes(path.read_bytes()[:100])
    with pytest.warns(UserWarning, match=re.escape(str(path))):
        assert [fit.session for fit in profiler.fits] == [model.profile_]


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("")
    for folder in (file, file / "profiles"):
        with pytest.raises(OSError, match=re.escape(str(folder))):
            mf.Profiler(folder=folder)
    for folder in (3, "", "a\0b"):
        with pytest.raises(ArgumentError, match="Profiler: expected the path of a f"):
            mf.Profiler(folder=folder)
        with pytest.raises(ArgumentError, match="load_fits: expected the path of a f"):
            load_fits(folder)
    with pytest.raises(FileNotFoundError, match="missing"):
        load_fits(tmp_path / "missing")
    monkeypatch.setattr(os, "access", lambda *arguments: False)
    with pytest.raises(FileError, match="expected a folder that can be written to, got one that is read-only"):
        mf.Profiler(folder=tmp_path)


@needs_callbacks
def test_a_profile_that_cannot_be_written_stays_on_the_estimator(digits, tmp_path):
    profiler = mf.Profiler(folder=tmp_path / "gone")
    model = classifier(max_iter=1).set_callbacks(profiler)
    os.rmdir(profiler.folder)
    with pytest.warns(UserWarning, match="expected a folder that can be written to.* in profile_ of the estimator"):
        model.fit(*digits)
    os.mkdir(profiler.folder)
    assert [fit.session for fit in profiler.fits] == [model.profile_] and load_fits(profiler.folder) == []


def test_host_of_a_profiler_names_the_folder():
    with pytest.raises(AttributeError, match=r"Profiler.host was removed; pass Profiler\(folder=...\)"):
        mf.Profiler().host = "login-node"


def test_report_of_many_fits():
    assert fits_report([]) == "microfw profile: 0 fits, 0 epochs, forward 0.00 ms, backward 0.00 ms"
    profile = mf.profiler.Session(epochs=[mf.profiler.Epoch(k, 3, backward_ns=k * 1000) for k in range(1, 13)])
    fits = [FitProfile("E", ["a"], [k], {"p": str(k % 2)}, profile) for k in range(50)]
    text = fits_report(fits, max_rows=3, epochs=4)
    assert "the 3 dearest of 50" in text and "50 fits of E, 600 epochs" in text
    assert "fit     1     2     3    12" in text and text.count("p=1") == 1
    assert FitProfile.from_bytes(fits[0].to_bytes()) == fits[0]
    assert len(fits[0].rows()) == 12 and fits[0].rows()[0]["p"] == "0"


def test_importing_microfw_leaves_scikit_learn_alone():
    code = (
        "import sys, microfw; assert 'sklearn' not in sys.modules; microfw.estimators; assert 'sklearn' in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
