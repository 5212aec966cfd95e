"""An unknown name in microfw, nn or optim: the error gives the name used here."""

from __future__ import annotations

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
        (lambda: nn.qqqqqq, r"there is none here$"),
    ],
)
def test_the_error_gives_the_name_used_here(get, text):
    with pytest.raises(AttributeError, match=text):
        get()


def test_the_table_is_short_and_names_what_there_is():
    assert len(_other_names.THEIRS) <= 40
    names = [name for names in _other_names.THEIRS.values() for name in names.split()]
    assert len(names) == len(set(names))
    for ours in _other_names.THEIRS:
        for path in re.findall(r"\b(?:mf|nn|optim|training|data|estimators)\.[\w.]+\b", ours):
            found = mf
            for part in path.removeprefix("mf.").split("."):
                found = getattr(found, part)


def test_hasattr_getattr_and_import_raise_no_custom_error():
    assert not hasattr(nn, "Linear") and not hasattr(optim, "__wrapped__")
    assert getattr(nn, "Linear", None) is None
    with pytest.raises(ImportError):
        exec("from microfw.nn import Linear")


def test_dunder_lookups_do_not_import_the_table_of_other_names():
    code = "import sys, microfw as mf; hasattr(mf.nn, '__wrapped__'); print('microfw._other_names' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_a_name_is_looked_for_without_importing_rooms():
    code = "import sys, microfw as mf; hasattr(mf, 'Conv2d'); hasattr(mf.nn, 'x'); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()
    assert "microfw._other_names" in modules
    assert not {"microfw.nn.module", "microfw.estimators", "microfw.training.trainer", "sklearn"} & set(modules)


def test_an_observer_with_a_former_name_is_refused():
    with pytest.raises(TypeError, match="^Old: expected on_value_read, got read; it was renamed$"):
        type("Old", (Observer,), {"read": lambda self: None})
    assert type("New", (Observer,), {"on_value_read": lambda self: None, "readable": 1})
