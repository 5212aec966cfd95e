"""`microfw law` on the command line, and the tutorial."""

from __future__ import annotations

import json
import runpy
import sys

import pytest

from microfw.cli import main as cli
from tests.helpers.paths import ROOT

# The tutorial


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib").use("Agg")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(ROOT / "docs" / "tutorials" / "law_of_your_model.py"))
    out = capsys.readouterr().out
    for line in (
        "N = 4, P = 2, steps = 4 + 3 = 7",
        "N = 5, P = 2, steps = 5 + 4 = 9",
        "n = 9: 511 visits along the paths, 9",
        "the convolution: 4,608 of N = 6,369 nodes, for 40 of P = 690 parameters",
    ):
        assert line in out


# The command line


def test_law_of_digits_on_the_command_line(capsys, tmp_path):
    path = tmp_path / "law.json"
    assert cli.main(["law", "digits", "--hidden", "4", "--json", str(path)]) == 0
    out = capsys.readouterr().out
    assert "microfw law: Dense(64 -> 4), ReLU, Dense(4 -> 10), on 1 row of digits" in out
    assert json.loads(path.read_text())["name"] == "digits"


def test_the_law_is_saved_as_a_page(capsys, tmp_path):
    assert cli.main(["law", "iris", "--hidden", "2", "--budget", "0.2", "--html", str(tmp_path / "law.html")]) == 0
    assert "N × P is an upper bound" in (tmp_path / "law.html").read_text()
    run = ["profile", "iris", "--hidden", "2", "--epochs", "1", "--quiet", "--law"]
    assert cli.main([*run, "--html", str(tmp_path / "run.html")]) == 0
    text = (tmp_path / "run.html").read_text()
    assert '"law":{"title":"Dense(4 -' in text and len(text) < 300_000
    capsys.readouterr()
    assert cli.main(run) == 2
    assert (
        capsys.readouterr().err
        == "microfw profile: --law: expected --html FILE, the page that shows the law, got none\n"
    )


def test_the_default_model_has_one_hidden_layer_of_32(capsys):
    assert cli.main(["law", "iris", "--budget", "0.2"]) == 0
    assert "microfw law: Dense(4 -> 32), ReLU, Dense(32 -> 3), on 1 row" in capsys.readouterr().out


MINE = """
from microfw import nn
from neighbour import width

class Mine(nn.Module):
    def __init__(self):
        self.layer = nn.Dense(4, width, rng=0)

    def forward(self, x):
        return self.layer(x)

def make():
    return Mine(), nn.CrossEntropyLoss(), [[1.0, 2.0, 3.0, 4.0]] * 3, [0, 1, 2]

def broken():
    return 1 / 0

def short():
    return Mine(), nn.CrossEntropyLoss()

def sized(n):
    return make()

def ends():
    raise SystemExit

class Ending(Mine):
    def forward(self, x):
        import sys
        sys.exit(0)

def ending():
    return Ending(), *make()[1:]

def dividing():
    return Mine(), lambda p, t: 1 / 0, *make()[2:]

def wide():
    return Mine(), nn.CrossEntropyLoss(), [[1.0]], [0]
"""


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "neighbour.py").write_text("width = 3\n")
    return tmp_path / "mine.py"


def test_the_law_of_a_model_of_your_own(capsys, mine, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    assert cli.main(["law", f"{mine}:make", "--rows", "2", "--html"]) == 0
    out = capsys.readouterr().out
    assert "Dense(4 -> 3), on 2 rows of" in out and "saved to law.html" in out
    assert "linear in layer Dense" in (tmp_path / "law.html").read_text()
    assert sys.path == path


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("broken", "broken: expected code that runs, got ZeroDivisionError: division by zero (mine.py, line 16)"),
        ("short", "short: expected (model, loss, X, y), got ['Mine', 'CrossEntropyLoss']; return them in this order"),
        (
            "missing",
            "missing: expected a function 'missing' in the file, got make, broken, short, sized, ends, ending, dividing, wide",
        ),
        ("ends", "ends: expected code that runs, got SystemExit (mine.py, line 25)"),
        ("ending", "ending: expected code that runs, got SystemExit: 0 (mine.py, line 30)"),
        ("dividing", "dividing: expected code that runs, got ZeroDivisionError: division by zero (mine.py, line 36)"),
        ("sized", "sized: expected a function without arguments, got sized(n); give each argument a default"),
    ],
)
def test_a_function_that_makes_no_model_is_an_error(capsys, mine, function, says):
    assert cli.main(["law", f"{mine}:{function}"]) == 2
    assert capsys.readouterr().err == f"microfw law: {mine}:{says}\n"


def test_an_exit_writes_nothing_and_is_an_error(capsys, mine, tmp_path):
    assert cli.main(["law", f"{mine}:ends", "--html", str(tmp_path / "law.html")]) == 2
    assert not (tmp_path / "law.html").exists() and capsys.readouterr().err
    assert cli.main(["law", f"{mine}:wide"]) == 2
    assert "ShapeError: layer Dense: expected x of shape (N, 4), got (1, 1)" in capsys.readouterr().err


def test_files_are_written_where_the_command_ran_even_if_the_users_file_changes_the_folder(
    mine, monkeypatch, tmp_path, capsys
):
    (tmp_path / "elsewhere").mkdir()
    mine.write_text(f"import os\nos.chdir({str(tmp_path / 'elsewhere')!r})\n{MINE}")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["law", "mine.py:make", "--json", "law.json", "--html"]) == 0
    assert (tmp_path / "law.json").exists() and (tmp_path / "law.html").exists()
    assert not list((tmp_path / "elsewhere").iterdir())
    assert cli.main(["law", "mine.py:broken"]) == 2
    assert "got ZeroDivisionError: division by zero (mine.py, line 18)" in capsys.readouterr().err


def test_a_file_of_your_own_takes_no_layers(capsys, mine, tmp_path):
    assert cli.main(["law", f"{mine}:make", "--hidden", "3"]) == 2
    assert "expected no --hidden and no --sweep, got one" in capsys.readouterr().err
    (tmp_path / "half.py").write_text("\ndef make(:\n")
    assert cli.main(["law", f"{tmp_path / 'half.py'}:make"]) == 2
    assert capsys.readouterr().err.endswith("got SyntaxError: invalid syntax (half.py, line 2)\n")
    assert cli.main(["law", f"{tmp_path / 'no.py'}:make"]) == 2
    assert "expected a Python file, got No such file or directory" in capsys.readouterr().err


@pytest.mark.slow
def test_a_sweep_on_the_command_line(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    assert cli.main(["law", "--sweep", "depth", "--budget", "0.05", "--plot", str(tmp_path / "depth.png")]) == 0
    assert "over depth of iris" in capsys.readouterr().out
    assert (tmp_path / "depth.png").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--rows", "0"], "rows from 1"),
        (["--budget", "nan"], "a budget of some seconds"),
        (["--plot", "x.png"], "--plot: expected a sweep to draw"),
        (["--sweep", "width", "--rows", "2"], "--sweep: expected no --hidden and no --rows"),
        (["--sweep", "width", "--plot", "x.txt"], "--plot: expected a name that ends in .png"),
        (["--sweep", "width", "--html", "x.html"], "--html: expected one model, got a sweep"),
        (["--plot", ""], "--plot: expected a sweep to draw"),
        (["--sweep", "width", "--plot", ""], "--plot: expected a name that ends in .png"),
        (["--sweep", "batch", "linnerud"], "--sweep batch: expected a dataset of at least 96 rows, got linnerud"),
        (["mine.py"], "got 'mine.py'; for a model of yours: mine.py:make"),
        (["mine:make"], "got 'mine:make'; for a model of yours: mine.py:make"),
        (["--html", "x.txt"], "--html: expected a name that ends in .html"),
        (["--seed", "-1"], "--seed"),
        (["digit"], "did you mean 'digits'?"),
    ],
)
def test_command_line_errors(capsys, arguments, says):
    assert cli.main(["law", *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error and len(error.strip().splitlines()) == 1
