"""Layer names in reports: escaped for display, and split into the layers around them. Users may choose any name."""

from __future__ import annotations

import re
from collections.abc import Collection
from html import escape

from microfw.profiler.session import Session

OUTSIDE_LABEL = "(outside any module)"


def visible(name: str) -> str:
    r"""Escape characters that are invisible or change the direction of text, and backslashes; reversible.

    Examples
    --------
    >>> visible("0.weight"), visible("a\nb\u202e\\")
    ('0.weight', 'a\\u000ab\\u202e\\\\')
    """
    return "".join(c if c.isprintable() and c != "\\" else _spelt(c) for c in name)


def _spelt(c: str) -> str:
    return "\\\\" if c == "\\" else f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}"


def hidden_again(text: str) -> str:
    r"""Return the name from `visible`.

    Examples
    --------
    >>> name = "a\n\\u0041"
    >>> hidden_again(visible(name)) == name
    True
    """
    form = r"\\(?:\\|u([0-9a-f]{4})|U([0-9a-f]{8}))"
    return re.sub(form, lambda m: chr(int(m[1] or m[2], 16)) if m[1] or m[2] else "\\", text)


def kinds(session: Session) -> dict[str, str]:
    """Return the type of each layer whose name does not end with its type."""
    return {layer.name: layer.shown_kind for layer in session.layers if layer.shown_kind}


def parameter_counts(session: Session) -> tuple[int, int]:
    """Return the numbers of trained and of frozen parameters of the model at the end."""
    layers = [layer for layer in session.layers if not layer.gone]
    trained = sum(layer.trainable for layer in layers)
    return trained, sum(layer.parameters for layer in layers) - trained


def chain(layer: str, known: Collection[str]) -> list[str]:
    """Return the layers that contain a layer, outermost first, and the layer itself.

    Examples
    --------
    >>> chain("body.0.inner", {"body", "body.0", "body.0.inner"})
    ['body', 'body.0', 'body.0.inner']
    >>> chain("", {"body"})
    []
    """
    if not layer:
        return []
    found = [layer]
    head = layer
    while "." in head and len(found) < 16:
        head = head[: head.rindex(".")]
        if head in known:
            found.append(head)
    return found[::-1]


def cell(text: str) -> str:
    """Return escaped text for a cell of an HTML table."""
    return escape(visible(text))


def middle(text: str, width: int) -> str:
    """Shorten a text that is too wide, with … in the middle."""
    return text if len(text) <= width else text[: width // 2] + "…" + text[len(text) - (width - width // 2 - 1) :]
