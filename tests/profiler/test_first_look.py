"""The short report: what it has, and that it fits 30 lines of 80 columns."""

from __future__ import annotations

import pytest

from microfw.cli import main as cli
from microfw.profiler import Epoch, Layer, Row, Session, report
from microfw.profiler.reports.first_look import median_epoch
from tests.helpers.sessions import MODELS, hostile_names, hostile_session, profiled
from tests.profiler.test_profiler import fixed_session


def lines_of(session, **options):
    lines = report(session, **options).splitlines()
    assert len(lines) <= 29 and max(map(len, lines)) <= 80
    return lines


@pytest.mark.parametrize("name", MODELS)
def test_it_fits(name):
    session = profiled(name)
    lines_of(session)
    lines_of(session, epoch=2)
    session.settings = {"name": "breast_cancer"}
    lines_of(session, sort="backward")


def test_it_fits_with_any_names_and_numbers():
    session = hostile_session(hostile_names(50))
    session.epochs[0].metrics = {"val_" + "very_long_name_" * 9: 12345.678}
    for row in session.epochs[0].rows:
        row.forward_ns = row.backward_ns = row.flops_forward = row.nodes = 10**15
    e = session.epochs[0]
    e.forward_ns = e.backward_ns = 10**17
    e.total_ns, e.parameters = 2 * 10**17 + e.update_ns, 10**10
    lines_of(session)


OLDER = """\
microfw profile: toy Sequential, 2 epochs, 20 steps, 330 parameters
Result: loss 0.2500, val_r2 0.7500
Time: 1.4 ms; data 7%, forward 29%, backward 43%, update 10%, not recorded 11%

Backward by epoch  ██  tallest: 300 µs
epoch                            loss  val_r2  forward µs  backward µs
1      first, median, slowest  0.5000  0.7500      200.00       300.00
2      last                    0.2500  0.7500      200.00       300.00

Median epoch 1  parameters  reuse  forward µs  backward µs  of backward
0 Dense                330    155        12.0         20.0   66.7%  ██████▌
1 ReLU                                    3.0          5.0   16.7%  █▌
MSELoss                                   1.0          2.0    6.7%  ▌
untagged                                  4.0          3.0   10.0%  █
total                  330               20.0         30.0  100.0%
In one step. Untagged: time outside of ops. Reuse: uses of a weight in products.
0 Dense takes 67% of backward: give it fewer outputs, or requires_grad_(False).
1 ReLU takes 25% of the time of 0 Dense with 4.4% of its operations: each NumPy
call costs time before its arithmetic begins.

In one step     in tensors  meaning
N                        3  nodes: each op on arrays; not neurons
P                        2  parameters: trainable arrays; not features
backward steps           5  N visits + 2 additions: 1.00 x (N + P)
N x P                    6  at most, if backward ran again for each parameter

Next: session.report(full=True), session.save("run.html"), mf.profiler.law(...)
"""


def test_a_profile_of_an_older_version_has_counts_in_tensors():
    assert report(fixed_session()) + "\n" == OLDER
    assert "In one step **N** = 3, **P** = 2, **N + P** = 5, " in fixed_session().markdown()


def made(backward, **options):
    """Return a session whose epochs take these nanoseconds for backward."""
    rows = [Row("0", "linear", nodes=1, rules=1, forward_ns=10, backward_ns=20, flops_forward=8, flops_backward=16)]
    epochs = [Epoch(k + 1, 1, 1, 1.0, forward_ns=50, backward_ns=ns, rows=rows) for k, ns in enumerate(backward)]
    return Session(epochs=epochs, layers=[Layer("0", "Dense", 6, 6, 4)], **options)


def test_the_epochs_are_bars_and_the_ones_to_know():
    lines = lines_of(made([400_000, 100_000, 800_000, 200_000, 300_000]))
    at = next(k for k, line in enumerate(lines) if line.startswith("Backward by epoch"))
    assert lines[at] == "Backward by epoch  ▄▁█▂▃  tallest: 800 µs"
    assert [line[:20].rstrip() for line in lines[at + 2 : at + 6]] == [
        "1      first", "3      slowest", "5      median, last", "",
    ]  # fmt: skip


def test_the_step_is_one_of_the_median_epoch():
    session = made([100_000, 900_000, 300_000])
    assert median_epoch(session).epoch == 3
    assert any(line.startswith("Median epoch 3 ") for line in lines_of(session))
    session.epochs[2].observed = 3  # a third of the time a step
    assert median_epoch(session).epoch == 1
    assert any(line.startswith("A step of epoch 2 ") for line in lines_of(session, epoch=2))


def test_many_epochs_share_bars():
    lines = lines_of(made([1000] * 99 + [9000]))
    bars = next(line for line in lines if line.startswith("Backward by epoch"))
    assert bars == "Backward by epoch  " + "▃" * 24 + "█  tallest: 3 µs; a bar is 4 epochs"


def test_slow_layers_are_listed_and_the_others_added_up():
    session = profiled("deep")
    for e in session.epochs:
        for k, row in enumerate(e.rows):
            row.forward_ns = row.backward_ns = 1000 * (k in (3, 7)) + 10
        e.forward_ns = e.backward_ns = e.sum().backward_ns + 500
    lines = lines_of(session, max_rows=2)
    at = next(k for k, line in enumerate(lines) if line.startswith("Median epoch 1 "))
    assert [line.split("  ")[0] for line in lines[at + 1 : at + 6]] == [
        "3 Dense",
        "7 Dense",
        "(12 others)",
        "untagged",
        "total",
    ]


def test_the_command_prints_30_lines(capsys):
    assert cli.main(["profile", "digits", "--epochs", "3", "--quiet"]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert len(lines) <= 30 and max(map(len, lines)) <= 80
    assert lines[0] == "digits: 1,347 rows to train on, 32 a step; 450 to test on"
    for words in ("Result: loss ", "val_accuracy 0.9", "2,410", "0 Dense ", "N x P  ", "Next: microfw law digits "):
        assert words in text


def test_small_phases_are_listed_with_the_names_of_the_full_report():
    session = made([400_000, 100_000])
    for e in session.epochs:
        e.update_ns, e.evaluation_ns, e.other_ns, e.total_ns = 20_000, 10_000, 300_000, 1_000_000
    time = " ".join(" ".join(lines_of(session)).split())
    expected = "Time: 2 ms; backward 25%, other 30%, not recorded 42%, and 3% in forward, update, evaluation Backward"
    assert expected in time
    phases = " ".join(report(session, full=True).split("Phases")[1].split())
    assert "other 0.60 30.0%" in phases and "evaluation 0.02 1.0%" in phases


def test_the_layer_that_dominates_backward_is_shown():
    session = made([825_000])
    session.epochs[0].rows = [
        Row(str(k), "linear", nodes=1, forward_ns=99_000, backward_ns=40_000 + k, flops_backward=9) for k in range(20)
    ]
    session.epochs[0].rows[7].forward_ns, session.epochs[0].rows[7].backward_ns = 10, 60_000
    lines = lines_of(session)
    assert any(line.startswith("7 takes ") for line in lines) and any(line.startswith("7  ") for line in lines)
