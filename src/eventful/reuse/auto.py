"""The plan `auto`: dense frames now and then, and in between what motion does not explain."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional as F

from eventful.motion import Motion, carry
from eventful.motion.residual import Residual
from eventful.ops import Index
from eventful.policies import Policy
from eventful.reuse.plans import Auto
from eventful.reuse.runner import Found, PlanRunner
from eventful.stream.cuts import SceneCuts, change


@dataclass(frozen=True, eq=False)
class Given(Policy):
    """Update these tokens, whatever their errors.

    Attributes:
        positions: int64 (batch, active), among the tokens that are not always updated.

    Example:
        >>> Given(torch.tensor([[2, 0]])).select(torch.zeros(1, 4)).flat.tolist()
        [0, 2]
    """

    positions: Tensor

    def select(self, error: Tensor) -> Index:
        """Choose the given ones."""
        return Index.from_positions(self.positions, error.shape[1])

    def count(self, tokens: int) -> int:
        """As many as are given."""
        return self.positions.shape[1]


@final
class AutoRunner(PlanRunner):
    """Runs the plan `plans.Auto`.

    Every frame earns the plan's share of a dense frame. After a large frame (a dense one, or one at
    the plan's worst share) the next is set to when `refresh` of what is earned pays for it, and the
    rest is spent evenly on the frames up to then.

    Example:
        >>> import timm
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=0).eval()
        >>> runner = AutoRunner(model, Auto(0.5))
        >>> for frame in torch.rand(4, 1, 3, 64, 64):
        ...     _ = runner(frame)
        >>> runner.steps[0].first
        True
    """

    def __init__(self, model: Any, plan: Auto) -> None:
        super().__init__(model)
        self._plan = plan
        self._patches = self.grid[0] * self.grid[1]
        self._motion = Motion(self.grid)
        self._residual = Residual(self._motion)
        self._cuts = SceneCuts()
        self.start()

    def start(self) -> None:
        """Begin a video."""
        super().start()
        self._credit = 0.0  # dense frames' worth of operations
        self._left = 0  # frames up to the next large one
        self._thumbnail: Tensor | None = None
        self._changes = self._cuts.new_history()

    def _process(self, frame: Tensor) -> Found:
        plan = self._plan
        self._credit += plan.share
        cut = self._is_cut(frame)
        if self._tokens is None or (plan.worst == 1 and (cut or self._left == 0)):
            found, large = self._begin(frame), True
        else:
            self._stale |= cut
            large = self._left == 0 or bool(self._stale.any())
            each = (self._credit + (self._left - 1) * plan.share) / max(1, self._left)
            share = plan.worst if large else min(each, plan.worst)
            found = self._gated(frame, math.floor(share * self._patches))
        self._credit -= found.operations / self._stream.stats.dense_operations.total
        if large:
            owed = plan.share - self._credit
            self._left = max(1, round(owed / (plan.refresh * plan.share)))
        self._left -= 1
        return found

    def _is_cut(self, frame: Tensor) -> bool:
        """Whether a frame shows another scene than the last one, by the thumbnails."""
        before, now = self._thumbnail, F.interpolate(frame, self.grid, mode="area")
        self._thumbnail = now.flatten(2).mT
        if before is None:
            return False
        moved = change(before, self._thumbnail).max().item()
        cut = self._cuts.is_cut(moved, self._changes)
        self._changes.append(moved)
        return cut

    def _begin(self, frame: Tensor) -> Found:
        """Run the dense model, and forget what was computed before."""
        found = self._dense(frame)
        self._residual.start(frame)
        self._newer, self._where = found.tokens, torch.zeros_like(found.tokens[..., :1])
        self._stale = self._where[..., 0] > 0  # from before a cut
        return found

    def _gated(self, frame: Tensor, active: int) -> Found:
        """Carry the output along, and compute anew the patches that changed most."""
        tokens, error = self._carried(frame)
        if active < 1:
            return Found(tokens, 0, "carried")
        chosen = error.masked_fill(self._stale, math.inf).flatten(1).topk(active).indices
        self._stream.policy = Given(chosen)
        fresh = self._run(frame)
        mask = torch.zeros_like(self._stale).flatten(1).scatter(1, chosen, True)
        mask = mask.unflatten(1, self.grid)
        self._residual.computed(mask)
        self._stale &= ~mask
        self._newer = torch.where(mask[..., None], fresh, tokens)
        self._where = torch.maximum(self._where, mask[..., None].to(fresh.dtype))
        return Found(self._newer, self._stream.stats.operations.total, "gated", mask)

    def _carried(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        """The last dense output carried along, under what was computed since; and its residual."""
        assert self._frame is not None
        assert self._tokens is not None
        motion, error = self._residual(frame)
        newer = carry(torch.cat([self._newer, self._where], dim=-1), motion)
        self._newer, self._where = newer[..., :-1], (newer[..., -1:] > 0.5).to(newer.dtype)
        tokens = carry(self._tokens, self._motion(self._frame, frame))
        return torch.where(self._where > 0, self._newer, tokens), error
