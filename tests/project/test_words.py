"""The words of the code: no private names that were given up, and no phrases that must be read twice."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import microfw

ROOT = Path(microfw.__file__).parent
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in sorted(ROOT.rglob("*.py"))}

OLD = frozenset(re.findall(r"\w+", """
    _at_once _closely _hand_over _heir _held _learn _linked _look_up _move _prove _show _way _whole
    Again Applied ArrayLike ARRAYS Aside Captured Carried Compiled Fits Form HERE Here Infix LATER Meter Methods MOMENTS
    Named Recorded Refused Setting Site Spelling Tally Timed Waiting Watch Watcher Way Work _Part
    answer arrived blame blueprint broken carry collects decide deliver durable fitting floats_given follow follows
    lacking leading loose make_room on_use reach_of relink renew repeated says slot spelling spoken stand_ins stands_for
    stretches takes triples undo
"""))  # fmt: skip
"""Names with a new one; see CHANGELOG.md for those that were public."""

PHRASES = re.compile(
    r"\bas ever\b|\banew\b|\b[Oo]ne's own\b|\b[Ww]hoever\b|\b[Ww]hatever\b|\b(?:is|are) told\b|\b[Tt]old of\b|\bhas it\b"
    r"|\bcame (?:of|down)\b|\bcomes? (?:down to|of it)\b|\bstands? in\b|\b[Nn]obody\b|\b[Ss]omebody\b|\bmake room\b"
    r"|\bkeeps? the books\b|\bthrift\b|\bso many\b"
)


def names(tree: ast.AST) -> set[str]:
    """Return the names that code defines and uses."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
    return found


def remarks(text: str) -> list[tuple[int, str]]:
    """Return the strings and comments of a file, with their lines."""
    kinds = (tokenize.STRING, tokenize.COMMENT)
    return [
        (token.start[0] + k, line)
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type in kinds
        for k, line in enumerate(token.string.splitlines())
    ]


def test_no_name_that_was_given_up_comes_back():
    found = {path: names(ast.parse(text)) & OLD for path, text in TEXTS.items()}
    assert {path: old for path, old in found.items() if old} == {}


def test_no_sentence_has_a_phrase_to_avoid():
    found = []
    for path, text in TEXTS.items():
        if PHRASES.search(text):
            found += [f"{path}, line {n}: {line.strip()}" for n, line in remarks(text) if PHRASES.search(line)]
    assert found == []


def test_the_checks_find_what_they_should():
    text = "class Form:\n    def f(self, HERE):\n        'It is done anew.'  # by nobody\n"
    assert names(ast.parse(text)) & OLD == {"Form", "HERE"}
    assert [n for n, line in remarks(text) if PHRASES.search(line)] == [3, 3]
