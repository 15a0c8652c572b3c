"""What the core's tests share: tolerances, attention in float64, buffers whose tokens change."""

import numpy as np
import torch
from torch import Tensor

from eventful.ops import Index

# Largest error (see `error`) of one computation, by the dtype of its inputs.
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 5e-6,
    torch.bfloat16: 2e-2,
    torch.float16: 3e-3,
}
# The same for what `Incremental` keeps: rounding may grow by one over the guard of the dtype.
KEPT = {
    torch.float64: TOLERANCE[torch.float64] / 0.05,
    torch.float32: TOLERANCE[torch.float32] / 0.05,
    torch.bfloat16: TOLERANCE[torch.bfloat16] / 0.5,
    torch.float16: TOLERANCE[torch.float16] / 0.5,
}
DTYPES = tuple(TOLERANCE)
# In 16 bits, PyTorch's fused operator on a CPU takes exponentials from a polynomial of degree 3
# (`fexp_u20`), which is off by up to 1.0704e-4 of their value. So is their sum, and its logarithm
# by as much. Keys that do not fill a vector register are spared: processors differ in how many.
FUSED_EXPONENTIAL = 1.071e-4


def error(found: Tensor, expected: Tensor) -> float:
    """Largest deviation over the largest expected value; infinite if anything is NaN."""
    assert found.shape == expected.shape
    found, expected = found.double(), expected.double()
    largest = expected.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    worst = (found - expected).abs().max() / largest
    return float("inf") if worst.isnan() else worst.item()


def full_attention(qkv: Tensor, heads: int, scale: float) -> Tensor:
    """softmax(q k^T scale) v in float64, for (batch, tokens, 3 * heads * dim)."""
    batch, tokens, width = qkv.shape
    x = qkv.double().numpy().reshape(batch, tokens, 3, heads, width // (3 * heads))
    o = np.empty_like(x[:, :, 0])
    for row in range(batch):
        for head in range(heads):
            q, k, v = (x[row, :, part, head] for part in range(3))
            a = softmax(q @ k.T * scale)
            o[row, :, head] = a @ v
    return torch.from_numpy(o.reshape(batch, tokens, -1))


def softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


class Buffered:
    """Buffered q, k, v of which some tokens change: what an attention form is fed.

    `peak` is the standard deviation of the scores.
    """

    def __init__(
        self,
        batch: int = 3,
        tokens: int = 11,
        heads: int = 2,
        dim: int = 5,
        dtype: torch.dtype = torch.float32,
        peak: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.batch, self.tokens, self.heads, self.dim, self.dtype = batch, tokens, heads, dim, dtype
        self.peak, self.scale = peak, dim**-0.5
        self.qkv = self.draw(batch, tokens)

    def draw(self, *shape: int) -> Tensor:
        x = torch.randn(*shape, 3, self.heads, self.dim, generator=self.generator)
        x[..., :2, :, :] *= self.peak**0.5
        return x.flatten(-3).to(self.dtype)

    def masks(self, frames: int, share: float) -> Tensor:
        """(frames, batch, tokens) at random."""
        shape = (frames, self.batch, self.tokens)
        return torch.rand(shape, generator=self.generator) < share

    def change(self, mask: Tensor) -> tuple[Tensor, Index]:
        """New values for the tokens of a mask; returns the old ones and the index set."""
        old = self.qkv[mask]
        self.qkv[mask] = self.draw(len(old))
        return old, Index.from_mask(mask)

    def full(self) -> Tensor:
        return full_attention(self.qkv, self.heads, self.scale)


def ragged(frames: int, batch: int = 3, tokens: int = 11) -> Tensor:
    """Masks (frames, batch, tokens) whose rows hold 0, 1, all and other numbers of tokens."""
    counts = [0, 1, tokens, 2, 5, tokens - 1]
    generator = torch.Generator().manual_seed(7)
    masks = torch.zeros(frames, batch, tokens, dtype=torch.bool)
    for frame in range(frames):
        for row in range(batch):
            order = torch.randperm(tokens, generator=generator)
            masks[frame, row, order[: counts[(frame * 2 + row) % len(counts)]]] = True
    return masks
