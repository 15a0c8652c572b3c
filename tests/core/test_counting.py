"""Operation counts by hand, and against the operators that run."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from eventful.attention import FORMS, AttentionState
from eventful.block.block import TokenOperations
from eventful.block.gate import GateState
from eventful.block.state import BlockState
from eventful.counting import (
    BlockSize,
    Observer,
    Operations,
    block_operations,
    dense_operations,
    frame_operations,
    outside,
    state_values,
)
from eventful.ops import Index

from .conftest import Buffered, ragged

# D = 6, H = 2, H d = 10; qkv 6 -> 30 and proj 10 -> 6 with biases, mlp 6 -> 7 -> 6 with one;
# 4 more columns are buffered behind q, k and v.
PER_TOKEN = {"qkv": 210, "proj": 66, "mlp": 91}
SIZE = BlockSize(dim=6, heads=2, width=10, buffered=34, per_token=PER_TOKEN)
LAYERS = {
    "qkv": [TokenOperations(6, 30, True)],
    "proj": [TokenOperations(10, 6, True)],
    "mlp": [TokenOperations(6, 7, True), TokenOperations(7, 6, False)],
}
STAGES = tuple(LAYERS)
UPDATED = {"qkv": 3, "proj": 2, "mlp": 4}  # of N = 11


def block_of(attention, counts, corrected, recomputed):
    """What `frame_operations` reads of a stream's block behind its frame."""
    gates = {
        stage: GateState(
            torch.zeros(1, 11, 0), torch.zeros(0), Index(torch.zeros(0), counts_of_stage, tokens=11)
        )
        for stage, counts_of_stage in counts.items()
    }
    work = AttentionState(corrected=corrected, planned=recomputed)
    return SimpleNamespace(
        heads=2,
        head_dim=5,
        extra_width=4,
        table_width=lambda grid: 0,
        window_size=0,
        key_grid=lambda grid: None,
        pooling=lambda grid: None,
        options=SimpleNamespace(attention=attention, sampling=None, gating="paper"),
        stages=STAGES,
        updated={stage: gate.index for stage, gate in gates.items()},
        linears=lambda: LAYERS,
        binding=SimpleNamespace(state=BlockState(gates, attention=work)),
    )


def test_operations_add_by_kind():
    one, other = Operations(qkv=1, gates=2, other=3), Operations(qkv=10, mlp=20, other=30)
    assert one + other == Operations(qkv=11, gates=2, mlp=20, other=33)
    assert (one + other).total == 66
    assert set(one.as_dict()) == {
        *("qkv", "query_key", "attention_value", "projection", "mlp"),
        *("gates", "additions", "other"),
    }


def test_sizes_are_read_off_a_block():
    assert BlockSize.of(block_of("dense", {}, (), ())) == SIZE


def test_a_dense_block_by_hand():
    assert dense_operations(SIZE, tokens=11) == Operations(
        qkv=2310, query_key=1210, attention_value=1210, projection=726, mlp=1001, additions=132
    )


@pytest.mark.parametrize(
    ("attention", "query_key", "attention_value", "gates", "additions"),
    [
        # gates: N (2 D + H d) = 242, and for the deltas N H d + H N^2 = 352; skips: 2 N D = 132
        ("dense", 1210, 1210, 242, 132),
        ("query_key", 660, 1210, 242, 132),  # 2 N M H d
        ("cached", 660, 660, 594, 132 + 30 + 220),  # M H d for v_n - v_d, 2 N H d to accumulate
        ("incremental", 970, 970, 242, 132 + 140),  # (5 N + 2 * 7 M) H d; 2 * 7 H d
    ],
)
def test_an_eventful_block_by_hand(attention, query_key, attention_value, gates, additions):
    counted = block_operations(SIZE, attention, 11, UPDATED, corrected=7, recomputed=5)
    assert counted == Operations(
        qkv=630,
        query_key=query_key,
        attention_value=attention_value,
        projection=132,
        mlp=364,
        gates=gates,
        additions=additions,
    )


# Of 11 tokens on a 3 x 5 grid less 4: keys pooled to 2 x 3 cells, 5 lines; 4 of the cells are new.
POOLED = SIZE._replace(cells=6, lines=5)


@pytest.mark.parametrize(
    ("attention", "query_key", "attention_value", "gates", "additions"),
    [
        # tables: 11 * 5 * 10 = 550, of the 3 updated queries alone 150; biases: 2 H N cells = 264
        ("dense", 660 + 550, 660, 242, 132 + 264),
        ("query_key", 180 + 440 + 550, 660, 242, 132 + 264),  # (M cells + N new) H d
        ("cached", 620 + 550, 880, 242 + 60 + 132, 132 + 264 + 40 + 220),  # 2 N new H d
        ("incremental", (5 * 6 + 2 * 7 * 4) * 10 + 150, 860, 242, 132 + 140 + 2 * 2 * 86),
    ],
)
def test_a_block_with_pooled_keys_by_hand(attention, query_key, attention_value, gates, additions):
    assert dense_operations(POOLED, 11).query_key == 660 + 550
    counted = block_operations(POOLED, attention, 11, UPDATED, corrected=7, recomputed=5, cells=4)
    assert counted.query_key == query_key
    assert counted.attention_value == attention_value
    assert (counted.gates, counted.additions) == (gates, additions)


def test_held_inputs_are_added_for_updated_tokens_alone():
    held = SIZE._replace(gating="hold")
    counted = block_operations(held, "dense", 11, UPDATED)
    assert counted.additions == (2 + 4) * 6
    assert counted.gates == 242


def test_one_gate_costs_the_share_of_updated_tokens():
    one = SIZE._replace(gating="input", gates=("qkv",))
    updated = dict.fromkeys(STAGES, 3)
    counted = block_operations(one, "incremental", 11, updated)
    assert (counted.query_key, counted.attention_value) == (3 * 11 * 10, 3 * 11 * 10)
    assert (counted.gates, counted.additions) == (11 * 6, 2 * 3 * 6)
    assert block_operations(one._replace(gates=()), "incremental", 11, updated).gates == 0
    assert state_values(one, "incremental", 11) == (11 * 6 + 2 * 11 * 10 + 11 * 6, 0)


def test_a_block_that_samples_by_hand():
    """Of 11 tokens 5 go on; the class token's row costs N H d, and what is behind has 5 tokens."""
    sampling = SIZE._replace(sampling=5)
    dense = dense_operations(sampling, 11)
    assert (dense.query_key, dense.projection, dense.mlp) == (1210 + 110, 330, 455)
    assert dense.additions == 2 * 5 * 6
    counted = block_operations(sampling, "dense", 11, UPDATED)
    assert (counted.query_key, counted.additions) == (1210 + 110, 60)
    assert counted.gates == 11 * 6 + 5 * 10 + 5 * 6
    assert dense_operations(SIZE._replace(sampling=11), 11) == dense_operations(SIZE, 11)


@pytest.mark.parametrize("attention", FORMS)
def test_a_frame_is_the_sum_of_its_rows_and_flushed_rows_are_dense(attention):
    counts = {"qkv": (3, 11, 0), "proj": (2, 11, 1), "mlp": (4, 11, 5)}
    rows = [(7, 5), (0, 11), (0, 1)]
    corrected, recomputed = zip(*rows, strict=True)
    block = block_of(attention, counts, corrected, recomputed)
    expected = dense_operations(SIZE, 11)
    for row in (0, 2):
        updated = {stage: counts[stage][row] for stage in STAGES}
        used = rows[row] if attention == "incremental" else (0, 0)
        expected += block_operations(SIZE, attention, 11, updated, *used)
    assert BlockSize.of(block) == SIZE
    assert frame_operations(block, SIZE, flushed=[1]) == expected


@pytest.mark.parametrize(
    ("attention", "kept"),
    [
        ("dense", 0),
        ("query_key", 242),  # H N^2
        ("cached", 704),  # B and A's reference: 2 H N^2; A v and v's reference: 2 N H d
        ("incremental", 154),  # the output N H d, log-sum-exps and their peaks 2 N H
    ],
)
def test_what_a_block_remembers_by_hand_and_as_it_is(attention, kept):
    # references N (2 D + H d) and buffers N (34 + 2 D), in the model's dtype
    assert state_values(SIZE, attention, tokens=11) == (242 + 506, kept)
    buffered = Buffered(batch=3, tokens=11, heads=2, dim=5)
    _, state = FORMS[attention](2, buffered.scale).start(buffered.qkv)
    assert sum(tensor.numel() for tensor in state.tensors.values()) == 3 * kept


def counted_and_observed(attention, masks):
    """Query-key and attention-value products of each frame: by the formula, and as they ran."""
    buffered = Buffered(batch=3, tokens=11, heads=2, dim=5)
    size = SIZE._replace(per_token=dict.fromkeys(STAGES, 0))
    form = FORMS[attention](buffered.heads, buffered.scale)
    _, state = form.start(buffered.qkv)
    for mask in masks:
        old, index = buffered.change(mask)
        with Observer() as observer:
            form.update(state, buffered.qkv, old, index)
        total = Operations()
        for row, active in enumerate(index.counts):
            work = (state.corrected[row], state.recomputed[row]) if state.recomputed else (0, 0)
            updated = {"qkv": active, "proj": 0, "mlp": 0}
            total += block_operations(size, attention, 11, updated, *work)
        assert observer.linear == 0
        yield total.query_key + total.attention_value, observer.matmul + observer.attention


@pytest.mark.parametrize("attention", FORMS)
def test_attention_runs_the_products_that_are_counted(attention):
    for counted, observed in counted_and_observed(attention, ragged(8)):
        assert observed == counted


def ones(*shape):
    return torch.ones(shape)


WEIGHT, BIAS = ones(7, 5), ones(7)
HEADS = (3, 2, 11, 5)
FEWER = (3, 2, 7, 5)
OBSERVED = {
    # what runs: linear, matmul, attention, additions
    "linear of two axes": (lambda: F.linear(ones(11, 5), WEIGHT), (385, 0)),
    "linear with a bias": (lambda: F.linear(ones(11, 5), WEIGHT, BIAS), (462, 0)),
    "linear of three axes with a bias": (lambda: F.linear(ones(3, 11, 5), WEIGHT, BIAS), (1386, 0)),
    "linear of strides with a bias": (
        lambda: F.linear(ones(11, 3, 5).transpose(0, 1), WEIGHT, BIAS),
        (1386, 0),
    ),
    "linear of one axis": (lambda: F.linear(ones(5), WEIGHT), (35, 0)),
    "addmm": (lambda: torch.addmm(BIAS, ones(11, 5), ones(5, 7)), (462, 0)),
    "mm": (lambda: ones(11, 5) @ ones(5, 7), (385, 0)),
    "bmm": (lambda: torch.bmm(ones(3, 11, 5), ones(3, 5, 7)), (1155, 0)),
    "matmul of four axes": (lambda: ones(*HEADS) @ ones(*FEWER).mT, (2310, 0)),
    "baddbmm": (lambda: torch.baddbmm(ones(3, 11, 7), ones(3, 11, 5), ones(3, 5, 7)), (1386, 0)),
    "einsum": (lambda: torch.einsum("bhqd,hkd->bhqk", ones(*HEADS), ones(2, 7, 5)), (2310, 0)),
    "fused attention": (
        lambda: F.scaled_dot_product_attention(ones(*HEADS), ones(*FEWER), ones(*FEWER)),
        (4620, 0),
    ),
    "fused attention with a bias": (
        lambda: F.scaled_dot_product_attention(
            ones(*HEADS), ones(*FEWER), ones(*FEWER), attn_mask=ones(11, 7)
        ),
        (4620, 0),
    ),
    "addition": (lambda: ones(3, 5) + ones(3, 5), (0, 15)),
    "addition of a broadcast": (lambda: ones(3, 1, 5) + ones(7, 5), (0, 105)),
    "addition in place": (lambda: ones(3, 5).add_(ones(5)), (0, 15)),
    "subtraction": (lambda: ones(3, 5) - ones(3, 5), (0, 15)),
    "subtraction in place": (lambda: ones(3, 5).sub_(ones(5)), (0, 15)),
    "addition of a number": (lambda: ones(3, 5) + 1, (0, 0)),
    "addition of a number in a tensor": (lambda: ones(3, 5) + torch.tensor(1.0), (0, 0)),
    "addition of whole numbers": (lambda: ones(3, 5).long() + ones(3, 5).long(), (0, 0)),
    "norm, softmax, activation, product": (
        lambda: F.gelu(F.layer_norm(ones(3, 5), (5,), ones(5), ones(5)).softmax(-1)) * ones(3, 5),
        (0, 0),
    ),
    "convolution": (lambda: F.conv2d(ones(1, 3, 8, 8), ones(5, 3, 4, 4), ones(5)), (0, 0)),
    "a matrix and a vector": (lambda: ones(11, 5) @ ones(5), (55, 0)),
    "a batch of matrices and a vector": (lambda: ones(3, 11, 5) @ ones(5), (165, 0)),
    "addbmm": (lambda: torch.addbmm(ones(11, 7), ones(3, 11, 5), ones(3, 5, 7)), (1232, 0)),
}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", OBSERVED)
def test_operators_by_hand(name, mode):
    run, (products, additions) = OBSERVED[name]
    with mode(), Observer() as observer:
        run()
    assert observer.total == products + additions
    if products == 0:
        assert observer.additions == additions


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_kinds_are_told_apart(mode):
    with mode(), Observer() as observer:
        F.linear(ones(11, 5), WEIGHT, BIAS)
        torch.bmm(ones(3, 11, 5), ones(3, 5, 7))
        F.scaled_dot_product_attention(ones(*HEADS), ones(*FEWER), ones(*FEWER))
        ones(3, 5).add_(ones(5))
    assert observer.linear == 462
    assert observer.matmul == 1155
    assert observer.attention == 4620
    assert observer.additions == 15
    assert observer.total == 462 + 1155 + 4620 + 15


def test_results_are_those_of_the_operators():
    x, w = torch.randn(3, 11, 5), torch.randn(7, 5)
    with torch.inference_mode():
        expected = F.linear(x, w, BIAS)
        with Observer():
            assert torch.equal(F.linear(x, w, BIAS), expected)


def test_what_runs_while_paused_is_not_counted():
    x = ones(3, 5)
    with Observer() as observer:
        x.add_(x)
        with observer.paused():
            x.add_(x @ ones(5, 5))
        x.sub_(x)
    assert observer.total == 30
    x.add_(x)
    assert observer.total == 30


def test_an_error_ends_a_pause():
    with Observer() as observer:
        with pytest.raises(ZeroDivisionError), observer.paused():
            1 // 0  # noqa: B018 - raises
        ones(3, 5).add_(ones(3, 5))
    assert observer.total == 15


class Doubling(nn.Module):
    name = "doubling"

    def forward(self, x):
        return x + x


def test_outside_leaves_blocks_out_and_takes_its_wrapping_off():
    block, other = Doubling(), Doubling()
    with outside([block]) as observer:
        assert torch.equal(other(block(ones(3, 5))), 4 * ones(3, 5))
    assert observer.total == 15
    with pytest.raises(TypeError), outside([block]):
        block(None)
    assert "forward" not in vars(block)
