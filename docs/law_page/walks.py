"""Small graphs of the page on N + P, and the visits of each strategy to their nodes.

Values, local derivatives and backward passes are the engine's. The strategies that start over, and the two bugs, walk
the recorded graph and call its rules; the counts are compared with those of `microfw.profiler.law`.
"""

from collections import Counter

import numpy as np

import microfw as mf
from microfw import nn
from microfw.autograd.graph import Leaf, reachable
from microfw.autograd.mode import mode
from microfw.autograd.observer import Observer
from microfw.law.strategies import count_paths


class FourNodes(nn.Module):
    """Graph of four nodes, in which three values are used twice."""

    names = ("a", "b", "c", "L")
    texts = ("a = u · v", "b = a + u", "c = a · b", "L = b + c")

    def __init__(self):
        self.u = nn.Parameter(2.0)
        self.v = nn.Parameter(3.0)

    def forward(self, x=None):
        """Return L."""
        a = self.u * self.v
        b = a + self.u
        return b + a * b


class Residual(nn.Module):
    """A branch f, and the value that skips it: h is used twice."""

    names = ("h", "f", "y")
    texts = ("h = 3 · u", "f = h · v", "y = h + f")

    def __init__(self):
        self.u = nn.Parameter(2.0)
        self.v = nn.Parameter(0.5)

    def forward(self, x=None):
        """Return y."""
        h = 3.0 * self.u
        return h + h * self.v


class Visits(Observer):
    """Observer that stores each derivative rule that a backward pass calls."""

    wants_grad_inputs = True

    def __init__(self):
        self.events = []

    def backward(self, node, gradient, grad_inputs, start_ns):
        """Store a visit: the node, its gradient, and what each edge carries."""
        parents = [parent for parent, _, _ in node.edges]
        self.events.append((node, float(gradient), list(zip(parents, map(float, grad_inputs), strict=True))))


class Walk:
    """A recorded graph, with names for its nodes and parameters.

    Attributes
    ----------
    nodes : dict of str to Node
        In the order of recording.
    values : dict of str to float
        Of parameters and nodes.
    """

    def __init__(self, model):
        recorded = []

        class Forward(Observer):
            def forward(self, op, node, inputs, params, output, start_ns):
                recorded.append((node, float(output)))

        with mode(observer=Forward()):
            self.end = model()
        self.model = model
        self.nodes = dict(zip(model.names, (node for node, _ in recorded), strict=True))
        self.values = dict(zip(model.names, (value for _, value in recorded), strict=True))
        self.name_of = {node: name for name, node in self.nodes.items()}
        for name, p in model.named_parameters():
            self.values[name] = p.item()
            self.name_of[p._node] = name
        self.parameters = [name for name, _ in model.named_parameters()]

    def edges(self):
        """Return the edges: from, to, and the local derivative, the rule's result for a gradient of 1."""
        return [
            (self.name_of[parent], name, float(partial.vjp(np.float64(1.0), *args)))
            for name, node in self.nodes.items()
            for parent, partial, args in node.edges
        ]

    def backprop(self):
        """Run the engine's backward pass; return its visits."""
        visits = Visits()
        with mode(observer=visits):
            self.end.backward(retain_graph=True)
        found = {name: float(p.grad) for name, p in self.model.named_parameters()}
        for p in self.model.parameters():
            p.grad = None
        return self._story([(node, g, sends, "") for node, g, sends in visits.events], found)

    def per_parameter(self):
        """Walk back once for each parameter, over the nodes between it and the end."""
        story, found = [], {}
        for name in self.parameters:
            leaf = getattr(self.model, name)._node
            chain = {leaf}
            for node in self.nodes.values():
                if any(parent in chain for parent, _, _ in node.edges):
                    chain.add(node)
            g = Counter({self.end._node: 1.0})
            for node in reversed(self.nodes.values()):
                if node in chain:
                    sends = [(p, float(r.vjp(np.float64(g[node]), *args))) for p, r, args in node.edges if p in chain]
                    story.append((node, g[node], sends, name))
                    for parent, part in sends:
                        g[parent] += part
            found[name] = g[leaf]
        return self._story(story, found)

    def paths(self):
        """Pass each contribution on at once, without waiting for the others: a visit for each path to a node."""
        story, g = [], Counter()

        def visit(node, part):
            g[node] += part
            if isinstance(node, Leaf):
                return
            sends = [(p, float(r.vjp(np.float64(part), *args))) for p, r, args in node.edges]
            story.append((node, part, sends, ""))
            for parent, more in sends:
                visit(parent, more)

        visit(self.end._node, 1.0)
        return self._story(story, {name: g[getattr(self.model, name)._node] for name in self.parameters})

    def assigning(self):
        """Walk in the right order, with the first bug: = in place of +=."""
        story, g = [], {self.end._node: 1.0}
        for node in reversed(self.nodes.values()):
            sends = [(p, float(r.vjp(np.float64(g[node]), *args))) for p, r, args in node.edges]
            story.append((node, g[node], sends, ""))
            g.update(sends)
        return self._story(story, {name: g[getattr(self.model, name)._node] for name in self.parameters}, replaces=True)

    def hasty(self):
        """Visit each node once, with the second bug: as soon as the first contribution arrives."""
        story, g, seen = [], Counter({self.end._node: 1.0}), set()

        def visit(node):
            seen.add(node)
            edges = [] if isinstance(node, Leaf) else node.edges
            sends = [(p, float(r.vjp(np.float64(g[node]), *args))) for p, r, args in edges]
            if edges:
                story.append((node, g[node], sends, ""))
            for parent, part in sends:
                g[parent] += part
                if parent not in seen:
                    visit(parent)

        visit(self.end._node)
        return self._story(story, {name: g[getattr(self.model, name)._node] for name in self.parameters})

    def _story(self, story, found, replaces=False):
        """Return the visits of a strategy, with a sentence for each, and the derivatives at the end."""
        events, total, before = [], Counter(), set()
        slopes = {(start, end): slope for start, end, slope in self.edges()}
        last = ""
        for node, g, sends, of in story:
            name = self.name_of[node]
            if of != last:
                total, last = Counter(), of
            lines, parts = [], []
            for parent, part in sends:
                to = self.name_of[parent]
                had = 0.0 if replaces else total[to]
                total[to] = had + part
                lines.append(
                    f"{number(g)} × {number(slopes[to, name])} to {to}"
                    + (f", now {number(had)} + {number(part)} = {number(total[to])}" if had else "")
                )
                parts.append({"to": to, "part": part, "total": total[to], "leaf": isinstance(parent, Leaf)})
            again = name in before
            says = f"Visit {name}, with g({name}) = {number(g)}" + (f", for {of}" if of else "")
            says += ": computed before!" if again and of else ":"
            says += " pass " + "; ".join(lines) + "."
            before.add(name)
            events.append({"node": name, "g": g, "of": of, "again": again, "sends": parts, "says": says})
        added = sum(part["leaf"] for event in events for part in event["sends"])
        return {"events": events, "visits": len(events), "added": added, "found": found}

    def data(self, **strategies):
        """Return the graph and the visits of some strategies, as lists and numbers."""
        return {
            "nodes": [[name, text, self.values[name]] for name, text in zip(self.nodes, self.model.texts, strict=True)],
            "parameters": [[name, self.values[name]] for name in self.parameters],
            "edges": [list(edge) for edge in self.edges()],
            "walks": strategies,
        }


def number(x):
    """Write a number without needless digits.

    Examples
    --------
    >>> number(6.0), number(0.25)
    ('6', '0.25')
    """
    return f"{x:g}"


def law_of(model):
    """Return what `microfw.profiler.law` counts on a small graph: scalars, and rules of two strategies."""
    found = mf.profiler.law(model, lambda result, y: result, [0], [0], budget=1)
    return found.count("scalars"), found.way("chain rule per parameter").rules, found.way("paths, no memory").rules


def four_nodes():
    """Return the graph of four nodes by three strategies; each count is that of the law."""
    walk = Walk(FourNodes())
    data = walk.data(backprop=walk.backprop(), each=walk.per_parameter(), paths=walk.paths())
    counted, each, paths = law_of(FourNodes())
    walks = data["walks"]
    assert (len(walk.nodes), len(walk.parameters)) == (counted.N, counted.P)
    assert (walks["backprop"]["visits"], walks["backprop"]["added"]) == (counted.rules, counted.accumulated)
    assert (walks["each"]["visits"], walks["paths"]["visits"]) == (each, paths)
    assert walks["backprop"]["found"] == walks["each"]["found"] == walks["paths"]["found"]
    return data


def residual():
    """Return the residual branch by backprop and by two programs with a bug each."""
    walk = Walk(Residual())
    data = walk.data(right=walk.backprop(), assigned=walk.assigning(), hasty=walk.hasty())
    counted = law_of(Residual())[0]
    right = data["walks"]["right"]
    assert (right["visits"], right["added"]) == (counted.rules, counted.accumulated)
    assert all(data["walks"][bug]["found"] != right["found"] for bug in ("assigned", "hasty"))
    return data


def doublings(numbers=(1, 2, 3, 4, 5, 6, 8, 10, 20, 40)):
    """Return n, nodes, rules that backprop calls, and paths, for a number doubled n times."""
    found = []
    for n in numbers:
        start = end = mf.tensor(1.0, requires_grad=True)
        for _ in range(n):
            end = end + end
        nodes, paths = len(reachable(end._node)), count_paths(end._node)[0]
        visits = Visits()
        with mode(observer=visits):
            end.backward()
        assert float(start.grad) == paths
        found.append([n, nodes, len(visits.events), paths])
    return found


class Neuron(nn.Module):
    """One neuron with three inputs, number by number."""

    def __init__(self):
        self.w = [nn.Parameter(w) for w in (0.1, 0.2, 0.3)]
        self.b = nn.Parameter(0.4)

    def forward(self, x=None):
        """Return the output of the neuron."""
        total = self.b
        for w, x in zip(self.w, (0.5, -1.0, 2.0), strict=True):
            total = total + w * x
        return np.tanh(total)


def neuron():
    """Return the nodes of one neuron, by op, with N and P."""
    counted = law_of(Neuron())[0]
    nodes = reachable(Neuron()()._node)
    assert len(nodes) == counted.N
    return {"N": counted.N, "P": counted.P, "ops": dict(Counter(node.op.name for node in nodes)), "features": 3}
