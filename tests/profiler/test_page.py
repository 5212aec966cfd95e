"""The page in a real browser: nothing runs that should not, and what should, works by mouse and by keyboard."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.profiler import Epoch, Session
from microfw.profiler.reports.counts import counts
from microfw.profiler.reports.first_look import median_epoch
from microfw.profiler.reports.full import overhead_text
from microfw.profiler.reports.remarks import remarks
from microfw.profiler.reports.tables import step_lines
from microfw.profiler.reports.text import whole
from tests.helpers import browser, sessions

pytestmark = [pytest.mark.slow, pytest.mark.skipif(browser.find() is None, reason="Chromium is not installed")]


@pytest.fixture(scope="module")
def chromium():
    opened = browser.Browser()
    yield opened
    opened.close()


def steady():
    """Return a profile whose times are made up, so that every box of its charts is wide enough on a busy machine too."""
    session = sessions.profiled("residual")
    for e in session.epochs:
        for k, row in enumerate(e.rows):
            row.forward_ns, row.backward_ns = e.steps * (5_000 + 300 * k), e.steps * (9_000 - 400 * k)
        e.forward_ns = e.sum().forward_ns + e.steps * 4_000
        e.backward_ns = e.sum().backward_ns + e.steps * 3_000
        e.update_ns, e.data_ns, e.total_ns = e.steps * 6_000, e.steps * 2_000, 2 * (e.forward_ns + e.backward_ns)
    return session


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "run.html"
    steady().save(path)
    return path


CELLS = "[...document.querySelectorAll('#layers tbody tr:not(.walk):not(.sum)')].map(r => r.cells[{}].textContent)"


def click(chromium, selector):
    chromium.run(f"document.querySelector({json.dumps(selector)}).click()")


def test_it_shows_the_sessions_numbers_and_asks_for_nothing(chromium, tmp_path):
    session = sessions.profiled("residual")
    session.save(tmp_path / "a.html")
    chromium.open(tmp_path / "a.html")
    assert chromium.complaints == []
    assert chromium.requests == [(tmp_path / "a.html").as_uri()]
    total = session.total()
    shown = [float(text.replace(",", "")) for text in chromium.run(CELLS.format(4))]
    assert shown == pytest.approx([row.backward_ns / total.observed / 1e3 for row in total.layers()], abs=0.051)
    law = chromium.run("document.getElementById('law').textContent")
    _, scalars = total.counts()
    assert f"all {scalars.P:,} derivatives in {scalars.steps:,} steps" in law
    rows = "[...document.querySelectorAll('#counts tbody tr')].map(r => [r.querySelector('b').textContent, r.cells[1].textContent])"
    shown = dict(chromium.run(rows))
    assert shown["backward steps"] == f"{scalars.steps:,}" and shown["P"] == f"{scalars.P:,}"
    assert len((tmp_path / "a.html").read_bytes()) < 300_000


@pytest.fixture(scope="module")
def law():
    """Return what the law finds on a small model; one strategy has time for some parameters only."""
    model = nn.Sequential(nn.Dense(6, 8, rng=0), nn.Tanh(), nn.Dense(8, 3, rng=1))
    found = mf.profiler.law(model, nn.CrossEntropyLoss(), sessions.X, sessions.Y, name="toy")
    way = found.way("chain rule per parameter")
    way.done = 40
    return found


def test_it_shows_the_law(chromium, tmp_path, law):
    (tmp_path / "law.html").write_text(steady().html(law))
    assert (tmp_path / "law.html").stat().st_size < 300_000
    chromium.open(tmp_path / "law.html")
    assert chromium.complaints == []
    scalars = law.count("scalars")
    cells = "[...document.querySelectorAll('#{} tbody tr')].map(r => [...r.cells].map(c => c.firstChild ? c.firstChild.textContent : ''))"
    counts = {row[0]: row[1:] for row in chromium.run(cells.format("law-counts"))}
    assert counts["N + P"] == [f"{scalars.N + scalars.P:,}", f"{4 + 4}"]
    ways = chromium.run(cells.format("ways"))
    assert [row[0] for row in ways] == [way.name for way in law.ways]
    assert [row[1] for row in ways] == [f"{way.rules:,}" for way in law.ways]
    assert "extrapolated from 40 of 83" in chromium.run("document.getElementById('ways').innerText")
    assert "N × P is an upper bound" in chromium.run("document.getElementById('law-says').innerText")
    click(chromium, "#ways th:nth-child(2) button")  # sorts, and the rest stays
    rules = [int(row[1].replace(",", "")) for row in chromium.run(cells.format("ways"))]
    assert rules == sorted(rules, reverse=True)
    assert [row[0] for row in chromium.run(cells.format("law-layers"))] == ["0", "1", "2", "CrossEntropyLoss"]


def test_backward_against_forward_follows_the_chosen_epoch(chromium, page):
    chromium.open(page)
    shown = "[...document.querySelectorAll('#ratio dt')].map(e => e.textContent)"
    session = steady()
    r = session.total().ratio()
    assert chromium.run(shown)[:3] == [f"{x:.3f}" for x in (r.operations, r.products, r.predicted / r.products_forward)]
    assert "equal" in chromium.run("document.getElementById('ratio').textContent")
    chromium.run("document.querySelector('#epochs svg').focus()")
    chromium.key("ArrowRight")
    assert chromium.run(shown)[3] == f"{session.epochs[0].ratio().seconds:.3f}"
    click(chromium, "#by-epoch summary")
    rows = "[...document.querySelectorAll('#ratios tbody tr')].map(r => r.innerText.split(/\\s+/))"
    assert [[row[0], row[3]] for row in chromium.run(rows)] == [["1", "equal"], ["2", "equal"]]
    assert "Baur & Strassen 1983" in chromium.run("document.getElementById('why').textContent")


def test_tables_sort_both_ways_and_say_so(chromium, page):
    chromium.open(page)
    names = "[...document.querySelectorAll('#layers .name')].map(e => e.textContent)"
    first = chromium.run(names)
    head = "#layers th:nth-child({}) button"
    click(chromium, head.format(5))
    down = [float(x.replace(",", "")) for x in chromium.run(CELLS.format(4))]
    assert down == sorted(down, reverse=True)
    state = "document.querySelector('#layers th:nth-child({})').getAttribute('aria-sort')"
    assert chromium.run(state.format(5)) == "descending"
    assert chromium.run("document.activeElement.textContent") == "backward µs"  # the keyboard stays where it was
    chromium.key("Enter")
    up = [float(x.replace(",", "")) for x in chromium.run(CELLS.format(4))]
    assert up == sorted(up)
    assert chromium.run(state.format(5)) == "ascending"
    click(chromium, head.format(1))
    assert chromium.run(names) == sorted(first)


def test_numbers_have_their_meaning_and_bars_a_scale(chromium, page):
    chromium.open(page)
    session = steady()
    text = chromium.run("document.getElementById('counts').innerText")
    for count in counts(session.total()).values():
        assert count.meaning.replace(" x ", " × ") in text
    total = sum(session.total().taken(phase, True) for phase in ("forward", "backward", "update"))
    ticks = chromium.run("[...document.querySelectorAll('#flame .tick')].map(t => t.textContent)")
    assert ticks[0] == "0 µs" and 0 < float(ticks[-1]) * 1e3 <= total
    assert chromium.run("document.querySelector('#bars-law .scale').innerText").split()[0] == "0"
    said = chromium.run("[...document.querySelectorAll('#remarks li')].map(e => e.textContent)")
    e = median_epoch(session)
    assert said == [f"Epoch {e.epoch}, the median one: {text}" for text in remarks(step_lines(session, e))]
    assert "of backward" in said[0]
    chromium.run("document.querySelector('#epochs svg').focus()")
    chromium.key("ArrowRight")  # the remarks are about all epochs
    assert chromium.run("document.querySelectorAll('#remarks li').length") == 0


def test_the_flame_graph_is_walked_with_the_keyboard(chromium, page):
    chromium.open(page)
    says = "document.getElementById('flame-says').textContent"
    assert chromium.run(says).startswith("One step: ")
    chromium.run("document.querySelector('#flame [tabindex=\"0\"]').focus()")
    chromium.key("ArrowDown")
    assert chromium.run(says).startswith("forward: ")
    chromium.key("ArrowRight")
    assert chromium.run(says).startswith("backward: ")
    chromium.key("ArrowDown")
    assert chromium.run(says).startswith("backward › CrossEntropyLoss: ")
    chromium.key("Enter")
    width = "document.activeElement.querySelector('rect').getBoundingClientRect().width"
    assert chromium.run(width) == pytest.approx(chromium.run("document.getElementById('flame').clientWidth"))
    chromium.key("Escape")
    assert chromium.run(says).startswith("backward: ")
    assert chromium.complaints == []


def test_an_epoch_is_chosen_and_described(chromium, page):
    chromium.open(page)
    chromium.run("document.querySelector('#epochs svg').focus()")
    chromium.key("ArrowRight")
    assert chromium.run("document.getElementById('epoch').value") == "0"
    assert "average over epoch 1" in chromium.run("document.getElementById('layers-note').textContent")
    assert chromium.run("document.getElementById('epoch-says').textContent").startswith("Epoch 1: 3 steps")
    chromium.key("End")
    assert chromium.run("document.getElementById('epoch').value") == "1"
    chromium.key("Escape")
    assert "all 2 epochs" in chromium.run("document.getElementById('layers-note').textContent")


def test_counts_are_those_of_the_chosen_epoch(chromium, tmp_path):
    model, loss = nn.Sequential(nn.Dense(4, 5, rng=0), nn.Tanh(), nn.Dense(5, 3, rng=1)), nn.CrossEntropyLoss()
    X, y = np.ones((8, 4), np.float32), np.arange(8) % 3
    with mf.Profiler(model) as profiler:
        for trained in (False, True, True):
            model[0].requires_grad_(trained)
            loss(model(X), y).backward()
            profiler.end_epoch()
    session = profiler.session
    session.save(tmp_path / "a.html")
    chromium.open(tmp_path / "a.html")
    rows = "[...document.querySelectorAll('#counts tbody tr')].map(r => [r.querySelector('b').textContent, r.cells[1].textContent])"
    for k, e in [(-1, session.total()), *enumerate(session.epochs)]:
        chromium.run(f"choose({k})")
        shown = {word.replace("×", "x"): number for word, number in chromium.run(rows)}
        assert shown == {word: whole(c.scalars) if c.scalars is not None else "" for word, c in counts(e).items()}
        scalars = e.counts()[1]
        law = chromium.run("document.getElementById('law').textContent")
        assert f"all {scalars.P:,} derivatives in {scalars.steps:,} steps" in law
    assert [e.counts()[1].P for e in session.epochs] == [18, 43, 43]


def test_phases_of_an_epoch_with_checked_replays_are_all_shown_and_the_overhead_has_its_interval(chromium, tmp_path):
    session = steady()
    first, last = session.epochs
    first.check_ns = 3_000_000
    session.overhead = {"share": 0.1, "low": 0.05, "high": 0.2, "ns_per_node": 500.0, "measured": 1.0}
    session.save(tmp_path / "a.html")
    chromium.open(tmp_path / "a.html")
    text = "document.getElementById('{}').textContent"
    assert overhead_text(session.overhead) in chromium.run(text.format("footer"))
    assert chromium.run(text.format("legend")).endswith("othercomparing replays")
    chromium.run("choose(0)")
    assert "comparing replays 3 ms; " in chromium.run(text.format("epoch-says"))
    height = "[...document.querySelectorAll('#epochs .check')].map(r => r.getAttribute('height') > 0)"
    assert chromium.run(height) == [True, False]


def test_a_sampled_profile_shows_one_step(chromium, tmp_path):
    session = steady()
    session.every = 5
    for epoch in session.epochs:
        epoch.steps *= 4
    session.save(tmp_path / "a.html")
    chromium.open(tmp_path / "a.html")
    first = session.epochs[0]
    assert (first.steps, first.observed) == (12, 3)
    text = "document.getElementById('{}').textContent"
    assert chromium.run(text.format("bars")) == "By epoch, the time of one observed step."
    assert "sampled: 6 of 24 steps" in chromium.run(text.format("facts"))
    assert ", sampled on 6 of 24 steps. " in chromium.run(text.format("layers-note"))
    chromium.run("document.querySelector('#epochs svg').focus()")
    chromium.key("ArrowRight")
    said = chromium.run(text.format("epoch-says"))
    assert said.startswith("Epoch 1: 12 steps, 3 of them observed, in one of which forward ")
    assert f"forward {first.forward_ns / 3000:.1f} µs, " in said
    assert "update 6 µs, data 2 µs, other " in said
    assert chromium.complaints == []


def test_an_epoch_without_an_observed_step_cannot_be_chosen(chromium, tmp_path):
    session = steady()
    session.every, nothing = 5, Epoch(2, steps=12, total_ns=10**6)
    session.epochs[1:1], session.epochs[-1].epoch = [nothing], 3
    session.save(tmp_path / "a.html")
    chromium.open(tmp_path / "a.html")
    options = "[...document.querySelectorAll('#epoch option')].map(o => o.disabled)"
    assert chromium.run(options) == [False, False, True, False]
    chromium.run("document.querySelector('#epochs svg').focus()")
    said = []
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
        chromium.key(key)
        said.append(chromium.run("document.getElementById('epoch-says').textContent")[:7])
    assert said == ["Epoch 1", "Epoch 3", "Epoch 1"]
    assert chromium.run("says(1)") == "Epoch 2: 12 steps, 0 of them observed; 1 ms in all"


def luminance(colour):
    r, g, b = (int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(","))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (r, g, b)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("dark", "media"), [(False, ""), (True, ""), (True, "print")])
def test_it_is_legible_in_light_and_dark_and_on_paper(chromium, page, dark, media):
    chromium.open(page, dark=dark, media=media)
    style = "(() => {{const s = getComputedStyle(document.{}); return s.{}}})()"
    paper = luminance(chromium.run(style.format("body", "backgroundColor")))
    assert (paper < 0.1) == (dark and not media)
    for what, colour in (
        ("body", "color"),
        ("querySelector('.quiet')", "color"),
        ("querySelector('#epochs text')", "fill"),
    ):
        ink = luminance(chromium.run(style.format(what, colour)))
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5
    for kind in ("forward", "backward"):
        box, ink = (
            luminance(chromium.run(style.format(f"querySelector('#flame .{kind}{s}')", "fill")))
            for s in ("", " + text")
        )
        assert (max(ink, box) + 0.05) / (min(ink, box) + 0.05) >= 3  # and the line below has the same words


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_is_wider_than_the_screen(chromium, tmp_path, law, width):
    (tmp_path / "law.html").write_text(steady().html(law))
    chromium.open(tmp_path / "law.html", width=width, height=740)
    assert chromium.run("document.documentElement.scrollWidth") <= width
    wide = "[...document.querySelectorAll('.table')].filter(t => t.scrollWidth > t.clientWidth + 1).map(t => t.id)"
    assert chromium.run(wide) == []
    kinds = "[...document.querySelectorAll('#layers .kind')].map(e => e.getBoundingClientRect().width > 0)"
    assert set(chromium.run(kinds)) == {True}
    assert chromium.complaints == []


@pytest.mark.parametrize("n", [400, 10_000])
def test_hostile_names_do_nothing_but_show(chromium, tmp_path, n):
    names = sessions.hostile_names(n)
    sessions.hostile_session(names).save(tmp_path / "hostile.html")
    chromium.open(tmp_path / "hostile.html")
    chromium.run("document.querySelector('#layers .more').click()")
    shown = chromium.run(
        "[...document.querySelectorAll('#layers tbody tr:not(.walk):not(.sum) .name')].map(e => e.textContent)"
    )
    assert shown == names
    assert chromium.run("typeof window.pwned") == "undefined"
    assert chromium.run("document.querySelectorAll('img, iframe, object, embed, a:not(.skip), script').length") == 2
    assert chromium.complaints == []
    assert chromium.requests == [(tmp_path / "hostile.html").as_uri()]


def test_a_script_that_is_not_ours_would_not_run(chromium, tmp_path):
    text = sessions.profiled("one layer").html()
    (tmp_path / "b.html").write_text(
        text.replace("</main>", "</main><script>window.pwned=1</script><img src=x onerror='window.pwned=1'>")
    )
    chromium.open(tmp_path / "b.html")
    assert chromium.run("typeof window.pwned") == "undefined"
    assert any("Content Security Policy" in line for line in chromium.complaints)


def test_an_empty_session_has_a_page(chromium, tmp_path):
    Session().save(tmp_path / "c.html")
    chromium.open(tmp_path / "c.html")
    assert chromium.complaints == []
    assert "No epoch was recorded" in chromium.run("document.body.innerText")


def speedscope():
    """Return speedscope's page; SPEEDSCOPE names the folder in which npm has installed it."""
    folder = os.environ.get("SPEEDSCOPE")
    return next(Path(folder).glob("node_modules/speedscope/dist/release/index.html"), None) if folder else None


@pytest.mark.skipif(speedscope() is None, reason="SPEEDSCOPE names no folder with speedscope (npm install speedscope)")
@pytest.mark.parametrize("hostile", [False, True])
def test_speedscope_takes_the_trace(chromium, tmp_path, hostile):
    if hostile:
        session = sessions.hostile_session(sessions.hostile_names(300))
    else:
        session = sessions.profiled("residual", trace=3)
    text = base64.b64encode(session.chrome_trace().encode()).decode()
    (tmp_path / "profile.js").write_text(f"speedscope.loadFileFromBase64('run.json', {json.dumps(text)})")
    chromium.open(f"{speedscope().as_uri()}#localProfilePath={(tmp_path / 'profile.js')}")
    found = chromium.run(
        "new Promise(done => { let n = 0; const look = () => { const t = document.body.innerText;"
        " if (/run\\.json|forward/.test(document.title + t) || n++ > 100) done(document.title + t); else setTimeout(look, 50); };"
        " look(); })"
    )
    assert "forward" in found or "run.json" in found, found[:500]
    assert "Something went wrong" not in found
    assert [c for c in chromium.complaints if '"error"' in c] == []
