"""What running the dense model on every k-th frame, and holding its output, would give."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

import numpy as np

from eventful.advice.footage import Footage
from eventful.advice.replay import Price
from eventful.advice.samples import Window
from eventful.stream.estimate import Estimate


@dataclass(frozen=True)
class Skipping:
    """Frame skipping at an error.

    Attributes:
        every: Frames from one dense one to the next, in the mean.
        operations: Share of the dense model's.
        milliseconds: Mean time of a frame.
    """

    every: float
    operations: float
    milliseconds: float


def held_errors(footage: Footage, seen: Sequence[Window]) -> list[float]:
    """Mean error of an output that is held for 0, 1, 2, ... frames, over a whole video.

    Windows tell the error for a distance of pictures, by age; the video tells the distances.
    """
    errors, distances = defaultdict(list), defaultdict(list)
    for window in seen:
        for sample in window.samples:
            if not sample.level:
                errors[sample.age].append(sample.check.held)
                distances[sample.age].append(_grown(sample.distance))
    ages = sorted(errors)
    ratios = [fmean(errors[age]) / fmean(distances[age]) for age in ages]
    last = min(len(footage.distances), footage.frames)
    found = [0.0]
    for age in range(1, last):
        far = fmean(map(_grown, footage.distances[age, age:].tolist()))
        found.append(float(np.interp(np.log(age), np.log(ages), ratios)) * far)
    return found


def _grown(distance: float) -> float:
    return max(distance, Estimate.LEAST) ** Estimate.POWER


def skipping(target: float, held: Sequence[float], price: Price) -> Skipping:
    """The cheapest frame skipping with a mean error of at most `target`.

    Between whole numbers of frames, a mixture of the two.

    Args:
        target: The error.
        held: By age, from `held_errors`.
        price: What frames cost.

    Example:
        >>> from eventful.stream.costs import Costs
        >>> costs = Costs(dense=10.0, carried=2.0, held=0.0, partial=3.0, token=0.1)
        >>> skipping(0.1, [0.0, 0.1, 0.3], Price(costs, costs, 10.0))
        Skipping(every=2.5, operations=0.4, milliseconds=4.0)
    """
    errors = [fmean(held[:every]) for every in range(1, len(held) + 1)]
    share = 1.0
    for every, (less, more) in enumerate(pairwise(errors), start=1):
        if less > target:
            break
        part = 1.0 if more <= target else (target - less) / (more - less)
        share = (1 - part) / every + part / (every + 1)
    counted = price.counted
    operations = share + (1 - share) * counted.held / counted.dense
    milliseconds = share * price.dense_ms + (1 - share) * price.timed.held  # it finds no motion
    return Skipping(1 / share, operations, milliseconds)
