"""The cost that a stream reports, against hand counts and against what really ran."""

import dataclasses

import pytest
import timm
import torch

import eventful
from eventful.block.block import eventful_blocks
from eventful.counting import BlockSize, Observer, dense_operations, state_values
from tests.zoo import FAMILIES, ROTARY, build, clip, stream_of

FORMS = ("dense", "query_key", "cached", "incremental")
TOP = eventful.TopR(3)
POLICIES = (eventful.TopFraction(0.6), eventful.Threshold(2.0), TOP)

# The model "plain": D = 24, H = 3, N = 16 tokens, MLP of 96, three blocks, fed two rows.
DIM, HEADS, TOKENS, BLOCKS, ROWS = 24, 3, 16, 3, 2
QKV, PROJ, MLP = DIM * 72 + 72, DIM * 24 + 24, 2 * DIM * 96 + 96 + 24  # for one token


def stats_after(frames, attention, policy=TOP, name="plain"):
    stream = stream_of(name, policy, attention=attention)
    for frame in clip(frames):
        stream(frame)
    return stream.stats


def counted(**kinds):
    """Operations of one block and row, over all blocks and rows."""
    return {kind: BLOCKS * ROWS * count for kind, count in kinds.items()}


def without_other(operations):
    return {kind: count for kind, count in operations.as_dict().items() if kind != "other"}


@pytest.mark.parametrize("attention", FORMS)
def test_a_dense_frame_by_hand(attention):
    stats = stats_after(1, attention)
    product = TOKENS * TOKENS * DIM
    expected = counted(
        qkv=TOKENS * QKV,
        query_key=product,
        attention_value=product,
        projection=TOKENS * PROJ,
        mlp=TOKENS * MLP,
        gates=0,
        additions=2 * TOKENS * DIM,
    )
    assert without_other(stats.operations) == expected
    assert stats.dense_operations == stats.operations


@pytest.mark.parametrize("attention", FORMS)
def test_an_eventful_frame_by_hand(attention):
    stats = stats_after(2, attention, name="qk_norm")  # like "plain", but no row meets the guard
    active = 4  # the class token and three patches; the class token is the row in rotation too
    full, partial = TOKENS * TOKENS * DIM, 2 * active * TOKENS * DIM
    work = active * TOKENS + 2 * (TOKENS - active) * active
    query_key, attention_value, gates, additions = {
        "dense": (full, full, 0, 0),
        "query_key": (partial, full, 0, 0),
        "cached": (
            partial,
            partial,
            TOKENS * DIM + HEADS * TOKENS * TOKENS,
            (active + 2 * TOKENS) * DIM,
        ),
        "incremental": (work * DIM, work * DIM, 0, 2 * (TOKENS - active) * DIM),
    }[attention]
    expected = counted(
        qkv=active * QKV,
        query_key=query_key,
        attention_value=attention_value,
        projection=active * PROJ,
        mlp=active * MLP,
        gates=3 * TOKENS * DIM + gates,
        additions=2 * TOKENS * DIM + additions,
    )
    assert without_other(stats.operations) == expected


def test_what_runs_outside_the_blocks_by_hand():
    """Position encoding, and the classifier on the class token; convolutions are not counted."""
    stream = eventful.Stream(eventful.convert(build("plain"), TOP), scene_cuts=None)
    for frame in clip(2):
        stream(frame)
        expected = ROWS * (TOKENS * DIM + DIM * 7 + 7)
        assert stream.stats.operations.other == expected
        assert stream.stats.dense_operations.other == expected


# The models of SAM and ViTDet: a grid of 3 x 5 tokens, the first and the last block with windows of
# 2 x 2, so six windows of which four hold padding.
CELLS, PLACES, WINDOW = 15, 24, 4
SAM = ("sam", "sam_resampled", "sam_no_positions")
VITDET = ("vitdet", "vitdet_paper_positions")
WINDOWED = (*SAM, *VITDET)
POSITIONS = ("sam", "sam_resampled")  # looked up among all offsets; ViTDet's by line
LINES = (2 + 2, 3 + 5, 2 + 2)  # of the tables of relative positions, by block
TABLES = PLACES * LINES[0] + CELLS * LINES[1] + PLACES * LINES[2]  # lines of all queries
PAIRS = (PLACES * WINDOW, CELLS * CELLS, PLACES * WINDOW)  # of queries and keys, dense


@pytest.mark.parametrize("attention", FORMS)
def test_a_dense_frame_of_windows_and_relative_positions_by_hand(attention):
    """Padding counts in attention and in the tables, but not in the linear layers."""
    stats = stats_after(1, attention, name="sam")
    tables = TABLES * DIM
    expected = {
        "qkv": BLOCKS * ROWS * CELLS * QKV,
        "query_key": ROWS * (sum(PAIRS) * DIM + tables),
        "attention_value": ROWS * sum(PAIRS) * DIM,
        "projection": BLOCKS * ROWS * CELLS * PROJ,
        "mlp": BLOCKS * ROWS * CELLS * MLP,
        "gates": 0,
        "additions": ROWS * (BLOCKS * 2 * CELLS * DIM + 2 * HEADS * sum(PAIRS)),
    }
    assert without_other(stats.operations) == expected
    assert stats.dense_operations == stats.operations


@pytest.mark.parametrize("attention", FORMS)
def test_an_eventful_frame_of_windows_and_relative_positions_by_hand(attention):
    """Windows without an updated token, and still queries' tables, `incremental` leaves out."""
    stream = stream_of("sam_resampled", TOP, attention=attention)
    for frame in clip(2):
        stream(frame)
    active, full = 3, PAIRS[1]
    partial = 2 * active * CELLS
    caught = (
        sum(stream._bound.blocks["blocks.1"].binding.state.attention.recomputed) - ROWS * active
    )
    corrected = ROWS * (CELLS - active) if attention == "incremental" else 0
    work = ROWS * active * CELLS + caught * CELLS + 2 * corrected * active
    touched = sum(touched_windows(stream, f"blocks.{i}") for i in (0, 2))
    windows = (touched if attention == "incremental" else 2 * ROWS * PLACES // WINDOW) * WINDOW**2
    assert WINDOW**2 * active <= windows <= sum(PAIRS[::2]) * ROWS
    scored, weighed = {
        "dense": (ROWS * full, ROWS * full),
        "query_key": (ROWS * partial, ROWS * full),
        "cached": (ROWS * partial, ROWS * partial),
        "incremental": (work, work),
    }[attention]
    tables, biased = ROWS * TABLES, windows + ROWS * full
    if attention == "incremental":
        tables, biased = ROWS * active * sum(LINES), windows + scored
    delta_gates, deltas = 0, 2 * corrected * DIM
    if attention == "cached":
        delta_gates = ROWS * (CELLS * DIM + HEADS * CELLS * CELLS)
        deltas = ROWS * (active + 2 * CELLS) * DIM
    expected = {
        "qkv": BLOCKS * ROWS * active * QKV,
        "query_key": (windows + scored + tables) * DIM,
        "attention_value": (windows + weighed) * DIM,
        "projection": BLOCKS * ROWS * active * PROJ,
        "mlp": BLOCKS * ROWS * active * MLP,
        "gates": BLOCKS * ROWS * 3 * CELLS * DIM + delta_gates,
        "additions": BLOCKS * ROWS * 2 * CELLS * DIM + deltas + 2 * HEADS * biased,
    }
    assert without_other(stream.stats.operations) == expected


def touched_windows(stream, name):
    """Windows of all rows that hold a token that a block's first gate let through."""
    updated = stream.gate(f"{name}.qkv").updated.view(ROWS, 3, 5)
    return sum(
        bool(updated[row, y : y + 2, x : x + 2].any())
        for row in range(ROWS)
        for y in range(0, 3, 2)
        for x in range(0, 5, 2)
    )


def observed(stream, frame):
    with Observer() as observer:
        stream(frame)
    return observer


def products(operations):
    kinds = ("qkv", "query_key", "attention_value", "projection", "mlp")
    return sum(getattr(operations, kind) for kind in kinds)


def products_that_ran(observer):
    return observer.linear + observer.matmul + observer.attention


def longer_tables(name, queries):
    """Products that the adapter of SAM runs and the rules do not count.

    For g lines of an axis the rules count g products a query, with the offsets to these lines. The
    adapter takes all 2 g - 1 offsets of the axis and chooses.

    Args:
        name: The family.
        queries: For each block, of how many queries it computes tables.
    """
    if name not in POSITIONS:
        return 0
    more = [2 * lines - 2 - lines for lines in LINES]  # 2 g - 1 on both axes, less g on both
    return DIM * sum(count * offsets for count, offsets in zip(queries, more, strict=True))


def positioned(stream, attention):
    """For each block, of how many queries it computes tables: updated ones, or all places."""
    if attention == "incremental":
        return [sum(stream.stats.updated[f"blocks.{i}.qkv"]) for i in range(BLOCKS)]
    return [ROWS * PLACES, ROWS * CELLS, ROWS * PLACES]


@pytest.mark.parametrize("attention", FORMS)
@pytest.mark.parametrize("name", FAMILIES)
def test_products_are_those_that_run(name, attention):
    stream = stream_of(name, eventful.KeepAll(), attention=attention)
    first, *video = clip(4)
    stream(first)
    for frame, policy in zip(video, POLICIES, strict=True):
        stream.policy = policy
        seen = products_that_ran(observed(stream, frame))
        known = longer_tables(name, positioned(stream, attention))
        assert products(stream.stats.operations) + known == seen
        assert (known > 0) == (name in POSITIONS)
    assert products(stream.stats.operations) < products(stream.stats.dense_operations)


@pytest.mark.parametrize("attention", FORMS)
@pytest.mark.parametrize("name", FAMILIES)
def test_products_of_the_first_frame_are_those_that_run(name, attention):
    """Rules count tables for padding, as the dense model computes them; `incremental` does not.

    A stream projects one padding token for each block with windows, on this frame alone.
    """
    stream, frame = stream_of(name, TOP, attention=attention, check=False), clip(1)[0]
    seen = products_that_ran(observed(stream, frame))
    known = longer_tables(name, positioned(stream, attention))
    if name in WINDOWED:
        known += 2 * QKV
    if name in (*POSITIONS, *VITDET) and attention == "incremental":
        known += 2 * (LINES[0] if name in VITDET else 2 * LINES[0] - 2) * DIM
        known -= 2 * ROWS * (PLACES - CELLS) * LINES[0] * DIM
    assert products(stream.stats.operations) + known == seen


@pytest.mark.parametrize("name", FAMILIES)
def test_dense_products_are_those_of_the_original_model(name):
    """Rules leave padding out of linear layers; timm projects it, ViTDet here does not."""
    model, frame = build(name), clip(1)[0]
    with torch.inference_mode(), Observer() as observer:
        model.forward_features(frame)
    padding = ROWS * 2 * (PLACES - CELLS) * (QKV + PROJ) if name in SAM else 0
    tokens = CELLS + getattr(model, "num_prefix_tokens", 0)
    grid = (3, 5) if name in WINDOWED else None
    counted = 0
    for block in eventful_blocks(eventful.convert(model, TOP)).values():
        counted += ROWS * products(dense_operations(BlockSize.of(block, grid), tokens))
    assert counted + padding == products_that_ran(observer)


def test_dense_additions_of_sam_are_those_of_the_original_model():
    """But for timm's look-up of the tables, and one addition a score within fused attention."""
    model, frame = build("sam"), clip(1)[0]
    with torch.inference_mode(), Observer() as observer:
        model.forward_features(frame)
    blocks = eventful_blocks(eventful.convert(model, TOP)).values()
    counted = ROWS * CELLS * DIM  # position encoding
    for block in blocks:
        counted += ROWS * dense_operations(BlockSize.of(block, (3, 5)), CELLS).additions
    assert counted + LOOK_UP["sam"] - ROWS * HEADS * sum(PAIRS) == observer.additions


@pytest.mark.parametrize(("size", "giga"), [(1024, 467.44), (672, 174.495)])
def test_dense_operations_of_vitdet_are_those_of_the_paper(size, giga):
    """Its Tables 1 and C say 467.4 and 174.5; a recount gives more digits."""
    with torch.device("meta"):
        model = timm.create_model("samvit_base_patch16", img_size=size).eval()
    side = size // 16
    total = side**2 * 768  # position encoding
    for block in eventful_blocks(eventful.convert(model, TOP)).values():
        total += dense_operations(BlockSize.of(block, (side, side)), side**2).total
    assert total / 1e9 == pytest.approx(giga, abs=5e-4)


# Additions of timm's look-up of the tables: a difference of coordinates y - y' for each pair of
# lines, in the two blocks with windows and in the global one.
_COORDINATES = 2 * (2 * 2 + 2 * 2) + (3 * 3 + 5 * 5)
LOOK_UP = {"sam": _COORDINATES, "sam_resampled": _COORDINATES}


@pytest.mark.parametrize("attention", FORMS)
@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ROTARY])
def test_additions_are_those_that_run_but_for_known_differences(name, attention):
    """Care for rounding in `replace_keys` is not counted, and the paper's delta gates cost more.

    Incremental attention also adds six numbers a corrected row and head: three differences of
    log-sum-exps, z = keep - old + new, and L + log z. The paper's gates on v and on the columns
    of A subtract whole tensors; here only the columns that are forced open are subtracted, since
    no others can be let through. With relative positions there is timm's look-up (`LOOK_UP`).
    """
    stream = stream_of(name, TOP, attention=attention)
    first, *video = clip(4)
    stream(first)
    for frame in video:
        observer, operations = observed(stream, frame), stream.stats.operations
        ours = operations.gates + operations.additions + operations.other
        blocks = stream._bound.blocks.values()
        tokens = stream.gate("blocks.0.qkv").updated.shape[1]
        still = tokens - 3 - getattr(stream._bound.model, "num_prefix_tokens", 0)
        work = [block.binding.state.attention for block in blocks]
        cached = sum(not block.window_size for block in blocks)
        difference = {
            "dense": 0,
            "query_key": 0,
            "cached": cached * ROWS * still * (DIM + HEADS * tokens),
            "incremental": -6 * HEADS * sum(sum(state.corrected) for state in work),
        }[attention]
        assert ours + LOOK_UP.get(name, 0) - observer.additions == difference


@pytest.mark.parametrize("attention", FORMS)
def test_products_of_keep_all_are_those_that_run(attention):
    stream = stream_of("plain", eventful.KeepAll(), attention=attention)
    first, second = clip(2)
    stream(first)
    seen = products_that_ran(observed(stream, second))
    assert products(stream.stats.operations) == seen


@pytest.mark.parametrize("attention", FORMS)
@pytest.mark.parametrize("name", ["plain", "sam"])
def test_products_of_a_flushed_row_are_those_that_run(name, attention):
    stream = stream_of(name, TOP, attention=attention)
    first, second = clip(2)
    stream(first)
    stream.reset([1])
    seen = products_that_ran(observed(stream, second))
    known = longer_tables(name, positioned(stream, attention))
    if name == "sam" and attention == "incremental":
        known -= 2 * (PLACES - CELLS) * LINES[0] * DIM  # tables of padding
    assert products(stream.stats.operations) + known == seen
    assert stream.stats.dense_operations.total > stream.stats.operations.total


@pytest.mark.parametrize("attention", FORMS)
def test_a_flushed_row_counts_as_dense(attention):
    one = stream_of("plain", TOP, attention=attention)
    two = stream_of("plain", TOP, attention=attention)
    video = clip(2)
    one(video[0, :1]), two(video[0])
    two.reset([1])
    one(video[1, :1]), two(video[1])
    alone, dense = one.stats.operations, one.stats.dense_operations
    assert two.stats.operations == alone + dense


@pytest.mark.parametrize("attention", FORMS)
def test_totals_and_ratio_are_over_all_frames(attention):
    stream = stream_of("layer_scale", TOP, attention=attention)
    used = dense = 0
    for t, frame in enumerate(clip(5)):
        if t == 3:
            stream.reset([0])
        stream(frame)
        used += stream.stats.operations.total
        dense += stream.stats.dense_operations.total
        assert stream.stats.frames == t + 1
        assert (stream.stats.total_operations, stream.stats.total_dense_operations) == (used, dense)
        assert stream.stats.ratio == dense / used
        assert stream.stats.seconds > 0
    assert stream.stats.ratio > 1.2
    assert sum(stream.stats.operations.as_dict().values()) == stream.stats.operations.total


def test_a_stream_without_a_frame_has_cost_nothing():
    stats = stream_of("plain", TOP).stats
    assert (stats.frames, stats.total_operations, stats.state_bytes, stats.ratio) == (0, 0, 0, 0)
    assert stats.updated == {}


def test_keep_all_costs_the_gates_more_than_dense():
    stats = stats_after(2, "incremental", eventful.KeepAll())
    gates = BLOCKS * ROWS * 3 * TOKENS * DIM
    assert stats.operations == dataclasses.replace(stats.dense_operations, gates=gates)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("attention", FORMS)
@pytest.mark.parametrize("name", ["registers", "gated", "grouped", "sam", "sam_no_positions"])
def test_state_bytes_are_those_of_the_closed_form(name, attention, dtype):
    stream = stream_of(name, TOP, dtype, attention=attention)
    for frame in clip(2, batch=3):
        stream(frame)
    tokens = stream.gate("blocks.0.qkv").updated.shape[1]
    expected = 0
    for block in stream._bound.blocks.values():
        narrow, wide = state_values(BlockSize.of(block, block.binding.grid), attention, tokens)
        # outputs of windows are only ever replaced, so they need no wider type than the model's
        wide_size = dtype.itemsize if block.window_size else max(4, dtype.itemsize)
        expected += 3 * (narrow * dtype.itemsize + wide * wide_size)
        expected += 8 * tokens if block.window_size else 0  # each token's place, once a block
    assert stream.stats.state_bytes == expected


@pytest.mark.parametrize(("name", "extra"), [("plain", 0), ("gated", 24)])
@pytest.mark.parametrize("attention", FORMS)
def test_state_bytes_by_hand(name, extra, attention):
    stats = stats_after(1, attention, name=name)
    references, buffers = 3 * DIM, 3 * DIM + extra + 2 * DIM
    maps = HEADS * TOKENS * TOKENS
    kept = {
        "dense": 0,
        "query_key": maps,
        "cached": 2 * maps + 2 * TOKENS * DIM,
        "incremental": TOKENS * (DIM + 2 * HEADS),
    }[attention]
    values = TOKENS * (references + buffers) + kept
    assert stats.state_bytes == 4 * BLOCKS * ROWS * values


def test_stats_read_well():
    lines = str(stats_after(3, "incremental")).splitlines()
    assert [line.split()[0] for line in lines] == [
        "frames",
        "operations",
        "updated",
        "state",
        "time",
        "flushes",
    ]
    assert "'first frame': 2" in lines[-1]
