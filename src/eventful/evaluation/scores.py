"""What comes of an evaluation: arrays of one video, scores of all, and what one setting gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from eventful.evaluation.settings import Setting

Arrays = Mapping[str, np.ndarray]
Scores = dict[str, float | None]


@dataclass(frozen=True)
class SettingReport:
    """One setting over all videos.

    Attributes:
        setting: The setting.
        scores: By measure, in percent; None where there is no answer.
        videos: For each video its name, "steps", "first", "operations", "dense_operations",
            "milliseconds" (median, None if every frame was computed in full), "later" (mean
            milliseconds of all frames but the first), and what the task says of it.
        per: What operations are stated for, "frame" or "video".
        milliseconds: Median over all frames that were not computed in full.

    Example:
        >>> rows = [{"steps": 4, "first": 1, "operations": 90, "dense_operations": 160}]
        >>> report = SettingReport(Setting("dense", None), {}, rows, "frame", None)
        >>> report.operations, report.ratio, report.first_share
        (22.5, 1.7777777777777777, 0.25)
    """

    setting: Setting
    scores: Scores
    videos: list[dict[str, Any]]
    per: str
    milliseconds: float | None

    @property
    def operations(self) -> float | None:
        """Multiply-accumulates a frame, or a video with all its views; first frames included."""
        return self._mean("operations")

    @property
    def dense_operations(self) -> float | None:
        """Those of the dense model."""
        return self._mean("dense_operations")

    @property
    def ratio(self) -> float | None:
        """Dense operations over operations."""
        used = self.total("operations")
        return self.total("dense_operations") / used if used else None

    @property
    def first_share(self) -> float | None:
        """The share of frames that were computed in full."""
        steps = self.total("steps")
        return self.total("first") / steps if steps else None

    @property
    def later(self) -> float | None:
        """Mean milliseconds of the frames that are not the first of their video.

        Unlike the median it is fair to what works hard on some frames and not at all on others.
        """
        timed = [one for one in self.videos if one["later"] is not None]
        frames = sum(one["steps"] - 1 for one in timed)
        return sum(one["later"] * (one["steps"] - 1) for one in timed) / frames if frames else None

    def total(self, column: str) -> int:
        """Sum over the videos."""
        return sum(video[column] for video in self.videos)

    def _mean(self, column: str) -> float | None:
        """Over what can be read of the data set."""
        readable = sum(video["steps"] > 0 for video in self.videos)
        count = self.total("steps") if self.per == "frame" else readable
        return self.total(column) / count if count else None
