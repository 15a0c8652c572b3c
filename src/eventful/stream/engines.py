"""Which engine runs a policy, and which policies go with the rest of a stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eventful.policies import FramePolicy
from eventful.runtimes.passes import Passes
from eventful.stream.bound import Bound
from eventful.stream.budget import check_shared
from eventful.stream.frames import Frames
from eventful.stream.layout import StatedModel

Settings = Mapping[str, Any]  # as given to `Stream`


def check(bound: Bound, passes: Passes | None, settings: Settings, policy: Any) -> None:
    """Refuse a policy that does not go with the runtime or the budget.

    Raises:
        ValueError: It does not.
    """
    check_shared(settings["budget"], policy)
    graphs = passes is not None or isinstance(bound.module, StatedModel)
    if graphs and not isinstance(policy, FramePolicy):
        raise ValueError(
            f"a runtime's graphs run frame policies (Auto, Carry, Skip), got "
            f"{policy or 'token policies by default'}; choose one, or run the model in PyTorch"
        )


def frames(bound: Bound, passes: Passes | None, settings: Settings, policy: FramePolicy) -> Frames:
    """The engine of a frame policy.

    Raises:
        ValueError: Frames were to be compiled.
    """
    if settings["compile"]:
        raise ValueError(
            f"compile=True serves token policies; {policy} changes the number of tokens from "
            f"frame to frame; leave compile=False"
        )
    names = "scene_cuts", "check", "state_dtype", "costs", "budget"
    return Frames(bound, policy, passes=passes, **{name: settings[name] for name in names})
