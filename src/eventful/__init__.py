"""Run vision transformers on video by recomputing only what changed.

    eventful.convert(model)
    stream = eventful.Stream(model)
    for frame in eventful.video.read("street.mp4", size=518):
        features = stream(frame)

Submodules that need an optional library, such as `eventful.video`, load when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from eventful import moved
from eventful.block.options import Options
from eventful.convert import convert, restore
from eventful.export import export, load
from eventful.policies import (
    Auto,
    Carry,
    FramePolicy,
    KeepAll,
    Policy,
    Skip,
    Threshold,
    TopFraction,
    TopR,
    parse,
)
from eventful.stream import Stream
from eventful.stream.budget import Budget
from eventful.stream.costs import Costs
from eventful.stream.cuts import SceneCuts
from eventful.stream.stats import Stats
from eventful.stream.together import Together

if TYPE_CHECKING:
    from eventful import models as models
    from eventful import video as video

__version__ = "0.2.0"

__all__ = [
    "Auto",
    "Budget",
    "Carry",
    "Costs",
    "FramePolicy",
    "KeepAll",
    "Options",
    "Policy",
    "SceneCuts",
    "Skip",
    "Stats",
    "Stream",
    "Threshold",
    "Together",
    "TopFraction",
    "TopR",
    "convert",
    "export",
    "load",
    "parse",
    "restore",
]


moved.install()


def __getattr__(name: str) -> Any:
    if name in ("models", "video"):
        return import_module(f"eventful.{name}")
    raise AttributeError(f"module 'eventful' has no attribute {name!r}")
