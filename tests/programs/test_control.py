"""An agent that learns to walk through a grid, by Q-learning with a replay memory and a target net."""

from __future__ import annotations

import random
from collections import deque

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

MOVES = [(0, 1), (1, 0), (0, -1), (-1, 0)]


def walk(choose, learn, steps):
    """Walk through a grid of 4 by 4 to its last corner; return the losses and the numbers of steps of episodes."""
    chance, memory, place, losses, lengths, length = random.Random(0), deque(maxlen=200), (0, 0), [], [], 0
    for k in range(steps):
        state = np.eye(16)[place[0] * 4 + place[1]]
        action = chance.randrange(4) if chance.random() < max(0.1, 1 - k / 60) else choose(state)
        place = tuple(min(3, max(0, c + d)) for c, d in zip(place, MOVES[action], strict=True))
        length, done = length + 1, place == (3, 3) or length == 20
        memory.append((state, action, np.eye(16)[place[0] * 4 + place[1]], float(place == (3, 3)), done))
        if done:
            lengths.append(length)
            place, length = (0, 0), 0
        if len(memory) >= 16:
            losses.append(learn(*(np.array(part) for part in zip(*chance.sample(list(memory), 16), strict=True))))
    return losses, lengths


def test_q_learning_on_a_grid():
    torch.manual_seed(1)  # 200 steps are few: from some weights the agent has not learned yet

    def their_net():
        return torch.nn.Sequential(torch.nn.Linear(16, 24), torch.nn.ReLU(), torch.nn.Linear(24, 4)).double()

    def our_net():
        return nn.Sequential(nn.Dense(16, 24), nn.ReLU(), nn.Dense(24, 4)).astype("float64")

    their_policy, their_target, policy, target = their_net(), their_net(), our_net(), our_net()
    their_target.load_state_dict(their_policy.state_dict())
    mf.import_torch(policy, their_policy.state_dict())
    target.load_state_dict(policy.state_dict())

    their_optimizer = torch.optim.AdamW(their_policy.parameters(), lr=5e-3, amsgrad=True)
    their_criterion = torch.nn.SmoothL1Loss()

    def their_choice(state):
        with torch.no_grad():
            return their_policy(torch.tensor(state)[None]).max(1).indices.item()

    def their_lesson(states, actions, next_states, rewards, done):
        values = their_policy(torch.tensor(states)).gather(1, torch.tensor(actions)[:, None])
        with torch.no_grad():
            following = torch.zeros(16).double()
            going = torch.tensor(~done)
            following[going] = their_target(torch.tensor(next_states)[going]).max(1).values
        loss = their_criterion(values, (torch.tensor(rewards) + 0.9 * following)[:, None])
        their_optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_value_(their_policy.parameters(), 0.05)
        their_optimizer.step()
        new, old = their_policy.state_dict(), their_target.state_dict()
        their_target.load_state_dict({name: 0.1 * new[name] + 0.9 * old[name] for name in new})
        return loss.item()

    optimizer = optim.AdamW(policy.parameters(), lr=5e-3, amsgrad=True)
    criterion = nn.HuberLoss()

    def choice(state):
        with mf.no_grad():
            return policy(state[None]).argmax(1).item()

    def lesson(states, actions, next_states, rewards, done):
        values = np.take_along_axis(policy(states), actions[:, None], axis=1)
        with mf.no_grad():
            following = np.zeros(16)
            following[~done] = target(next_states[~done]).max(1)
        loss = criterion(values, (rewards + 0.9 * following)[:, None])
        optimizer.zero_grad()
        loss.backward()
        optim.clip_grad_value(policy.parameters(), 0.05)
        optimizer.step()
        new, old = policy.state_dict(), target.state_dict()
        target.load_state_dict({name: 0.1 * new[name] + 0.9 * old[name] for name in new})
        return loss.item()

    expected, their_lengths = walk(their_choice, their_lesson, 200)
    losses, lengths = walk(choice, lesson, 200)
    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    assert lengths == their_lengths
    assert np.mean(lengths[-3:]) < np.mean(lengths[:3])
