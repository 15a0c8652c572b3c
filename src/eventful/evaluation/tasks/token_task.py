"""What tasks on patch tokens share: frames at the model's size, dense tokens, errors, reports."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from eventful.datasets import Sample, Videos
from eventful.evaluation.measures.against_dense import quality_report
from eventful.evaluation.measures.errors import TokenErrors, summarised
from eventful.evaluation.measures.patches import OBJECT_SHARE, Size, fitted_frame, share
from eventful.evaluation.runners.tokens import Models, TokenRunner
from eventful.evaluation.scores import Arrays, Scores, SettingReport
from eventful.evaluation.settings import Setting
from eventful.evaluation.task import Task
from eventful.evaluation.tasks.dense_tokens import DenseTokens
from eventful.evaluation.tasks.pictures import GREEN, tinted
from eventful.video.geometry import fitted

PATCH = 14
LONG_SIDE = 518


class Footage(Protocol):
    """A video: its name, and its frames each time anew."""

    @property
    def id(self) -> str:
        """The name."""
        ...

    def __iter__(self) -> Iterator[Sample[Any]]: ...


class Judge(Protocol):
    """Sees the tokens of a video frame by frame."""

    def see(self, number: int, tokens: Tensor, sample: Sample[Any]) -> None:
        """Look at a frame.

        Args:
            number: Its position in what is run, from 0.
            tokens: (h * w, dim), on the CPU.
            sample: The frame at its own size, with its target.
        """
        ...

    def found(self) -> dict[str, np.ndarray]:
        """What it has seen, with "scored" frames."""
        ...

    def picture(self, tokens: Tensor, sample: Sample[Any]) -> Tensor:
        """Draw what it makes of the frame that it saw last.

        Args:
            tokens: As for `see`.
            sample: As for `see`.

        Returns:
            (3, H, W) in [0, 1], the size of the frame.
        """
        ...


V = TypeVar("V", bound=Footage)


class TokenTask(Task[V]):
    """A task on the final-normed patch tokens of a backbone, run frame by frame.

    Frames are brought to `size` pixels on the long side, their aspect kept, sides rounded to
    multiples of the patch. The tokens of the dense model are computed once a video and kept in
    `folder`; each other setting is compared with them. Counted and timed is the backbone alone.

    A score is the mean over the videos that have one.

    Args:
        models: The model for each input size; its `backbone` is run.
        data: The videos, with frames at their own size.
        folder: Where dense tokens are kept, a folder of this task, model and size.
        size: The long side in pixels.
        frames: Frames of a video at most.

    Raises:
        ValueError: `size` is less than a patch.

    Example: see `SaliencyTask`.
    """

    per = "frame"
    paper = None
    truth_is = "ground truth"

    def __init__(
        self,
        models: Models,
        data: Videos[V],
        folder: Path,
        size: int | None = None,
        frames: int | None = None,
    ) -> None:
        self.models, self.data, self.frames = models, data, frames
        self.size = LONG_SIDE if size is None else size
        if self.size < PATCH:
            raise ValueError(f"--size must be at least {PATCH} pixels, a patch; got {self.size}")
        self.dense = DenseTokens(folder)
        height, width = self.input_size(_first_shape(data))
        self.model = models((height, width))
        self.tokens = height * width // PATCH**2

    @abstractmethod
    def judge(self, video: V, shape: Size) -> Judge:
        """Make what looks at the tokens of a video.

        Args:
            video: The video.
            shape: (height, width) of its frames.
        """

    @abstractmethod
    def quality(self, found: Arrays) -> Scores:
        """The `measures` of one video, in percent, from what its judge has found."""

    def objects(self, target: Any) -> Tensor | None:
        """Where a frame's objects are, bool (H, W); None if its target says nothing of it."""
        return target

    def truth(self, sample: Sample[Any]) -> Tensor:
        """Draw what is known of a frame with a target, (3, H, W); `truth_is` names it."""
        objects = self.objects(sample.target)
        return sample.image if objects is None else tinted(sample.image, objects, GREEN)

    def footage(self, video: V) -> Iterator[Sample[Any]]:
        """The frames that are run."""
        return islice(iter(video), self.frames)

    def identity(self) -> dict[str, Any]:
        """Root, long side, frames of a video."""
        root = getattr(self.data, "root", None)
        place = None if root is None else str(Path(root).resolve())
        return {"root": place, "size": self.size, "frames": self.frames}

    def input_size(self, shape: Size) -> Size:
        """The (height, width) that frames of a shape are brought to."""
        width, height = fitted(shape[1], shape[0], self.size, keep_aspect=True, patch=PATCH)
        return height, width

    def grid(self, shape: Size) -> Size:
        """The patches (h, w) of frames of a shape."""
        height, width = self.input_size(shape)
        return height // PATCH, width // PATCH

    def runner(self, setting: Setting) -> TokenRunner:
        """On the backbone."""
        return TokenRunner(self.models, setting)

    @torch.inference_mode()
    def run(self, runner: TokenRunner, video: V) -> tuple[dict[str, np.ndarray], int]:
        """Run a video, compare its tokens with the dense ones and let the judge look at them."""
        dense = self._dense(runner, video)
        if dense is None:
            return {}, 0
        errors, judge = TokenErrors(), None
        for number, (sample, tokens) in enumerate(self._pass(runner, video, dense)):
            judge = judge or self.judge(video, _shape(sample))
            objects = None if sample.target is None else self.objects(sample.target)
            if objects is not None:
                objects = share(objects, self.grid(_shape(sample))).flatten() > OBJECT_SHARE
            errors.add(tokens, torch.from_numpy(np.array(dense[number])), objects)
            judge.see(number, tokens, sample)
        assert judge is not None
        return {**judge.found(), **errors.arrays()}, 0

    def _dense(self, runner: TokenRunner, video: V) -> np.ndarray | None:
        """The video's dense tokens (frames, tokens, dim); None without a readable frame."""
        if runner.setting.policy is None:
            self.dense.write(video.id, self.outputs(runner, video))
        elif self.dense.read(video.id) is None:
            dense = TokenRunner(self.models, Setting("dense", None))
            self.dense.write(video.id, self.outputs(dense, video))
        return self.dense.read(video.id)

    def _pass(
        self, runner: TokenRunner, video: V, dense: np.ndarray
    ) -> Iterator[tuple[Sample[Any], Tensor]]:
        """Frames and their tokens (tokens, dim); those of the dense model are kept already."""
        kept = (torch.from_numpy(np.array(tokens)) for tokens in dense)
        ours = kept if runner.setting.policy is None else self.outputs(runner, video)
        count = -1
        for count, (sample, tokens) in enumerate(zip(self.footage(video), ours, strict=False)):
            if count >= len(dense):
                break
            yield sample, tokens.reshape(dense.shape[1:])
        if count + 1 != len(dense):
            raise ValueError(
                f"{video.id} had {len(dense)} readable frames when its dense tokens were computed, "
                f"and now has another number; its files have changed, run again with --fresh"
            )

    def outputs(self, runner: TokenRunner, video: V) -> Iterator[Tensor]:
        """The tokens (1, tokens, dim) of each frame of a video, on the CPU."""
        runner.start()
        images = (sample.image for sample in self.footage(video))
        frames = (fitted_frame(x, self.input_size((x.shape[1], x.shape[2]))) for x in images)
        for tokens in runner.through(frames):
            yield tokens.float().cpu()

    def score(self, found: Iterable[Arrays]) -> Scores:
        """The mean over the videos of each measure."""
        rows = [self.quality(arrays) for arrays in found if arrays]
        return {name: _mean([row[name] for row in rows]) for name in self.measures}

    def describe(self, found: Arrays) -> dict[str, Any]:
        """Scored frames, the measures, and relative errors."""
        quality = self.quality(found) if found else dict.fromkeys(self.measures)
        row: dict[str, Any] = {"scored": int(found["scored"]) if found else 0, **quality}
        for name in ("error", "error_objects"):
            errors = found[name] if found else np.empty(0)
            row[f"{name}_frames"] = int((~np.isnan(errors)).sum())
            summary = summarised(errors)._asdict()
            row |= {f"{name}_{key}": value for key, value in summary.items()}
        return row

    def further(self, settings: Sequence[SettingReport]) -> dict[str, Any]:
        """The keys "dense" and "rows", see `quality_report`."""
        return quality_report(settings, self.measures)


def _shape(sample: Sample[Any]) -> Size:
    height, width = sample.image.shape[1:]
    return height, width


def _first_shape(data: Videos[Any]) -> Size:
    """(height, width) of the first frame that can be read; a square if there is none."""
    for video in data:
        for sample in video:
            return _shape(sample)
    return PATCH, PATCH


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
