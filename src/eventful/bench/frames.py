"""Blocks and backbones, first frames and several streams: models timed frame by frame."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from eventful.bench.case import Report, Row, Setup, Spread, fastest, race, speedup
from eventful.bench.contenders import STYLES, Racer
from eventful.bench.equality import TOLERANCE, relative, require
from eventful.bench.profiling import share_outside
from eventful.bench.subjects import Subject
from eventful.convert import convert
from eventful.policies import KeepAll, TopR
from eventful.stream import Stream

_FRAMES = 8  # different ones, which come round
_WARM_UP = 3  # first frame, first update, and one more

STEADY = (
    "dense eager",
    "dense compiled",
    "dense openvino",
    "dense onnxruntime",
    "eventful eager",
    "eventful compiled",
    "linears only eager",
    "linears only compiled",
)
FIRST = (
    "dense eager",
    "dense compiled",
    "eventful first frame eager",
    "eventful first frame compiled",
)
WITH_FIRST = (*STEADY, *FIRST[2:])


@dataclass(frozen=True)
class FramesCase:
    """A model on a clip, with r patches updated on every frame.

    Attributes:
        suite: "block", "backbone", "first-frame" or "streams".
        subject: The model, or one block of it.
        r: Patches updated on a frame, beside the prefix tokens.
        batch: Videos in one stream.
        contenders: Keys of `contenders.STYLES`.
        profile: Also find what share of an update lies outside products and attention.
    """

    suite: str
    subject: Subject
    r: int
    batch: int = 1
    contenders: tuple[str, ...] = STEADY
    profile: bool = False

    @property
    def name(self) -> str:
        """Suite, model and size, r, and the number of videos in the suite `streams`."""
        videos = f"-x{self.batch}" if self.suite == "streams" else ""
        return f"{self.suite}/{self.subject.label}-r{self.r}{videos}"

    @torch.inference_mode()
    def measure(self, setup: Setup) -> Report:
        """Test the conversion, then time all contenders on the same frames and test again."""
        with torch.inference_mode(False):  # weights that runtimes can trace
            model = self.subject.build(setup)
        clip = self.subject.clip(_FRAMES, self.batch, setup)
        limit = TOLERANCE[setup.dtype]
        error = _keep_all_error(model, self.subject, clip)
        checks = {"all tokens updated": require("all tokens updated", error, limit)}
        racers, left_out = self._racers(model, clip[0], setup)
        for racer in racers.values():
            for frame in clip[:_WARM_UP]:
                racer.run(frame)
        checks |= {f"{name}, before": found for name, found in _check(racers, limit).items()}
        for racer in racers.values():
            racer.begin()
        runs = {
            name: (lambda i, racer=racer: racer.run(clip[(_WARM_UP + i) % _FRAMES]))
            for name, racer in racers.items()
        }
        seconds = race(runs, setup)
        after = _check(racers, limit)
        rows, best = _rows(racers, seconds, {name: error for name, (error, _) in after.items()})
        figures: dict[str, float] = {}
        if self.profile:
            streams = [name for name in racers if name.startswith("eventful")]
            name = "eventful compiled" if setup.compile else streams[0]
            share = share_outside(lambda: racers[name].run(clip[0]), setup)
            figures = {} if share is None else {"share_outside": share}
        checks |= {f"{name}, behind": found for name, found in after.items()}
        return Report(rows, best, checks, figures, left_out)

    def _racers(
        self, model: nn.Module, frame: Tensor, setup: Setup
    ) -> tuple[dict[str, Racer], dict[str, str]]:
        """All contenders that there are here, and why others cannot run the model."""
        racers, left_out = dict[str, Racer](), dict[str, str]()
        for name in self.contenders:
            style = STYLES[name]
            if setup.serves(style.runtime) and (setup.compile or not style.compile):
                try:
                    racers[name] = Racer.of(style, model, self.subject, TopR(self.r), frame)
                except ValueError as error:
                    if style.runtime == "torch":
                        raise
                    left_out[name] = " ".join(str(error).split())
        return racers, left_out


def _keep_all_error(model: nn.Module, subject: Subject, clip: list[Tensor]) -> float:
    """Compare an update of all tokens with the dense model."""
    converted = convert(copy.deepcopy(model), KeepAll())
    stream = Stream(converted, scene_cuts=None, method=subject.method)
    stream(clip[0])
    return relative(stream(clip[1]), getattr(model, subject.method)(clip[1]))


def _check(racers: dict[str, Racer], limit: float) -> dict[str, tuple[float, float]]:
    """Hold what every stream keeps of attention against full attention, and dense to dense."""
    exact = racers["dense eager"].output
    assert exact is not None
    runtimes = {
        name: require(f"the output of {name!r}", relative(racer.output, exact), limit)
        for name, racer in racers.items()
        if racer.style.runtime != "torch" and racer.output is not None
    }
    return runtimes | {
        name: require(f"attention in {name!r}", error, limit)
        for name, racer in racers.items()
        if (error := racer.attention_error()) is not None
    }


def _rows(
    racers: dict[str, Racer], seconds: dict[str, list[float]], errors: dict[str, float]
) -> tuple[list[Row], str]:
    dense = [name for name, racer in racers.items() if racer.style.dense]
    best = fastest(seconds, dense)
    reference = racers["dense eager"].output
    assert reference is not None
    rows = []
    for name, racer in racers.items():
        faster = {other: speedup(seconds, name, other) for other in dense}
        against = best if name in STEADY else _alike(racer)
        ratio = racer.operation_ratio()
        assert racer.output is not None
        rows.append(
            Row(
                contender=name,
                milliseconds=Spread.of(seconds[name]),
                speedup=faster,
                against=against,
                operation_ratio=ratio,
                efficiency=faster[against] / ratio,
                attention_error=None if racer.stream is None else errors.get(name),
                output_error=relative(racer.output, reference),
                figures=racer.figures(),
            )
        )
    return rows, best


def _alike(racer: Racer) -> str:
    """The dense contender that is compiled, or not, as this one is."""
    return "dense compiled" if racer.style.compile else "dense eager"
