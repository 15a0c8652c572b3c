"""Choices inside incremental attention, measured: the figures of docs/speed.md.

    python benchmarks/attention_choices.py [--rounds 9] [--out FILE]

writes benchmarks/results/attention_choices.json; medians of interleaved calls in milliseconds,
float32, heads of 64:

- `written_out`: some rows against all keys by the fused operator, and by products, maximum,
  exponential and sum written out head by head;
- `kept_rows`: the rows that are kept gathered and then attended from, and all rows attended from;
- `crossover`: an update with a share of updated tokens, correcting rows and computing all of them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from eventful.attention import Incremental, split_heads
from eventful.ops import Index, attend
from eventful.ops.recompute import take
from eventful.provenance import commit, machine

RESULT = Path(__file__).parent / "results" / "attention_choices.json"
DIM, SCALE = 64, 0.125
SHARES = (0.03, 0.06, 0.12, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)


def race(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median milliseconds of contenders that take turns."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            if turn:
                times[name].append((time.perf_counter() - start) * 1e3)
    return {name: median(values) for name, values in times.items()}


def buffer(heads: int, tokens: int) -> Tensor:
    """Random q, k, v (1, tokens, 3 * heads * dim)."""
    return torch.randn(1, tokens, 3 * heads * DIM)


def written_out(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The state of q over k, one head after the other."""
    o, lse = torch.empty_like(q), q.new_empty(q.shape[:3])
    for h in range(q.shape[1]):
        scores = torch.addmm(q.new_zeros(()), q[0, h], k[0, h].mT, beta=0, alpha=SCALE)
        top = scores.amax(dim=-1, keepdim=True)
        weights = scores.sub_(top).exp_()
        z = weights.sum(dim=-1, keepdim=True)
        lse[0, h] = (top + z.log())[:, 0]
        o[0, h] = torch.mm(weights, v[0, h]).div_(z)
    return o, lse


def rows_against_keys(rounds: int, heads: int, tokens: int, rows: int) -> dict[str, float]:
    """`written_out` for one size; both give the same."""
    q, k, v = split_heads(buffer(heads, tokens), heads)
    q = q[:, :, :rows].contiguous()
    fused, plain = attend(q, k, v, SCALE), written_out(q, k, v)
    torch.testing.assert_close(fused, plain, atol=1e-5, rtol=1e-4)
    contenders = {
        "fused": lambda: attend(q, k, v, SCALE),
        "written_out": lambda: written_out(q, k, v),
    }
    return {"heads": heads, "tokens": tokens, "rows": rows} | race(contenders, rounds)


def kept_rows(rounds: int, heads: int, tokens: int, active: int) -> dict[str, float]:
    """`kept_rows` for one size."""
    q, k, v = split_heads(buffer(heads, tokens), heads)
    k, v = k[:, :, :active].contiguous(), v[:, :, :active].contiguous()
    kept = torch.randperm(tokens)[None, : tokens - active].sort().values
    contenders = {
        "gathered": lambda: attend(take(q, kept), k, v, SCALE),
        "all": lambda: attend(q, k, v, SCALE),
    }
    return {"heads": heads, "tokens": tokens, "active": active} | race(contenders, rounds)


class Correcting(Incremental):
    """Never computes all rows instead."""

    @staticmethod
    def full_is_cheaper(active: int, tokens: int, changed: float | None = None) -> bool:
        """Never."""
        return False


def crossover(rounds: int, heads: int, tokens: int, share: float) -> dict[str, float]:
    """`crossover` for one size and share."""
    qkv, active = buffer(heads, tokens), round(share * tokens)
    index = Index.from_positions(torch.randperm(tokens)[None, :active], tokens)
    old = index.gather(qkv).clone()
    form = Correcting(heads, SCALE)
    _, state = form.start(qkv)
    contenders = {
        "correcting": lambda: form.update(state, qkv, old, index),
        "in_full": lambda: form.start(qkv),
    }
    return {"heads": heads, "tokens": tokens, "share": share} | race(contenders, rounds)


@torch.inference_mode()
def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--divide", type=int, default=1, help="all numbers of tokens, for a trial")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    rounds, by = options.rounds, options.divide
    torch.manual_seed(0)
    sizes = ((6, 1370, 92), (6, 1370, 178), (12, 4096, 272), (12, 4096, 528), (12, 4096, 1040))
    result = {
        "written_out": [rows_against_keys(rounds, h, n // by, m // by) for h, n, m in sizes],
        "kept_rows": [kept_rows(rounds, 12, 4096 // by, m // by) for m in (128, 256, 512, 1024)],
        "crossover": [
            crossover(rounds, heads, tokens // by, share)
            for heads, tokens in ((12, 197), (12, 577), (6, 1370), (12, 4096))
            for share in SHARES
        ],
        "commit": commit(),
        "machine": machine(),
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
