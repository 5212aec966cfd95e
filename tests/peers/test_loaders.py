"""Training from PyTorch's DataLoader, against the loop with PyTorch on the same batches."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from tests.helpers.nested import TARGETS, WEIGHT, A, B, TwoHeads, bits, heads

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]


def loader(*arrays, shuffle=True):
    tensors = [torch.tensor(array) for array in arrays]
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*tensors), batch_size=10, shuffle=shuffle)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_data_loader_trains_as_in_pytorch(compiled):
    X, y = A.astype(np.float64), TARGETS["label"]
    ours = nn.Sequential(nn.Dense(4, 8, rng=0), nn.Tanh(), nn.Dense(8, 2, rng=1)).astype(np.float64)
    theirs = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)).double()
    with torch.no_grad():
        for k in (0, 2):
            theirs[k].weight.copy_(torch.tensor(ours[k].weight.data.T.copy()))
            theirs[k].bias.copy_(torch.tensor(ours[k].bias.data.copy()))
    torch.manual_seed(0)
    optimizer, losses = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9), []
    for _ in range(8):
        total = 0.0
        for features, labels in loader(X, y):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(theirs(features), labels)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
        losses.append(total / len(y))
    torch.manual_seed(0)
    trainer = mf.Trainer(
        ours, nn.CrossEntropyLoss(), mf.optim.SGD(ours.parameters(), lr=0.1, momentum=0.9), compile=compiled
    )
    history = trainer.fit(loader(X, y), epochs=8, progress=False)
    np.testing.assert_allclose(history.column("loss"), losses, rtol=1e-9)
    np.testing.assert_allclose(ours[0].weight.data, theirs[0].weight.detach().numpy().T, rtol=1e-9, atol=1e-12)


def test_nested_batches_of_a_data_loader():
    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return len(A)

        def __getitem__(self, k):
            return {"a": A[k], "b": B[k]}, {"label": TARGETS["label"][k], "size": TARGETS["size"][k]}, WEIGHT[k]

    trained = []
    for data in (
        torch.utils.data.DataLoader(Rows(), batch_size=10),
        mf.data.stream({"a": A, "b": B}, TARGETS, WEIGHT, shuffle=False),
    ):
        model = TwoHeads()
        trainer = mf.Trainer(model, heads, mf.optim.SGD(model.parameters(), lr=0.1), {"label": "accuracy"})
        size = {"batch_size": 10} if isinstance(data, mf.data.streaming.Stream) else {}
        history = trainer.fit(data, epochs=3, rng=0, progress=False, **size)
        trained.append((bits(model), history.column("accuracy/label")))
    assert trained[0] == trained[1]
