"""Hand-tuned NumPy steps of the recurrent networks.

The batch is on the last axis and the gates are on the first: in each time step one product gives all gates, and each
gate is one run of memory. The columns of a sigmoid's gate are stored with their sign changed, so that
``1 / (1 + exp(x))`` is the gate. What the slopes need is kept on the way forward, and the slopes of all time steps are
computed at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from columns import Step
from tuned_parts import Array, Parameters, cross_entropy, empty


def gru(start: list[Array], steps: int, batch: int) -> Step:
    """Gated recurrent units and a dense layer from the last state; ``start``: V, c, U, d, W, b of `sequence_columns`.

    The gates are in the order r, z, n for the inputs, and n, r, z for the states: with the gradients in the order n of
    the states, r, z, n of the inputs, both are one run of memory.
    """
    V, c, U, d, W, b = start
    inputs, H = len(V), len(U)
    V, c = (np.concatenate([-a[..., : 2 * H], a[..., 2 * H :]], axis=-1) for a in (V, c))
    U, d = (np.concatenate([a[..., 2 * H :], -a[..., : 2 * H]], axis=-1) for a in (U, d))
    parameters = Parameters((V, c), (U, d), (W, b))
    (v, gv), (u, gu), (head, g_head) = parameters.pairs
    update = parameters.updater()
    seen = np.ones((inputs + 1, steps, batch), np.float32)
    pixels, seen_steps, seen_flat = seen[:inputs], seen.transpose(1, 0, 2), seen.reshape(inputs + 1, -1)
    added = empty(steps, 3 * H, batch)
    states = np.zeros((steps + 1, H + 1, batch), np.float32)
    states[:, H] = 1
    kept = empty(steps, 3 * H, batch)  # what the states give n; r, z
    news, difference = empty(steps, H, batch), empty(H, batch)
    slopes = empty(steps, 4 * H, batch)  # by what the states give n; by r, z, and what the inputs give n
    from_states, resets, updates = kept[:, :H], kept[:, H : 2 * H], kept[:, 2 * H :]
    gates, less_one = kept[:, H:], empty(steps, 2 * H, batch)
    r_less_one, z_less_one = less_one[:, :H], less_one[:, H:]
    k_states, k_r, k_z, k_n = (slopes[:, k * H : (k + 1) * H] for k in range(4))
    one, ones = np.float32(1), np.ones((2 * H, batch), np.float32)
    forward, back = [], []
    slope_gates = slopes.reshape(steps, 4, H, batch)
    for t in range(steps):
        gate = kept[t, H:]
        forward.append(
            (states[t], kept[t], gate, added[t, : 2 * H], resets[t], from_states[t], news[t], added[t, 2 * H :],
             states[t, :H], k_z[t], updates[t], states[t + 1, :H])
        )  # fmt: skip
        back.append((slope_gates[t], slopes[t, : 3 * H], updates[t]))
    first, first_gates = forward[0], back[0][0]
    forward, back = forward[1:], back[:0:-1]
    gradients, states_by_row = empty(4 * H, steps, batch), empty(H + 1, steps, batch)
    slopes_by_row, states_before = slopes.transpose(1, 0, 2), states[:-1].transpose(1, 0, 2)
    flat = gradients.reshape(4 * H, -1)
    of_states, of_inputs, states_flat = flat[: 3 * H].T, flat[H:].T, states_by_row.reshape(H + 1, -1)
    last, logits, dh, scaled = states[steps], empty(batch, 10), empty(H, batch), empty(H, batch)
    loss_of = cross_entropy(logits)
    v_t, u_t, u_bias, u_back, last_t, w_head, logits_t = v.T, u.T, u[H][:, None], u[:H], last.T, head[:H], logits.T
    add, copyto, exp, matmul, multiply = np.add, np.copyto, np.exp, np.matmul, np.multiply
    reciprocal, subtract, tanh = np.reciprocal, np.subtract, np.tanh
    dot, dot_back = u_t.dot, u_back.dot

    def step(X: Any, y: Any) -> float:
        copyto(pixels, X.transpose(2, 1, 0))
        matmul(v_t, seen_steps, out=added)
        _, k, gate, a, r, n_states, n, a_n, _, q, z, new = first
        copyto(k, u_bias)  # the first state is zero
        add(gate, a, out=gate)
        exp(gate, out=gate)
        add(gate, ones, out=gate)
        reciprocal(gate, out=gate)
        multiply(r, n_states, out=n)
        add(n, a_n, out=n)
        tanh(n, out=n)
        multiply(n, z, out=q)
        subtract(n, q, out=new)
        subtract(new, n, out=q)
        for s, k, gate, a, r, n_states, n, a_n, h, q, z, new in forward:
            dot(s, k)
            add(gate, a, out=gate)
            exp(gate, out=gate)
            add(gate, ones, out=gate)
            reciprocal(gate, out=gate)
            multiply(r, n_states, out=n)
            add(n, a_n, out=n)
            tanh(n, out=n)
            subtract(h, n, out=difference)
            multiply(difference, z, out=q)
            add(q, n, out=new)
        last_t.dot(head, logits)
        loss = loss_of(y)

        subtract(gates, one, out=less_one)
        multiply(k_z, z_less_one, out=k_z)
        multiply(news, news, out=k_n)
        subtract(k_n, one, out=k_n)
        multiply(k_n, z_less_one, out=k_n)
        multiply(k_n, resets, out=k_states)
        multiply(k_states, from_states, out=k_r)
        multiply(k_r, r_less_one, out=k_r)
        last.dot(logits, g_head)
        w_head.dot(logits_t, dh)
        for slope_gate, slope, z in back:
            multiply(slope_gate, dh, out=slope_gate)
            multiply(dh, z, out=scaled)
            dot_back(slope, dh)
            add(dh, scaled, out=dh)
        multiply(first_gates, dh, out=first_gates)
        copyto(gradients, slopes_by_row)
        copyto(states_by_row, states_before)
        states_flat.dot(of_states, gu)
        seen_flat.dot(of_inputs, gv)
        update()
        return loss

    return step


def lstm(start: list[Array], steps: int, batch: int) -> Step:
    """Long short-term memory and a dense layer from the last state; ``start``: weights of inputs and states, biases.

    The gates are in the order o, i, f, g: the sigmoids are together, and those that the cell's gradient multiplies.
    What a time step reads, ``(units + inputs + 1, batch)``, is its state, its input and a row of ones.
    """
    V, U, c, W, b = start
    inputs, H = len(V), len(U)
    joined = np.concatenate([U, V, c[None]])
    i, f, g, o = np.split(joined, 4, axis=1)
    parameters = Parameters((np.concatenate([-o, -i, -f, g], axis=1),), (W, b))
    (w, gw), (head, g_head) = parameters.pairs
    update = parameters.updater()
    seen = np.zeros((steps, H + inputs + 1, batch), np.float32)
    seen[:, -1] = 1
    pixels = seen[:, H : H + inputs]
    last = np.ones((H + 1, batch), np.float32)
    outputs = [*(seen[t, :H] for t in range(1, steps)), last[:H]]
    kept, slopes = empty(steps, 4 * H, batch), empty(steps, 4 * H, batch)
    cells, tanhs, by_cell = np.zeros((steps + 1, H, batch), np.float32), empty(steps, H, batch), empty(steps, H, batch)
    o, i, f, g = (kept[:, k * H : (k + 1) * H] for k in range(4))
    k_o, k_i, k_f, k_g = (slopes[:, k * H : (k + 1) * H] for k in range(4))
    gates, less_one, k_gates = kept[:, : 3 * H], empty(steps, 3 * H, batch), slopes[:, : 3 * H]
    one, ones = np.float32(1), np.ones((3 * H, batch), np.float32)
    forward, back = [], []
    for t in range(steps):
        forward.append(
            (seen[t], kept[t], kept[t, : 3 * H], o[t], i[t], f[t], g[t], cells[t], k_i[t], k_f[t],
             cells[t + 1], tanhs[t], k_o[t], outputs[t])
        )  # fmt: skip
        back.append((by_cell[t], slopes[t, H:].reshape(3, H, batch), k_o[t], slopes[t], f[t]))
    (first_by_cell, first_gates, first_o, _, _), back = back[0], back[:0:-1]
    gradients, seen_by_row = empty(4 * H, steps, batch), empty(H + inputs + 1, steps, batch)
    slopes_t, seen_t = slopes.transpose(1, 0, 2), seen.transpose(1, 0, 2)
    gradients_t, seen_flat = gradients.reshape(4 * H, -1).T, seen_by_row.reshape(len(w), -1)
    logits, dh, dc, part = empty(batch, 10), empty(H, batch), empty(H, batch), empty(H, batch)
    loss_of = cross_entropy(logits)
    last_t, w_head, logits_t = last.T, head[:H], logits.T
    dot, dot_back = w.T.dot, w[:H].dot
    add, copyto, exp, multiply = np.add, np.copyto, np.exp, np.multiply
    reciprocal, subtract, tanh = np.reciprocal, np.subtract, np.tanh

    def step(X: Any, y: Any) -> float:
        copyto(pixels, X.transpose(1, 2, 0))
        for s, k, gate, o_t, i_t, f_t, g_t, c, q_i, q_f, new, t_c, q_o, h in forward:
            dot(s, k)
            exp(gate, out=gate)
            add(gate, ones, out=gate)
            reciprocal(gate, out=gate)
            tanh(g_t, out=g_t)
            multiply(i_t, g_t, out=q_i)
            multiply(f_t, c, out=q_f)
            add(q_i, q_f, out=new)
            tanh(new, out=t_c)
            multiply(o_t, t_c, out=q_o)
            copyto(h, q_o)
        last_t.dot(head, logits)
        loss = loss_of(y)

        subtract(gates, one, out=less_one)
        multiply(k_gates, less_one, out=k_gates)
        multiply(g, g, out=k_g)
        subtract(one, k_g, out=k_g)
        multiply(k_g, i, out=k_g)
        multiply(tanhs, tanhs, out=by_cell)
        subtract(one, by_cell, out=by_cell)
        multiply(by_cell, o, out=by_cell)
        last.dot(logits, g_head)
        w_head.dot(logits_t, dh)
        dc.fill(0)
        for hc, cell_gates, q_o, slope, f_t in back:
            multiply(dh, hc, out=part)
            add(dc, part, out=dc)
            multiply(cell_gates, dc, out=cell_gates)
            multiply(q_o, dh, out=q_o)
            dot_back(slope, dh)
            multiply(dc, f_t, out=dc)
        multiply(dh, first_by_cell, out=part)
        add(dc, part, out=dc)
        multiply(first_gates, dc, out=first_gates)
        multiply(first_o, dh, out=first_o)
        copyto(gradients, slopes_t)
        copyto(seen_by_row, seen_t)
        seen_flat.dot(gradients_t, gw)
        update()
        return loss

    return step
