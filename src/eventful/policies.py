"""Policies: which tokens to update, given how far each has moved from its reference."""

from __future__ import annotations

import json
import math
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import filter as match_names
from hashlib import blake2b
from numbers import Integral, Real

import torch
from torch import Tensor

from eventful import calibration_file
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


@dataclass(frozen=True)
class PerGate(Policy):
    """A policy for each gate by name, as calibration gives them.

    It fits the model with exactly these gates. `eventful.convert` and `Stream.policy` take it and
    give every gate its own; to change some, pass a mapping: `dict(policy.gates) | {...}`.

    Attributes:
        gates: Pairs of a gate's name and its policy.
        source: The file that they come from; empty if from none.

    Raises:
        ValueError: There are no gates, or one comes twice.

    Example:
        >>> policy = PerGate((("blocks.0.qkv", TopR(5)), ("blocks.0.mlp", TopR(2))))
        >>> for_gates(policy, ["blocks.0.qkv", "blocks.0.mlp"])["blocks.0.mlp"]
        TopR(r=2)
    """

    gates: tuple[tuple[str, Policy], ...]
    source: str = ""

    def __post_init__(self) -> None:
        if not self.gates or len(dict(self.gates)) < len(self.gates):
            raise ValueError(f"PerGate(gates) needs one policy for each gate, got {self.gates}")

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> PerGate:
        """Read the policies of a calibration file.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is no calibration file, damaged, or of a newer version.
        """
        texts, source = calibration_file.read(path)["policies"], os.fspath(path)
        try:
            return cls(tuple((name, _plain(text)) for name, text in texts.items()), source)
        except ValueError as error:
            raise ValueError(f"{source} is damaged: {error}") from error

    def select(self, error: Tensor) -> Index:
        """Choose the tokens that any of the policies would; raises if one does not fit."""
        masks = [policy.select(error).mask() for policy in {policy for _, policy in self.gates}]
        return Index.from_mask(torch.stack(masks).any(dim=0))

    def of(self, names: Sequence[str]) -> dict[str, Policy]:
        """The policy of each gate of a model.

        Raises:
            ValueError: They are not those of the model; the message says which ones.
        """
        mine = dict(self.gates)
        missing = [name for name in names if name not in mine]
        unknown = [name for name in mine if name not in names]
        if missing or unknown:
            parts = (("it has no", missing), ("the model has no", unknown))
            told = "; ".join(f"{what} {_few(gates)}" for what, gates in parts if gates)
            raise ValueError(
                f"{self.source or 'this policy'} was calibrated for a model with other gates "
                f"({told}); calibrate this one"
            )
        return {name: mine[name] for name in names}

    @property
    def digest(self) -> str:
        """Stands for the gates and their policies."""
        texts = json.dumps([[name, str(policy)] for name, policy in self.gates])
        return blake2b(texts.encode(), digest_size=4).hexdigest()

    def __str__(self) -> str:
        return f"{self.source}@{self.digest}"


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


_FILE = re.compile(r"(?P<path>.+\.json)(@(?P<digest>\w+))?")
_KINDS = {"top": (TopR, int), "fraction": (TopFraction, float), "threshold": (Threshold, float)}


def parse(text: str) -> Policy:
    """Read a policy from its text form, the inverse of `str(policy)`.

    Args:
        text: `top:256`, `fraction:0.25`, `threshold:1.0`, `all`, or the path of a .json file that
            `eventful calibrate` has written. Behind the path `@` and a digest may stand, as
            `str(policy)` gives it: the file must then hold what it held.

    Raises:
        ValueError: The text is none of these, its number is out of range, or the file is none of a
            calibration or not the one of the digest.
        FileNotFoundError: There is no such file.

    Example:
        >>> parse("fraction:0.25")
        TopFraction(f=0.25)
    """
    file = _FILE.fullmatch(text)
    if file is None:
        return _plain(text)
    policy = PerGate.read(file["path"])
    if file["digest"] not in (None, policy.digest):
        raise ValueError(f"{file['path']} has changed: it is {policy} now, expected {text}")
    return policy


def _plain(text: str) -> Policy:
    """Read one policy for whatever gate."""
    if text == "all":
        return KeepAll()
    name, _, number = text.partition(":")
    try:
        kind, read = _KINDS[name]
        value = read(number)
    except (KeyError, ValueError):
        raise ValueError(
            f"policy {text!r} is not understood; write top:256, fraction:0.25, threshold:1.0 or "
            f"all, or name a .json file that `eventful calibrate` has written"
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
    if isinstance(policy, PerGate):
        return policy.of(names)
    wanted = {"*": policy} if not isinstance(policy, Mapping) else policy
    chosen = dict(default or {})
    for pattern, value in wanted.items():
        if not isinstance(value, Policy):
            raise TypeError(
                f"expected a policy such as eventful.TopR(256), got {value!r}; "
                f"text such as 'top:256' goes through eventful.policies.parse"
            )
        if isinstance(value, PerGate):
            raise ValueError(
                f"{pattern!r} is given the policies of all gates ({value}); pass them alone, or "
                f"dict(policy.gates) | {{...}} to change some"
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
