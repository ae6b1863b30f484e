"""The whole idea in plain PyTorch: train two networks with weight decay and sum them; the sum solves both tasks.

This is seed 0 of the experiment ``independent`` of config/config.yaml. The same calls of numpy draw it, so that its
numbers equal the workflow's up to rounding; pages give means over ten seeds. It takes about half a minute.
"""

from hashlib import sha256

import numpy as np
import torch
from torch.nn.functional import softplus

torch.set_num_threads(1)  # threads cost more than they save on matrices of this size
DIM, SAMPLES, WIDTHS = 100, 300, (100, 100)
STEP_SIZE, STEPS, WEIGHT_DECAY = 1.0, 6000, 1e-3


def stream(task: str, purpose: str) -> np.random.Generator:
    """Random numbers of one task, for its data or its weights."""
    digest = sha256(f"independent/{task}/0/{purpose}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))


def data(task: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs x (sample, d) on the unit sphere, each task on its own half of the coordinates; labels sign⟨v, x⟩."""
    rng, half = stream(task, "data"), DIM // 2
    x = np.zeros((SAMPLES, DIM))
    x[:, :half] = rng.standard_normal((SAMPLES, half))
    x = np.roll(x / np.linalg.norm(x, axis=1, keepdims=True), half if task == "b" else 0, axis=1)
    y = np.where(x @ rng.standard_normal(DIM) >= 0, 1, -1)
    return torch.tensor(x).float(), torch.tensor(y).float()


def margins(weights: list[torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Margins z = y f(x) of each sample, f(x) = W_3 max(0, W_2 max(0, W_1 x))."""
    for weight in weights[:-1]:
        x = (x @ weight.T).relu()
    return y * (x @ weights[-1].T).squeeze(1)


def train(task: str) -> list[torch.Tensor]:
    """Full-batch gradient descent on the logistic loss, W ← (1 - ηλ) W - η ∇L(W)."""
    (x, y), rng, weights = data(task), stream(task, "weights"), []
    for fan_in, out, gain in zip((DIM, *WIDTHS), (*WIDTHS, 1), (2, 2, 1), strict=True):
        initial = rng.standard_normal((out, fan_in)) * (gain / fan_in) ** 0.5
        weights.append(torch.tensor(initial).float().requires_grad_())
    optimiser = torch.optim.SGD(weights, lr=STEP_SIZE, weight_decay=WEIGHT_DECAY)
    for _ in range(STEPS):
        optimiser.zero_grad()
        softplus(-margins(weights, x, y)).mean().backward()
        optimiser.step()
    return weights


own = {task: train(task) for task in "ab"}
merged = [first + second for first, second in zip(own["a"], own["b"], strict=True)]
for task in "ab":
    for name, weights in {"own": own[task], "sum": merged}.items():
        z = margins(weights, *data(task))
        print(f"task {task}, {name}: loss {softplus(-z).mean():.5f}, error {(z <= 0).float().mean():.2%}")
