"""Policies: what each frame is given, or which tokens a gate lets through.

*Frame policies* (`Auto`, `Carry`, `Skip`) decide from pixels, before the first block. *Token
policies* (`TopR`, `TopFraction`, `Threshold`, `KeepAll`, and `PerGate` or a mapping for several)
are the paper's: they look at how far a gate's tokens have moved from their references.
`parse` reads the text of any.
"""

from eventful.policies.auto import Auto
from eventful.policies.keep_all import KeepAll
from eventful.policies.parse import FRAME_POLICIES, POLICIES, parse, parse_tokens
from eventful.policies.per_gate import PerGate, for_gates
from eventful.policies.policy import FramePolicy, Policy
from eventful.policies.reuse import Carry, Skip
from eventful.policies.threshold import Threshold
from eventful.policies.top import TopFraction, TopR

__all__ = [
    "FRAME_POLICIES",
    "POLICIES",
    "Auto",
    "Carry",
    "FramePolicy",
    "KeepAll",
    "PerGate",
    "Policy",
    "Skip",
    "Threshold",
    "TopFraction",
    "TopR",
    "for_gates",
    "parse",
    "parse_tokens",
]
