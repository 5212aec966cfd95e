"""What a comparison says: drift and noise in words, tables, pages, files and frames."""

from __future__ import annotations

import re

import numpy as np
import pytest

from microfw.errors import ArgumentError
from microfw.profiler import Epoch, Layer, Row, Session, compare

WIDE = {"0": 100, "2": 400, "loss": 10}
NARROW = {"0": 50, "2": 100, "loss": 10}


def session(layers, noise=0.02, seed=0, epochs=12, flops=None, mark="", name="run"):
    """Return a session of layers by their microseconds forward; backward takes twice as long."""
    rng = np.random.default_rng(seed)
    found = []
    for k in range(epochs):
        rows = []
        for layer, us in layers.items():
            scale = noise * (10 if layer == "loss" else 1)
            ns = [int(1000 * us * phase * np.exp(scale * rng.standard_normal())) for phase in (1, 2)]
            rows.append(
                Row(layer, "op", nodes=1, flops_forward=(flops or layers)[layer], forward_ns=ns[0], backward_ns=ns[1])
            )
        both = [sum(getattr(row, f"{phase}_ns") for row in rows) for phase in ("forward", "backward")]
        found.append(
            Epoch(k + 1, 1, 1, rows=rows, forward_ns=both[0], backward_ns=both[1], parameters=sum(layers.values()))
        )
    kinds = [Layer("0", "Dense"), Layer("2", "Conv2D")]
    return Session(name=name, epochs=found, layers=kinds, alternated=mark)


def one_line(found):
    return " ".join(str(found).split())


def test_a_change_of_most_layers_is_not_taken_for_drift():
    a, b = session(WIDE), session(NARROW, seed=1)
    found = compare(a, b)
    assert (found.corrected, found.drift) == (False, 0.0)
    step = found.changes[0]
    assert step.change == pytest.approx(160 / 510 - 1, abs=0.05)
    assert step.real and step.low < step.change < step.high < 0
    conv = next(c for c in found.changes if (c.layer, c.phase) == ("2", "backward"))
    assert conv.real and conv.b == pytest.approx(200_000, rel=0.05)
    # a change that drift could explain is not real: 0 takes half of its time, less than 1.5 with the noise of layers
    assert not next(c for c in found.changes if (c.layer, c.phase) == ("0", "forward")).real
    text = one_line(found)
    assert re.match(
        r"microfw compare: a = run, b = run The whole step: -6\d\.\d%, -\d\d\.\d% to -\d\d\.\d%: less\.", text
    )
    assert (
        "Seconds drift between runs, and this drift cannot be told from the change: layers whose counts agree take only "
        "2% of the time of all layers. Times are not corrected; all intervals allow for a drift by a factor of 1.5. "
        "Only alternated runs show a change of all layers alike: mf.profiler.alternate(run_a, run_b), or microfw compare "
        "--rerun." in text
    )
    assert "b not corrected for drift" in text


def test_drift_is_corrected_where_the_counts_of_most_layers_agree():
    slow = {layer: 2 * us for layer, us in WIDE.items()} | {"2": 2 * 100}
    found = compare(session(WIDE), session(slow, seed=1, flops=WIDE | {"0": 100, "2": 100, "loss": 10}))
    assert not found.corrected  # 2 changed its counts, and the others take a fifth of the time
    even = {"0": 100, "2": 100, "loss": 100}
    found = compare(
        session(even), session({k: 2 * us for k, us in even.items()} | {"2": 60}, seed=1, flops=even | {"2": 30})
    )
    assert found.corrected
    assert found.drift == pytest.approx(1, abs=0.1)
    assert found.unchanged == pytest.approx(2 / 3, abs=0.02)
    conv = next(c for c in found.changes if (c.layer, c.phase) == ("2", "backward"))
    assert conv.real and conv.change == pytest.approx(-0.7, abs=0.05)
    assert f"layers whose counts agree differ by {found.drift:+.1%} in b. All times are corrected" in one_line(found)
    assert "b corrected for drift" in str(found)


def test_layers_that_differ_too_much_do_not_show_the_drift():
    a, b = (
        session(dict.fromkeys("abcd", 100)),
        session(dict(zip("abcd", (20, 500, 30, 300), strict=True)), flops=dict.fromkeys("abcd", 100)),
    )
    found = compare(a, b)
    assert not found.corrected and found.unchanged == 1
    assert "the times of layers whose counts agree differ too much" in one_line(found)


def test_an_interval_too_wide_for_numbers_is_said_in_words():
    few = compare(session(WIDE, mark="x/3", epochs=3), session(WIDE, seed=1, mark="x/3", epochs=3))
    assert re.search(r"The whole step: [+-]\d\.\d% measured; whether it is real cannot be told\.", str(few))
    assert "-100.0%" not in str(few) and "new" not in str(few)
    assert "cannot be told  unknown" in str(few)
    loud = compare(session(WIDE, 3.0), session(WIDE, 3.0, seed=1))
    assert not re.search(r"\d{4,}\.?\d*%", str(loud).replace(",", "").split("Epochs (")[0])
    assert "more than 10 times" in one_line(loud)


def test_one_size_is_no_range():
    a, b = (session(WIDE, 0.0001, seed=k, epochs=40, mark="x/40") for k in (0, 1))
    assert "with this noise: 5% of the whole step; of a layer's forward or backward, 5%. Counts" in one_line(
        compare(a, b)
    )


def test_a_b_and_change_agree():
    rng = np.random.default_rng(0)
    for mark in ("", "x/12"):
        found = compare(session(WIDE, 0.5, mark=mark), session(WIDE, 0.5, seed=int(rng.integers(99)), mark=mark))
        assert all(c.b == pytest.approx(c.a * (1 + c.change)) for c in found.changes)
    assert "b: a with this change" in one_line(found)


def test_layers_have_their_types_everywhere():
    found = compare(session(WIDE), session(NARROW, seed=1))
    for text in (str(found), found.markdown().replace("&#32;", " "), found._repr_html_()):
        assert "2 Conv2D" in text and "0 Dense" in text
    assert "Real: 2 Conv2D backward is " in str(found)
    assert compare(session(WIDE), session(WIDE, seed=1, name="b")).kinds == {"0": "Dense", "2": "Conv2D"}


def test_layers_of_one_name_and_other_types_are_other_layers():
    a, b = session(WIDE), session(WIDE, seed=1)
    b.layers[0].kind = "Conv1D"
    found = compare(a, b)
    assert (found.only_a, found.only_b) == (["0 Dense"], ["0 Conv1D"])
    assert {c.layer for c in found.changes if c.one_sided} == {"0 Dense", "0 Conv1D"}
    text = one_line(found)
    assert "0 Dense backward is gone" in text and "0 Conv1D backward is new" in text and "2 Conv2D" in text
    assert a.epochs[0].rows[0].layer == b.layers[0].name == "0"


def test_a_notebook_lists_counts_and_sorts_as_the_text_does():
    found = compare(session(WIDE), session(NARROW, seed=1))
    html = found._repr_html_()
    assert "<details><summary>Counts that differ, in one step (exact): 4</summary>" in html
    assert "<td>2 Conv2D</td><td>flops_forward</td><td>400</td><td>100</td><td>-75.0%</td>" in html
    times = str(found).split("verdict\n")[1].split("\n\n")[0].splitlines()[1:]
    in_text = [tuple(re.split(r"  +", line)[:2]) for line in times]
    assert in_text[0] == ("(the whole step)", "step")
    assert re.findall(r"<tr><td>([^<]*)</td><td>(forward|backward|step|update)</td>", html) == in_text


def test_files_pages_and_frames(tmp_path):
    found = compare(session(WIDE, name="<a>"), session(NARROW, seed=1))
    report = found.report()
    assert report == str(found) and repr(report) == report
    for name, text in (
        ("c.html", "<title>microfw compare: &lt;a&gt;, run</title>"),
        ("c.md", "### Backward"),
        ("c.txt", "microfw compare: a"),
    ):
        found.save(tmp_path / name)
        assert text in (tmp_path / name).read_text()
    with pytest.raises(
        ArgumentError, match=r"Comparison.save: expected a name that ends in .html, .md or .txt, got 'c.pdf'"
    ):
        found.save("c.pdf")
    assert "2 Conv2D" in found.show(height=300)._repr_html_()
    pytest.importorskip("pandas")
    frame = found.to_frame()
    assert list(frame) == ["layer", "kind", "what", "unit", "a", "b", "change", "low", "high", "real"]
    assert frame["what"][0] == "step" and frame["unit"][0] == "ns"
    count = frame[(frame["layer"] == "2") & (frame["unit"] == "count")].iloc[0]
    assert (count["kind"], count["what"], count["a"], count["b"], count["low"], bool(count["real"])) == (
        "Conv2D",
        "flops_forward",
        400,
        100,
        -0.75,
        True,
    )


def test_what_is_worse_has_the_same_attributes():
    found = compare(session(NARROW), session(WIDE, seed=1))
    worse = [(c.layer, c.what, c.phase, c.a < c.b, c.real) for c in found.worse()]
    assert ("2", "backward", "backward", True, True) in worse
    assert ("2", "flops_forward", "", True, True) in worse


def test_profilers_are_compared_and_the_same_run_is_not():
    class Profiled:
        def __init__(self, session):
            self.session = session

    a = Profiled(session(WIDE))
    assert compare(a, Profiled(session(WIDE, seed=1))).counts == []
    for pair in ((a, a), (a.session, a.session), (a, a.session)):
        with pytest.raises(
            ArgumentError, match="compare: expected the sessions of two runs, got the same session twice; train each"
        ):
            compare(*pair)
    with pytest.raises(
        ArgumentError, match=r"got function; compare the sessions that mf.profiler.alternate\(run_a, run_b\) returns"
    ):
        compare(lambda: a, lambda: a)
    with pytest.raises(ArgumentError, match="got list; read a file with Session.load, or pass profiler.session"):
        compare([], [])


def test_a_huge_change_is_a_factor():
    found = compare(*(session({"0": us, "2": 10}, seed=us, mark="x/12") for us in (10, 10_000)))
    assert re.search(r"Real: 0 Dense backward takes (1.0\d?|9\d\d)k? times as long\.", one_line(found))
    assert " times or more  more" in str(found)


def test_an_epoch_without_a_backward_time_has_no_change_and_none_is_minus_zero():
    def run(*times):
        return Session(epochs=[Epoch(k, 1, 1, forward_ns=100_000, backward_ns=ns) for k, ns in enumerate(times, 1)])

    lines = [line.split() for line in str(compare(run(0, 100_000), run(100_000, 99_999))).splitlines()]
    assert ["1", "0.0", "100.0"] in lines and ["2", "100.0", "100.0", "+0.0%"] in lines


def test_a_table_of_counts_says_how_many_of_them_it_shows():
    def run(flops):
        return session({str(k): 10 for k in range(40)}, flops={str(k): flops for k in range(40)})

    found = compare(run(10), run(20))
    assert len(found.counts) == 41
    assert "Counts that differ, in one step (exact; the first 30 of 41)\n" in str(found)
    assert "Counts that differ, in one step (exact)\n" in str(compare(session(WIDE), session(WIDE, flops=NARROW)))


def test_runs_that_are_sampled_differently_are_drawn_without_intervals():
    pytest.importorskip("matplotlib").use("agg")
    a, b = session(WIDE), session(WIDE, seed=1)
    b.every = 2
    axes = compare(a, b).plot()
    assert axes.get_xlabel().endswith("other steps were observed: no intervals")
