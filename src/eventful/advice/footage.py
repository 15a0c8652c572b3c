"""What pixels alone tell of a video: how far frames are apart, cuts, the camera, what changes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from statistics import fmean
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from eventful.motion import Picture, View
from eventful.stream.cuts import SceneCuts, picture_change
from eventful.stream.gain import LONGEST
from eventful.stream.probe import Probe
from eventful.stream.schedule import THUMBNAIL

PIXELS = 8192  # of a picture that are compared with other pictures
STEP_S = 0.2  # seconds that motion and change are told over
EVERY_S = 0.5  # seconds from one look at them to the next
MOVES = 0.4  # pixels of a small picture that its middle pixel moves by where the camera does
CHANGES = 0.1  # root mean square over a patch, colours summed: what counts as a change


@dataclass(frozen=True, eq=False)
class Footage:
    """A part of a video, as its pixels tell.

    Attributes:
        frames: How many.
        rate: Frames a second.
        distances: (LONGEST + 1, frames): how far a frame's picture is from that so many frames
            earlier (`View.distance`); infinite where there is none.
        still: Frames that show what the one before shows.
        cuts: Frames that begin another scene.
        moving: Share of the looks at which the camera moved.
        speed: By how much, in the mean over these looks, in picture widths a second.
        changing: Share of the patches that change within `STEP_S` seconds.
        unexplained: Share of the patches that change and that motion does not explain.
    """

    frames: int
    rate: float
    distances: Tensor
    still: frozenset[int]
    cuts: tuple[int, ...]
    moving: float
    speed: float
    changing: float
    unexplained: float

    def distance(self, before: int, now: int) -> float:
        """How far the picture of one frame is from an earlier one's."""
        return self.distances[now - before, now].item()

    def joined(self, before: int, now: int) -> bool:
        """Whether no cut lies between two frames."""
        return not any(before < cut <= now for cut in self.cuts)


@final
class Watch:
    """Takes the frames of a video in, one after the other.

    Args:
        probe: Makes pictures of them.
        rate: Frames a second.
    """

    def __init__(self, probe: Probe, rate: float) -> None:
        self._probe, self._rate, self._cutting = probe, rate, SceneCuts()
        self._thin: list[Tensor] = []
        self._still: set[int] = set()
        self._cuts: list[int] = []
        self._history = self._cutting.new_history()
        self._last: Tensor | None = None
        self._thumbnail: Tensor | None = None
        self._views: deque[tuple[int, View]] = deque()
        self._looks: list[tuple[float, float, float, float]] = []
        self._step = max(1, round(STEP_S * rate))
        self._every = max(1, round(EVERY_S * rate))

    def add(self, frame: Tensor) -> None:
        """Take in the next frame, as the stream takes it."""
        picture, number = self._probe.picture(frame), len(self._thin)
        height, width = picture.grey.shape[1:]
        thin = max(1, int((height * width / PIXELS) ** 0.5))
        self._thin.append(picture.grey[0, ::thin, ::thin].flatten().cpu())
        if self._last is not None and (picture.image - self._last).abs().max() < 1 / 512:
            self._still.add(number)
        self._last = picture.image
        if self._is_cut(picture):
            self._cuts.append(number)
            self._views.clear()
        if number % self._every == 0:
            self._views.append((number, self._probe.view(picture)))
        if self._views and self._views[0][0] + self._step == number:
            self._look(self._views.popleft()[1], picture)

    def _is_cut(self, picture: Picture) -> bool:
        """As a stream finds them."""
        now = F.interpolate(picture.image, THUMBNAIL, mode="area").flatten(2).mT
        before, self._thumbnail = self._thumbnail, now
        if before is None:
            return False
        moved = picture_change(before, now).item()
        cut = self._cutting.is_cut(moved, self._history)
        self._history.append(moved)
        return cut

    def _look(self, view: View, picture: Picture) -> None:
        look = view.look(picture)
        moved = look.flow.flatten(0, 2).median(dim=0).values.norm().item()
        speed = moved / picture.grey.shape[2] * self._rate / self._step
        changing, missed = (
            (x > CHANGES).float().mean().item() for x in (look.unmoved, look.residual)
        )
        self._looks.append((float(moved > MOVES), speed, changing, min(changing, missed)))

    def footage(self) -> Footage:
        """What was seen."""
        grey, count = torch.stack(self._thin).float(), len(self._thin)
        distances = torch.full((LONGEST + 1, count), torch.inf)
        distances[0] = 0
        for age in range(1, min(LONGEST, count - 1) + 1):
            off = grey[age:] - grey[:-age]
            distances[age, age:] = off.square_().mean(dim=1).sqrt_() / 255
        moving = [look for look in self._looks if look[0]]
        mean = [fmean(values) for values in zip(*self._looks, strict=True)] or [0.0] * 4
        return Footage(
            count,
            self._rate,
            distances,
            frozenset(self._still),
            tuple(self._cuts),
            moving=mean[0],
            speed=fmean(look[1] for look in moving) if moving else 0.0,
            changing=mean[2],
            unexplained=mean[3],
        )
