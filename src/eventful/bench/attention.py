"""Attention alone: 12 heads of 64, every contender over the same buffer of q, k, v."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from eventful.attention import Attention, Cached, Dense, Incremental, join_heads, split_heads
from eventful.bench.case import Report, Row, Setup, Spread, fastest, race, speedup
from eventful.bench.equality import TOLERANCE, relative, require
from eventful.bench.sequences import DIM, HEADS, Sequence, Source
from eventful.counting import BlockSize, block_operations, dense_operations
from eventful.ops import Index
from eventful.state import STAGES

SCALE = DIM**-0.5
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
        cached = _Form(Cached(HEADS, SCALE), sequence, torch.float64)
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


def _errors(racers: dict[str, _Racer], sequence: Sequence) -> dict[str, float]:
    """Relative errors of all contenders that claim to be exact."""
    full = _full(sequence)
    return {name: relative(r.output, full) for name, r in racers.items() if name != "cached"}


def _full(sequence: Sequence) -> Tensor:
    """Full attention over the buffer in float64."""
    return Dense(HEADS, SCALE).start(sequence.qkv.double())[0]


class _Racer(ABC):
    """A contender; its output (1, tokens, heads * dim) of the latest step is kept for tests."""

    dense = False

    def __init__(self, sequence: Sequence) -> None:
        self.sequence = sequence
        self.output = torch.empty(0)

    @abstractmethod
    def run(self) -> None:
        """Take one step."""

    def operations(self) -> int:
        """Multiply-accumulates of a step."""
        return dense_operations(_size(), self.sequence.qkv.shape[1]).total

    def figures(self) -> dict[str, float]:
        """What else is worth knowing about the timed steps."""
        return {}

    def begin(self) -> None:  # noqa: B027 - most have nothing to count
        """Count from here."""


class _Fused(_Racer):
    """PyTorch's own fused attention."""

    dense = True

    def run(self) -> None:
        q, k, v = split_heads(self.sequence.qkv, HEADS)
        self.output = join_heads(scaled_dot_product_attention(q, k, v))


class _Naive(_Racer):
    """softmax(q k^T) v by the letter."""

    dense = True

    def run(self) -> None:
        q, k, v = split_heads(self.sequence.qkv, HEADS)
        self.output = join_heads((q @ k.mT * SCALE).softmax(-1) @ v)


class _Form(_Racer):
    """One of the package's attention forms, uncompiled."""

    def __init__(
        self, form: Attention, sequence: Sequence, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__(sequence)
        self.form, self.dtype = form, dtype or sequence.qkv.dtype
        self.output, self.state = form.start(sequence.qkv.to(self.dtype))
        self.recomputed: list[int] = []

    def run(self) -> None:
        s = self.sequence
        self.output = self._step(s.qkv.to(self.dtype), s.old.to(self.dtype), s.index)
        self.recomputed.append(sum(self.state.recomputed))

    def _step(self, qkv: Tensor, old: Tensor, index: Index) -> Tensor:
        return self.form.update(self.state, qkv, old, index)

    def operations(self) -> int:
        tokens, active = self.sequence.qkv.shape[1], self.sequence.index.counts[0]
        name = {Cached: "cached", Dense: "dense", Incremental: "incremental"}[type(self.form)]
        total = block_operations(
            _size(),
            name,  # type: ignore[arg-type]
            tokens,
            dict.fromkeys(STAGES, active),
            corrected=sum(self.state.corrected),
            recomputed=round(fmean(self.recomputed)) if self.recomputed else 0,
        ).total
        return total - tokens * HEADS * DIM  # the block's projection gate

    def figures(self) -> dict[str, float]:
        """Rows sent back by the guard: recomputed, and neither updated nor in rotation."""
        form, tokens = self.form, self.sequence.qkv.shape[1]
        active = self.sequence.index.counts[0]
        if not isinstance(form, Incremental) or form.full_is_cheaper(active, tokens):
            return {}
        expected = active + form.rotated_rows(tokens)
        rows = [max(0, count - expected) for count in self.recomputed]
        return {"guard_rows_mean": fmean(rows), "guard_rows_max": max(rows)}

    def begin(self) -> None:
        self.recomputed = []


class _Compiled(_Form):
    """The update as a compiled stream runs it: fixed work, and one flag read back.

    Where the flag says that more rows were due than there is room for, attention is computed in
    full, as a stream does.
    """

    def __init__(self, form: Incremental, sequence: Sequence) -> None:
        super().__init__(form, sequence)
        self.update = torch.compile(_update, fullgraph=True, dynamic=False)
        self.fallbacks = 0

    def _step(self, qkv: Tensor, old: Tensor, index: Index) -> Tensor:
        output = self.update(self.form, self.state, qkv, old, index)
        if self.state.overflow.item():
            output, self.state = self.form.start(qkv)
            self.fallbacks += 1
        return output

    def figures(self) -> dict[str, float]:
        """Steps that were computed in full; fixed work hides what the guard sends back."""
        return {"fallbacks": self.fallbacks}

    def begin(self) -> None:
        super().begin()
        self.fallbacks = 0


def _update(form: Attention, state: object, qkv: Tensor, old: Tensor, index: Index) -> Tensor:
    return form.update(state, qkv, old, index)  # type: ignore[arg-type]


def _line_up(sequence: Sequence, setup: Setup) -> dict[str, _Racer]:
    racers: dict[str, _Racer] = {
        "dense fused": _Fused(sequence),
        "dense naive": _Naive(sequence),
        "linears only": _Form(Dense(HEADS, SCALE), sequence),
        "cached": _Form(Cached(HEADS, SCALE), sequence),
        "incremental": _Form(Incremental(HEADS, SCALE), sequence),
    }
    if setup.compile:
        form = Incremental(HEADS, SCALE, fixed=True)
        racers["incremental compiled"] = _Compiled(form, sequence)
    return racers


def _size() -> BlockSize:
    """Attention without the linear layers around it."""
    width = HEADS * DIM
    return BlockSize(0, HEADS, width, 3 * width, dict.fromkeys(STAGES, 0))


def _report(
    racers: dict[str, _Racer],
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
