"""A logistic probe on patch tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

_RIDGE = 1e-4
_ITERATIONS = 100


@dataclass(frozen=True, eq=False)
class Probe:
    """Says of each token how likely it belongs to an object: sigmoid(weight . token + bias).

    Attributes:
        weight: (dim,).
        bias: ().

    Example:
        >>> probe = Probe(torch.tensor([2.0, 0.0]), torch.tensor(0.0))
        >>> probe(torch.tensor([[0.0, 7.0], [100.0, 0.0]])).tolist()
        [0.5, 1.0]
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, tokens: Tensor) -> Tensor:
        """Probabilities (tokens,) of tokens (tokens, dim)."""
        return (tokens.float() @ self.weight + self.bias).sigmoid()


def fit(tokens: Tensor, labels: Tensor) -> Probe:
    """Fit a probe: logistic regression on standardised tokens, with a small ridge.

    The same input gives the same probe. Gradients are taken wherever it is called.

    Args:
        tokens: (tokens, dim).
        labels: bool (tokens,), with both kinds in it.

    Raises:
        ValueError: All labels are the same.

    Example:
        >>> tokens = torch.tensor([[0.0, 3.0], [1.0, 3.0], [4.0, 3.0], [5.0, 3.0]])
        >>> probe = fit(tokens, torch.tensor([False, False, True, True]))
        >>> (probe(tokens) > 0.5).tolist()
        [False, False, True, True]
    """
    if labels.all() or not labels.any():
        what = "on" if labels.any() else "off"
        raise ValueError(
            f"a probe needs patches on and off objects; all {len(labels)} are {what} them"
        )
    with torch.inference_mode(False), torch.enable_grad():
        x, y = tokens.float().clone(), labels.float().clone()
        mean, scale = x.mean(dim=0), x.std(dim=0).clamp(min=1e-6)
        weight = _minimised((x - mean) / scale, y)
    inner = weight[:-1] / scale
    return Probe(inner, weight[-1] - inner @ mean)


def _minimised(x: Tensor, y: Tensor) -> Tensor:
    """Weights (dim + 1,), the bias last."""
    weight = torch.zeros(x.shape[1] + 1, requires_grad=True)
    search = torch.optim.LBFGS([weight], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        logits = x @ weight[:-1] + weight[-1]
        value = F.binary_cross_entropy_with_logits(logits, y) + _RIDGE * weight[:-1].square().sum()
        value.backward()
        return value

    search.step(loss)
    return weight.detach()
