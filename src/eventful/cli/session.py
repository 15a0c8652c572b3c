"""One clip through a stream, and on checked frames through the dense model."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import torch

from eventful import FramePolicy, Policy, SceneCuts
from eventful.cli.checks import Checks, distance
from eventful.cli.choices import Gates
from eventful.cli.players import Played, Player
from eventful.policies import Auto


@dataclass(frozen=True)
class Row:
    """One frame.

    Attributes:
        frame: Its number in the clip, from 0.
        time_s: Seconds since the clip's first.
        kind: "dense", "partial", "carried" or "held"; under a token policy "dense" or "gated".
        reason: Why.
        tokens: Tokens computed, in the mean over gates.
        operations: Multiply-accumulates used.
        dense_operations: Those of the dense model.
        milliseconds: Wall time of the stream.
        age: Frames since the last dense one.
        estimated_error: Of what is shown, from pixels; 0 on a dense frame, None where nothing is
            estimated.
        measured_error: The same against the dense model, on checked frames.
        replaced_error: On a dense frame, of what would have been shown in its place.
        dense_milliseconds: Wall time of the dense model, where it ran beside the stream.
    """

    frame: int
    time_s: float
    kind: str
    reason: str
    tokens: float
    operations: int
    dense_operations: int
    milliseconds: float
    age: int
    estimated_error: float | None = None
    measured_error: float | None = None
    replaced_error: float | None = None
    dense_milliseconds: float | None = None

    @property
    def share(self) -> float:
        """Operations over the dense model's."""
        return self.operations / self.dense_operations


class Session:
    """Runs the frames of one clip.

    Args:
        player: The model, which is converted.
        policy: What is done with frames.
        gates: How gates work under a token policy.
        scene_cuts: Whether frames after a scene cut are computed in full.
        checks: Which frames the dense model runs on too.

    Attributes:
        rows: What was done.
        dense: The latest dense result, and the number of its frame.

    Raises:
        ValueError: The model does not convert, or the policy does not fit.
    """

    def __init__(
        self,
        player: Player,
        policy: FramePolicy | Policy,
        gates: Gates,
        scene_cuts: bool,
        checks: Checks,
    ) -> None:
        player.start(policy, gates, SceneCuts() if scene_cuts else None)
        self.player, self.policy, self.checks = player, policy, checks
        self.stream = player.stream
        self.rows: list[Row] = []
        self.dense: tuple[int, Played] | None = None
        self._dense_ms: list[float] = []
        self._age = 0

    @torch.inference_mode()
    def step(self, prepared: Any, time_s: float) -> Played:
        """Process a frame as the player has prepared it."""
        number, player = len(self.rows), self.player
        if not self._dense_ms:
            player.dense(prepared)  # once to warm up
            self._dense_ms = [player.dense(prepared)[1]]
        played = player.eventful(prepared)
        found = self._found()
        if found["kind"] == "dense":
            self.dense = number, played
        measured = dense_ms = None
        if self.checks.wanted(number):
            if found["kind"] != "dense":
                dense, dense_ms = player.dense(prepared)
                self.dense = number, dense
                self._dense_ms.append(dense_ms)
            assert self.dense is not None
            measured = distance(played.tokens, self.dense[1].tokens)
            self.checks.add(number, self.dense[1].tokens)
        stats = self.stream.stats
        self.rows.append(
            Row(
                frame=number,
                time_s=time_s,
                operations=stats.operations.total,
                dense_operations=stats.dense_operations.total,
                milliseconds=1e3 * stats.seconds,
                measured_error=measured,
                dense_milliseconds=dense_ms,
                **found,
            )
        )
        return played

    def _found(self) -> dict[str, Any]:
        """What was done with the last frame, as fields of a row."""
        stats = self.stream.stats
        flush = stats.flushes[-1] if stats.flushes else None
        reason = flush.reason if flush and flush.frame == stats.frames - 1 else ""
        if stats.rows:
            (row,) = stats.rows
            self._age = row.age
            return {
                "kind": row.kind,
                "reason": row.reason,
                "tokens": row.tokens,
                "age": row.age,
                "estimated_error": row.estimate,
                "replaced_error": row.error,
            }
        self._age = 0 if reason else self._age + 1
        updated = list(stats.updated.values())
        return {
            "kind": "dense" if reason else "gated",
            "reason": reason,
            "tokens": sum(map(sum, updated)) / len(updated),
            "age": self._age,
        }

    @property
    def ratio(self) -> float:
        """Dense operations over operations used so far."""
        return self.stream.stats.ratio

    @property
    def dense_ms(self) -> float | None:
        """Time of the dense model: the median of the frames on which it ran by itself."""
        return median(self._dense_ms) if self._dense_ms else None

    @property
    def mean_ms(self) -> float | None:
        """Mean time of a frame; the first counts as one dense frame.

        What else the first frame does, `setup_ms` tells.
        """
        if not self.rows or self.dense_ms is None:
            return None
        return fmean([self.dense_ms, *(row.milliseconds for row in self.rows[1:])])

    @property
    def setup_ms(self) -> float | None:
        """Time that the first frame takes beyond a dense one: checks, and measuring costs."""
        if not self.rows or self.dense_ms is None:
            return None
        return max(0.0, self.rows[0].milliseconds - self.dense_ms)

    @property
    def target(self) -> float | None:
        """The error that the policy holds, if it holds one."""
        return self.policy.max_error if isinstance(self.policy, Auto) else None
