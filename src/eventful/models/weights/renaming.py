"""The tables that rename parameters, and the check that every name is accounted for."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from typing import Any

from torch import Tensor

_FIELDS = {"i": r"\d+", "j": r"\d+", "p": "weight|bias", "rest": ".+"}
_SHOWN = 8  # names of a kind in an error

Shapes = Mapping[str, tuple[int, ...]]
Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Rename:
    """How one parameter, or a family of them, is called in a checkpoint.

    Args:
        name: In our models. Fields stand for parts that both names share: {i} and {j} for numbers,
            {p} for "weight" or "bias", {rest} for anything.
        source: In the checkpoint, with the same fields.
        change: What is done to the tensor; it raises ValueError where it cannot be.

    Example:
        >>> rule = Rename("blocks.{i}.norm1.{p}", "layers.{i}.norm.{p}")
        >>> rule.source_of("blocks.11.norm1.bias"), rule.source_of("blocks.11.norm2.bias")
        ('layers.11.norm.bias', None)
    """

    name: str
    source: str
    change: Change | None = None

    def source_of(self, name: str) -> str | None:
        """The checkpoint's name of one of our parameters, if the rule is about it."""
        match = re.fullmatch(_pattern(self.name), name)
        return match and self.source.format(**match.groupdict())


@dataclass(frozen=True)
class Drop:
    """What a checkpoint holds and a model does not need.

    Args:
        source: Its name, with the fields of `Rename`.
        reason: Why it is left out.

    Example:
        >>> Drop("pixel_{rest}", "set in the code").covers("pixel_mean")
        True
    """

    source: str
    reason: str

    def covers(self, key: str) -> bool:
        """Whether this is about a name of the checkpoint."""
        return re.fullmatch(_pattern(self.source), key) is not None


@cache
def _pattern(template: str) -> str:
    """The regular expression of a name with fields."""
    parts = re.split(r"\{(\w+)\}", template)
    named = [f"(?P<{part}>{_FIELDS[part]})" for part in parts[1::2]]
    literal = [re.escape(part) for part in parts[::2]]
    return "".join(a + b for a, b in zip(literal, [*named, ""], strict=True))


@dataclass
class Fitted:
    """Weights under our names, and what became of the others.

    Args:
        weights: Our name to tensor.
        used: Our name to the checkpoint's.
        dropped: The checkpoint's name to the reason.
    """

    weights: dict[str, Tensor] = field(default_factory=dict)
    used: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)


def fit(
    state: Mapping[str, Any], shapes: Shapes, rules: Sequence[Rename], drops: Sequence[Drop] = ()
) -> Fitted:
    """Rename the weights of a checkpoint, every one of them.

    Args:
        state: The checkpoint's names and tensors.
        shapes: Our names, and the shapes that belong to them.
        rules: How they are called in the checkpoint; the first that fits a name counts.
        drops: What the checkpoint may hold beside them.

    Returns:
        The weights, in the order of `shapes`.

    Raises:
        ValueError: Something is missing, left over, of another shape or no tensor of finite
            numbers; the message lists all of it, with near names. Or no rule is about a name of
            the model.

    Example:
        >>> import torch
        >>> fitted = fit(
        ...     {"layer.weight": torch.ones(2, 3), "step": torch.tensor(7)},
        ...     {"fc.weight": (2, 3)},
        ...     rules=[Rename("fc.{p}", "layer.{p}")],
        ...     drops=[Drop("step", "state of the training loop")],
        ... )
        >>> fitted.used, fitted.dropped
        ({'fc.weight': 'layer.weight'}, {'step': 'state of the training loop'})
    """
    sources = {name: find_source(name, rules) for name in shapes}
    fitted = Fitted(used={name: key for name, (key, _) in sources.items()})
    used = set(fitted.used.values())
    extra = [key for key in state if key not in used]
    for drop in drops:
        fitted.dropped |= {key: drop.reason for key in extra if drop.covers(key)}
    missing = [key for key in fitted.used.values() if key not in state]
    left = [key for key in extra if key not in fitted.dropped]
    wrong = []
    for name, (key, change) in sources.items():
        if key in state:
            try:
                fitted.weights[name] = _changed(state[key], shapes[name], change)
            except ValueError as error:
                wrong.append(f"{key}: {error}")
    if missing or left or wrong:
        raise ValueError(_report(missing, left, wrong))
    return fitted


def find_source(name: str, rules: Sequence[Rename]) -> tuple[str, Change | None]:
    """Say how a parameter is called in the checkpoint, and what is done to it.

    Raises:
        ValueError: No rule is about it.

    Example:
        >>> find_source("fc.bias", [Rename("fc.{p}", "layer.{p}")])
        ('layer.bias', None)
    """
    for rule in rules:
        if (source := rule.source_of(name)) is not None:
            return source, rule.change
    raise ValueError(
        f"the model has a parameter {name}, which no such checkpoint holds; it is not of the "
        f"architecture that the weights are for"
    )


def _changed(value: Any, shape: tuple[int, ...], change: Change | None) -> Tensor:
    """Check one tensor and bring it into our form."""
    if not isinstance(value, Tensor):
        raise ValueError(f"expected a tensor, came a {type(value).__name__}")
    if not value.is_floating_point():
        raise ValueError(f"expected floating point numbers, came {value.dtype}")
    changed = value if change is None else change(value)
    if tuple(changed.shape) != tuple(shape):
        became = "" if changed.shape == value.shape else f", which becomes {tuple(changed.shape)}"
        raise ValueError(f"expected {tuple(shape)}, came {tuple(value.shape)}{became}")
    if not changed.isfinite().all():
        raise ValueError("expected finite numbers, came some that are not")
    return changed.contiguous()


def _report(missing: Sequence[str], left: Sequence[str], wrong: Sequence[str]) -> str:
    """List what does not fit, a line each."""
    lines = [f"{len(missing)} missing, {len(left)} left over, {len(wrong)} that do not fit"]
    lines += _listed("missing", [key + _near(key, left) for key in missing[:_SHOWN]], len(missing))
    lines += _listed("left over", [key + _near(key, missing) for key in left[:_SHOWN]], len(left))
    lines += _listed("does not fit", wrong[:_SHOWN], len(wrong))
    return "\n".join(lines)


def _listed(what: str, shown: Iterable[str], total: int) -> list[str]:
    more = [f"  {what}: {total - _SHOWN} more"] if total > _SHOWN else []
    return [*(f"  {what}: {line}" for line in shown), *more]


def _near(key: str, others: Collection[str]) -> str:
    near = get_close_matches(key, others, n=3, cutoff=0.8)
    return f" (near: {', '.join(near)})" if near else ""
