"""Reports of a session: layers add up to the total, backward against forward, tables on the terminal."""

from __future__ import annotations

from dataclasses import fields

import pytest

import microfw as mf
from microfw import nn
from microfw.errors import ArgumentError
from microfw.profiler import Epoch, FitProfile, Session, fits_report, report
from microfw.profiler.epoch import MAXIMA, merged
from microfw.profiler.reports.first_look import median_epoch
from microfw.profiler.reports.text import duration
from microfw.profiler.row import COUNTS
from tests.helpers.sessions import MODELS, X, Y, profiled

# Attribution


@pytest.mark.parametrize("name", MODELS)
def test_layers_and_the_rest_are_the_total_in_every_epoch(name):
    session = profiled(name)
    for e in (*session.epochs, session.total()):
        for phase in ("forward", "backward"):
            total, key = getattr(e, f"{phase}_ns"), f"{phase}_ns"
            untagged = getattr(e, f"untagged_{phase}_ns")
            assert untagged >= 0
            for rows in (e.layers(), e.ops(), e.rows):
                assert sum(getattr(row, key) for row in rows) + untagged == total > 0
        assert e.sum().rules == e.sum().nodes > 0


@pytest.mark.parametrize("name", ["recurrent", "attention"])
def test_merging_conserves_every_sum(name):
    a, b = profiled(name), profiled(name)
    both = merged([*a.epochs, *b.epochs])
    for f in fields(Epoch):
        if f.type == "int" and f.name not in ("epoch", *MAXIMA):
            assert getattr(both, f.name) == getattr(a.total(), f.name) + getattr(b.total(), f.name)
    for largest in MAXIMA:
        assert getattr(both, largest) == max(getattr(a.total(), largest), getattr(b.total(), largest)) > 0
    for count in COUNTS:
        assert getattr(both.sum(), count) == getattr(a.total().sum(), count) + getattr(b.total().sum(), count)
    assert len(both.rows) == len(a.total().rows)


# Backward against forward


def test_products_take_3f_less_f1_in_every_epoch():
    for name in MODELS:
        session = profiled(name)
        for e in (*session.epochs, session.total()):
            r, total = e.ratio(), e.sum()
            assert (r.forward, r.backward) == (total.flops_forward, total.flops_backward)
            law = 2 * total.products_forward - total.products_first
            if name in ("lstm", "gru"):  # one op is a whole walk through time
                assert r.others == ["recur"] and not r.exact and total.products_backward > law
            elif name == "checkpointed":  # what it runs again, it counts again
                assert r.others == ["linear"] and not r.exact
                assert total.products_backward == law + e.observed * 2 * 16 * (6 * 8 + 8 * 6)
            else:
                assert r.exact and not r.others and total.products_backward == law > 0


def test_f1_is_of_the_ops_whose_data_need_no_gradient():
    per_step = 2 * 16 * 6 * 6
    assert profiled("deep").epochs[0].sum().products_first == 3 * per_step
    # The first layer is frozen and on data, so that neither of its factors needs a gradient.
    assert profiled("frozen").epochs[0].sum().products_first == 3 * (2 * 2 * 16 * 6 * 6 + 2 * 16 * 6 * 3)
    model = nn.Dense(6, 3, rng=0)
    model.weight.requires_grad = False
    with mf.Profiler(model) as profiler:  # data and weight are constants: only the bias is trained
        model(X).sum().backward()
        profiler.end_epoch()
    r = profiler.session.epochs[0].ratio()
    assert r.products_first == 2 * r.products_forward and r.products_backward == 0 and r.exact


def ends_of_epochs(text):
    """Return the last cell of each row of the table of epochs."""
    part = text[text.index("\nEpochs\n") + 1 :].split("\n\n")[0]
    return [line.split()[-1] for line in part.splitlines()[4:]]


def test_each_form_says_what_backward_takes_of_forward_in_every_epoch():
    session = profiled("convolutional")
    r = session.total().ratio()
    text = report(session, full=True)
    assert ends_of_epochs(text) == ["equal"] * 2
    assert f"Predicted for both together: 3F - F1 = {r.predicted:,}," in " ".join(text.split())
    for source in ("Baur & Strassen 1983", "arXiv 2206.01730", "Griewank & Walther 2008", "Seconds may exceed"):
        assert source in text
    marked = session.markdown()
    assert f"{r.operations:.3f} times forward in operations" in marked and "3F - F1 = " in marked
    assert marked.count("| equal |") == 2
    differs = report(profiled("lstm"), full=True)
    assert "not equal because of recur" in " ".join(differs.split())
    assert ends_of_epochs(differs) == ["differ"] * 2


def test_weight_reuse_tells_a_convolution_from_a_dense_layer():
    session = profiled("convolutional")
    rows = {line.split()[0]: line.split() for line in report(session, by="layer").splitlines() if line}
    assert rows["conv"][-2] == str(16 * 2 * 3)  # each weight at each of six places of sixteen images
    assert rows["head"][-1] == "16"
    assert {layer.name: layer.weights for layer in session.layers}["conv"] == 4 * 9


def test_the_largest_step_says_what_is_kept():
    model = MODELS["wide"]()
    with mf.Profiler(model) as profiler:
        for n in (4, 16, 8):
            nn.CrossEntropyLoss()(model(X[:n]), Y[:n]).backward()
        profiler.end_epoch()
    epoch = profiler.session.epochs[0]
    assert epoch.saved_peak_bytes == 16 / (4 + 16 + 8) * epoch.sum().saved_bytes
    assert f"peak {epoch.saved_peak_bytes:,} bytes" in " ".join(profiler.report(full=True).split())


# The terminal


def test_steps_of_the_backward_pass_are_told_from_those_of_training():
    session = profiled("deep")
    assert f"{session.total().counts()[1].steps:,}  " in session.report().split("\nbackward steps ")[1]
    assert "\nbackward steps " in session.report(full=True) and "**backward steps** = " in session.markdown()


def test_tables_by_layer_and_op_sorted_and_cut():
    session = profiled("deep")
    text = report(session, by="layer", sort="flops", max_rows=3)
    lines = text.splitlines()
    assert "Layers, per step (mean of all 2 epochs)" in text
    assert "(11 others)" in text
    assert not any(line.startswith("Ops") for line in lines)
    ops = report(session, by="op")
    assert [line.split()[0] for line in ops.splitlines()[6:8]] == ["linear", "cross_entropy"]
    for by, wrong in (("row", {}), ("layer", {"sort": "speed"}), ("op", {"max_rows": 0})):
        with pytest.raises(ArgumentError, match="report: expected"):
            report(session, by=by, **wrong)


def test_colour_changes_nothing_but_colour():
    import re

    session = profiled("deep")
    coloured = report(session, colour=True)
    assert "\x1b[1m" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == report(session)
    assert re.sub(r"\x1b\[\d+m", "", report(session, full=True, colour=True)) == report(session, full=True)


def test_headings_say_which_epochs_a_table_describes():
    session = profiled("deep")
    html, last = session._repr_html_(), session.epochs[-1]._repr_html_()
    assert "<p><b>microfw profile:</b> " in html and ", 2 epochs, one step: mean of 2 epochs. Untagged: time " in html
    assert last.startswith("<p><b>microfw profile:</b> 1 epoch, one step. Untagged: time outside of ops")
    for text in (html, session.markdown()):
        assert "backward / forward, time" in text and "backward / forward, FLOP" in text
        assert "/forward in FLOP" not in text
    assert f"Median epoch {median_epoch(session).epoch} " in report(session)
    assert "In one step. Untagged: time outside of ops. Reuse: uses of a weight in products." in report(session)


def test_a_small_loss_is_not_printed_as_zero():
    epochs = [Epoch(k, 1, 1, loss=2.43e-20, metrics={"loss": 2.43e-20, "val_a": 0.0}) for k in (1, 2)]
    session = Session(epochs=epochs)
    for text in (session.report(), session.report(full=True), session.markdown()):
        assert "2.43e-20" in text and "0.0000" in text


def test_metrics_of_validation_are_shown_where_the_last_epoch_was_interrupted():
    def epoch(number, **metrics):
        return Epoch(number, steps=4, observed=4, forward_ns=100, backward_ns=100, metrics=metrics)

    session = Session(epochs=[epoch(1, val_loss=0.5, val_accuracy=0.75), epoch(2)])
    texts = [session.report(), session.report(full=True), session.markdown(), session._repr_html_()]
    assert all("val_accuracy" in text and "0.7500" in text for text in texts)
    assert '"metric": "val_loss"' in session.html().replace('"metric":"', '"metric": "')


def test_a_notebook_says_how_many_epochs_it_shows():
    session = Session(epochs=[Epoch(k + 1, steps=4, observed=4, backward_ns=100) for k in range(40)])
    assert "<summary>Epochs, the last 24 of 40</summary>" in session._repr_html_()
    session.epochs = session.epochs[:24]
    assert "<summary>Epochs</summary>" in session._repr_html_()


def test_losses_of_many_fits_have_four_digits():
    losses = 6.04e-18, 6.6e301, 0.25
    fits = [FitProfile("A", place=[k], session=Session(epochs=[Epoch(1, loss=x)])) for k, x in enumerate(losses)]
    assert [line.split()[3] for line in fits_report(fits).splitlines()[5:8]] == ["6.04e-18", "6.6e+301", "0.2500"]


@pytest.mark.parametrize(
    ("ns", "text"),
    [(999_400, "999 µs"), (999_600, "1 ms"), (999_600_000, "1 s"), (1234e9, "1,234 s"), (20_000e9, "20,000 s")],
)
def test_durations_have_the_unit_of_the_rounded_time(ns, text):
    assert duration(ns) == text
