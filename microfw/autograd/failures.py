"""What to tell of a derivative rule that failed, or that read what has been written to since."""

from __future__ import annotations

from typing import TYPE_CHECKING

from microfw.errors import GraphError

if TYPE_CHECKING:
    from microfw.autograd.graph import Leaf, Node


def stale(node: Node, leaf: Leaf, version: int) -> GraphError:
    """Return the error for a saved array that has been written to since."""
    name = f"parameter {leaf.name!r}" if leaf.name else f"a leaf of shape {leaf.shape}"
    return GraphError(
        f"{node.where}: {name} was written to after this step's forward pass used it "
        f"(version {version} then, {leaf.version} now), so its old value is gone; "
        "call backward before you change it, or compute the loss again"
    )


def cause(node: Node, error: Exception) -> Exception:
    """Return what an error at a node comes from: a write, a rule that gives no array, or what the error says itself."""
    for leaf, version in node.guards:
        if leaf.version != version:
            return stale(node, leaf, version)
    if isinstance(error, AttributeError) and error.name == "shape":
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        if trace is not None and trace.tb_frame.f_code.co_name in ("_pull", "pull"):  # not inside of the rule
            got = f"{type(error.obj).__name__}; multiply by g, or use np.full_like"
            return GraphError(f"{node.where}: expected the derivative rule to return an array, got {got}")
    return error
