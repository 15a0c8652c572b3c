"""What the options of `eventful run` and `eventful inspect` mean, and which go together."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

import torch
import typer
from torch import nn

from eventful import convert, reuse
from eventful.attention import FORMS
from eventful.block.gate import MEASURES
from eventful.block.options import Gating, Options
from eventful.policies import PerGate, Policy, calibration_file, parse_tokens
from eventful.reuse import Plan

GATINGS: tuple[str, ...] = get_args(Gating)
_POLICIES = {"top": "top:256", "fraction": "fraction:0.25", "threshold": "threshold:1.0"}
_PLANS = {"skip": "skip:5", "carry": "carry:5", "lowres": "lowres:0.25", "auto": "auto:0.2"}
POLICIES = f"{', '.join(_POLICIES.values())}, all, or a file of eventful calibrate"
PLANS = f"{', '.join(_PLANS.values())}, auto:0.2/0.5 with a largest share of a frame"
STATE_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class Gates:
    """How gates work, by the names that people write.

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

    def convert(self, model: nn.Module, policy: Policy) -> None:
        """Convert a model in place."""
        convert(model, policy, **self.names())


@dataclass(frozen=True)
class RunSettings:
    """The options of `eventful run`.

    Attributes:
        policy: Of gates, or a plan, which has none.
        gate: To picture; None for the QKV gate of block 3, if there is one, or the first gate.
    """

    video: Path | None
    model: str
    weights: Path | None
    policy: Policy | Plan
    size: int | None
    keep_aspect: bool
    frames: int | None
    out: Path
    check_every: int
    gate: str | None
    gates: Gates
    scene_cuts: bool
    compile: bool
    state_dtype: torch.dtype


def one_of(option: str, value: str, allowed: Collection[str]) -> str:
    """Refuse a value that an option does not have.

    Raises:
        ValueError: The message names the values that it has, and the nearest.

    Example:
        >>> one_of("--state-dtype", "float16", STATE_DTYPES)
        'float16'
    """
    if value not in allowed:
        near = get_close_matches(value, allowed, n=1)
        hint = f"; do you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{option} is one of {', '.join(allowed)}, got {value!r}{hint}")
    return value


def policy_or_plan(text: str) -> Policy | Plan:
    """Read what is done with frames.

    Raises:
        ValueError: The text is neither.
        FileNotFoundError: It names a calibration file that is not there.

    Example:
        >>> policy_or_plan("top:256"), policy_or_plan("skip:5")
        (TopR(r=256), Skip(every=5, carried=False, phase=0))
    """
    try:
        return reuse.parse(text) or parse_tokens(text)
    except ValueError as error:
        known = _POLICIES | _PLANS | {"all": "all"}
        name = text.partition(":")[0]
        near = get_close_matches(name, known, n=1)
        if "." in name or name in known:  # a file, or a kind whose number is the mistake
            raise
        hint = f"do you mean {known[near[0]]}?" if near else f"plans: {', '.join(_PLANS.values())}"
        raise ValueError(f"{error}; {hint}") from None


_OF_GATES = {
    "attention": "--attention",
    "gating": "--gating",
    "measure": "--measure",
    "gate": "--gate",
    "scene_cuts": "--scene-cuts",
    "compile_blocks": "--compile",
    "state_dtype": "--state-dtype",
}


def refuse_gate_options(context: typer.Context, plan: Plan) -> None:
    """Refuse options of gates that were written beside a plan, which would not use them.

    Raises:
        ValueError: There are some; the message names them.
    """
    sources = {name: context.get_parameter_source(name) for name in _OF_GATES}
    given = [
        "--no-scene-cuts" if name == "scene_cuts" and not context.params[name] else _OF_GATES[name]
        for name, source in sources.items()
        if source is not None and source.name == "COMMANDLINE"
    ]
    if given:
        raise ValueError(
            f"the plan {plan} does not use {', '.join(given)}; leave that out, or run a policy "
            f"such as fraction:0.125"
        )


def refuse_foreign_file(policy: Policy | Plan, model: str, gates: Gates) -> None:
    """Refuse a file that `eventful calibrate` wrote for another model or other options of gates.

    Gates of the same names are no proof that it fits: all plain ViTs of twelve blocks have them.

    Raises:
        ValueError: The message says what the file is for, and what came.
    """
    if not isinstance(policy, PerGate):
        return
    here = {"model": model, **gates.names()}
    there = calibration_file.read(policy.source).get("about")
    if not isinstance(there, dict) or not here.keys() <= there.keys():
        return  # written from Python, about a model that has no name here
    other = [name for name in here if there[name] != here[name]]
    if other:
        wanted, came = (
            " ".join(f"--{name} {options[name]}" for name in other) for options in (there, here)
        )
        raise ValueError(
            f"{policy.source} was calibrated with {wanted}, and this run has {came}; run it with "
            f"the former, or calibrate with the latter"
        )
