"""Policies: which tokens to update, given how far each has moved from its reference."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import filter as match_names
from numbers import Integral, Real

from torch import Tensor

from eventful.ops import Index


class Policy(ABC):
    """Turns a gate's errors into an index set (paper, section 4.3).

    A policy of your own is a frozen dataclass with this one method.
    """

    @abstractmethod
    def select(self, error: Tensor) -> Index:
        """Choose the tokens to update.

        Args:
            error: (batch, tokens) L2 norm of each token's error e = u - c. Prefix tokens that are
                always updated are not among them.

        Returns:
            The index set over these tokens. Rows may differ in number.

        Raises:
            ValueError: The policy does not fit this number of tokens.
        """

    def count(self, tokens: int) -> int | None:
        """How many of so many tokens are updated, whatever their errors; None if it depends."""
        return None


@dataclass(frozen=True)
class TopR(Policy):
    """Update the r tokens of the largest error: a fixed cost per frame (the paper's main policy).

    Example:
        >>> import torch
        >>> TopR(2).select(torch.tensor([[0.1, 0.5, 0.3]])).flat.tolist()
        [1, 2]
    """

    r: int

    def __post_init__(self) -> None:
        if not _is(Integral, self.r) or self.r < 1:
            raise ValueError(f"TopR(r) needs a whole number r of at least 1, got {self.r!r}")

    def select(self, error: Tensor) -> Index:
        """Choose the r largest errors of each row."""
        tokens = error.shape[1]
        if self.r > tokens:
            raise ValueError(
                f"TopR({self.r}) asks for more tokens than a frame has to choose from ({tokens}); "
                f"use r <= {tokens}, or KeepAll() to update all of them"
            )
        return Index.from_positions(error.topk(self.r, dim=1, sorted=False).indices, tokens)

    def count(self, tokens: int) -> int:
        """The same number on every frame."""
        return self.r

    def __str__(self) -> str:
        return f"top:{self.r}"


@dataclass(frozen=True)
class TopFraction(Policy):
    """Update the max(1, floor(f N)) tokens of the largest error.

    Example:
        >>> import torch
        >>> TopFraction(0.5).select(torch.tensor([[0.1, 0.5, 0.3]])).flat.tolist()
        [1]
    """

    f: float

    def __post_init__(self) -> None:
        if not _is(Real, self.f) or not 0 <= self.f <= 1:
            raise ValueError(f"TopFraction(f) needs a fraction f from 0 to 1, got {self.f!r}")

    def select(self, error: Tensor) -> Index:
        """Choose the largest errors of each row."""
        return TopR(self.count(error.shape[1])).select(error)

    def count(self, tokens: int) -> int:
        """The same number on every frame."""
        return max(1, math.floor(self.f * tokens))

    def __str__(self) -> str:
        return f"fraction:{self.f}"


@dataclass(frozen=True)
class Threshold(Policy):
    """Update every token whose error exceeds h, or is NaN: the cost follows the video.

    Example:
        >>> import torch
        >>> Threshold(0.2).select(torch.tensor([[0.1, 0.5, 0.3], [0.0, 0.0, 0.0]])).counts
        (2, 0)
    """

    h: float

    def __post_init__(self) -> None:
        if not _is(Real, self.h) or not 0 <= self.h < math.inf:
            raise ValueError(f"Threshold(h) needs a finite number h of at least 0, got {self.h!r}")

    def select(self, error: Tensor) -> Index:
        """Choose the errors above h."""
        return Index.from_mask(~(error <= self.h))

    def __str__(self) -> str:
        return f"threshold:{self.h}"


@dataclass(frozen=True)
class KeepAll(Policy):
    """Update every token: the dense model, for comparison.

    Example:
        >>> import torch
        >>> KeepAll().select(torch.zeros(2, 3)).counts
        (3, 3)
    """

    def select(self, error: Tensor) -> Index:
        """Choose all tokens."""
        batch, tokens = error.shape
        return Index.everything(batch, tokens, error.device)

    def count(self, tokens: int) -> int:
        """All of them."""
        return tokens

    def __str__(self) -> str:
        return "all"


def parse(text: str) -> Policy:
    """Read a policy from its text form, the inverse of `str(policy)`.

    Args:
        text: `top:256`, `fraction:0.25`, `threshold:1.0` or `all`.

    Raises:
        ValueError: The text is none of these, or its number is out of range.

    Example:
        >>> parse("fraction:0.25")
        TopFraction(f=0.25)
    """
    if text == "all":
        return KeepAll()
    name, _, number = text.partition(":")
    kinds = {"top": (TopR, int), "fraction": (TopFraction, float), "threshold": (Threshold, float)}
    try:
        kind, read = kinds[name]
        value = read(number)
    except (KeyError, ValueError):
        raise ValueError(
            f"policy {text!r} is not understood; write top:256, fraction:0.25, threshold:1.0 or all"
        ) from None
    return kind(value)


def _is(kind: type, value: object) -> bool:
    """Whether a value is a number of a kind; True and False are none."""
    return isinstance(value, kind) and not isinstance(value, bool)


def for_gates(
    policy: Policy | Mapping[str, Policy],
    names: list[str],
    default: Mapping[str, Policy] | None = None,
) -> dict[str, Policy]:
    """Give every gate its policy.

    Args:
        policy: One policy for all gates, or a mapping from gate names (or patterns such as
            `*.mlp`) to policies; of two that fit one gate, the later wins.
        names: The gates' names.
        default: Policies of the gates that a mapping leaves out.

    Raises:
        TypeError: Something is not a policy.
        ValueError: A name of the mapping is no gate, or a gate is left without a policy.

    Example:
        >>> for_gates({"*.mlp": TopR(2), "b.qkv": TopR(5)}, ["b.qkv", "b.mlp"])
        {'b.qkv': TopR(r=5), 'b.mlp': TopR(r=2)}
    """
    wanted = {"*": policy} if not isinstance(policy, Mapping) else policy
    chosen = dict(default or {})
    for pattern, value in wanted.items():
        if not isinstance(value, Policy):
            raise TypeError(
                f"expected a policy such as eventful.TopR(256), got {value!r}; "
                f"text such as 'top:256' goes through eventful.policies.parse"
            )
        matched = match_names(names, pattern)
        if not matched:
            near = ", ".join(get_close_matches(pattern, names)) or ", ".join(names[:3]) + ", ..."
            raise ValueError(f"no gate is called {pattern!r}; there are: {near}")
        chosen.update(dict.fromkeys(matched, value))
    missing = [name for name in names if name not in chosen]
    if missing:
        raise ValueError(f"no policy for the gates {', '.join(missing)}; add them, or '*'")
    return {name: chosen[name] for name in names}
