"""What all rows of an archive depend on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import eventful
from eventful import runtimes
from eventful.outputs.networks import Network
from eventful.policies import Auto, FramePolicy, parse
from eventful.provenance import version

FORMAT = 2
LOOKAHEAD = 16  # most spans between dense frames are shorter, and it is memory for 16 frames
LIBRARIES = ("torch", "torchvision", "timm", "transformers", "av", "opencv-python-headless")


@dataclass(frozen=True)
class Settings:
    """The options of an archive.

    Attributes:
        build: Makes the network for frames of a height and a width; workers call it, so it must
            pickle: a function of a module, or a `functools.partial` of one.
        model: What the network is called in manifest and files.
        policy: What frames are given, a frame policy as text; "skip:1" computes all in full.
        size: Long side of frames in pixels.
        patch: Side of the model's patch in pixels; sides of frames are multiples of it.
        square: Squeeze frames into squares.
        segment: Frames of a segment.
        scene_cuts: Start over at scene cuts.
        lookahead: Frames that may wait for the dense frame after them, to be carried from both
            sides; 0 for none.
        threads: Threads of a worker.
        runtime: What runs frames after the first of a segment: "torch", "openvino", "onnxruntime".
        outputs: What `build` was told to keep, so that a manifest refuses to go on with others.

    Raises:
        ValueError: The policy is no frame policy, or reads a clock, or a number is out of range.

    Example:
        >>> from eventful.outputs.networks import demo_network
        >>> Settings(demo_network, "demo", policy="auto:0.2").identity()["policy"]
        'auto:0.2'
    """

    build: Callable[[int, int], Network]
    model: str
    policy: str = "error:0.15"
    size: int = 518
    patch: int = 14
    square: bool = False
    segment: int = 1500
    scene_cuts: bool = True
    lookahead: int = LOOKAHEAD
    threads: int = 1
    runtime: runtimes.Name = "torch"
    outputs: str = ""

    def __post_init__(self) -> None:
        policy = parse(self.policy)
        if not isinstance(policy, FramePolicy):
            raise ValueError(
                f"an archive takes a frame policy such as error:0.15, auto:0.2, carry:5 or skip:1 "
                f"(every frame in full), got {self.policy}"
            )
        if isinstance(policy, Auto) and policy.latency_ms is not None:
            raise ValueError(
                f"{self.policy} reads the clock, so that no two runs give the same rows; an "
                f"archive takes error:E, auto:F or time:F"
            )
        if self.lookahead < 0:
            raise ValueError(f"lookahead must be at least 0 frames, got {self.lookahead}")
        for name in ("size", "patch", "segment", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.square and self.size % self.patch:
            raise ValueError(
                f"square frames of {self.size} pixels are no multiple of the patch of "
                f"{self.patch}; use {max(1, self.size // self.patch) * self.patch}"
            )
        runtimes.runtime_named(self.runtime)  # raises if it is unknown or not installed

    @property
    def frame_policy(self) -> FramePolicy:
        """The policy."""
        policy = parse(self.policy)
        assert isinstance(policy, FramePolicy)
        return policy

    def identity(self) -> dict[str, Any]:
        """What rows depend on, as the manifest holds it."""
        names = ("model", "outputs", "size", "patch", "square", "segment", "scene_cuts")
        return {
            "format": FORMAT,
            "policy": str(self.frame_policy),
            "lookahead": self.waits,
            **{name: getattr(self, name) for name in (*names, "threads", "runtime")},
        }

    @property
    def waits(self) -> int:
        """Frames that wait under this policy: none where there is nothing to wait for."""
        return self.lookahead if self.frame_policy.waits else 0


def versions() -> dict[str, str | None]:
    """The versions that rows were computed with."""
    return {"eventful": eventful.__version__, **{name: version(name) for name in LIBRARIES}}
