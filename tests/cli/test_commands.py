"""The command line, run as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from microfw.cli import main as cli
from microfw.profiler import Session
from microfw.profiler.reports.formats import FORMATS
from tests.helpers.sessions import profiled


def call(*arguments, code=0):
    done = subprocess.run([sys.executable, "-m", "microfw", *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_profile_then_report(tmp_path):
    path = tmp_path / "wine.json"
    done = call("profile", "wine", "--epochs", "3", "--hidden", "8,8", "--full", "--json", str(path))
    assert "0: Dense(13 -> 8)" in done.stdout
    assert "Layers, per step (mean of all 3 epochs)" in done.stdout
    assert "untagged" in done.stdout
    assert "BLAS threads: 1." in done.stdout
    assert "test: loss" in done.stdout
    assert "epoch 3/3" in done.stderr  # progress: readable when it goes to a file
    assert "\r" not in done.stderr
    again = call("report", str(path), "--epoch", "2")
    assert "A step of epoch 2 " in again.stdout


def test_report_in_every_format_and_compare(tmp_path, capsys):
    def here(*arguments, code=0):
        assert cli.main(arguments) == code
        return capsys.readouterr().out

    def made(name, hidden):
        path = str(tmp_path / f"{name}.json")
        here("profile", "wine", "--epochs", "2", "--hidden", hidden, "--quiet", "--trace-steps", "2", "--json", path)
        return path

    a, b, c = made("a", "8"), made("b", "8"), made("c", "12")
    files = [f"--{name}={tmp_path / ('a' + made.suffix)}" for name, made in FORMATS.items()]
    assert here("report", a, *files).count("saved to") == len(files)
    assert "\x1b" not in here("report", a)  # not a terminal
    assert "Ops, per step" in here("report", a, "--by", "op", "--sort", "backward", "--top", "1")
    for option in ("--min-change", "--least"):  # the second is its former name
        # no change of a time counts: on a busy machine 24.5 times were seen
        same = here("compare", a, b, option, "1000000%", "--fail-above", "10%")
        assert "Counts per step: N, P, backward steps, operations and bytes agree; updates have no counts." in same
    grown = here("compare", a, c, "--fail-above", "10%", "--markdown", str(tmp_path / "c.md"), code=1)
    assert "FAILED: above 10%: " in grown
    assert "(the whole step) parameters" in grown
    assert "FAILED: above 0.5%: " in here("compare", a, c, "--fail-above", "0.5%", code=1)
    assert (tmp_path / "c.md").read_text().startswith("### Backward cost compared")
    assert "seconds of alternated runs" in here("compare", a, c, "--rerun", "--rounds", "2")
    assert cli.main(["compare", a, c, "--rounds", "2"]) == 2
    assert "--rounds: expected --rerun, which repeats the runs, got none" in capsys.readouterr().err
    foreign = Session.load(a)
    foreign.settings = {}
    foreign.save(b)
    assert cli.main(["compare", a, b, "--rerun"]) == 2
    assert "made by microfw profile, got a run of another script" in capsys.readouterr().err


def test_train_is_quiet_when_asked_and_repeats_itself(capsys):
    runs = []
    for _ in range(2):
        assert cli.main(["train", "diabetes", "--epochs", "2", "--quiet", "--seed", "3"]) == 0
        runs.append(capsys.readouterr().out)
    assert runs[0] == runs[1]
    assert "r2" in runs[0]
    assert "microfw profile" not in runs[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["profile", "digit"], "did you mean 'digits'?"),
        (["train", "iris", "--batch-size", "0"], "batch_size"),
        (["train", "iris", "--lr", "-1"], "lr"),
        (["train", "iris", "--lr", "nan"], "lr"),
        (["train", "iris", "--hidden", "8,-1"], "--hidden: expected positive sizes like 64,32, got '8,-1'"),
        (["train", "iris", "--epochs", "many"], "invalid int value: 'many'"),
        (["train", "iris", "--seed", "-1"], "--seed"),
        (["report", "/nowhere.json"], "No such file"),
        (["frobnicate"], "invalid choice"),
        (["compare", "/nowhere.json", "/nowhere.json"], "No such file"),
        (["compare", "a.json", "b.json", "--fail-above", "much"], "invalid percent value: 'much'"),
        (
            ["profile", "iris", "--quiet", "--epochs", "1", "--json", "a.txt"],
            "--json: expected a name that ends in .json",
        ),
        (["law", "iris", "--json", "a.txt"], "--json: expected a name that ends in .json, got 'a.txt'"),
        (["compare", "a.json", "b.json", "--markdown", "m.txt"], "--markdown: expected a name that ends in .md"),
        ([], "required"),
        (["profile", "iris", "--every", "0"], "every"),
    ],
)
def test_errors_take_one_line_and_code_2(arguments, says, capsys):
    try:
        code = cli.main(arguments)
    except SystemExit as end:  # by argparse
        code = end.code
    shown = capsys.readouterr().err
    assert code == 2
    assert says in shown and len(shown.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("option", "name", "expected"),
    [("--csv", "a.md", ".csv"), ("--plot", "a.csv", ".png, .svg, .pdf"), ("--trace", "a.json", ".trace.json")],
)
def test_an_option_writes_its_own_format_only(option, name, expected, tmp_path, capsys):
    session = profiled("one layer", trace=1)
    session.save(tmp_path / "run.json")
    assert cli.main(["report", str(tmp_path / "run.json"), option, str(tmp_path / name)]) == 2
    assert f"{option}: expected a name that ends in {expected}, got " in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["run.json"]


@pytest.mark.parametrize("option", [["--epoch", "7"], ["--top", "0"], ["--full"], ["--by", "op"], ["--sort", "nodes"]])
@pytest.mark.parametrize("form", ["--csv=a.csv", "--html=a.html", "--markdown=a.md"])
def test_options_of_a_printed_report_are_refused_with_files(option, form, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    profiled("one layer").save("run.json")
    assert cli.main(["report", "run.json", *option, form]) == 2
    shown = capsys.readouterr().err
    assert (
        f"{option[0]}: expected a report to print, got a file of the whole profile, a." in shown
        and len(shown.strip().splitlines()) == 1
    )
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_help_names_commands_and_examples():
    text = call("--help").stdout
    assert "microfw profile digits" in text
    assert "N x P" in text
    assert "digits, iris" in call("profile", "--help").stdout.replace("\n", " ").replace("  ", "")


def test_version():
    assert cli.parser().prog == "microfw"
    assert call("--version").stdout.startswith("microfw 0.")
