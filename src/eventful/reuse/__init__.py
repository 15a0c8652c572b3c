"""Reuse of outputs beside gating: skipped frames, motion, and a choice for each frame.

A *plan* says what is done with each frame of a video; its runner gives the patch tokens.
"""

from eventful.motion import Motion, carry
from eventful.reuse.plans import Auto, LowResolution, Plan, Skip, parse
from eventful.reuse.runner import PlanRunner, Step
from eventful.reuse.runners import runner

__all__ = [
    "Auto",
    "LowResolution",
    "Motion",
    "Plan",
    "PlanRunner",
    "Skip",
    "Step",
    "carry",
    "parse",
    "runner",
]
