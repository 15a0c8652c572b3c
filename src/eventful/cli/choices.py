"""What the options of the commands mean, and which go together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, get_args

from torch import nn

from eventful import convert
from eventful.attention import FORMS
from eventful.block.gate import MEASURES
from eventful.block.options import Gating, Options
from eventful.convert import Where
from eventful.policies import (
    POLICIES,
    Auto,
    FramePolicy,
    PerGate,
    Policy,
    calibration_file,
    parse,
)
from eventful.policies.text import by_name

GATINGS: tuple[str, ...] = get_args(Gating)


@dataclass(frozen=True)
class Gates:
    """How gates work under token policies, by the names that people write.

    Raises:
        ValueError: A name is unknown, or names do not go together.

    Example:
        >>> Gates(gating="inptu")
        Traceback (most recent call last):
        ValueError: --gating is one of paper, hold, input, got 'inptu'; do you mean 'input'?
    """

    attention: str = "incremental"
    gating: str = "paper"
    measure: str = "error"

    def __post_init__(self) -> None:
        one_of("--attention", self.attention, FORMS)
        one_of("--gating", self.gating, GATINGS)
        one_of("--measure", self.measure, MEASURES)
        Options(**self.names())  # raises if they do not go together

    def names(self) -> dict[str, Any]:
        """As arguments of `eventful.convert`, and for JSON."""
        return asdict(self)

    def convert(
        self, model: nn.Module, policy: FramePolicy | Policy, where: Where | None = None
    ) -> None:
        """Convert a model in place; frame policies have no gates to set."""
        names = {} if isinstance(policy, FramePolicy) else self.names()
        convert(model, policy, where=where, **names)


def one_of(option: str, value: str, allowed: Collection[str]) -> str:
    """Refuse a value that an option does not have.

    Raises:
        ValueError: The message names the values that it has, and the nearest.

    Example:
        >>> one_of("--measure", "age", MEASURES)
        'age'
    """
    if value not in allowed:
        near = get_close_matches(value, allowed, n=1)
        hint = f"; do you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{option} is one of {', '.join(allowed)}, got {value!r}{hint}")
    return value


def read_policy(text: str) -> FramePolicy | Policy:
    """Read the text of any policy.

    Raises:
        ValueError: The text names none; the message names the nearest.
        FileNotFoundError: It names a calibration file that is not there.

    Example:
        >>> read_policy("top:256"), read_policy("skip:5")
        (TopR(r=256), Skip(every=5, phase=0))
    """
    name, known = text.partition(":")[0], by_name(POLICIES)
    if name == "lowres":
        raise ValueError(f"{text!r} is a baseline, which only `eventful evaluate` runs")
    try:
        return parse(text)
    except ValueError as error:
        near = get_close_matches(name, known, n=1)
        if name in known or "." in name or not near:
            raise
        example = next(t for t in known[near[0]].texts if t.partition(":")[0] == near[0])
        raise ValueError(f"{error}; do you mean {example}?") from None


def chosen_policy(text: str | None, targets: Mapping[str, float | None]) -> FramePolicy | Policy:
    """The policy that --policy or one of its short forms asks for; `Auto()` without any.

    Args:
        text: What --policy says.
        targets: The short forms, by the argument of `Auto` that each stands for.

    Raises:
        ValueError: More than one is given, or what is given is no policy.

    Example:
        >>> chosen_policy(None, {"share": 0.2, "max_error": None})
        Auto(share=0.2, time=None, max_error=None, latency_ms=None, worst=1.0)
    """
    given: dict[str, Any] = {name: value for name, value in targets.items() if value is not None}
    said = [f"{_option(name)} {value:g}" for name, value in given.items()]
    said += [] if text is None else [f"--policy {text}"]
    if len(said) > 1:
        names = ", ".join(map(_option, targets))
        raise ValueError(f"give one of --policy, {names}; got {' and '.join(said)}")
    if text is not None:
        return read_policy(text)
    try:
        return Auto(**given)
    except ValueError as error:
        (name,) = given
        raise ValueError(str(error).replace(f"Auto({name}=...)", _option(name))) from None


def chosen_policies(
    texts: Sequence[str], targets: Mapping[str, float | None]
) -> list[FramePolicy | Policy]:
    """The policies that several --policy, or one of its short forms, ask for; none without any.

    Raises:
        ValueError: Both are given, or what is given is no policy.

    Example:
        >>> chosen_policies(["skip:5", "carry:5"], {"share": None})
        [Skip(every=5, phase=0), Carry(every=5, phase=0)]
    """
    if len(texts) <= 1 and (texts or any(value is not None for value in targets.values())):
        return [chosen_policy(next(iter(texts), None), targets)]
    for name, value in targets.items():
        if value is not None:
            raise ValueError(f"give --policy or {_option(name)}, not both")
    return list(dict.fromkeys(map(read_policy, texts)))


def read_point(text: str | None) -> tuple[float, float] | None:
    """Read X,Y.

    Raises:
        ValueError: The text is no two numbers.

    Example:
        >>> read_point("320,240")
        (320.0, 240.0)
    """
    if text is None:
        return None
    try:
        x, y = map(float, text.split(","))
    except ValueError:
        raise ValueError(f"--point takes X,Y in pixels, such as 320,240; got {text!r}") from None
    return x, y


def named_blocks(patterns: Sequence[str]) -> Where | None:
    """Which blocks to convert, for `eventful.convert`; None for all.

    Example:
        >>> named_blocks(["blocks.[01]"])("blocks.2", nn.Identity())
        False
    """
    if not patterns:
        return None
    return lambda name, block: any(fnmatchcase(name, pattern) for pattern in patterns)


def as_option(error: Exception) -> str:
    """What an error says, with the option in place of the argument that it names.

    Example:
        >>> as_option(ValueError("leave it out with convert(..., where=...)"))
        'leave it out with --blocks PATTERN'
    """
    text = str(error).replace("convert(..., where=...)", "--blocks PATTERN")
    return text.replace("where=...", "--blocks")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def gates_of(policy: FramePolicy | Policy, model: str) -> Gates:
    """How gates work under a policy: as a calibration file says, else as in the paper.

    Raises:
        ValueError: The file was written for another model. Gates of the same names are no proof
            that it fits: all plain ViTs of twelve blocks have them.
    """
    if not isinstance(policy, PerGate):
        return Gates()
    about = calibration_file.read(policy.source).get("about")
    if not isinstance(about, dict):
        return Gates()  # written from Python, about a model that has no name here
    if about.get("model", model) != model:
        raise ValueError(
            f"{policy.source} was calibrated with --model {about['model']}, and this run has "
            f"--model {model}; run it with the former, or calibrate with the latter"
        )
    return Gates(**{name: about[name] for name in Gates().names() if name in about})
