"""Operation counts by the paper's rules, from outside the blocks.

One operation is one multiply-accumulate. Counted are linear layers with their bias additions,
matrix products, position encodings, skip connections, the gates' subtractions and the additions
that bring attention outputs up to date. Not counted are patch embedding and other convolutions,
norms, softmax, activations, LayerScale, rotary embeddings and resampling.

Inside eventful blocks the count is a pure function of sizes and of what each gate let through
(`frame_operations`). Everything else of a model is measured once a size by `Observer`, which
watches the operators that run, and counts the additions of rotary embeddings with the others; the
tests hold the two against each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple

from eventful.attention import AttentionName, Windows
from eventful.block.block import EventfulBlock
from eventful.block.options import Gating
from eventful.block.state import STAGES, Grid, Stage


@dataclass(frozen=True)
class Operations:
    """Multiply-accumulates of a frame, or of several, by kind of product.

    Attributes:
        qkv: Query, key and value projections.
        query_key: Products q k^T.
        attention_value: Products A v.
        projection: Output projections.
        mlp: MLPs.
        gates: Subtractions u - c of the gates.
        additions: Skip connections and accumulations.
        other: What runs outside eventful blocks.

    Example:
        >>> (Operations(qkv=2, mlp=3) + Operations(mlp=1)).total
        6
    """

    qkv: int = 0
    query_key: int = 0
    attention_value: int = 0
    projection: int = 0
    mlp: int = 0
    gates: int = 0
    additions: int = 0
    other: int = 0

    @property
    def total(self) -> int:
        """All kinds together."""
        return sum(self.as_dict().values())

    def as_dict(self) -> dict[str, int]:
        """The counts by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __add__(self, other: Operations) -> Operations:
        mine, theirs = self.as_dict(), other.as_dict()
        return Operations(**{kind: mine[kind] + theirs[kind] for kind in mine})


class BlockSize(NamedTuple):
    """What of a block the count depends on.

    Attributes:
        dim: D, the size of a token.
        heads: H.
        width: H d, the size of a token inside attention.
        buffered: Size of a token in the QKV buffer.
        per_token: Operations of the linear layers behind each gate, for one token.
        window: Tokens of a window, padding included; 0 where attention spans the frame.
        places: Tokens of a frame in whole windows, padding included; 0 without windows.
        lines: Height plus width of the key grid of relative positions; 0 where there are none.
        cells: Keys of a frame, where keys and values are averaged over cells; 0 elsewhere.
        sampling: Tokens that the block hands on at most; None for all.
        gating: What a token that is not updated means.
        gates: The gates that the block has.
    """

    dim: int
    heads: int
    width: int
    buffered: int
    per_token: Mapping[Stage, int]
    window: int = 0
    places: int = 0
    lines: int = 0
    cells: int = 0
    sampling: int | None = None
    gating: Gating = "paper"
    gates: tuple[Stage, ...] = STAGES

    @classmethod
    def of(cls, block: EventfulBlock, grid: Grid | None = None) -> BlockSize:
        """Read the sizes off a block, for a token grid where it needs one."""
        layers = block.linears()
        per_token: dict[Stage, int] = {
            stage: sum(n_in * n_out + n_out * bias for n_in, n_out, bias in layers[stage])
            for stage in STAGES
        }
        width = block.heads * block.head_dim
        side, pooling = block.window_size, block.pooling(grid)
        return cls(
            dim=layers["proj"][-1].outputs,
            heads=block.heads,
            width=width,
            buffered=3 * width + block.extra_width + block.table_width(grid),
            per_token=per_token,
            window=side**2,
            places=Windows(grid, side).places if side and grid else 0,
            lines=sum(block.key_grid(grid) or ()),
            cells=0 if pooling is None else pooling.count,
            sampling=block.options.sampling,
            gating=block.options.gating,
            gates=block.stages,
        )

    def keys(self, tokens: int) -> int:
        """Keys that a query sees in a frame of so many tokens."""
        return self.window or self.cells or tokens

    def all_pairs(self, tokens: int) -> int:
        """Pairs of a query and a key in full attention over a frame of so many tokens."""
        return (self.places or tokens) * self.keys(tokens)

    def kept(self, tokens: int) -> int:
        """Tokens that go on, behind attention."""
        return tokens if self.sampling is None else min(self.sampling, tokens)

    def gate_subtractions(self, tokens: int) -> int:
        """Operations of the gates' subtractions."""
        kept = self.kept(tokens)
        sizes = {"qkv": tokens * self.dim, "proj": kept * self.width, "mlp": kept * self.dim}
        return sum(sizes[stage] for stage in self.gates)

    def class_row(self, tokens: int) -> int:
        """Operations of the class token's attention over all tokens, where it chooses some."""
        return tokens * self.width if self.kept(tokens) < tokens else 0

    def bias_additions(self, pairs: int) -> int:
        """Additions of relative positions: one for each axis, to so many scores of every head."""
        return 2 * self.heads * pairs if self.lines else 0


def original_size(block: EventfulBlock, grid: Grid | None = None) -> BlockSize:
    """Read the sizes of the block that an eventful one stands for: all keys, all tokens."""
    lines = sum(block.bias_grid(grid) or ())
    return BlockSize.of(block, grid)._replace(lines=lines, cells=0, sampling=None)


def dense_operations(size: BlockSize, tokens: int) -> Operations:
    """Count one row of a dense block: linear layers, both products, two skip connections."""
    pairs, kept = size.all_pairs(tokens), size.kept(tokens)
    queries = size.places or tokens
    return Operations(
        qkv=tokens * size.per_token["qkv"],
        query_key=(pairs + queries * size.lines) * size.width + size.class_row(tokens),
        attention_value=pairs * size.width,
        projection=kept * size.per_token["proj"],
        mlp=kept * size.per_token["mlp"],
        additions=2 * kept * size.dim + size.bias_additions(pairs),
    )


def block_operations(
    size: BlockSize,
    attention: AttentionName,
    tokens: int,
    updated: Mapping[Stage, int],
    corrected: int = 0,
    recomputed: int = 0,
    cells: int = 0,
) -> Operations:
    """Count one batch row of an eventful block on a frame that is not its first.

    Incremental attention computes tables of relative positions for updated queries, and adds them
    where it computes scores. The other forms do both for all queries and keys.

    Args:
        size: The block's sizes.
        attention: The attention form.
        tokens: N.
        updated: Tokens let through by each gate.
        corrected: Incremental attention: query rows whose keys were replaced.
        recomputed: Incremental attention: query rows computed against all their keys.
        cells: Cells that hold an updated token, where keys are averaged over cells.
    """
    active, keys, kept = updated["qkv"], size.keys(tokens), size.kept(tokens)
    pairs = size.all_pairs(tokens)
    changed = cells if size.cells else active
    some = pairs if active == tokens else active * keys + tokens * changed
    gates, additions = size.gate_subtractions(tokens), 2 * kept * size.dim
    if size.gating != "paper":
        additions = (updated["proj"] + updated["mlp"]) * size.dim
    match attention:
        case "incremental" if size.gating == "input":
            scored = weighed = (recomputed if size.window else active) * keys
        case "incremental":
            scored = weighed = recomputed * keys + 2 * corrected * changed
            additions += 2 * corrected * size.width
        case "query_key" if not size.window:
            scored, weighed = some, pairs
        case "cached" if active == tokens and not size.window:
            scored = weighed = pairs
        case "cached" if not size.window:
            scored, weighed = some, 2 * tokens * changed
            gates += keys * size.width + size.heads * tokens * keys
            additions += (changed + 2 * tokens) * size.width
        case _:
            scored = weighed = pairs
    own = attention == "incremental"
    queries, biased = (active, scored) if own else (size.places or tokens, pairs)
    return Operations(
        qkv=active * size.per_token["qkv"],
        query_key=(scored + queries * size.lines) * size.width + size.class_row(tokens),
        attention_value=weighed * size.width,
        projection=updated["proj"] * size.per_token["proj"],
        mlp=updated["mlp"] * size.per_token["mlp"],
        gates=gates,
        additions=additions + size.bias_additions(biased),
    )


def chosen_operations(size: BlockSize, tokens: int, active: int) -> Operations:
    """Count one batch row of a block that computes chosen tokens alone, over all their keys."""
    pairs = active * size.keys(tokens)
    return Operations(
        qkv=active * size.per_token["qkv"],
        query_key=(pairs + active * size.lines) * size.width,
        attention_value=pairs * size.width,
        projection=active * size.per_token["proj"],
        mlp=active * size.per_token["mlp"],
        additions=2 * active * size.dim + size.bias_additions(pairs),
    )


def frame_operations(block: EventfulBlock, size: BlockSize, flushed: list[int]) -> Operations:
    """Count what a block of a stream did on the last frame, over all rows of the batch.

    Args:
        block: A stream's block, behind its frame.
        size: The block's sizes.
        flushed: The batch rows that were computed anew; they count as dense.
    """
    assert block.binding is not None
    state, sets = block.binding.state, block.updated
    nothing = (0,) * len(sets["qkv"].counts)
    work, pooled = state.attention, state.buffers.get("pooled")
    corrected, recomputed = (work.corrected, work.recomputed) if work else (nothing, nothing)
    cells = pooled.index.counts if pooled and pooled.index else nothing
    total = Operations()
    for row, done in enumerate(zip(corrected, recomputed, cells, strict=True)):
        if row in flushed:
            total += dense_operations(size, state.tokens)
            continue
        updated: dict[Stage, int] = {stage: index.counts[row] for stage, index in sets.items()}
        total += block_operations(size, block.options.attention, state.tokens, updated, *done)
    return total


def state_values(size: BlockSize, attention: AttentionName, tokens: int) -> tuple[int, int]:
    """Count what one row of a block remembers.

    The place of each token where there are windows is held once, for all rows, and not counted; nor
    is what there is one number a token of: which were sampled, their ages, norms of references.

    Returns:
        Values held in the model's dtype, or the stream's `state_dtype` (references and buffers),
        and values of the attention state: held in float32 at least, or where there are windows, in
        the model's dtype.
    """
    places, kept = size.places or tokens, size.kept(tokens)
    references = size.gate_subtractions(tokens)
    if size.gating == "input":
        buffered = places * size.buffered if size.window else 2 * tokens * size.width
        return references + buffered + tokens * size.dim, size.places * size.width
    buffered = places * size.buffered + 2 * size.cells * size.width
    narrow = references + buffered + 2 * kept * size.dim
    if size.window:
        return narrow, places * size.width if attention == "incremental" else 0
    keys = size.keys(tokens)
    maps = size.heads * tokens * keys
    wide = {
        "dense": 0,
        "query_key": maps,
        "cached": 2 * maps + (tokens + keys) * size.width,
        "incremental": tokens * (size.width + 2 * size.heads),
    }
    return narrow, wide[attention]
