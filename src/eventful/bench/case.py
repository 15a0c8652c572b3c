"""What a benchmark case is, and what it reports."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch

from eventful.runtimes import installed


@dataclass(frozen=True)
class Setup:
    """How cases are measured.

    Attributes:
        device: Where the contenders run.
        dtype: What they compute in.
        repeats: Timed rounds; every contender runs once in each.
        compile: Also measure compiled contenders.
        runtimes: Inference runtimes in which the dense model is also measured, in float32 on the
            CPU; by default those that are installed.
    """

    device: torch.device
    dtype: torch.dtype = torch.float32
    repeats: int = 20
    compile: bool = True
    runtimes: Sequence[str] = field(default_factory=installed)

    def serves(self, runtime: str) -> bool:
        """Whether a runtime is asked for, and runs models of this dtype on this device."""
        here = self.device.type == "cpu" and self.dtype == torch.float32
        return runtime == "torch" or (here and runtime in self.runtimes)

    def now(self) -> float:
        """The time in seconds when all work queued on the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


class Case(Protocol):
    """One line-up of contenders at one size."""

    @property
    def name(self) -> str:
        """Suite, size and input, with slashes between them."""
        ...

    def measure(self, setup: Setup) -> Report:
        """Test that the contenders are right, then time them.

        Raises:
            UnequalError: One of them is wrong.
            UnavailableError: What the case needs is not here.
        """
        ...


class UnequalError(Exception):
    """A contender does not compute what it should, so that its speed means nothing."""


class UnavailableError(Exception):
    """What a case needs is not there."""


class Spread(NamedTuple):
    """Median and tenth and ninetieth percentiles of some milliseconds."""

    median: float
    p10: float
    p90: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        """Summarise times in seconds.

        Example:
            >>> Spread.of([0.001, 0.002, 0.009]).median
            2.0
        """
        p10, median, p90 = (1e3 * _quantile(seconds, q) for q in (0.1, 0.5, 0.9))
        return cls(median, p10, p90)


def _quantile(values: Sequence[float], q: float) -> float:
    """The q quantile, between the two values next to it."""
    ranked = sorted(values)
    low, part = divmod(q * (len(ranked) - 1), 1)
    high = min(int(low) + 1, len(ranked) - 1)
    return ranked[int(low)] * (1 - part) + ranked[high] * part


@dataclass(frozen=True)
class Row:
    """What was found about one contender.

    Attributes:
        contender: Its name.
        milliseconds: Of one frame or one update; None where memory was measured instead.
        speedup: Times faster than each dense contender: the median, over rounds, of the ratio of
            the two times of a round.
        operation_ratio: Dense operations over those used, over the timed frames.
        against: The dense contender that this one is held against: the fastest, or for first
            frames the one that is compiled or not as this one is.
        efficiency: Speed-up over `against`, divided by `operation_ratio`.
        attention_error: Relative error of the attention output that was kept up to date against
            full attention over the same q, k, v in float64; in a network, the worst block's.
        output_error: Relative error of the model's output against the dense model's, on the last
            frame: what not updating every token costs, with these weights and this clip.
        figures: What else is worth knowing of this contender.
    """

    contender: str
    milliseconds: Spread | None = None
    speedup: Mapping[str, float] = field(default_factory=dict)
    against: str | None = None
    operation_ratio: float | None = None
    efficiency: float | None = None
    attention_error: float | None = None
    output_error: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What a case found.

    Attributes:
        rows: One for each contender.
        fastest_dense: The dense contender with the smallest median time, where time was measured.
        checks: Largest relative error of each test that was passed, and its limit.
        figures: What belongs to the case as a whole.
        left_out: Contenders that cannot run the model, and why.
    """

    rows: Sequence[Row]
    fastest_dense: str | None = None
    checks: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)


Contender = Callable[[int], object]


def race(
    contenders: Mapping[str, Contender],
    setup: Setup,
    prepare: Callable[[int], None] = lambda round: None,
) -> dict[str, list[float]]:
    """Time contenders one behind the other in every round; another one begins each round.

    Args:
        contenders: Called with the number of the round.
        setup: How often, and on what device.
        prepare: Called before each round, outside of what is timed.

    Returns:
        Seconds of each contender in each round.
    """
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for i in range(setup.repeats):
        prepare(i)
        first = i % len(names)
        for name in names[first:] + names[:first]:
            start = setup.now()
            contenders[name](i)
            seconds[name].append(setup.now() - start)
    return seconds


def fastest(seconds: Mapping[str, Sequence[float]], among: Sequence[str]) -> str:
    """The name with the smallest median."""
    return min(among, key=lambda name: statistics.median(seconds[name]))


def speedup(seconds: Mapping[str, Sequence[float]], contender: str, baseline: str) -> float:
    """The median, over rounds, of the baseline's time over the contender's.

    Example:
        >>> speedup({"dense": [4.0, 6.0, 9.0], "ours": [2.0, 2.0, 2.0]}, "ours", "dense")
        3.0
    """
    pairs = zip(seconds[baseline], seconds[contender], strict=True)
    return statistics.median(theirs / ours for theirs, ours in pairs)
