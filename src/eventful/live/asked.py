"""What a policy's text asks for, of all cameras together."""

from __future__ import annotations

from eventful.live.pace import Pace
from eventful.policies import Auto, FramePolicy, parse
from eventful.stream.budget import Budget


def asked(text: str) -> tuple[FramePolicy, Pace | None, Budget | None]:
    """The policy of each camera, the time that a tick is to take, and what cameras share.

    Raises:
        ValueError: The text is no frame policy.

    Example:
        >>> policy, pace, budget = asked("latency:40")
        >>> str(policy), pace.milliseconds, budget is None
        ('time:0.2', 40.0, False)
    """
    policy = parse(text)
    if not isinstance(policy, FramePolicy):
        raise ValueError(
            f"cameras take a frame policy such as auto:0.2, time:0.2, latency:40, error:0.15, "
            f"carry:5 or skip:5, got {text}"
        )
    if not isinstance(policy, Auto) or policy.worst < 1 or policy.target == "max_error":
        return policy, None, None
    if policy.latency_ms is None:
        return policy, None, Budget()
    pace = Pace(policy.latency_ms)
    return Auto(time=pace.share), pace, Budget()


def alike(policy: FramePolicy, other: FramePolicy) -> bool:
    """Whether two policies count their costs in the same unit."""
    return isinstance(policy, Auto) and isinstance(other, Auto) and policy.target == other.target
