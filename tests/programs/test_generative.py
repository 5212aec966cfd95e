"""Models that generate: a variational autoencoder of digits, and two nets that play against each other."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

import microfw as mf
from microfw import nn, optim
from microfw.training import Hook

torch = pytest.importorskip("torch")
F = torch.nn.functional
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]


class StepLosses(Hook):
    def __init__(self):
        self.losses = []

    def on_step_end(self, state):
        self.losses.append(state.loss)


class TheirVAE(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = torch.nn.Linear(64, 32)
        self.fc21 = torch.nn.Linear(32, 4)
        self.fc22 = torch.nn.Linear(32, 4)
        self.fc3 = torch.nn.Linear(4, 32)
        self.fc4 = torch.nn.Linear(32, 64)
        self.rng = np.random.default_rng(7)

    def forward(self, x):
        h = F.relu(self.fc1(x))
        mu, logvar = self.fc21(h), self.fc22(h)
        z = mu + torch.tensor(self.rng.normal(size=mu.shape)) * torch.exp(0.5 * logvar)
        return self.fc4(F.relu(self.fc3(z))), mu, logvar


class OurVAE(nn.Module):
    def __init__(self):
        self.fc1 = nn.Dense(64, 32)
        self.fc21 = nn.Dense(32, 4)
        self.fc22 = nn.Dense(32, 4)
        self.fc3 = nn.Dense(4, 32)
        self.fc4 = nn.Dense(32, 64)
        self.rng = np.random.default_rng(7)

    def forward(self, x):
        h = mf.ops.relu(self.fc1(x))
        mu, logvar = self.fc21(h), self.fc22(h)
        z = mu + self.rng.normal(size=mu.shape) * np.exp(0.5 * logvar)
        return self.fc4(mf.ops.relu(self.fc3(z))), mu, logvar


@pytest.mark.parametrize("parts", [dict, sum])
def test_a_variational_autoencoder_of_digits(parts):
    X = load_digits().data[:320] / 16
    theirs, ours = TheirVAE().double(), OurVAE().astype("float64")
    mf.import_torch(ours, theirs.state_dict())

    optimizer, expected, sums = torch.optim.Adam(theirs.parameters(), lr=0.02), [], []
    for _ in range(5):
        for k in range(0, 320, 32):
            x = torch.tensor(X[k : k + 32])
            optimizer.zero_grad()
            logits, mu, logvar = theirs(x)
            bce = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
            kld = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
            (bce + kld).backward()
            optimizer.step()
            expected.append((bce + kld).item())
            sums.append((bce.item(), kld.item()))

    reconstruction = nn.BCEWithLogitsLoss(reduction="sum")

    def loss(output, x):
        logits, mu, logvar = output
        bce = reconstruction(logits, x)
        kld = -0.5 * np.sum(1 + logvar - mu**2 - np.exp(logvar))
        return {"bce": bce, "kld": kld} if parts is dict else bce + kld

    steps = StepLosses()
    trainer = mf.Trainer(ours, loss, optim.Adam(ours.parameters(), lr=0.02), hooks=[steps])
    history = trainer.fit((X, X), epochs=5, batch_size=32, sampler=lambda n, rng: np.arange(n), progress=False)

    np.testing.assert_allclose(steps.losses, expected, rtol=1e-9)
    assert expected[-1] < 0.8 * expected[0]
    if parts is dict:
        for name, column in zip(("bce", "kld"), np.transpose(sums), strict=True):
            means = column.reshape(5, 10).mean(axis=1)
            np.testing.assert_allclose(history.column(f"loss/{name}"), means, rtol=1e-9)


def test_two_nets_play_against_each_other():
    rng = np.random.default_rng(0)
    angles = rng.integers(0, 8, (60, 32)) * np.pi / 4
    real = np.stack([np.cos(angles), np.sin(angles)], axis=-1) + 0.05 * rng.normal(size=(60, 32, 2))
    noise = rng.normal(size=(60, 32, 4))

    def their_net(inputs, outputs):
        return torch.nn.Sequential(
            torch.nn.Linear(inputs, 16), torch.nn.LeakyReLU(0.2), torch.nn.Linear(16, outputs)
        ).double()

    def our_net(inputs, outputs):
        return nn.Sequential(nn.Dense(inputs, 16), nn.LeakyReLU(0.2), nn.Dense(16, outputs)).astype("float64")

    their_g, their_d, our_g, our_d = their_net(4, 2), their_net(2, 1), our_net(4, 2), our_net(2, 1)
    mf.import_torch(our_g, their_g.state_dict())
    mf.import_torch(our_d, their_d.state_dict())

    criterion, expected = torch.nn.BCEWithLogitsLoss(), []
    optimizer_d = torch.optim.Adam(their_d.parameters(), lr=0.01, betas=(0.5, 0.999))
    optimizer_g = torch.optim.Adam(their_g.parameters(), lr=0.01, betas=(0.5, 0.999))
    ones, zeros = torch.ones(32, 1).double(), torch.zeros(32, 1).double()
    for x, z in zip(torch.tensor(real), torch.tensor(noise), strict=True):
        their_d.zero_grad()
        loss_real = criterion(their_d(x), ones)
        loss_real.backward()
        fake = their_g(z)
        loss_fake = criterion(their_d(fake.detach()), zeros)
        loss_fake.backward()
        optimizer_d.step()
        their_g.zero_grad()
        loss_g = criterion(their_d(fake), ones)
        loss_g.backward()
        optimizer_g.step()
        expected.append([loss_real.item() + loss_fake.item(), loss_g.item()])

    criterion, losses = nn.BCEWithLogitsLoss(), []
    optimizer_d = optim.Adam(our_d.parameters(), lr=0.01, betas=(0.5, 0.999))
    optimizer_g = optim.Adam(our_g.parameters(), lr=0.01, betas=(0.5, 0.999))
    ones, zeros = np.ones((32, 1)), np.zeros((32, 1))
    for x, z in zip(real, noise, strict=True):
        our_d.zero_grad()
        loss_real = criterion(our_d(x), ones)
        loss_real.backward()
        fake = our_g(z)
        loss_fake = criterion(our_d(fake.detach()), zeros)
        loss_fake.backward()
        optimizer_d.step()
        our_g.zero_grad()
        loss_g = criterion(our_d(fake), ones)
        loss_g.backward()
        optimizer_g.step()
        losses.append([loss_real.item() + loss_fake.item(), loss_g.item()])

    np.testing.assert_allclose(losses, expected, rtol=1e-9)
