"""`microfw law` on the command line, and the tutorial."""

from __future__ import annotations

import json
import runpy

import pytest

from microfw.cli import main as cli
from tests.helpers.paths import ROOT

# The tutorial


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib").use("Agg")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(ROOT / "docs" / "tutorials" / "why_n_plus_p.py"))
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
    assert "N x P is an upper bound" in (tmp_path / "law.html").read_text()
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
        (["--html", "x.txt"], "--html: expected a name that ends in .html"),
        (["--seed", "-1"], "--seed"),
        (["digit"], "did you mean 'digits'?"),
    ],
)
def test_command_line_errors(capsys, arguments, says):
    assert cli.main(["law", *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error and len(error.strip().splitlines()) == 1
