"""Runs the ``>>>`` examples of Markdown pages."""

import doctest
import re
from pathlib import Path

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL


def examples(page):
    """Return a page's examples as one test; a fence ends an example as an empty line does."""
    text = re.sub(r"^```.*$", "", Path(page).read_text(encoding="utf-8"), flags=re.M)
    return doctest.DocTestParser().get_doctest(text, {}, Path(page).name, str(page), 0)


def check(*pages):
    """Run the examples of some pages.

    Raises
    ------
    RuntimeError
        If an example prints other output than the page shows.
    """
    complaints = []
    for page in pages:
        doctest.DocTestRunner(optionflags=FLAGS, verbose=False).run(examples(page), out=complaints.append)
    if complaints:
        raise RuntimeError("".join(complaints))
