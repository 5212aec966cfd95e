"""Names of layers that could break JSON, HTML, CSV, Markdown or a trace."""

from __future__ import annotations

import csv as csv_module
import io
import json
from html.parser import HTMLParser

import pytest

from microfw.profiler import Session, report
from microfw.profiler.reports.csv import unguarded
from microfw.profiler.reports.formats import FORMATS
from microfw.profiler.reports.markdown import decoded
from tests.helpers.sessions import hostile_names, hostile_session


class Data(HTMLParser):
    """Takes the page's block of data, and counts the scripts."""

    def __init__(self):
        super().__init__()
        self.scripts, self.data, self.inside = 0, "", False

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == "script"
        self.inside = ("id", "data") in attrs

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.data += data


@pytest.fixture(scope="module")
def hostile():
    names = hostile_names()
    return names, hostile_session(names)


def test_hostile_names_come_through_json_exactly(hostile, tmp_path):
    names, session = hostile
    session.save(tmp_path / "hostile.json")
    assert Session.load(tmp_path / "hostile.json") == session


def test_hostile_names_come_through_the_page_exactly(hostile):
    names, session = hostile
    reader = Data()
    reader.feed(session.html())
    data = json.loads(reader.data, parse_constant=pytest.fail)
    assert reader.scripts == 2
    assert [data["names"][layer] for layer, _ in data["sites"]] == names
    assert [data["ops"][op] for _, op in data["sites"]] == [row.op for row in session.epochs[0].rows]
    assert not set("<>&\u2028\u2029") & set(reader.data)


def test_hostile_names_come_through_the_trace_exactly(hostile):
    names, session = hostile
    events = json.loads(session.chrome_trace(), parse_constant=pytest.fail)["traceEvents"]
    timed = [e for e in events if e["ph"] != "M"]
    inner = [a for a, b in zip(timed, timed[1:], strict=False) if (a["ph"], b["ph"]) == ("B", "E")]
    assert [(e["args"]["layer"], e["name"]) for e in inner] == [(row.layer, row.op) for row in session.epochs[0].rows]


def test_hostile_names_come_through_csv_exactly_and_run_nothing(hostile):
    names, session = hostile
    rows = list(csv_module.DictReader(io.StringIO(session.csv(), newline=""), strict=True))
    assert [unguarded(row["layer"]) for row in rows] == names
    assert [unguarded(row["op"]) for row in rows] == [row.op for row in session.epochs[0].rows]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\0")) for row in rows for cell in row.values())


def test_hostile_names_come_through_markdown_exactly(hostile):
    names, session = hostile
    lines = session.markdown().split("\n")
    assert all(c.isprintable() for line in lines for c in line)
    start = next(k for k, line in enumerate(lines) if line.startswith("| layer")) + 2
    cells = [line.split(" | ") for line in lines[start : start + len(names)]]
    assert {len(c) for c in cells} == {8}
    assert [decoded(c[0].removeprefix("| ")) for c in cells] == names
    assert not any(set("<>|`*[]@#") & set(c[0].removeprefix("| ").replace("<code>", "").replace("</code>", "").replace("&#", "")) for c in cells)  # fmt: skip


def test_hostile_names_come_through_a_markdown_reader(hostile):
    markdown_it = pytest.importorskip("markdown_it")
    names, _ = hostile
    chosen = names[:200]
    html = markdown_it.MarkdownIt("gfm-like", {"linkify": False}).render(hostile_session(chosen).markdown())

    class Cells(HTMLParser):
        def __init__(self):
            super().__init__()
            self.rows, self.tags = [], set()

        def handle_starttag(self, tag, attrs):
            self.tags.add(tag)
            assert tag in ("td", "th") or not attrs
            if tag == "tr":
                self.rows.append([])
            if tag in ("td", "th"):
                self.rows[-1].append("")

        def handle_data(self, data):
            if self.rows and self.rows[-1]:
                self.rows[-1][-1] += data

    reader = Cells()
    reader.feed(html)
    allowed = {"h3", "p", "code", "strong", "table", "thead", "tbody", "tr", "th", "td", "details", "summary"}
    assert reader.tags <= allowed
    from microfw.profiler.reports.names import hidden_again

    assert [hidden_again(row[0].strip("\n")) for row in reader.rows[1 : 1 + len(chosen)]] == chosen


def test_half_a_character_in_a_name_stops_no_file(tmp_path):
    session = hostile_session(["a\ud800", "b"])
    for end in (".json", *(made.suffix for made in FORMATS.values())):
        session.save(tmp_path / f"half{end}")
    assert Session.load(tmp_path / "half.json") == session
    assert len(report(session).encode("utf-8")) > 0
