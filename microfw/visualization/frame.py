"""A page in a notebook, in a frame that shares no style and no script with the notebook."""

from __future__ import annotations

from html import escape

from microfw.errors import ArgumentError


class Frame:
    """Page that a notebook shows, from ``session.show()``, ``law.show()`` or ``found.show()``.

    The page runs in a sandbox of another origin: it cannot read or restyle the notebook.

    Parameters
    ----------
    page : str
        Text of a self-contained HTML page.
    height : int
        Height of the frame in pixels; the page scrolls in it.
    save : str
        Code that writes the page to a file, for the text.

    Examples
    --------
    >>> Frame("<!doctype html><p>Hello", 300, "session.save('run.html')")
    <Page for a notebook, 1 kB; elsewhere call session.save('run.html') and open the file in a browser>
    """

    def __init__(self, page: str, height: int, save: str) -> None:
        if not isinstance(height, int) or height < 1:
            raise ArgumentError("show", "height to be a positive number of pixels", height)
        self.page, self.height, self.save = page, height, save

    def _repr_html_(self) -> str:
        # an untrusted notebook removes the frame and leaves the text
        return (
            f'<iframe sandbox="allow-scripts" title="microfw page" srcdoc="{escape(self.page)}" '
            f'style="width:100%;height:{self.height}px;border:0"></iframe><p><small>No page above? Trust the notebook, '
            f"or open the file that <code>{escape(self.save)}</code> writes.</small></p>"
        )

    def __repr__(self) -> str:
        size = f"{(len(self.page) + 999) // 1000:,} kB"
        return f"<Page for a notebook, {size}; elsewhere call {self.save} and open the file in a browser>"
