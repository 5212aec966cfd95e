"""What a reader is shown runs: the examples, the tutorial's and the guide's code, and the README's script."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys

import pytest

import microfw as mf
from tests.helpers.paths import ROOT

DOCS = ROOT / "docs"
SECONDS = 30  # most time of a core for one example; the slowest takes about 16
NO_CALLBACKS = importlib.util.find_spec("sklearn.callback") is None  # before scikit-learn 1.9

EXAMPLES = {  # example: lines of its output
    "plot_01_classify_digits.py": [r"test accuracy: 9\d\.\d%", r"microfw profile: Sequential, 10 epochs", r"N +153,632  nodes"],
    "plot_02_regress_diabetes.py": [r"test R²: 0\.[3-6]\d+", r"mean absolute error: [34]\d\.\d units"],
    "plot_03_moons_boundary.py": [r"hidden layers of 32 and 16: test accuracy 9\d\.\d%"],
    "plot_04_custom_layer_and_op.py": [r"check_op of swish: ok", r"gradcheck of swish: ok", r"check_op: swish_wrong: derivatives: gradcheck: argument 0: expected the backward", r"1\.body\.1 Swish +1 +1 "],
    "plot_05_profile_your_own_loop.py": [r"between nodes +\d+\.\d%", r"freezing a layer lowered P, the steps and the backward FLOP", r"layer 0 frozen +2 +\d+,\d+ +330 "],
    "plot_06_convolutional_digits.py": [r"test accuracy: (98\.[5-9]|99\.\d|100\.0)%", r"3 Conv2D +1 +4,640 ", r"a convolution's weight costs 16 times a dense layer's"],
    "plot_07_characters.py": [r"epoch  8: loss 0\.\d+", r"monday\. the ", r"known words: (8\d|9\d|100)%", r"memory LSTM +6 +20,736 "],
    "plot_08_newton_logistic.py": [r"Hessian by hand: relative difference \de-1[4-7]", r"Newton: (8|9|10|11) steps, gradient \de-1\d", r"largest coefficient 1\.\d+, largest difference from scikit-learn (0|\de-(1\d|09|08))", r"the first step by \d+ products: relative difference \de-(09|1\d)"],
    "plot_10_schedules_and_stopping.py": [r"range test: the loss falls fastest at a rate of 0\.\d+", r"one cycle: val_loss 0\.\d+ .*", r"stopped after \d+ of 200 epochs, best at \d+", r"test accuracy with the best weights: 9\d\.\d%"],
    "plot_11_resume.py": [r"the process was ended by SIGKILL", r"weights equal bit for bit: True", r"losses equal bit for bit: True", r"test accuracy of the loaded model: 9\d\.\d%", r"(PyTorch|NumPy) read 8 arrays", r"the same numbers: True", r"microfw\.json "],
    "plot_09_draw_the_graph.py": [r"    2 linear \(32, 10\)  +<- 3, weight", r"each op is visited before", r"draw: .* call mf.draw\(loss\) before loss.backward"],
    "plot_12_tabular_pipeline_search.py": [r"F1 0\.[78]\d+  dropout=0.2, hidden_layer_sizes=\(16,\)", r"test F1: 0\.[78]\d+", r"microfw profile: 19 fits of NeuralClassifier", r"0\.1\.1 ", r" *\(64, 64\): +\d+\.\d µs"],
    "plot_13_sequences_of_any_length.py": [r"'seven', 'three hundred seventy-seven': 5 and 27 characters", r"epoch 10: loss 0\.0\d+", r"int64 \(50, 27\), int64 \(50,\), int64 \(50, 3\): replayed", r"new numbers read: (9[5-9]|100)%"],
    "plot_16_weights_from_pytorch.py": [r"import_torch: expected PyTorch's names .* missing \['head\.weight', 'head\.bias'\]", r"test accuracy: 95\.8%", r"digits with a loop: (89|9\d)\.\d% right"],
    "plot_14_two_inputs_two_heads.py": [r"loss 0\.\d+ = digit 0\.\d+ \+ ink 0\.\d+", r"test accuracy of the digits: 9\d\.\d%", r"\{'digit': \(450, 10\), 'ink': \(450, 1\)\}"],
    "plot_15_larger_than_memory.py": [r"accuracy: 9\d\.\d%", r"most memory of arrays: [12]?\d MB", r"the same weights, bit for bit: True"],
}  # fmt: skip


def run(*arguments, **options):
    """Run Python as a reader would, in a process of its own that finds this checkout."""
    environment = os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", timeout=100, **options)


def test_every_example_is_run():
    assert sorted(path.name for path in (ROOT / "examples").glob("*.py")) == sorted(EXAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name, tmp_path):
    before = os.times()
    done = run(str(ROOT / "examples" / name), cwd=tmp_path)
    after = os.times()
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    if NO_CALLBACKS and "set_callbacks" in (ROOT / "examples" / name).read_text(encoding="utf-8"):
        assert 'pip install "scikit-learn>=1.9"' in done.stderr
        pytest.skip("needs scikit-learn 1.9")
    assert done.returncode == 0, done.stderr
    for line in EXAMPLES[name]:
        assert re.search(rf"^{line}", done.stdout, re.M), done.stdout
    draws = "matplotlib" in (ROOT / "examples" / name).read_text(encoding="utf-8")
    if draws and importlib.util.find_spec("matplotlib") is None:
        assert 'pip install ".[plot]"' in done.stdout
    assert seconds < SECONDS
    assert not list(tmp_path.iterdir()), "an example leaves no files behind"


@pytest.mark.slow
def test_example_without_matplotlib(tmp_path):
    (tmp_path / "matplotlib").mkdir()
    (tmp_path / "matplotlib" / "__init__.py").write_text("raise ImportError('not installed')")
    code = "import runpy, sys; sys.path.insert(0, sys.argv[1]); runpy.run_path(sys.argv[2], run_name='__main__')"
    done = run("-c", code, str(tmp_path), str(ROOT / "examples" / "plot_03_moons_boundary.py"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith('No figure: it needs Matplotlib, pip install ".[plot]"\n')


@pytest.mark.slow
def test_tutorial(tmp_path):
    pytest.importorskip("matplotlib")
    done = run(str(DOCS / "tutorials" / "train_and_read_the_backward_cost.py"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "neurons 1, features 3, N 7, P 4" in done.stdout
    assert "40 doublings: 1,099,511,627,776 paths, 40 rules called" in done.stdout


@pytest.mark.slow
def test_tutorial_on_searches(tmp_path):
    done = run(str(DOCS / "tutorials" / "search_on_a_cluster.py"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "microfw profile: 19 fits of NeuralClassifier, 152 epochs" in done.stdout
    missing = importlib.util.find_spec("distributed") is None
    assert ("the cluster needs Dask" in done.stdout) == missing


@pytest.mark.slow
def test_pages_show_what_their_code_prints():
    code = "import sys; sys.path.insert(0, sys.argv[1]); import doctests; doctests.check(*sys.argv[2:])"
    pages = [*DOCS.glob("*.md"), *DOCS.glob("guide/*.md")]
    if NO_CALLBACKS:
        pages = [page for page in pages if "set_callbacks" not in page.read_text(encoding="utf-8")]
    done = run("-c", code, str(DOCS), *map(str, pages))
    assert len(pages) > 3
    assert done.returncode == 0, done.stderr


def fences(language):
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)


def counted(text):
    """Return the lines of a report with N, P and steps."""
    return [line for line in text.splitlines() if re.match(r"(N|P|backward steps|N x P|operations) +[\d,]+  ", line)]


def test_readme_script():
    (code,), (shown,) = fences("python"), fences("text")
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    assert len(counted(shown)) == 5
    assert counted(done.stdout) == counted(shown)


def test_readme_shows_what_the_main_command_prints():
    done = run("-m", "microfw", "profile", "digits", "--quiet")
    assert done.returncode == 0, done.stderr
    (shown,) = fences("text")
    lines, printed = shown.splitlines(), done.stdout.splitlines()
    assert len(lines) <= 30 and max(map(len, lines)) <= 80
    assert (lines[:2], lines[-1]) == (printed[:2], printed[-1])
    assert counted(shown) == counted(done.stdout)
    starts = (
        "Result",
        "Time",
        "Backward by epoch",
        "Median epoch",
        "0 Dense",
        "Cross",  # where a busy machine takes long times, the name is shortened
        "untagged",
        "total",
    )
    for start in starts:
        assert any(line.startswith(start) for line in lines) and any(line.startswith(start) for line in printed)


def test_readme_links_to_files():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert len(targets) > 8
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_readme_picture_is_what_draw_makes(tmp_path):
    train, _ = mf.data.load("digits", test_size=0.25, rng=0)
    model = mf.nn.Sequential(mf.nn.Dense(64, 32, rng=0), mf.nn.ReLU(), mf.nn.Dense(32, 10, rng=1))
    loss = mf.nn.CrossEntropyLoss()(model(train.X[:32]), train.y[:32])
    mf.draw(loss, model, direction="LR").save(tmp_path / "step.svg")
    assert (tmp_path / "step.svg").read_text() == (DOCS / "_static" / "step.svg").read_text()


def test_readme_names_every_part():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    parts = [p for p in (ROOT / "microfw").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()]
    named = [f"`{p.name}`" if p.suffix else f"`{p.name}/`" for p in parts if not p.name.startswith("__")]
    assert [name for name in named if name not in text] == []


@pytest.mark.parametrize(("page", "room"), [("index", mf), ("optim", mf.optim), ("training", mf.training), ("profiler", mf.profiler), ("estimators", mf.estimators), ("index", mf.data), ("index", mf.errors)])  # fmt: skip
def test_reference_lists_every_public_name(page, room):
    text = (DOCS / "api" / f"{page}.md").read_text(encoding="utf-8")
    public = getattr(
        room,
        "__all__",
        [
            name
            for name, value in vars(room).items()
            if getattr(value, "__module__", "") == room.__name__ and isinstance(value, type)
        ],
    )
    names = [name for name in public if not hasattr(getattr(room, name), "__path__")]
    if page == "optim":  # docs/conf.py lists the optimizers
        kinds = {name for name in names if isinstance(getattr(room, name), type)}
        names = [name for name in names if name not in kinds or not issubclass(getattr(room, name), room.Optimizer)]
    missing = [name for name in names if not re.search(rf"\b{name}\b", text)]
    assert missing == []
