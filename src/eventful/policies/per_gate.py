"""A policy for each gate by name."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import filter as match_names
from hashlib import blake2b

import torch
from torch import Tensor

from eventful.ops import Index
from eventful.policies import calibration_file
from eventful.policies.policy import Policy
from eventful.policies.text import read_token_policy


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
        >>> from eventful.policies import TopR
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
            return cls(
                tuple((name, read_token_policy(text)) for name, text in texts.items()), source
            )
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
        >>> from eventful.policies import TopR
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
