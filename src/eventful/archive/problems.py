"""What can be wrong with a video, and with the folder that is written to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from av.error import FFmpegError

from eventful.video.decode import of_the_system
from eventful.video.extent import DamageError

Kind = Literal["unreachable", "unusable", "damaged", "changed", "lost"]


@dataclass(frozen=True)
class Problem:
    """Why rows of a video are missing.

    Attributes:
        video: The video's name in the archive.
        kind: "unreachable" (it is not there, or may not be read), "unusable" (no video, or empty),
            "damaged" (rows end at the damage), "changed" (another file than when the archive was
            begun) or "lost" (workers died over it). What is unreachable, changed or lost is tried
            again by the next run.
        reason: What was found.
        segment: Which of its segments; None for all of it.

    Example:
        >>> Problem("a.mp4", "unusable", "it is empty").passing
        False
    """

    video: str
    kind: Kind
    reason: str
    segment: int | None = None

    @property
    def passing(self) -> bool:
        """Whether another run may do better."""
        return self.kind in ("unreachable", "changed", "lost")


READING = OSError, ValueError, FFmpegError, DamageError


def of_error(video: str, error: Exception, segment: int | None = None) -> Problem:
    """The problem that an error of reading tells of.

    Example:
        >>> of_error("a.mp4", FileNotFoundError("there is nothing at a.mp4")).kind
        'unreachable'
    """
    if isinstance(error, FFmpegError):
        kind: Kind = "unreachable" if of_the_system(error) else "damaged"
    elif isinstance(error, OSError):
        kind = "unreachable"
    else:
        kind = "damaged" if isinstance(error, DamageError) else "unusable"
    return Problem(video, kind, str(error), segment)
