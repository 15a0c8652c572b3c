"""Attention alone: 12 heads of 64, every contender over the same buffer of q, k, v."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from eventful.attention import Cached, Dense, Incremental
from eventful.bench.case import Report, Row, Setup, Spread, fastest, race, speedup
from eventful.bench.equality import TOLERANCE, relative, require
from eventful.bench.sequences import HEADS, Sequence, Source
from eventful.bench.updaters import SCALE, Compiled, Form, Fused, Naive, Updater
from eventful.stream.compiled import must_bound

_CHECKED = 3  # steps on which every contender is tested before it is timed


@dataclass(frozen=True)
class AttentionCase:
    """Attention over N tokens of which M change on every step.

    Attributes:
        tokens: N.
        active: M.
        kind: "random" or "recorded".
        source: Makes the sequence of updates.
    """

    tokens: int
    active: int
    kind: str
    source: Source

    @property
    def name(self) -> str:
        """Suite, N, M and where q, k, v come from."""
        return f"attention/N{self.tokens}-M{self.active}/{self.kind}"

    @torch.inference_mode()
    def measure(self, setup: Setup) -> Report:
        """Test all forms on a few steps, time them, and test them again on the last step."""
        sequence = self.source(self.tokens, self.active, setup)
        racers = _line_up(sequence, setup)
        cached = Form(Cached(HEADS, SCALE), sequence, torch.float64)
        limit, worst, equations = TOLERANCE[setup.dtype], 0.0, 0.0
        for step in range(_CHECKED):
            sequence.advance(step)
            for racer in racers.values():
                racer.run()
            worst = max(worst, *_errors(racers, sequence).values())
            cached.run()
            equations = max(equations, relative(racers["cached"].output, cached.output))
        del cached
        checks = {
            "attention of exact forms": require("attention", worst, limit),
            "cached form": require("the cached form and its equations", equations, limit),
        }
        for racer in racers.values():
            racer.begin()
        runs = {name: (lambda _, racer=racer: racer.run()) for name, racer in racers.items()}
        seconds = race(runs, setup, lambda i: sequence.advance(_CHECKED + i))
        worst = max(_errors(racers, sequence).values())
        checks["attention behind the last step"] = require("attention", worst, limit)
        return _report(racers, seconds, sequence, checks)


def _errors(racers: dict[str, Updater], sequence: Sequence) -> dict[str, float]:
    """Relative errors of all contenders that claim to be exact."""
    full = _full(sequence)
    return {name: relative(r.output, full) for name, r in racers.items() if name != "cached"}


def _full(sequence: Sequence) -> Tensor:
    """Full attention over the buffer in float64."""
    return Dense(HEADS, SCALE).start(sequence.qkv.double())[0]


def _line_up(sequence: Sequence, setup: Setup) -> dict[str, Updater]:
    racers: dict[str, Updater] = {
        "dense fused": Fused(sequence),
        "dense naive": Naive(sequence),
        "linears only": Form(Dense(HEADS, SCALE), sequence),
        "cached": Form(Cached(HEADS, SCALE), sequence),
        "incremental": Form(Incremental(HEADS, SCALE), sequence),
    }
    if setup.compile:
        form = Incremental(HEADS, SCALE, fixed=must_bound(sequence.qkv.device))
        racers["incremental compiled"] = Compiled(form, sequence)
    return racers


def _report(
    racers: dict[str, Updater],
    seconds: dict[str, list[float]],
    sequence: Sequence,
    checks: dict[str, tuple[float, float]],
) -> Report:
    dense = [name for name, racer in racers.items() if racer.dense]
    best, full = fastest(seconds, dense), _full(sequence)
    base, rows = racers[best].operations(), []
    for name, racer in racers.items():
        faster = {other: speedup(seconds, name, other) for other in dense}
        ratio = base / racer.operations()
        rows.append(
            Row(
                contender=name,
                milliseconds=Spread.of(seconds[name]),
                speedup=faster,
                against=best,
                operation_ratio=ratio,
                efficiency=faster[best] / ratio,
                attention_error=relative(racer.output, full),
                figures=racer.figures(),
            )
        )
    return Report(rows, best, checks)
