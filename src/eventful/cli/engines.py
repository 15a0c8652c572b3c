"""What `eventful run` runs a video through: the gates of a stream, or a plan."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from math import floor, modf, sqrt
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from eventful import KeepAll, SceneCuts, Stream, convert, restore, reuse
from eventful.cli.choices import RunSettings
from eventful.cli.subjects import Grid, Subject
from eventful.policies import Policy
from eventful.reuse import Plan


class Done(NamedTuple):
    """What was done with a frame.

    Attributes:
        tokens: Final-normed patch tokens (1, patches, dim).
        operations: Multiply-accumulates used.
        dense_operations: Those of the dense model.
        updated_share: Updated tokens over tokens, mean over all gates; under a plan, of patches.
        milliseconds: Wall time.
        action: "dense" or "gated"; under a plan also "held", "carried" or "low resolution".
        flush: Why it was computed in full, or empty.
    """

    tokens: Tensor
    operations: int
    dense_operations: int
    updated_share: float
    milliseconds: float
    action: str
    flush: str


class Engine(ABC):
    """Runs the frames of one video.

    Attributes:
        titles: Of the two panels of `maps`.
        told: What the summary says of it.
        plan: Whether frames are dense now and then by plan, so that medians say nothing.
    """

    titles: tuple[str, str]
    told: Mapping[str, Any]
    plan: bool

    @abstractmethod
    def __call__(self, image: Tensor) -> Done:
        """Process a frame (1, 3, height, width) in [0, 1]."""

    @abstractmethod
    def maps(self, wrong: Tensor) -> tuple[Tensor, Tensor]:
        """Two pictures of the last frame on the patch grid: an error, and what was computed.

        Args:
            wrong: (grid height, grid width) relative error of each patch when it was last known.
        """

    @abstractmethod
    def checked(self, number: int, every: int) -> bool:
        """Whether the dense model runs too on a frame, one out of `every`."""

    @property
    def state_bytes(self) -> int | None:
        """Memory between frames; None where it is not counted."""
        return None

    def prepare(self, image: Tensor) -> None:  # noqa: B027 - most have nothing to prepare
        """Do ahead what would slow the first frames down."""


@final
class Gated(Engine):
    """A stream through a converted model.

    Raises:
        ValueError: The model does not convert, or the gate to picture or a policy does not fit.
    """

    plan = False

    def __init__(self, subject: Subject, settings: RunSettings, policy: Policy, grid: Grid) -> None:
        settings.gates.convert(subject.backbone, policy)
        self._subject, self._grid, self._policy = subject, grid, policy
        self._stream = Stream(
            subject.backbone,
            scene_cuts=SceneCuts() if settings.scene_cuts else None,
            method="forward_features",
            compile=settings.compile,
            state_dtype=settings.state_dtype,
        )
        self._gate = _pictured(settings.gate, self._stream.gates)
        own = self._stream.policy
        for one in [own] if isinstance(own, Policy) else own.values():
            _fit(one, grid[0] * grid[1], settings.compile)
        self.titles = f"error at {self._gate}", f"updated at {self._gate}"
        self.told = settings.gates.names()

    @property
    def state_bytes(self) -> int:
        """Memory of the stream."""
        return self._stream.stats.state_bytes

    def prepare(self, image: Tensor) -> None:
        """Compile, if that is asked for."""
        self._stream.prepare(image, [self._policy])

    def __call__(self, image: Tensor) -> Done:
        """Process a frame."""
        tokens = self._stream(self._subject.normalize(image))[:, self._subject.prefix :]
        stats = self._stream.stats
        flush = stats.flushes[-1] if stats.flushes else None
        reason = flush.reason if flush and flush.frame == stats.frames - 1 else ""
        return Done(
            tokens,
            stats.operations.total,
            stats.dense_operations.total,
            self._updated_share(),
            stats.seconds * 1e3,
            "dense" if reason else "gated",
            reason,
        )

    def maps(self, wrong: Tensor) -> tuple[Tensor, Tensor]:
        """The error that a gate saw, and what it let through."""
        error, updated = (
            x[0, self._subject.prefix :].view(self._grid) for x in self._stream.gate(self._gate)
        )
        return error, updated

    def checked(self, number: int, every: int) -> bool:
        """The last of `every`, on which tokens are as old as they get before the check."""
        return (number + 1) % every == 0

    def _updated_share(self) -> float:
        updated = self._stream.stats.updated
        tokens = self._grid[0] * self._grid[1] + self._subject.prefix
        return sum(map(sum, updated.values())) / (len(updated) * tokens)


@final
class Planned(Engine):
    """A plan beside gating.

    Raises:
        ValueError: The model cannot run under it.
        ModuleNotFoundError: The plan needs OpenCV.
    """

    plan = True
    titles = "relative error (last checked frame)", "computed anew"
    told = dict.fromkeys(("attention", "gating", "measure"))

    def __init__(self, subject: Subject, plan: Plan) -> None:
        self._runner = _runner(subject, plan)

    def __call__(self, image: Tensor) -> Done:
        """Process a frame."""
        tokens = self._runner(image)
        step, first = self._runner.steps[-1], len(self._runner.steps) == 1
        reason = "first frame" if first else "plan"
        return Done(
            tokens,
            step.operations,
            step.dense_operations,
            self._runner.updated.float().mean().item(),
            step.milliseconds,
            step.action,
            reason if step.action == "dense" else "",
        )

    def maps(self, wrong: Tensor) -> tuple[Tensor, Tensor]:
        """The error when it was last known, and the patches computed anew."""
        return wrong, self._runner.updated[0]

    def checked(self, number: int, every: int) -> bool:
        """One of `every`, at changing places."""
        return spread(number, every)


def engine(subject: Subject, settings: RunSettings, grid: Grid) -> Engine:
    """Make what runs the video."""
    if isinstance(settings.policy, Plan):
        return Planned(subject, settings.policy)
    return Gated(subject, settings, settings.policy, grid)


def _fit(policy: Policy, patches: int, compiled: bool) -> None:
    """Refuse a policy that does not fit a frame, before anything is compiled or written."""
    policy.select(torch.zeros(1, patches))
    if compiled and policy.count(patches) is None:
        raise ValueError(
            f"--compile needs policies that update a fixed number of tokens, such as top:256 or "
            f"fraction:0.25; got {policy}"
        )


def _pictured(gate: str | None, gates: list[str]) -> str:
    if gate is not None and gate not in gates:
        raise ValueError(f"no gate {gate!r}; there are {', '.join(gates)}")
    usual = "blocks.3.qkv"
    return gate or (usual if usual in gates else gates[0])


def _runner(subject: Subject, plan: Plan) -> reuse.PlanRunner:
    try:
        _check(subject.backbone)
    except ValueError as error:
        raise ValueError(
            f"{subject.name} cannot run under the plan {plan}: {error}; plans take a timm ViT "
            f"whose forward_features gives patch tokens. Use a policy such as fraction:0.125"
        ) from error
    return reuse.runner(subject.backbone, plan)


def _check(model: nn.Module) -> None:
    """Refuse a model that is none for plans, and leave it as it is."""
    needs = ("forward_features", "num_prefix_tokens", "set_input_size", "patch_embed.grid_size")
    lacks = [name for name in needs if not _has(model, name)]
    if lacks:
        raise ValueError(f"a {type(model).__name__} has no {', no '.join(lacks)}")
    restore(convert(model, KeepAll(), gating="input"))


def _has(model: nn.Module, name: str) -> bool:
    owner, _, last = name.rpartition(".")
    return hasattr(getattr(model, owner, None) if owner else model, last)


def spread(number: int, every: int) -> bool:
    """Whether a frame is the one out of `every` to look at, where frames recur.

    The place moves on by the golden section, so that it never falls into step with a plan: over
    time, all of its phases are seen equally often.

    Example:
        >>> [number for number in range(50) if spread(number, 10)]
        [6, 12, 28, 34, 40]
    """
    turn, place = divmod(number, every)
    return place == floor(modf((turn + 1) * (sqrt(5) - 1) / 2)[0] * every)
