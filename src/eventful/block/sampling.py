"""Adaptive token sampling in its top-k form (Fayyaz et al., ECCV 2022)."""

from __future__ import annotations

import torch
from torch import Tensor

from eventful.attention import split_heads


def class_scores(qkv: Tensor, heads: int, scale: float) -> Tensor:
    """Score tokens by what the class token, the first, takes from them.

        score_j = sum over heads of A[class, j] ||v_j||,   A[class] = softmax(q_class k^T * scale)

    The class token's *row* of A, as published; sampling weights are proportional to it. (The code
    of the Eventful Transformers paper reads the column instead and serves one head alone.)

    Args:
        qkv: (batch, tokens, 3 * heads * dim).
        heads: H.
        scale: Factor on the scores q . k.

    Returns:
        (batch, tokens).

    Example:
        >>> class_scores(torch.ones(1, 2, 3), heads=1, scale=1.0).tolist()
        [[0.5, 0.5]]
    """
    q, k, v = split_heads(qkv, heads)
    row = (q[:, :, :1] @ k.mT * scale).softmax(-1)[:, :, 0]
    return (row * v.norm(dim=-1)).sum(dim=1)


def sample(score: Tensor, kept: int, prefix: int, before: Tensor | None = None) -> Tensor:
    """Choose the tokens to hand on, in slots that hold the same token for as long as it is chosen.

    A slot whose token is no longer chosen takes one of the new ones, in ascending order, so that
    the gates behind compare a token with itself where they can.

    Args:
        score: (batch, tokens).
        kept: How many to choose, the prefix included.
        prefix: Tokens at the front that are always chosen.
        before: (batch, kept) the tokens of each slot on the last frame.

    Returns:
        (batch, kept) the token of each slot.

    Example:
        >>> score = torch.tensor([[0.0, 0.1, 0.4, 0.2, 0.3]])
        >>> sample(score, 3, prefix=1).tolist()
        [[0, 2, 4]]
        >>> sample(score, 3, prefix=1, before=torch.tensor([[0, 1, 2]])).tolist()
        [[0, 4, 2]]
    """
    chosen = torch.zeros_like(score, dtype=torch.bool)
    chosen[:, :prefix] = True
    best = score[:, prefix:].topk(kept - prefix, dim=1).indices + prefix
    chosen.scatter_(1, best, True)
    if before is None:
        return chosen.nonzero()[:, 1].view(-1, kept)
    stays = chosen.gather(1, before)
    slots = before.clone()
    slots[~stays] = chosen.scatter(1, before, False).nonzero()[:, 1]
    return slots


def take(x: Tensor, slots: Tensor) -> Tensor:
    """Pick tokens (batch, kept) of x (batch, tokens, dim)."""
    return x.gather(1, slots[..., None].expand(-1, -1, x.shape[-1]))
