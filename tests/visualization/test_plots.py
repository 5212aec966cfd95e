"""All plots follow one convention: axes in, axes out, all of them labelled, the legend outside of the data."""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pytest

import microfw as mf
from microfw.errors import ArgumentError
from microfw.profiler import Epoch, Layer, Row, Session, compare, sweep
from microfw.training import History, RangeTest, plot_histories
from microfw.visualization.plots import PALETTE

matplotlib = pytest.importorskip("matplotlib")
from matplotlib.figure import Figure  # noqa: E402

HOSTILE = ["$x$", "_a", "x" * 200, "a\nb", "$\\frac", "%s{0}", "\\"]
X, Y = np.random.default_rng(0).normal(size=(3, 4)), np.arange(3) % 2


def history(epochs=12, seed=0, **more):
    noise = np.random.default_rng(seed).normal(0, 0.05, (epochs, 2))
    rows = [{"epoch": k, "loss": 1 / k + a, "val_loss": 1 / k + b} for k, (a, b) in enumerate(noise, 1)]
    return History(row | {"accuracy": 0.5, "val_accuracy": 0.4, "lr": 0.1} | more for row in rows)


def session(epochs=4, names=("0", "1", "CrossEntropyLoss"), **settings):
    names, rng = list(names), np.random.default_rng(len(names))
    kept = []
    for k in range(1, epochs + 1):
        rows = [Row(n, "linear", nodes=1, forward_ns=f, backward_ns=f + 9) for n, f in zip(names, rng.integers(9000, 99999, len(names)).tolist(), strict=True)]  # fmt: skip
        forward, backward = (sum(getattr(row, f"{phase}_ns") for row in rows) for phase in ("forward", "backward"))
        kept.append(Epoch(k, 1, 1, 0.5, {}, 3, 1, forward, backward, 9, 9, 9, forward + backward + 27, rows))
    return Session(model="Net", layers=[Layer(name, "Dense") for name in names[:-1]], epochs=kept, **settings)


def compared(**settings):
    return compare(session(**settings), session(**settings))


@pytest.fixture(scope="module")
def results():
    model = mf.nn.Sequential(mf.nn.Dense(4, 2, rng=0))
    law = mf.profiler.law(model, mf.nn.CrossEntropyLoss(), X, Y, budget=0.01)
    return {"law": law, "sweep": sweep("$x$", X, Y, values=(1, 2, 3), build=small, budget=0.01)}


def small(units):
    return mf.nn.Sequential(mf.nn.Dense(4, 2 * units, rng=0), mf.nn.Dense(2 * units, 2, rng=1))


MANY = [f"body.{k}" for k in range(60)]
PLOTS = {  # name: number of panels, and the plot
    "history": (1, lambda _, axes: history().plot(axes=axes)),
    "history of one epoch": (1, lambda _, axes: history(1).plot(axes=axes)),
    "history with a label": (1, lambda _, axes: history().plot("loss", axes=axes, label="x" * 200)),
    "hostile entries": (4, lambda _, axes: history(3, **dict.fromkeys(HOSTILE, 1.0)).plot(*HOSTILE[:4], axes=axes)),
    "quantities": (3, lambda _, axes: history().plot("loss", "val_loss", "accuracy", "val_accuracy", "lr", axes=axes)),
    "histories": (1, lambda _, axes: plot_histories([history(9, k) for k in range(3)], axes=axes, label="_a")),
    "histories of one epoch": (1, lambda _, axes: plot_histories([history(1, k) for k in range(3)], axes=axes)),
    "session": (2, lambda _, axes: session().plot(axes=axes)),
    "session of one epoch": (2, lambda _, axes: session(1).plot(axes=axes)),
    "session of 60 layers": (2, lambda _, axes: session(2, MANY).plot(axes=axes)),
    "session of hostile names": (2, lambda _, axes: session(2, HOSTILE).plot(axes=axes)),
    "sampled session": (2, lambda _, axes: session(every=16).plot(axes=axes)),
    "comparison": (1, lambda _, axes: compared().plot(axes=axes)),
    "comparison of one epoch": (1, lambda _, axes: compared(epochs=1).plot(axes=axes)),
    "comparison of 60 layers": (1, lambda _, axes: compared(names=MANY).plot(axes=axes)),
    "comparison of hostile names": (1, lambda _, axes: compared(names=HOSTILE, name="$x$\n").plot(axes=axes)),
    "range test": (1, lambda _, axes: RangeTest([0.01, 0.1, 1.0], [2.0, 1.0, 3.0], 0.1).plot(axes=axes)),
    "range test at its edge": (1, lambda _, axes: RangeTest([0.01, 0.1], [2.0, 3.0], 0.01).plot(axes=axes)),
    "law": (2, lambda results, axes: results["law"].plot(axes=axes)),
    "sweep": (1, lambda results, axes: results["sweep"].plot(axes=axes)),
}  # fmt: skip


def check(panels):
    figure = panels[0].figure
    figure.draw_without_rendering()
    renderer = figure._get_renderer()
    for axes in panels:
        assert axes.get_title() and axes.get_xlabel() and axes.get_ylabel()
        assert axes.lines or axes.patches or axes.collections
        texts = [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.get_yticklabels()]
        legend = axes.get_legend()
        assert legend is not None or axes.get_xlabel() == "time, s"
        if legend is not None:
            box = legend.get_window_extent(renderer)
            title = axes.title.get_window_extent(renderer)
            assert not any(box.overlaps(other.bbox) for other in panels)
            assert not box.overlaps(title)
            texts += legend.get_texts()
        data = [text for text in texts if text.get_text().strip() and not text.get_text().startswith("$\\mathdefault")]
        assert not any(text.get_parse_math() and "$x" in text.get_text() for text in data)
        assert all(len(text.get_text()) < 90 and "\0" not in text.get_text() for text in data)
        ends, box = figure.bbox.padded(1), axes.get_tightbbox(renderer)
        assert ends.x0 <= box.x0 and ends.y0 <= box.y0 and box.y1 <= ends.y1  # nothing is cut off
        assert box.x1 <= ends.x1 or len(axes.get_title()) > 40


@pytest.fixture
def pyplot():
    found = pytest.importorskip("matplotlib.pyplot")
    found.switch_backend("agg")
    yield found
    found.close("all")


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_labelled_and_leaves_no_figure_open(results, monkeypatch, pyplot, name):
    n, plot = PLOTS[name]
    axes = Figure((6.4 if n == 1 else 5 * n, 4.8)).subplots(1, n)  # as of plt.subplots()
    found = plot(results, axes)
    assert isinstance(found, np.ndarray) == (n > 1)
    assert list(np.ravel(found)) == list(np.ravel(axes))
    check(list(np.ravel(found)))
    assert len(np.ravel(plot(results, None))) == n
    assert pyplot.get_fignums() == []
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot")
    panels = list(np.ravel(plot(results, None)))
    check(panels)
    assert len(panels) == n and "matplotlib.pyplot" not in sys.modules


def test_a_figure_belongs_to_pyplot_where_it_shows_and_closes_figures(results, monkeypatch, pyplot, tmp_path):
    monkeypatch.setattr(pyplot, "get_backend", lambda: "module://matplotlib_inline.backend_inline")
    for plot in (history().plot, session().plot, results["sweep"].plot):
        figure = np.ravel(plot())[0].figure
        assert [pyplot.figure(number) for number in pyplot.get_fignums()] == [figure]  # shown at the end of a cell
        pyplot.close(figure)
    session().save(tmp_path / "run.png")
    results["sweep"].plot(tmp_path / "sweep.svg")
    assert pyplot.get_fignums() == []
    assert {path.name for path in tmp_path.iterdir()} == {"run.png", "sweep.svg"}
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot")
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    history().plot()
    assert "matplotlib.pyplot" not in sys.modules  # a program that a notebook has started
    monkeypatch.setitem(sys.modules, "IPython", object())
    history().plot()
    assert "matplotlib.pyplot" in sys.modules  # imported, since Jupyter's backend shows its figures


@pytest.mark.parametrize(
    ("axes", "text"),
    [
        (1, "an array of 2 axes of Matplotlib, got int; pass axes=plt.subplots(1, 2)[1]"),
        (Figure(), "an array of 2 axes of Matplotlib, got Figure;"),
        (Figure().subplots(), "an array of 2 axes of Matplotlib, got Axes;"),
        (Figure().subplots(2, 2), "an array of 2 axes of Matplotlib, got 4 axes;"),
        ([], "an array of 2 axes of Matplotlib, got an empty array;"),
    ],
    ids=str,
)
def test_other_axes_raise(axes, text):
    with pytest.raises(ArgumentError) as info:
        session().plot(axes=axes)
    assert str(info.value).startswith(f"Session.plot: expected {text}")


def test_one_pair_of_axes_is_for_one():
    with pytest.raises(
        ArgumentError, match=r"^History.plot: expected axes of Matplotlib, got Axes and Axes; pass axes=plt"
    ):
        history().plot(axes=Figure().subplots(1, 2))


def test_texts_of_given_axes_stay():
    axes = Figure().subplots()
    axes.set(title="Mine", xlabel="pass", ylabel="cross-entropy")
    axes.title.set_color("red")
    history().plot(axes=axes)
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == ("Mine", "pass", "cross-entropy")
    assert axes.title.get_color() == "red"
    assert len(history(seed=1).plot(axes=axes).lines) == 4


@pytest.mark.parametrize("count", [1, 8])
def test_title_and_legend_of_given_axes_are_not_cut_off(pyplot, count):
    figure, axes = pyplot.subplots()
    for k in range(count):
        history(seed=k).plot("loss", axes=axes, label=f"learning rate {k}")
    figure.tight_layout()  # no warning
    check([axes])
    assert labels(axes) == [f"learning rate {k}" for k in range(count)]


def test_axes_placed_by_the_user_stay(pyplot):
    by_hand = pyplot.figure()
    by_hand.add_axes([0.2, 0.2, 0.5, 0.5])
    adjusted = pyplot.subplots()[0]
    adjusted.subplots_adjust(top=0.7)
    spaced = pyplot.subplots(gridspec_kw={"top": 0.7})[0]
    constrained = pyplot.subplots(layout="constrained")[0]
    sub = pyplot.figure().subfigures(1, 2)[0]
    sub.subplots()
    for figure in (by_hand, adjusted, spaced, constrained, sub):
        engine, place = figure.get_layout_engine(), figure.axes[0].get_position().bounds
        history().plot(axes=figure.axes[0])
        assert figure.get_layout_engine() is engine and figure.axes[0].get_position().bounds == place


@pytest.mark.parametrize(("length", "columns"), [(4, 4), (12, 4), (15, 3), (30, 2), (36, 1)])
def test_a_legend_has_as_many_columns_as_fit(length, columns):
    axes = Figure((6.4, 4.2)).subplots()
    for k in range(8):
        history(seed=k).plot("loss", axes=axes, label="abcdefghijklmnopqrstuvwxyz0123456789"[:length])
    axes.figure.draw_without_rendering()
    legend = axes.get_legend()
    assert legend._ncols == columns
    assert legend.get_window_extent().width <= axes.bbox.width


def labels(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_several_histories_share_axes():
    axes = history().plot("val_loss", label="a")
    assert history(seed=1).plot("val_loss", axes=axes, label="b") is axes
    assert labels(axes) == ["a", "b"]
    assert [line.get_color() for line in axes.lines] == list(PALETTE[:2])
    with pytest.raises(ArgumentError) as info:
        history().plot("lr", axes=axes)
    assert str(info.value) == (
        "History.plot: expected axes for learning rate, got axes with validation loss; pass others, or axes.twinx()"
    )
    assert len(axes.lines) == 2
    twin = axes.twinx()
    assert history().plot("lr", axes=twin) is twin


def test_the_band_is_the_standard_deviation_over_runs():
    runs = [history(k, seed) for seed, k in enumerate((5, 7, 6))]
    axes = plot_histories(runs, "loss")
    values = np.array([run.column("loss")[:5] for run in runs])
    np.testing.assert_allclose(axes.lines[0].get_ydata(), values.mean(0))
    (band,) = axes.collections
    ends = band.get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose(ends.max(), (values.mean(0) + values.std(0, ddof=1)).max())
    assert labels(axes) == ["loss, mean of 3 ± std (2 epochs are not in all)"]


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.filterwarnings("error")
def test_runs_of_which_one_is_infinite(epochs):
    runs = [history(epochs + 1), history(epochs, 1)]
    runs[0][0]["loss"] = np.inf
    axes = plot_histories(runs, "loss")
    axes.figure.canvas.draw()
    assert labels(axes) == ["loss, mean of 2 ± std (1 epoch is not in all)"]


@pytest.mark.parametrize(("label", "names"), [("", ["a, mean of 2 ± std", "b", "7"]),
                                              ("x", ["x, a, mean of 2 ± std", "x, b", "x, 7"])])  # fmt: skip
def test_a_dict_of_histories_has_its_keys_as_labels(label, names):
    runs = {"a": [history(3), history(3, 1)], "b": [history(3, 2)], 7: history(3, 3)}
    assert labels(plot_histories(runs, "loss", label=label)) == names
    with pytest.raises(
        ArgumentError, match="^plot_histories: expected a history with an epoch, got none; train first$"
    ):
        plot_histories({})


def test_the_mean_and_its_bands_are_apart():
    runs = [history(5, seed) for seed in range(3)]
    axes = plot_histories(runs)
    runs[0].plot("loss", axes=axes, label="one run")
    loss, val_loss, single = axes.lines
    assert loss.get_linewidth() == val_loss.get_linewidth() > 1.5 * single.get_linewidth()
    assert [band.get_hatch() for band in axes.collections] == [None, "///"]


def test_validation_alone_is_named():
    axes = history().plot("val_loss", "val_accuracy")
    assert [place.get_ylabel() for place in axes] == ["validation loss", "validation accuracy"]
    assert axes[0].get_title() == "Validation loss by epoch"
    history().plot("loss", axes=axes[0])
    assert (axes[0].get_ylabel(), axes[0].get_title()) == ("loss", "Loss by epoch")
    history().plot("val_loss", axes=axes[0])
    assert (axes[0].get_ylabel(), axes[0].get_title()) == ("loss", "Loss by epoch")


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: plot_histories(history(), history()), "plot_histories: expected a list of histories, got History; call plot_histories([first, second])"),
        (lambda: plot_histories(3), "plot_histories: expected a list of histories, got int; call plot_histories([first, second])"),
        (lambda: plot_histories([[1.0]]), "plot_histories: expected a list of histories, got one of list; pass History"),
        (lambda: plot_histories([history()], history()), "plot_histories: expected names of entries, got History; pass them one by one, as in history.plot('loss', 'lr')"),
        (lambda: history().plot(["loss"]), "History.plot: expected names of entries, got list; pass them one by one, as in history.plot('loss', 'lr')"),
    ],
)  # fmt: skip
def test_wrong_arguments_raise(call, text):
    with pytest.raises(ArgumentError) as info:
        call()
    assert str(info.value) == text


def test_what_cannot_be_drawn_raises():
    for wrong in ([], [History()], [history(), History()]):
        with pytest.raises(ArgumentError, match="^plot_histories: expected a history with an epoch, got none; train"):
            plot_histories(wrong)
    with pytest.raises(ArgumentError, match="^History.plot: expected a history with an epoch, got none; train first"):
        History().plot()
    with pytest.raises(ArgumentError, match="^History.plot: expected names of entries"):
        History([{"epoch": 1, "accuracy": 1.0}]).plot()
    with pytest.raises(ArgumentError, match="expected an epoch at which all runs have 'loss', got none; draw the runs"):
        plot_histories([history(4)[:2], history(4)[2:]])
    with pytest.raises(ArgumentError, match="^History.plot: expected numbers in 'note', got 'good'"):
        history(note="good").plot("note")
    with pytest.raises(ArgumentError, match="^Session.plot: expected a session with an epoch, got none; train with"):
        Session().plot()


@pytest.mark.parametrize("epochs", [1, 2, 31])
def test_epochs_are_whole_numbers_and_a_single_one_is_a_point(epochs):
    axes = history(epochs).plot()
    left = session(epochs).plot()[0]
    for place in (axes, left):
        low, high = place.get_xlim()
        ticks = [tick for tick in place.get_xticks() if low <= tick <= high]
        assert ticks and all(tick == int(tick) for tick in ticks)
    assert [line.get_marker() for line in axes.lines] == [{1: "o", 2: ".", 31: ""}[epochs]] * 2


def test_entries_that_some_rows_lack_are_drawn_without_gaps():
    rows = [{"epoch": k, "loss": 1.0} | ({"val_loss": float(k)} if k % 2 else {}) for k in range(1, 6)]
    line = History(rows).plot().lines[1]
    assert line.get_xdata().tolist() == line.get_ydata().tolist() == [1, 3, 5]


def test_many_epochs_are_areas_as_high_as_bars():
    many = session(101)
    axes = many.plot()[0]
    assert len(axes.collections) == 5 and not axes.patches
    tops = np.array([max(area.get_paths()[0].vertices[:, 1]) for area in axes.collections])
    scale = {"time, ms": 1e6, "time, µs": 1e3}[axes.get_ylabel()]
    assert tops[0] == pytest.approx(max(epoch.forward_ns for epoch in many.epochs) / scale)
    assert tops[-1] == pytest.approx(max(epoch.total_ns for epoch in many.epochs) / scale)
    assert axes.get_ylim()[0] == 0


def test_what_is_left_out_is_said():
    right = session(1, MANY).plot()[1]
    names = [text.get_text() for text in right.get_yticklabels()]
    assert len(names) == 24 and names[-1].startswith("37 others, ") and names[-1].endswith("% of the time: not shown")
    assert names[0].endswith(" Dense")
    small = Figure((8, 2)).subplots(1, 2)
    assert 3 <= len(session(1, MANY).plot(axes=small)[1].get_yticklabels()) <= 9
    changes = [text.get_text() for text in compared(names=MANY).plot().get_yticklabels()]
    assert changes[:4] == ["whole step", "forward", "backward", "update"]
    assert changes[-1].endswith(" smaller changes: not shown")


def test_a_comparison_shows_which_changes_are_real():
    a, b = session(30), session(30)
    for k, epoch in enumerate(b.epochs):
        epoch.rows[1].forward_ns = 8 * epoch.rows[1].forward_ns
        epoch.forward_ns = sum(row.forward_ns for row in epoch.rows)
        for run in (a, b):
            run.epochs[k].rows.append(Row("last", "tanh", nodes=1, forward_ns=30_000 + k, backward_ns=30_000 + k))
            run.epochs[k].forward_ns += 30_000 + k
    found = compare(a, b)
    axes = found.plot()
    kinds = {change.real for change in found.changes}
    assert "slower" in labels(axes) and kinds == {True, False}
    assert labels(axes)[0] == "less than 10 %" and "no real change" in labels(axes)


def test_a_comparison_of_few_rounds_has_no_intervals():
    found = compared(epochs=3, alternated="x")
    axes = found.plot()
    assert axes.get_xlabel().endswith(f", %\n3 of {found.needed} rounds: too few for intervals")
    assert not axes.containers[0].has_xerr
    assert compared(epochs=20, alternated="x").plot().containers[0].has_xerr
    alone = compare(session(12), session(12, ["0", "1", "new"])).plot()
    names = [text.get_text() for text in alone.get_yticklabels()]
    assert {"CrossEntropyLoss forward: only in a", "new forward: only in b"} <= set(names)


def test_the_range_test_warns_at_the_edges():
    rates, losses = [0.01, 0.1, 1.0], [1.0, 2.0, 3.0]
    for suggestion, text in ((0.01, "lowest rate tried: repeat with a lower low"), (1.0, "highest rate tried: repeat with a higher high"), (0.1, "")):  # fmt: skip
        found = RangeTest(rates, losses, suggestion)
        assert found.warning == (f"the {text}" if text else "")
        assert text in repr(found) and text in found._repr_html_() and text in labels(found.plot())[1]


def test_a_sweep_has_the_lines_n_plus_p_and_n_times_p(results):
    found = results["sweep"]
    lines = {line.get_label(): line for line in found.plot().lines}
    counts = [law.count("scalars") for law in found.laws]
    np.testing.assert_array_equal(lines["N + P"].get_ydata(), [c.N + c.P for c in counts])
    bound = lines["N × P, bound of the chain rule"]
    np.testing.assert_array_equal(bound.get_ydata(), [c.N * c.P for c in counts])
    np.testing.assert_array_equal(bound.get_xdata(), found.sizes())


def test_a_sweep_over_batches_is_over_n():
    axes = sweep("batch", X, Y, values=(1, 2, 3), build=lambda rows: small(2), budget=0.01).plot()
    lines = {line.get_label(): line for line in axes.lines}
    assert axes.get_xlabel() == "N, in scalars"
    sums = lines["N + P"]
    np.testing.assert_array_equal(sums.get_ydata() - sums.get_xdata(), 3 * [4 * 4 + 4 + 4 * 2 + 2])


def test_a_law_shows_what_was_run_and_what_was_not(results):
    left, right = results["law"].plot()
    names = [text.get_text() for text in left.get_yticklabels()]
    assert names[:2] == ["backprop\nsteps", "backprop\nscalar operations"]
    assert len(right.get_yticklabels()) == len(results["law"].ways)
    assert labels(left) == ["N + P = 35 scalars", "N × P = 250, bound of the chain rule"]
    model = mf.nn.Sequential(mf.nn.Dense(4, 2, rng=0))
    for panel in mf.profiler.law(model, mf.nn.CrossEntropyLoss(), X, Y, budget=0.01, max_nodes=5).plot():
        assert panel.get_yticklabels()[-1].get_text() == "on scalars\nnot run"
        assert [text.get_text() for text in panel.texts] == ["the scalar graph is left out"]
    for budget in (1e-5, 10.0):
        found = mf.profiler.law(small(20), mf.nn.CrossEntropyLoss(), X, Y, budget=budget)
        way = found.way("paths, no memory")
        for panel, unit in zip(found.plot(), ("rule calls", "on scalars"), strict=True):
            last = panel.get_yticklabels()[6].get_text()
            assert last == f"paths, no memory\n{'not run' if budget < 1 else unit}"
            said = [text.get_text() for text in panel.texts]
            assert len(said) == (budget < 1) and all(text.startswith("would take about ") for text in said)
            assert all(text.removeprefix("would") in way.note for text in said)


# Colours

SEEN = {  # linear RGB as seen with each kind of colour vision; Machado, Oliveira and Fernandes 2009, severity 1
    "all cones": np.eye(3),
    "no red cones": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green cones": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "no blue cones": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(color):
    c = np.array([int(color[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    xyz = XYZ @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("color", PALETTE)
def test_a_colour_is_readable_on_white_and_on_black(color):
    luminance = XYZ[1] @ linear(color)
    assert 1.05 / (luminance + 0.05) >= 3 and (luminance + 0.05) / 0.05 >= 3


@pytest.mark.parametrize("eyes", SEEN)
def test_colours_are_apart(eyes):
    for a, b in itertools.combinations(PALETTE, 2):
        assert np.linalg.norm(lab(SEEN[eyes] @ linear(a)) - lab(SEEN[eyes] @ linear(b))) > 16, (a, b)
