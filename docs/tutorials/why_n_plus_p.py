"""
Why N + P and not N × P
=======================

*With N computations and P parameters, backpropagation gets all P derivatives in about N + P steps. Whoever goes
back from the result for each parameter anew needs up to N × P.* This page shows why: first on a graph of four nodes,
by hand and with a counter on every node; then on a network that reads digits, with the same gradient computed in
five ways, each of them really run; then on a convolution, whose parameters are few and work hard.

You need to know the chain rule. It takes half an hour. Every number on the page was counted or measured when the page
was built.
"""

# %%
# A graph to work by hand
# -----------------------
#
# Two parameters, *u* and *v*, and four computations:
#
# .. code-block:: text
#
#    u, v          parameters
#    a = u · v
#    b = a + u
#    c = a · b
#    L = b + c     the result
#
# The computations are the nodes: N = 4. The parameters are P = 2. Going forward each node is computed once, and beside
# its value we write down, for each of its inputs, the *local derivative*: how much the node moves if only that
# input does.

import time
from collections import Counter

import numpy as np

import microfw as mf
from microfw import nn


def forward(u, v):
    """Return the value of L, and each node's inputs with the local derivatives, in the order of computing."""
    a = u * v
    b = a + u
    c = a * b
    L = b + c
    graph = {
        "a": {"u": v, "v": u},
        "b": {"a": 1.0, "u": 1.0},
        "c": {"a": b, "b": a},
        "L": {"b": 1.0, "c": 1.0},
    }
    return L, graph


value, graph = forward(2.0, 3.0)
print("L =", value)
for node, inputs in graph.items():
    print(node, "from", inputs)

# %%
# A local derivative is a number that can be read off the node: no derivative *of the result* has been computed yet.
#
# Backpropagation
# ---------------
#
# Let *g* of a node be the derivative of L with respect to it. For L itself g is 1. Everything else follows from one
# rule: a node passes on, to each of its inputs, its own g times the local derivative, and what arrives at an input
# over several ways is **added**. So that g is complete before it is passed on, the nodes are visited in the reverse
# order of computing: whatever uses a value was computed after it.


def backpropagate(graph, visits):
    """Return the derivative of L by everything in the graph."""
    g = Counter({"L": 1.0})
    for node in reversed(graph):
        visits[node] += 1
        for parent, slope in graph[node].items():
            g[parent] += g[node] * slope
    return g


visits = Counter()
g = backpropagate(graph, visits)
for node in ("L", "c", "b", "a", "v", "u"):
    print(f"g({node}) = {g[node]:g}")
print("visits:", dict(visits))

# %%
# Do it with a pencil: g(c) = 1. Then g(b) = 1 + g(c) · a, and g(a) = g(b) + g(c) · b. At the end,
# dL/dv = g(a) · u, and dL/du = g(a) · v + g(b).
#
# Each of the N nodes was visited once, although three of the values are used twice. Into the parameters three shares
# were added, since *u* is used twice and *v* once. That makes a few more steps than N + P, and never more than twice
# as many, if a node has at most two inputs:

N, P = len(graph), 2
added = sum(parent in "uv" for inputs in graph.values() for parent in inputs)
steps = sum(visits.values()) + added
print(f"N + P = {N} + {P} = {N + P}; steps = {sum(visits.values())} visits + {added} added = {steps}")
assert N + P <= steps <= 2 * (N + P)

# %%
# For each parameter anew
# -----------------------
#
# Now compute dL/du, throw everything away, and compute dL/dv. For one parameter only the nodes between it and the
# result matter, its *chain*. So for each parameter find its chain, and walk back over that:


def for_each_parameter(graph, visits):
    """Return the derivatives, each by a walk of its own."""
    derivatives = {}
    for parameter in "uv":
        chain = {parameter}
        for node, inputs in graph.items():
            if chain & set(inputs):
                chain.add(node)
        g = Counter({"L": 1.0})
        for node in reversed(graph):
            if node in chain:
                visits[node] += 1
                for parent, slope in graph[node].items():
                    g[parent] += g[node] * slope
        derivatives[parameter] = g[parameter]
    return derivatives


visits_each = Counter()
derivatives = for_each_parameter(graph, visits_each)
assert derivatives == {"u": g["u"], "v": g["v"]}
print("visits:", dict(visits_each), "together", sum(visits_each.values()))
print("N × P =", N * P)

# %%
# In this graph both parameters stand at the beginning, so that both chains are the whole graph: the bound N × P is
# reached. The walks have nearly everything in common, and that is what backpropagation uses: g(a), g(b) and
# g(c) are the same numbers in each of them.
#
# Without order: along the paths
# ------------------------------
#
# It can be worse. If each node passes a share on *as it arrives*, and does not wait for the others, then it is
# visited once for each path that leads to it:


def along_paths(graph, visits, node="L", share=1.0, g=None):
    """Return the derivatives by a recursion that remembers nothing."""
    g = Counter() if g is None else g
    g[node] += share
    if node in graph:
        visits[node] += 1
        for parent, slope in graph[node].items():
            along_paths(graph, visits, parent, share * slope, g)
    return g


visits_paths = Counter()
assert along_paths(graph, visits_paths)["u"] == g["u"]
print("visits:", dict(visits_paths), "together", sum(visits_paths.values()))

# %%
# Two paths lead to *b*, three to *a*. Here that is little. But put such pieces one behind the other, and the paths
# multiply, while the nodes only add up. The engine's own graph, with numbers that are doubled again and again:

from microfw.law.strategies import count_paths

for doublings in (1, 4, 16, 64):
    x = end = mf.tensor(1.0, requires_grad=True)
    for _ in range(doublings):
        end = end + end
    paths, recursion = count_paths(end._node)
    print(f"N = {doublings:2}, P = 1: {paths:,} paths, {recursion:,} visits by recursion")

# %%
# N × P is therefore not the worst that can happen to those who don't use the graph. It is the worst for those who
# use it *once for each parameter*.
#
# The same in the engine
# ----------------------
#
# ``mf.profiler.law`` computes the gradient of a model by five strategies and counts. Here is the graph from above:


class ByHand(nn.Module):
    def __init__(self):
        self.u = nn.Parameter(2.0)
        self.v = nn.Parameter(3.0)

    def forward(self, x):
        a = self.u * self.v
        b = a + self.u
        c = a * b
        return b + c


by_hand = mf.profiler.law(ByHand(), lambda result, y: result, [0], [0])
for way in by_hand.ways:
    print(f"{way.name:25} on {way.graph}: {way.rules} rules called, {way.forwards} times forward")
scalars = by_hand.count("scalars")
assert (scalars.N, scalars.P, scalars.steps) == (N, P, steps)
assert by_hand.way("chain rule per parameter").rules == sum(visits_each.values())
assert by_hand.way("paths, no memory").rules == sum(visits_paths.values())

# %%
# The counts are those from above. Two strategies have joined. *Forward mode* goes through the graph in the order of
# computing and carries along the derivatives with respect to *one* parameter, so it takes a pass for each.
# *Differences* move a parameter a little and compute the result anew: P + 1 times, or 2P times if it is moved to
# both sides.
#
# On digits
# ---------
#
# Now a network: 64 pixels, 16 hidden units, 10 digits. On the command line it is ``microfw law digits``.

train, _ = mf.data.load("digits", rng=0)
rng = np.random.default_rng(0)
model = nn.Sequential(nn.Dense(64, 16, rng=rng), nn.ReLU(), nn.Dense(16, 10, rng=rng))
began = time.perf_counter()
law = mf.profiler.law(model, nn.CrossEntropyLoss(), train.X, train.y, name="digits")
print(law)
print(f"\nAll of this took {time.perf_counter() - began:.1f} s.")

# %%
# *In tensors* a node is an operation on whole arrays. There are only a handful of them, and so N + P in tensors says
# little about cost. *In scalars* each addition and each product is a node of its own: the same model was computed
# number by number, on one row of the data, by the same engine. This is the N of the sentence at the top.
#
# The strategies side by side, by what they had to compute:

import matplotlib.pyplot as plt

scalars = law.count("scalars")
bars = {
    "backprop: steps": scalars.steps,
    "N + P": scalars.N + scalars.P,
    "along the paths: rules": law.way("paths, no memory").rules,
    "for each parameter: rules": law.way("chain rule per parameter").rules,
    "forward mode: operations": law.way("forward mode").operations,
    "N × P, the bound": scalars.N * scalars.P,
    "differences, one side: operations": law.way("one-sided differences").operations,
    "differences, both sides: operations": law.way("central differences").operations,
}
bars = {name: count for name, count in bars.items() if count is not None}
figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
drawn = axes.barh(list(bars), list(bars.values()), color=["#0072b2", "#56b4e9"] + ["#e69f00"] * (len(bars) - 2))
axes.bar_label(drawn, labels=[f"{count:,}" for count in bars.values()], padding=4)
axes.set(xscale="log", xlabel="for one gradient, on one row of digits", xlim=(1e3, 1e9))
axes.invert_yaxis()
plt.show()

# %%
# To go back for each parameter took less than the bound, for a weight's chain leaves out what the other weights do.
# The recursion along the paths is not yet the worst here: it makes one walk for all parameters, and behind a single
# hidden layer there are few paths. Each further layer multiplies them by its width.

chain = law.way("chain rule per parameter").rules
print(f"{chain:,} of {scalars.N * scalars.P:,}: {chain / (scalars.N * scalars.P):.1%} of N × P")
print(f"{chain / scalars.steps:.0f} times the steps of backprop")

# %%
# On a convolution
# ----------------
#
# A convolution lays the same few weights over every place of an image. So N and P come apart. The digits again, now as
# images of 8 by 8 pixels: four filters of 3 by 3, the largest of every two by two places, and a dense layer.

images = train.X.reshape(-1, 1, 8, 8)
rng = np.random.default_rng(0)
convolutional = nn.Sequential(
    nn.Conv2D(1, 4, 3, padding=1, rng=rng), nn.Tanh(), nn.MaxPool2D(2), nn.Flatten(), nn.Dense(64, 10, rng=rng)
)
conv = mf.profiler.law(convolutional, nn.CrossEntropyLoss(), images, train.y, name="digits")
print(conv)

# %%
# Count it with a pencil. A filter has 9 weights and a bias, and it computes one number at each of 8 · 8 places: 9
# products, 8 sums, and one more sum for the bias.

filters, places, weights = 4, 8 * 8, 3 * 3
by_pencil = filters * places * (weights + (weights - 1) + 1)
count = conv.count("scalars")
used = {row.layer: row.uses for row in conv.layers}
trained = filters * (weights + 1)
print(f"the convolution: {by_pencil:,} of N = {count.N:,} nodes, for {trained} of P = {count.P} parameters")
assert used["0"] == places * trained

alone = mf.profiler.law(convolutional[0], lambda outputs, y: outputs.sum(), images, train.y, budget=0.1)
summed = filters * places - 1  # the sum of its outputs is that many nodes more
nodes = alone.count("scalars").N
assert by_pencil + summed == nodes

# %%
# Each node is visited once, as ever: that is the N of N + P, and backprop called exactly so many rules. But a weight of
# the convolution is used at every place, and so a gradient is *added* into it at every place. That is where the steps
# beyond N + P come from. They stay below twice as many: a node has at most two inputs, and of these 2N edges each node
# but the last takes at least one to be reached at all, which leaves about N that can end in parameters.

steps, size = count.steps, count.N + count.P
print(f"backprop: {count.rules:,} rules + {count.accumulated:,} gradients added = {steps:,} steps")
print(f"{steps / size:.2f} times N + P")
assert count.rules == count.N
assert size <= steps <= 2 * size

# %%
# What does a parameter cost? In a dense layer each weight is multiplied once for a row of data, whatever its size. In
# a convolution, once for every place:

cost = {row.layer: (row.forward + row.backward) / row.parameters for row in conv.layers if row.parameters}
uses = {row.layer: row.uses / row.parameters for row in conv.layers if row.parameters}
for layer, kind in (("0", "convolution"), ("4", "dense layer")):
    print(f"{kind}: {cost[layer]:.0f} operations for each parameter, which a row uses {uses[layer]:.0f} times")

# %%
# The operations go with the uses: each use is a product and a sum forward, and as much again backward for the weight's
# gradient (in the dense layer also for that of its input). It is why the number of parameters alone is a poor guess at
# the cost of a gradient, and N + P is a good one:

for name, found in (("two dense layers", law), ("with a convolution", conv)):
    count = found.count("scalars")
    print(f"{name}: P = {count.P:,}, N + P = {count.N + count.P:,}, backprop took {count.steps:,} steps")

# %%
# .. admonition:: What N is not
#
#    - **Not the neurons.** N counts computations. A neuron with k inputs is k products, k additions with its
#      bias, and its activation.
#    - **Not the features.** They are constants: nothing is differentiated by them. They aren't in P either.
#    - **Not the layers, and not the lines of code.** In tensors N is about the number of array operations. In scalars
#      it is about the number of arithmetic operations of the forward pass.
#    - **Not derivatives that were made on the way forward.** Forward mode does that, and pays a pass for each
#      parameter. Backpropagation going forward computes values and keeps what the derivatives will need; the
#      derivatives are computed on the way back, one rule a node.
#    - **Not the size of the training set.** N is counted for one step. A batch of more rows has more nodes, and
#      the same P.
#
# How it grows
# ------------
#
# Make the model larger and watch. A network of 8 units a layer, on the four features of iris, deeper and deeper:

iris, _ = mf.data.load("iris", rng=0)
growth = mf.profiler.sweep("depth", iris.X, iris.y, values=(4, 8, 16, 32), budget=0.1, name="iris")
print(growth)

# %%
# The steps of backprop grow with the first power of N + P. Going through the graph, or computing the loss, once for
# each parameter grows with about the second. And the paths cannot be walked any more, only counted.

figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
growth.plot(axes=axes)
plt.show()

# %%
# Two bugs
# --------
#
# Both parts of the rule matter: *add* what arrives, and pass it on *when it is complete*. Here are two
# backpropagations that break one each. To check them, make the whole graph one op whose derivatives come from them,
# and let ``mf.gradcheck`` compare with differences:


def check(backward, name):
    """Say whether the derivatives by a backward pass are right."""

    def by(parameter):
        return lambda g, u, v: g * backward(forward(u, v)[1])[parameter]

    @mf.op(vjp=(by("u"), by("v")), name=name)
    def whole(u, v):
        return np.asarray(forward(u, v)[0])

    try:
        error = mf.gradcheck(whole, 2.0, 3.0)
        print(f"{name}: right, to {error:.0e}")
        return True
    except mf.errors.GradientError as wrong:
        print(f"{name}: {wrong}")
        return False


assert check(lambda graph: backpropagate(graph, Counter()), "as_it_should_be")

# %%
# **Bug 1: = for +=.** The share that arrives last wins.


def forgets(graph):
    g = Counter({"L": 1.0})
    for node in reversed(graph):
        for parent, slope in graph[node].items():
            g[parent] = g[node] * slope
    return g


assert not check(forgets, "assigned")

# %%
# In a graph in which every value is used once this gives the right answer. It is a bug that hides until a value is used
# twice.
#
# **Bug 2: a recursion without order.** It visits each node once, as backpropagation does, but as soon as it is
# reached. What arrives at a node later is added, and never passed on.


def hasty(graph):
    g = Counter({"L": 1.0})
    visited = set()

    def visit(node):
        visited.add(node)
        for parent, slope in graph.get(node, {}).items():
            g[parent] += g[node] * slope
            if parent not in visited:
                visit(parent)

    visit("L")
    return g


assert not check(hasty, "without_order")

# %%
# It has the thrift without the order that makes it right. The recursion along all paths from above is the
# opposite: right without any order, and it pays with a visit for each path.
#
# .. admonition:: The limits
#
#    - **Constants.** A step back is not as cheap as a step forward: the rule of a product has two products. Together,
#      forward and backward take at most about three to five times the operations of forward alone; the table
#      above has the bounds with their sources.
#    - **Memory.** Backpropagation keeps what forward has computed until the way back has used it. Differences keep
#      nothing. Compare the column *peak*.
#    - **Operations are not seconds.** In a small model most of the time goes into calling NumPy, once a node,
#      whatever the size of the arrays. That is why differences look better in seconds than in operations, and why
#      graphs are made of tensors.
#    - **N × P is a bound.** What it takes to go back for each parameter depends on the graph. Where all parameters
#      stand at the beginning, as in the graph by hand, the bound is reached; the network above stays far below it.
#    - **One result.** The walk back starts at one number. For m results there are m walks, and where the results
#      are many and the parameters few, forward mode is the cheaper one.
#
# Exercises
# ---------
#
# Guess first, then open the answer.
#
# 1. Add a node ``M = L · u`` to the graph by hand. What are N, P, the steps of backprop, and the visits for each
#    parameter anew?
#
# .. raw:: html
#
#    <details><summary>Answer</summary>


class WithOneMore(ByHand):
    def forward(self, x):
        return super().forward(x) * self.u


more = mf.profiler.law(WithOneMore(), lambda result, y: result, [0], [0])
count = more.count("scalars")
print(f"N = {count.N}, P = {count.P}, steps = {count.rules} + {count.accumulated} = {count.steps}")
print(f"for each parameter anew: {more.way('chain rule per parameter').rules} visits, N × P = {count.N * count.P}")

# %%
# .. raw:: html
#
#    </details>
#
# 2. Take four rows of digits instead of one. Which of N, E and P change, and what becomes of steps / (N + P)?
#
# .. raw:: html
#
#    <details><summary>Answer</summary>

small = nn.Sequential(nn.Dense(64, 4, rng=0), nn.ReLU(), nn.Dense(4, 10, rng=1))
for rows in (1, 4):
    result = mf.profiler.law(small, nn.CrossEntropyLoss(), train.X, train.y, rows=rows, budget=0.5)
    count = result.count("scalars")
    ratio = count.steps / (count.N + count.P)
    print(f"{rows} rows: N = {count.N:,}, E = {count.E:,}, P = {count.P:,}, steps / (N + P) = {ratio:.2f}")

# %%
# Each row is computed anew, so there are as many more nodes and edges. Each weight is used once a row, so a
# gradient is added into it once a row. P does not change.
#
# .. raw:: html
#
#    </details>
#
# 3. In a chain of n doublings, how many visits does a recursion along the paths make, and how many does the walk
#    for each parameter?
#
# .. raw:: html
#
#    <details><summary>Answer</summary>


class Doublings(nn.Module):
    def __init__(self, n):
        self.n = n
        self.x = nn.Parameter(1.0)

    def forward(self, _):
        end = self.x
        for _ in range(self.n):
            end = end + end
        return end


for n in (3, 6, 9):
    result = mf.profiler.law(Doublings(n), lambda result, y: result, [0], [0])
    along, each = result.way("paths, no memory").rules, result.way("chain rule per parameter").rules
    print(f"n = {n}: {along} visits along the paths, {each} for the one parameter")
    assert (along, each) == (2**n - 1, n)

# %%
# 2ⁿ - 1 and n: with one parameter, to go back for each parameter *is* backpropagation.
#
# .. raw:: html
#
#    </details>
#
# 4. Freeze the first layer of the digits model, ``model[0].requires_grad_(False)``. What happens to N, and why
#    by so much?
#
# .. raw:: html
#
#    <details><summary>Answer</summary>

model[0].requires_grad_(False)
frozen = mf.profiler.law(model, nn.CrossEntropyLoss(), train.X, train.y, budget=0.5).count("scalars")
print(f"N = {frozen.N:,} instead of {scalars.N:,}, P = {frozen.P:,} instead of {scalars.P:,}")

# %%
# What depends on no trainable parameter records no node: the whole first layer is a constant now.
#
# .. raw:: html
#
#    </details>
