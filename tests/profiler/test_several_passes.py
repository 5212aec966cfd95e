"""Steps of several backward passes: parameters, memory, failed passes, retained graphs."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import GraphError
from microfw.profiler import Session, report
from microfw.profiler.recorder import passes
from microfw.profiler.reports.counts import counts

X = np.random.default_rng(0).normal(size=(8, 4)).astype("f4")


class Heads(nn.Module):
    """A layer with two heads."""

    def __init__(self):
        self.trunk, self.a, self.b = nn.Dense(4, 5, rng=0), nn.Dense(5, 3, rng=1), nn.Dense(5, 2, rng=2)


def one_pass(m):
    (m.a(m.trunk(X)).sum() + m.b(m.trunk(X)).sum()).backward()


def pass_by_pass(m):
    for head in (m.a, m.b):
        head(m.trunk(X)).sum().backward()


def forwards_first(m):
    for loss in [head(m.trunk(X)).sum() for head in (m.a, m.b)]:
        loss.backward()


def retained(m):
    h = m.trunk(X)
    first, second = m.a(h).sum(), m.b(h).sum()
    first.backward(retain_graph=True)
    second.backward()


def batches_of_any_size(m):
    for rows in (8, 3, 5, 8):
        for head in (m.b, m.a):
            head(m.trunk(X[:rows])).sum().backward()


def profiled(step, model=None, steps=3, every=1):
    model = model or Heads()
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    with mf.Profiler(model, every=every) as profiler:
        for _ in range(steps):
            step(model)
            optimizer.step()
            optimizer.zero_grad()
    (epoch,) = profiler.session.epochs
    return epoch


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("step", [one_pass, pass_by_pass, forwards_first, retained, batches_of_any_size])
def test_parameters_are_those_of_all_passes_of_a_step(step, every):
    epoch = profiled(step, every=every)
    assert (epoch.parameters, epoch.parameter_tensors) == (25 + 18 + 12, 6)


def test_steps_that_train_parts_in_turn_do_not_add_up():
    model = Heads()
    parts = [optim.SGD(layer.parameters(), lr=0.01) for layer in (model.a, model.b)]
    with mf.Profiler(model) as profiler:
        for k in range(6):
            (model.a if k % 2 else model.b)(np.ones((2, 5), "f4")).sum().backward()
            parts[1 - k % 2].step()
    assert profiler.session.epochs[0].parameters == 18


def test_models_made_again_are_not_added_to_earlier_ones(monkeypatch):
    """The graphs of the second model are partly those of the first, partly new."""
    monkeypatch.setattr(passes, "MAX_JOINED", 2)
    with mf.Profiler() as profiler:
        for sizes in ([8, 8], [8, 3, 8, 5]):
            model = Heads()
            optimizer = optim.SGD(model.parameters(), lr=0.01)
            for _ in range(2):
                for rows in sizes:
                    model.a(model.trunk(X[:rows])).sum().backward()
                optimizer.step()
    assert profiler.session.epochs[0].parameters == 25 + 18


def test_a_replayed_step_has_its_parameters_only():
    model = Heads()
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    step = mf.compile(lambda: model.a(model.trunk(X)).sum(), optimizer)
    with mf.Profiler(model) as profiler:
        pass_by_pass(model)
        optimizer.step()
        profiler.end_epoch()
        for _ in range(6):
            step()
    first, second = profiler.session.epochs
    assert (first.parameters, second.parameters, second.replayed > 0) == (55, 43, True)


def test_memory_is_that_of_all_graphs_when_a_pass_begins():
    one = profiled(one_pass).saved_peak_bytes
    assert profiled(forwards_first).saved_peak_bytes == one
    first = profiled(lambda m: m.a(m.trunk(X)).sum().backward()).saved_peak_bytes
    assert profiled(pass_by_pass).saved_peak_bytes == first  # it is freed before the second is made


def test_memory_that_graphs_share_counts_once():
    x = mf.tensor(np.ones((100, 4), "f4"))

    def losses(m):
        h = np.tanh(m.trunk(x))
        return [head(h).sum() for head in (m.a, m.b)]

    def retained(m):
        first, second = losses(m)
        first.backward(retain_graph=True)
        second.backward()

    assert profiled(retained).saved_peak_bytes == profiled(lambda m: sum(losses(m)).backward()).saved_peak_bytes


def test_a_retained_node_counts_once_and_its_further_visits_are_named():
    epoch = profiled(retained)
    once = profiled(lambda m: (m.a(h := m.trunk(X)).sum() + m.b(h).sum()).backward())
    tensors, scalars = epoch.counts()
    assert (tensors.N, tensors.rules, tensors.unreached, tensors.revisited) == (5, 6, 0, 1)
    assert scalars.N == once.counts()[1].N - 1  # without the sum of both losses
    assert (scalars.unreached, scalars.revisited) == (0, 8 * 5 * 4 * 2)
    found = counts(epoch)
    assert found["revisited"][:2] == (scalars.revisited, 1)
    assert "unreached" not in found
    assert f"{scalars.rules:,} visits" in found["backward steps"].meaning
    assert "revisited" not in counts(once)
    assert "revisited" in report(Session(epochs=[epoch]))


def test_a_pass_that_fails_is_not_counted():
    model, loss_function = nn.Dense(4, 3, rng=0), nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=0.01)

    def fail(g):
        raise ValueError

    with mf.Profiler(model) as profiler:
        for k in range(10):
            optimizer.zero_grad()
            output = model(X)
            if k % 2:
                output.register_hook(fail)
            try:
                loss_function(output, np.zeros(8, int)).backward()
            except ValueError:
                continue
            optimizer.step()
    (epoch,) = profiler.session.epochs
    count = epoch.counts()[0]
    assert (epoch.steps, count.N, count.rules, count.accumulated) == (5, 2, 2, 2)
    assert epoch.untagged_backward_ns >= 0


def test_a_second_pass_of_a_freed_graph_is_not_counted():
    def twice(m):
        loss = m.a(m.trunk(X)).sum()
        loss.backward()
        with pytest.raises(GraphError):
            loss.backward()

    count = profiled(twice).counts()[0]
    assert (count.N, count.E, count.rules, count.accumulated) == (3, 6, 3, 4)
