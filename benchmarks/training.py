"""How the small heads that come with the package are trained: one way for all of them."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn


def fit(
    head: nn.Module,
    examples: int,
    loss: Callable[[list[int]], Tensor],
    *,
    epochs: int,
    batch: int,
    rate: float,
) -> list[float]:
    """Train a head, and leave it in eval mode; return the mean loss of each epoch.

    AdamW under a one-cycle schedule, gradients of a norm of at most 1, batches without those
    examples that fill none.

    Args:
        head: In train mode; drawn after a seed was set, which the order of examples follows too.
        examples: How many there are.
        loss: Of the examples of such numbers.
        epochs: Times that every example is seen.
        batch: Examples at a time; all of them where there are fewer.
        rate: The highest learning rate.
    """
    size = min(batch, examples)
    batches = examples // size
    optimizer = torch.optim.AdamW(head.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * batches)
    losses: list[float] = []
    for epoch in range(epochs):
        total = 0.0
        for numbers in torch.randperm(examples)[: batches * size].view(-1, size).tolist():
            value = loss(numbers)
            optimizer.zero_grad()
            value.backward()
            torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += value.item()
        losses.append(total / batches)
        print(f"epoch {epoch + 1} of {epochs}: loss {losses[-1]:.3f}", file=sys.stderr, flush=True)
    head.eval()
    return losses
