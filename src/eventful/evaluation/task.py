"""A task: a model on a data set, and how well it does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import nn

from eventful.datasets import Videos
from eventful.evaluation.runners.frames import FrameRunner
from eventful.evaluation.scores import Arrays, Scores, SettingReport
from eventful.evaluation.settings import Setting
from eventful.policies import Policy


class Named(Protocol):
    """Anything with a name in its data set."""

    @property
    def id(self) -> str:
        """The name."""
        ...


V = TypeVar("V", bound=Named)


class Task(ABC, Generic[V]):
    """What is loaded, how one video runs, and how all are scored.

    The rest is the same for all tasks: going on after an end, counts, times, outputs. A further
    task derives from this class and is named in `eventful.evaluation.TASKS`.

    Attributes:
        name: What the command calls it.
        model: A dense model in eval mode.
        data: The videos.
        per: What operations are stated for: "frame", or "video" with all its views.
        measures: The names of its scores, the one to draw first; all in percent.
        tokens: How many tokens a policy chooses from.
        paper: Model and size of the paper's rows to compare with; None if there are none.

    Example: see `DetectionTask`.
    """

    name: str
    model: nn.Module
    data: Videos[V]
    per: str
    measures: tuple[str, ...]
    tokens: int
    paper: tuple[str, int] | None = None

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What results depend on beside model and setting, in what JSON can hold."""

    @abstractmethod
    def runner(self, setting: Setting) -> FrameRunner:
        """Make the model ready for a setting.

        Raises:
            ValueError: The setting does not fit the model.
        """

    @abstractmethod
    def run(self, runner: Any, video: V) -> tuple[dict[str, np.ndarray], int]:
        """Run one video from its start.

        Args:
            runner: What `runner` has returned.
            video: The video.

        Returns:
            What `score` needs, empty if nothing of the video can be read; and the operations of
            what runs outside the runner and is counted.
        """

    @abstractmethod
    def score(self, found: Iterable[Arrays]) -> Scores:
        """Score what `run` returned for all videos, which are read once and in turn.

        Returns:
            The `measures`; None where there is no answer.
        """

    @abstractmethod
    def describe(self, found: Arrays) -> dict[str, Any]:
        """Say of one video how much of it was "scored", and what else goes into the table."""

    def further(self, settings: Sequence[SettingReport]) -> dict[str, Any]:
        """What else the report says of the settings, by name."""
        return {}

    def check(self, setting: Setting) -> None:
        """Find out before a long run whether a setting fits.

        Raises:
            ValueError: It does not.
        """
        self.runner(setting)
        if isinstance(setting.policy, Policy):
            setting.policy.select(torch.zeros(1, self.tokens))
