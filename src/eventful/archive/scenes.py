"""Frames cut into scenes, by what their pictures alone show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from eventful.stream.cuts import SceneCuts, picture_change
from eventful.stream.schedule import THUMBNAIL
from eventful.video import Frame


class Scene(NamedTuple):
    """Frames between two cuts.

    Attributes:
        number: Its place in the segment, from 0.
        frames: To be read before the next scene is.
    """

    number: int
    frames: Iterator[Frame]


def scenes(frames: Iterable[Frame], cuts: SceneCuts | None = SceneCuts()) -> Iterator[Scene]:  # noqa: B008
    """Cut frames into scenes, as a stream finds cuts under frame policies.

    It looks at no frame ahead, and at nothing from before the first frame, so that a segment's
    scenes depend on the segment alone.

    Args:
        frames: Of one segment.
        cuts: How cuts are found; None finds none.

    Example:
        >>> from fractions import Fraction
        >>> import numpy as np
        >>> stripes = np.tile(np.array([0, 255] * 4, np.uint8)[:, None, None], (1, 8, 3))
        >>> shots = [stripes, stripes, stripes.swapaxes(0, 1)]
        >>> given = [Frame(x, i, Fraction(i)) for i, x in enumerate(shots)]
        >>> [(scene.number, len([*scene.frames])) for scene in scenes(given)]
        [(0, 2), (1, 1)]
    """
    for number, group in groupby(_numbered(frames, cuts), key=lambda pair: pair[0]):
        yield Scene(number, (frame for _, frame in group))


def _numbered(frames: Iterable[Frame], cuts: SceneCuts | None) -> Iterator[tuple[int, Frame]]:
    """Each frame with the number of its scene."""
    number, before = 0, None
    history = (cuts or SceneCuts()).new_history()
    for frame in frames:
        now = _thumbnail(frame.image)
        if cuts is not None and before is not None:
            change = picture_change(before, now).item()
            number += cuts.is_cut(change, history)
            history.append(change)
        before = now
        yield number, frame


def _thumbnail(image: Tensor) -> Tensor:
    return F.interpolate(image, THUMBNAIL, mode="area").flatten(2).mT
