"""Dense and eventful side by side on one video: operations, time, errors, and the task's output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

import numpy as np
from torch import Tensor, nn

from eventful.convert import Where, convert, restore
from eventful.policies import Auto, Carry, FramePolicy, Policy, Skip, TopFraction
from eventful.pretrained.inputs import Extras, Given, Inputs
from eventful.pretrained.loading import Loaded
from eventful.pretrained.taps import Taps, error, found
from eventful.pretrained.tasks.task import Shown
from eventful.stream import Stream
from eventful.stream.cuts import SceneCuts

Frames = Callable[[], Iterable[np.ndarray]]
Progress = Callable[[str, int, int | None], None]
_PICTURES = 5


@dataclass(eq=False)
class Run:
    """A policy's way through the video.

    Attributes:
        policy: The policy.
        beside: What it is there to be compared with; None for a policy that was asked for.
        stream: Its stream.
        errors: Of its taps, by frame.
        milliseconds: Of its frames.
        kinds: What its frames were.
        differences: Of what the task read of each frame from what it read of the dense model.
        pictures: By the number of the frame.
        notes: What stands below them.
        taps: What was read of the blocks on the last frame.
    """

    policy: FramePolicy | Policy
    beside: str | None
    stream: Stream
    errors: list[float] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    differences: list[Any] = field(default_factory=list)
    pictures: dict[int, np.ndarray] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)
    taps: dict[str, Tensor] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """Dense operations over those used."""
        return self.stream.stats.ratio


@dataclass(eq=False)
class Compared:
    """A whole comparison.

    Attributes:
        frames: How many frames (or clips) there were.
        sizes: The sizes (height, width) in which the model took them, and how many of each.
        tap_names: The blocks whose outputs the rest of the model reads.
        dense_ms: Time of the dense model on each frame.
        runs: Of the policies.
        frame_pictures: Some frames as the model sees them, by number.
        dense_pictures: What the dense model gave for them.
    """

    frames: int = 0
    sizes: Counter[tuple[int, ...]] = field(default_factory=Counter)
    tap_names: Sequence[str] = ()
    dense_ms: list[float] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    frame_pictures: dict[int, np.ndarray] = field(default_factory=dict)
    dense_pictures: dict[int, np.ndarray] = field(default_factory=dict)

    def report(self, loaded: Loaded) -> dict[str, Any]:
        """The figures, as JSON can hold them."""
        dense = median(self.dense_ms)
        return {
            "model": loaded.name,
            "class": type(loaded.model).__name__,
            "task": loaded.task.name,
            "measures": dict(loaded.task.measures),
            "clip": loaded.clip,
            "frames": self.frames,
            "sizes": [[*size, count] for size, count in self.sizes.items()],
            "taps": list(self.tap_names),
            "dense": {
                "operations": self.runs[0].stream.stats.total_dense_operations / self.frames,
                "milliseconds": dense,
            },
            "policies": [self._row(run, loaded, dense) for run in self.runs],
        }

    def _row(self, run: Run, loaded: Loaded, dense_ms: float) -> dict[str, Any]:
        ours = fmean([dense_ms, *run.milliseconds[1:]])
        return {
            "policy": str(run.policy),
            "beside": run.beside,
            "kinds": dict(Counter(run.kinds)),
            "operations": run.stream.stats.total_operations / self.frames,
            "operations_ratio": run.ratio,
            "milliseconds": ours,
            "time_ratio": dense_ms / ours,
            "setup_ms": max(0.0, run.milliseconds[0] - dense_ms),
            "tap_error": {"mean": fmean(run.errors), "max": max(run.errors)},
            "scores": dict(loaded.task.scores(run.differences)),
        }


def compare(
    loaded: Loaded,
    frames: Frames,
    policies: Sequence[FramePolicy | Policy] = (),
    *,
    extras: Extras = Extras(),  # noqa: B008 - frozen
    where: Where | None = None,
    scene_cuts: bool = True,
    beside: bool = True,
    total: int | None = None,
    progress: Progress = lambda text, frames, total: None,
) -> Compared:
    """Run a model dense and under some policies over the same frames.

    Args:
        loaded: The model. It is converted meanwhile, and restored.
        frames: Gives the frames from the start, uint8 RGB (height, width, 3).
        policies: What to compare with the dense model; by default `Auto()`, or where frames are no
            pictures `TopFraction(0.25)`.
        extras: What the model takes beside frames.
        where: Which blocks to convert, as for `eventful.convert`.
        scene_cuts: Whether `Auto` computes frames after a scene cut in full.
        beside: After `Auto`, also run what one would do instead: skip frames, or carry outputs
            along, for at least the same operations where these are less than half.
        total: How many frames there will be, if that is known.
        progress: Called with what is being done, the frames done, and how many there will be in
            all, if that is known.

    Raises:
        ValueError: The model does not convert, or does not go with a policy or the frames; or
            there is no frame.

    Example:
        >>> import tempfile, transformers
        >>> from eventful.pretrained import load
        >>> config = transformers.ViTConfig(
        ...     hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=32,
        ...     image_size=32, patch_size=8)
        >>> folder = tempfile.mkdtemp()
        >>> transformers.ViTModel(config).save_pretrained(folder)
        >>> size = {"height": 32, "width": 32}
        >>> _ = transformers.ViTImageProcessor(size=size).save_pretrained(folder)
        >>> video = np.random.default_rng(0).integers(0, 255, (6, 40, 48, 3), dtype=np.uint8)
        >>> model = load(f"hf:{folder}", "features")
        >>> found = compare(model, lambda: video, [Skip(3)])
        >>> found.runs[0].kinds
        ['dense', 'held', 'held', 'dense', 'held', 'held']
        >>> sorted(found.report(model)["policies"][0]["scores"])
        ['cosine', 'relative_error']
    """
    side = _SideBySide(loaded, frames, extras, where, scene_cuts, total, progress)
    with side:
        result = side.run([(policy, None) for policy in policies])
        if beside:
            instead = _instead(result.runs)
            if instead:
                more = side.run(instead, pictures=[*result.frame_pictures])
                result.runs += more.runs
    return result


def _instead(runs: Sequence[Run]) -> list[tuple[FramePolicy | Policy, str | None]]:
    """What one would do in the place of `Auto`, with every K-th frame dense, K at least 2."""
    wanted: dict[FramePolicy | Policy, str] = {}
    known = {run.policy for run in runs}
    for run in runs:
        if isinstance(run.policy, Auto):
            every = max(2, int(run.ratio))
            for policy in (Skip(every), Carry(every)):
                if policy not in known:
                    wanted.setdefault(policy, str(run.policy))
    return [*wanted.items()]


class _SideBySide:
    """Passes over the video, all runs frame by frame beside the dense model."""

    def __init__(
        self,
        loaded: Loaded,
        frames: Frames,
        extras: Extras,
        where: Where | None,
        scene_cuts: bool,
        total: int | None,
        progress: Progress,
    ) -> None:
        self._loaded, self._frames, self._progress = loaded, frames, progress
        self._where, self._cuts = where, SceneCuts() if scene_cuts else None
        self._inputs = Inputs(loaded, extras)
        self._total = total
        self._done = self._passes = 0
        self._taps: Taps | None = None

    @property
    def _model(self) -> nn.Module:
        return self._loaded.model

    def __enter__(self) -> _SideBySide:
        convert(self._model, where=self._where)
        return self

    def __exit__(self, *_: object) -> None:
        restore(self._model)

    def run(
        self,
        policies: Sequence[tuple[FramePolicy | Policy, str | None]],
        pictures: Sequence[int] | None = None,
    ) -> Compared:
        """Go once over the video."""
        result = Compared()
        self._passes += 1
        wanted = {*(_spread(self._total) if pictures is None else pictures)}
        self._tell("measuring what frames cost")
        with ExitStack() as stack:
            for number, frames in enumerate(_clips(self._frames(), self._loaded.clip)):
                given = self._inputs(frames)
                taps = self._taps = self._taps or self._begin(given)
                if not result.frames:
                    stack.enter_context(taps.noted())
                    result.tap_names = taps.layout.taps
                    chosen = policies or [(_default(given), None)]
                    result.runs = [Run(p, b, self._stream(p, given)) for p, b in chosen]
                size = tuple(given.frame.shape[-2:])
                result.sizes[size] += 1
                self._frame(result, taps, number, given, number in wanted)
                self._done += 1
                self._tell(" | ".join(run.kinds[-1] for run in result.runs))
        if not result.frames:
            raise ValueError(f"the video has no frame; {self._loaded.name} takes {self._takes()}")
        return result

    def _tell(self, text: str) -> None:
        total = None if self._total is None else self._passes * self._total
        self._progress(text, self._done, total)

    def _takes(self) -> str:
        return "one at a time" if self._loaded.clip == 1 else f"clips of {self._loaded.clip}"

    def _begin(self, given: Given) -> Taps:
        model, method = self._model, self._loaded.method
        layout = found(model, given.frame, given.inputs, method)
        return Taps(model, layout, method)

    def _stream(self, policy: FramePolicy | Policy, given: Given) -> Stream:
        cuts = self._cuts if isinstance(policy, Auto) else None
        pixels = self._inputs.pixels_of(given.frame)
        method = self._loaded.method
        return Stream(self._model, policy=policy, pixels=pixels, scene_cuts=cuts, method=method)

    def _frame(
        self, result: Compared, taps: Taps, number: int, given: Given, pictured: bool
    ) -> None:
        """The dense model and all streams on one frame."""
        task, size = self._loaded.task, (given.picture.shape[0], given.picture.shape[1])
        if not result.dense_ms:
            self._inputs.run(given)  # once to warm up
        output, milliseconds = self._inputs.run(given)
        dense = taps.read()
        read = task.read(Shown(output, *taps.patches(dense)), size)
        result.frames += 1
        result.dense_ms.append(milliseconds)
        if pictured and self._passes == 1:
            result.frame_pictures[number] = given.picture
            result.dense_pictures[number] = task.draw(given.picture, read)
        for run in result.runs:
            output = run.stream(given.frame, **given.inputs)
            run.milliseconds.append(1e3 * run.stream.stats.seconds)
            run.taps = taps.read(run.taps)
            run.errors.append(error(run.taps, dense))
            run.kinds.append(_kind(run.stream))
            ours = task.read(Shown(output, *taps.patches(run.taps)), size)
            run.differences.append(task.differ(read, ours))
            if pictured:
                run.pictures[number] = task.draw(given.picture, ours)
                run.notes[number] = f"{run.kinds[-1]}, error {run.errors[-1]:.3f}"


def _default(given: Given) -> FramePolicy | Policy:
    """What frames are given if nobody says: motion can be followed in pictures only."""
    return Auto() if given.frame.ndim == 4 else TopFraction(0.25)


def _kind(stream: Stream) -> str:
    """What the last frame was."""
    if stream.stats.rows:
        return stream.stats.rows[0].kind
    flush = stream.stats.flushes[-1] if stream.stats.flushes else None
    return "dense" if flush and flush.frame == stream.stats.frames - 1 else "gated"


def _clips(frames: Iterable[np.ndarray], length: int) -> Iterator[list[np.ndarray]]:
    """Frames, so many at once; a rest that fills no clip is left out."""
    clip: list[np.ndarray] = []
    for frame in frames:
        clip.append(frame)
        if len(clip) == length:
            yield clip
            clip = []


def _spread(total: int | None) -> Sequence[int]:
    """The frames that are drawn: one of each of equal parts, at places that no period hits.

    Where the number of frames is not known, early ones.

    Example:
        >>> [*_spread(30)], [*_spread(2)], [*_spread(None)]
        ([3, 6, 16, 20, 29], [0, 1], [1, 3, 7, 15, 31])
    """
    if total is None:
        return [2 ** (n + 1) - 1 for n in range(_PICTURES)]
    places = [part + (0.5 + 0.618 * part) % 1 for part in range(_PICTURES)]
    return sorted({int(place * total / _PICTURES) for place in places})
