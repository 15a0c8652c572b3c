"""What is evaluated: a variant of the method, and a policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from eventful.block.gate import MEASURES
from eventful.evaluation.baselines import parse_any
from eventful.paper.rows import Row
from eventful.policies import FramePolicy, KeepAll, Policy

_FULL = {"attention": "cached", "half_precision": True}

# What tokens keep, and what they are picked by: "paper", "hold-relative", "input-age", ...
_GATINGS: dict[str, dict[str, Any]] = {
    gating if measure == "error" else f"{gating}-{measure}": {"gating": gating, "measure": measure}
    for gating in ("paper", "hold", "input")
    for measure in MEASURES
}

# Options of `eventful.convert`, by the names of the paper's rows; then those beyond the paper.
VARIANTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "dense": {},
        "full": _FULL,
        "query-key": {"attention": "query_key"},
        "token-wise": {"attention": "dense"},
        "stgt": {"attention": "dense", "gate": "stgt"},
        "spatial": {"attention": "dense", "pooling": 2},
        "spatiotemporal": _FULL | {"pooling": 2},
        "incremental": {"attention": "incremental"},
        "incremental-pooled": {"attention": "incremental", "pooling": 2},
        **_GATINGS,
    }
)
_UNGATED: Mapping[str, Policy | None] = {"dense": None, "spatial": KeepAll()}


@dataclass(frozen=True)
class Setting:
    """A variant and a policy.

    Attributes:
        variant: What it is called.
        policy: Of frames, or of all gates; None runs the model as it is.
        options: Further arguments of `eventful.convert`.
        text: How the policy was written, where that is to be said again.
        lookahead: Frames that an output may come late; see `eventful.Stream.run`.

    Example:
        >>> from eventful import TopR
        >>> Setting("full", TopR(512), VARIANTS["full"]).name, Setting("dense", None).name
        ('full, top:512', 'dense')
    """

    variant: str
    policy: FramePolicy | Policy | None
    options: Mapping[str, Any] = field(default_factory=dict)
    text: str | None = field(default=None, compare=False)
    lookahead: int = 0

    @classmethod
    def of(cls, row: Row) -> Setting:
        """A row of the paper's tables; its threshold rows are `full` with another policy.

        Example:
            >>> from eventful.paper import rows
            >>> [Setting.of(row).name for row in rows("B")][:2]
            ['dense', 'full, threshold:0.2']
        """
        variant = "full" if row.entry.variant == "threshold" else row.entry.variant
        return cls(variant, row.policy, row.options)

    @property
    def name(self) -> str:
        """The variant and, unless it lets every token through, the policy."""
        if self.variant in _UNGATED:
            return self.variant
        if isinstance(self.policy, FramePolicy):
            late = f", lookahead {self.lookahead}" if self.lookahead else ""
            return f"{self.policy}{late}"
        return f"{self.variant}, {self.policy}"

    def check_at_once(self) -> None:
        """Refuse lookahead, for a task that needs each output before the next frame.

        Raises:
            ValueError: The setting looks ahead.
        """
        if self.lookahead:
            raise ValueError(
                f"{self.name}: lookahead is for tasks on annotated video, such as davis-saliency"
            )

    def as_dict(self) -> dict[str, Any]:
        """What JSON can hold of it."""
        policy = None if self.policy is None else str(self.policy)
        known = {"variant": self.variant, "policy": policy, "options": dict(self.options)}
        return known | ({"lookahead": self.lookahead} if self.lookahead else {})


def combined(
    variants: Sequence[str], policies: Sequence[FramePolicy | Policy | str], lookahead: int = 0
) -> list[Setting]:
    """Combine variants with policies; those that gate nothing come once.

    Args:
        variants: Keys of `VARIANTS`.
        policies: For each of them, or their texts. Frame policies come once.
        lookahead: Frame policies whose frames can wait come a second time, with so much of it.

    Raises:
        ValueError: A variant is unknown, or there is no policy for one that needs it.

    Example:
        >>> from eventful import TopR
        >>> [one.name for one in combined(["dense", "stgt"], [TopR(256), TopR(512)])]
        ['dense', 'stgt, top:256', 'stgt, top:512']
        >>> combined(["input-relative"], ["fraction:0.20", "skip:5"])[0].text
        'fraction:0.20'
        >>> [one.name for one in combined([], ["carry:5", "skip:5"], lookahead=16)]
        ['carry:5', 'carry:5, lookahead 16', 'skip:5']
    """
    read = {one: parse_any(one) if isinstance(one, str) else one for one in policies}
    frames = {text: policy for text, policy in read.items() if isinstance(policy, FramePolicy)}
    gated = {text: policy for text, policy in read.items() if isinstance(policy, Policy)}
    alone = frames and not gated
    found = [
        one
        for variant in variants
        if variant in _UNGATED or not alone
        for one in _settings(variant, gated)
    ]
    for text, policy in frames.items():
        name = str(policy).partition(":")[0]
        waits = (0, lookahead) if lookahead and policy.waits else (0,)
        found += [
            Setting(f"{name}, lookahead" if wait else name, policy, {}, str(text), wait)
            for wait in waits
        ]
    return list({one.name: one for one in found}.values())


def _settings(variant: str, policies: Mapping[FramePolicy | Policy | str, Policy]) -> list[Setting]:
    if variant not in VARIANTS:
        near = get_close_matches(variant, VARIANTS, n=1)
        hint = f"; do you mean {near[0]!r}?" if near else ""
        raise ValueError(f"expected a variant out of {', '.join(VARIANTS)}, got {variant!r}{hint}")
    if variant in _UNGATED:
        return [Setting(variant, _UNGATED[variant], VARIANTS[variant])]
    if not policies:
        raise ValueError(f"the variant {variant!r} needs a policy, such as top:512")
    options = VARIANTS[variant]
    return [Setting(variant, policy, options, str(text)) for text, policy in policies.items()]
