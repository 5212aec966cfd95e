"""A small GPT of characters, its attention written out."""

from __future__ import annotations

import math

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim

torch = pytest.importorskip("torch")
F = torch.nn.functional
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

TEXT = "the quick brown fox jumps over the lazy dog and the slow red hen sleeps under the tall old tree "
LETTERS = sorted(set(TEXT))
V, T, C, HEADS = len(LETTERS), 8, 16, 2


class TheirBlock(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.ln_2 = torch.nn.LayerNorm(C), torch.nn.LayerNorm(C)
        self.c_attn, self.c_proj = torch.nn.Linear(C, 3 * C), torch.nn.Linear(C, C)
        self.mlp = torch.nn.Sequential(torch.nn.Linear(C, 4 * C), torch.nn.GELU(), torch.nn.Linear(4 * C, C))
        self.register_buffer("mask", torch.tril(torch.ones(T, T)).view(1, 1, T, T), persistent=False)

    def forward(self, x):
        n, t, _ = x.shape
        q, k, v = self.c_attn(self.ln_1(x)).split(C, dim=2)
        q, k, v = (part.view(n, t, HEADS, C // HEADS).transpose(1, 2) for part in (q, k, v))
        att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        att = F.softmax(att.masked_fill(self.mask[:, :, :t, :t] == 0, float("-inf")), dim=-1)
        x = x + self.c_proj((att @ v).transpose(1, 2).contiguous().view(n, t, C))
        return x + self.mlp(self.ln_2(x))


class TheirGPT(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.wte, self.wpe = torch.nn.Embedding(V, C), torch.nn.Embedding(T, C)
        self.h = torch.nn.ModuleList([TheirBlock() for _ in range(2)])
        self.ln_f, self.lm_head = torch.nn.LayerNorm(C), torch.nn.Linear(C, V, bias=False)

    def forward(self, idx, targets):
        x = self.wte(idx) + self.wpe(torch.arange(idx.shape[1]))
        for block in self.h:
            x = block(x)
        return F.cross_entropy(self.lm_head(self.ln_f(x)).view(-1, V), targets.view(-1))


class OurBlock(nn.Module):
    def __init__(self):
        self.ln_1, self.ln_2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.c_attn, self.c_proj = nn.Dense(C, 3 * C), nn.Dense(C, C)
        self.mlp = nn.Sequential(nn.Dense(C, 4 * C), nn.GELU(), nn.Dense(4 * C, C))
        self.mask = np.tril(np.ones((T, T), bool))

    def forward(self, x):
        n, t, _ = x.shape
        q, k, v = np.split(self.c_attn(self.ln_1(x)), 3, axis=2)
        q, k, v = (part.reshape(n, t, HEADS, C // HEADS).swapaxes(1, 2) for part in (q, k, v))
        att = (q @ k.swapaxes(-2, -1)) * (1.0 / math.sqrt(k.shape[-1]))
        att = mf.ops.softmax(np.where(self.mask[:t, :t], att, -np.inf), axis=-1)
        x = x + self.c_proj((att @ v).swapaxes(1, 2).reshape(n, t, C))
        return x + self.mlp(self.ln_2(x))


class OurGPT(nn.Module):
    def __init__(self):
        self.wte, self.wpe = nn.Embedding(V, C), nn.Embedding(T, C)
        self.h = [OurBlock() for _ in range(2)]
        self.ln_f, self.lm_head = nn.LayerNorm(C), nn.Dense(C, V, bias=False)

    def forward(self, idx, targets):
        x = self.wte(idx) + self.wpe(np.arange(idx.shape[1]))
        for block in self.h:
            x = block(x)
        return mf.ops.cross_entropy(self.lm_head(self.ln_f(x)).reshape(-1, V), targets.reshape(-1))


@pytest.mark.parametrize("compiled", [False, True])
def test_a_small_gpt(compiled):
    codes = np.array([LETTERS.index(letter) for letter in TEXT])
    rng = np.random.default_rng(0)
    starts = rng.integers(0, len(codes) - T, (30, 12, 1)) + np.arange(T)
    theirs, ours = TheirGPT().double(), OurGPT().astype("float64")
    mf.import_torch(ours, theirs.state_dict())

    groups = [
        {"params": [p for p in theirs.parameters() if p.dim() >= 2], "weight_decay": 0.1},
        {"params": [p for p in theirs.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer, expected = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95)), []
    for ix in starts:
        loss = theirs(torch.tensor(codes[ix]), torch.tensor(codes[ix + 1]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.item())

    groups = [
        {"params": [p for p in ours.parameters() if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in ours.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95))

    def step(idx, targets):
        loss = ours(idx, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    if compiled:
        step = mf.compile(ours, optimizer)
    losses = [step(codes[ix], codes[ix + 1]).item() for ix in starts]

    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    assert losses[-1] < 0.8 * losses[0]
    if compiled:
        assert "replayed" in str(step.explain())
