"""The cost that a stream reports, against hand counts and against what really ran."""

import dataclasses

import pytest
import torch

import eventful
from eventful.counting import BlockSize, Observer, state_values
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


def observed(stream, frame):
    with Observer() as observer:
        stream(frame)
    return observer


def products(operations):
    kinds = ("qkv", "query_key", "attention_value", "projection", "mlp")
    return sum(getattr(operations, kind) for kind in kinds)


@pytest.mark.parametrize("attention", FORMS)
@pytest.mark.parametrize("name", FAMILIES)
def test_products_are_those_that_run(name, attention):
    stream = stream_of(name, eventful.KeepAll(), attention=attention)
    first, *video = clip(4)
    stream(first)
    for frame, policy in zip(video, POLICIES, strict=True):
        stream.policy = policy
        observer = observed(stream, frame)
        seen = observer.linear + observer.matmul + observer.attention
        assert products(stream.stats.operations) == seen
    assert products(stream.stats.operations) < products(stream.stats.dense_operations)


@pytest.mark.parametrize("attention", FORMS)
@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ROTARY])
def test_additions_are_those_that_run_but_for_two_known_differences(name, attention):
    """Care for rounding in `replace_keys` is not counted, and the paper's delta gates cost more.

    Incremental attention also adds six numbers a corrected row and head: three differences of
    log-sum-exps, z = keep - old + new, and L + log z. The paper's gates on v and on the columns
    of A subtract whole tensors; here only the columns that are forced open are subtracted, since
    no others can be let through.
    """
    stream = stream_of(name, TOP, attention=attention)
    first, *video = clip(4)
    stream(first)
    for frame in video:
        observer, operations = observed(stream, frame), stream.stats.operations
        ours = operations.gates + operations.additions + operations.other
        blocks = stream._blocks.values()
        tokens = stream.gate("blocks.0.qkv").updated.shape[1]
        still = tokens - 3 - stream._originals[0].num_prefix_tokens
        work = [block.binding.state.attention for block in blocks]
        difference = {
            "dense": 0,
            "query_key": 0,
            "cached": BLOCKS * ROWS * still * (DIM + HEADS * tokens),
            "incremental": -6 * HEADS * sum(sum(state.corrected) for state in work),
        }[attention]
        assert ours - observer.additions == difference


@pytest.mark.parametrize("attention", FORMS)
def test_products_of_keep_all_are_those_that_run(attention):
    stream = stream_of("plain", eventful.KeepAll(), attention=attention)
    first, second = clip(2)
    stream(first)
    observer = observed(stream, second)
    seen = observer.linear + observer.matmul + observer.attention
    assert products(stream.stats.operations) == seen


@pytest.mark.parametrize("attention", FORMS)
def test_products_of_a_flushed_row_are_those_that_run(attention):
    stream = stream_of("plain", TOP, attention=attention)
    first, second = clip(2)
    stream(first)
    stream.reset([1])
    observer = observed(stream, second)
    seen = observer.linear + observer.matmul + observer.attention
    assert products(stream.stats.operations) == seen
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
@pytest.mark.parametrize("name", ["registers", "gated", "grouped"])
def test_state_bytes_are_those_of_the_closed_form(name, attention, dtype):
    stream = stream_of(name, TOP, dtype, attention=attention)
    for frame in clip(2, batch=3):
        stream(frame)
    tokens = stream.gate("blocks.0.qkv").updated.shape[1]
    expected = 0
    for block in stream._blocks.values():
        narrow, wide = state_values(BlockSize.of(block), attention, tokens)
        expected += 3 * (narrow * dtype.itemsize + wide * max(4, dtype.itemsize))
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
