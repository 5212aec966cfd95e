"""An unknown name in microfw, nn or optim: the error gives the name used here."""

from __future__ import annotations

import copy
import re
import subprocess
import sys

import pytest

import microfw as mf
from microfw import _other_names, nn, optim
from microfw.autograd import Observer


@pytest.mark.parametrize(
    ("get", "text"),
    [
        (lambda: nn.Linear, r"'Linear'; here it is nn\.Dense"),
        (lambda: nn.BatchNorm1d, r"here it is nn\.BatchNorm1D"),
        (lambda: nn.Conv3d, r"there is none here; did you mean 'Conv[12]D'\?"),
        (lambda: nn.Densse, r"did you mean 'Dense'\?"),
        (lambda: optim.NAdam, r"there is none here; did you mean 'Adam"),
        (lambda: optim.lr_scheduler, r"here it is optim\.schedules"),
        (lambda: mf.from_numpy, r"here it is mf\.tensor"),
        (lambda: nn.relu, r"here it is nn\.ReLU"),
        (lambda: mf.tanh, r"'tanh'; here it is np\.tanh: NumPy's functions take Tensors$"),
        (lambda: mf.relu, r"'relu'; here it is mf\.ops\.relu$"),
        (lambda: mf.Linear, r"here it is mf\.nn\.Dense"),
        (lambda: optim.StepLR, r"here it is optim\.schedules\.StepDecay"),
        (lambda: optim.schedules.CosineAnnealingLR, r"here it is optim\.schedules\.Cosine"),
        (lambda: mf.training.ModelCheckpoint, r"here it is training\.Checkpoint"),
        (lambda: mf.data.DataLoader, r"here it is data\.batches"),
        (lambda: mf.estimators.MLPClassifier, r"here it is estimators\.NeuralClassifier"),
        (lambda: nn.ConvTranspose2d, r"here it is nn\.ConvTranspose2D$"),
        (lambda: nn.Conv1DTranspose, r"here it is nn\.ConvTranspose1D$"),
        (lambda: nn.MaxPooling1D, r"here it is nn\.MaxPool1D$"),
        (lambda: nn.GlobalAveragePooling1D, r"here it is nn\.GlobalAvgPool1D$"),
        (lambda: nn.AdaptiveAvgPool2d, r"here it is nn\.GlobalAvgPool2D$"),
        (lambda: nn.LayerNormalization, r"here it is nn\.LayerNorm$"),
        (lambda: nn.UpSampling2D, r"here it is nn\.Upsample$"),
        (lambda: nn.CategoricalCrossentropy, r"here it is nn\.CrossEntropyLoss$"),
        (lambda: nn.SGD, r"here it is optim\.SGD$"),
        (lambda: mf.SGD, r"here it is mf\.optim\.SGD$"),
        (lambda: mf.CSVLogger, r"here it is mf\.training\.CSVLogger$"),
        (lambda: optim.clip_grad_norm_, r"here it is optim\.clip_grad_norm$"),
        (lambda: mf.profiler.Way, r"here it is profiler\.StrategyResult$"),
        (lambda: nn.ModuleList, r"here it is a list or dict as an attribute of a Module$"),
        (lambda: mf.exp, r"here it is np\.exp: NumPy's functions take Tensors$"),
        (lambda: mf.cat, r"here it is NumPy itself, as np\.concatenate"),
        (lambda: mf.zeros, r"here it is np\.zeros: "),
        (lambda: nn.SimpleRNN, r"here it is nn\.RNN$"),
        (lambda: optim.StepLR, r"here it is optim\.schedules\.StepDecay$"),
        (lambda: mf.OneCycleLR, r"here it is mf\.optim\.schedules\.OneCycle$"),
        (lambda: nn.swish, r"here it is nn\.SiLU$"),
        (lambda: nn.qqqqqq, r"there is none here$"),
        (lambda: mf.tensor(1.0).view, r"'Tensor' object has no attribute 'view'; here it is t\.reshape$"),
        (lambda: mf.tensor(1.0).exp, r"'exp'; here it is np\.exp: NumPy's functions take Tensors$"),
        (lambda: mf.tensor(1.0).relu, r"'relu'; here it is mf\.ops\.relu$"),
        (lambda: mf.tensor(1.0).mm, r"'mm'; here it is an operator, such as \*, @ or \*\*$"),
        (lambda: nn.Parameter(1.0).requires_grad_, r"'Parameter' object .*; here it is t\.requires_grad, which can"),
        (lambda: nn.ReLU().to("cpu"), r"'ReLU' object .* 'to'; here it is astype for a dtype; there are no devices$"),
        (lambda: nn.Module.apply, r"here it is module\.named_modules, or module\.children$"),
        (
            lambda: nn.ReLU().register_buffer,
            r"here it is an attribute: self\.name = mf\.tensor\(values\) for a buffer$",
        ),
        (lambda: nn.Sequential().fit, r"here it is mf\.Trainer$"),
        (lambda: optim.SGD([nn.Parameter(1.0)], lr=0.1).param_groups, r"'SGD' .*; here it is optimizer\.groups$"),
    ],
)
def test_the_error_gives_the_name_used_here(get, text):
    with pytest.raises(AttributeError, match=text):
        get()


@pytest.mark.parametrize(
    ("assign", "text"),
    [
        (
            lambda: setattr(nn.Dense(2, 2, rng=0), "requires_grad", False),
            r"'Dense' .* to assign; here it is module\.requ",
        ),
        (
            lambda: setattr(nn.Dense(2, 2, rng=0), "trainable", False),
            r"'trainable' to assign; here it is module\.requires_",
        ),
        (lambda: setattr(optim.SGD([nn.Parameter(1.0)], lr=0.1), "learning_rate", 1), r"here it is optimizer\.lr$"),
        (lambda: setattr(optim.SGD([nn.Parameter(1.0)], lr=0.1), "param_groups", []), r"here it is optimizer\.groups$"),
    ],
)
def test_a_name_that_would_have_no_effect_is_not_assigned(assign, text):
    with pytest.raises(AttributeError, match=text):
        assign()


def test_a_module_of_the_users_may_have_a_flag_of_that_name():
    class Layer(nn.Module):
        def __init__(self, trainable):
            self.trainable = trainable
            self.dense = nn.Dense(2, 2, rng=0)

    layer = Layer(False)
    assert copy.deepcopy(layer).trainable is False
    layer.trainable = True
    assert layer.trainable
    del layer.trainable
    assert not hasattr(layer, "trainable")
    with pytest.raises(AttributeError, match=r"'Layer' object .* here it is module\.requires_grad_\(False\)"):
        layer.requires_grad = False


def test_the_table_is_short_and_names_what_there_is():
    assert len(_other_names.THEIRS) <= 42
    names = [name for names in _other_names.THEIRS.values() for name in names.split()]
    assert len(names) == len(set(names))
    for ours in _other_names.THEIRS:
        for path in re.findall(r"\b(?:mf|nn|optim|training|data|estimators)\.[\w.]+\b", ours):
            found = mf
            for part in path.removeprefix("mf.").split("."):
                found = getattr(found, part)


def test_members_for_which_there_are_errors_are_not_there():
    t, model = mf.tensor(1.0), nn.ReLU()
    assert not hasattr(t, "view") and not hasattr(model, "fit") and getattr(model, "to", 3) == 3
    assert not {"view", "exp", "to"} & {*dir(t)} and "fit" not in dir(model) and "forward" in dir(model)
    functions = _other_names.FUNCTIONS.split()
    assert all("; here it is " in _other_names.hint("microfw", name, ()) for name in functions)


def test_members_of_users_have_precedence_over_the_errors():
    class Saved:
        def to(self):
            return "to"

    class Model(nn.Module, Saved):
        half = 0.5

        def __init__(self):
            self.apply = 3

        def fit(self):
            return "fit"

    model = Model()
    assert (model.to(), Model.half, model.apply, model.fit()) == ("to", 0.5, 3, "fit")
    assert {"to", "half", "apply", "fit"} <= {*dir(model)} and "compile" not in dir(model)
    with pytest.raises(AttributeError, match=r"^'Model' object has no attribute 'compile'; here it is mf\.Trainer$"):
        model.compile()


def test_hasattr_getattr_and_import_raise_no_custom_error():
    assert not hasattr(nn, "Linear") and not hasattr(optim, "__wrapped__")
    assert getattr(nn, "Linear", None) is None
    with pytest.raises(ImportError):
        exec("from microfw.nn import Linear")


def test_dunder_lookups_do_not_look_for_other_names():
    code = "import sys, microfw as mf; hasattr(mf.nn, '__wrapped__'); print('microfw.training' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_a_name_is_looked_for_without_importing_rooms():
    code = "import sys, microfw as mf; hasattr(mf, 'Conv2d'); hasattr(mf.nn, 'x'); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()
    assert "microfw._other_names" in modules
    assert not {"microfw.nn.module", "microfw.estimators", "microfw.training.trainer", "sklearn"} & set(modules)


def test_an_observer_with_a_former_name_is_refused():
    for former, name in (("read", "on_value_read"), ("walked", "on_visits"), ("batches", "batches_visits")):
        with pytest.raises(TypeError, match=f"^Old: expected {name}, got {former}; it was renamed$"):
            type("Old", (Observer,), {former: None})
    assert type("New", (Observer,), {"on_value_read": lambda self: None, "readable": 1})
