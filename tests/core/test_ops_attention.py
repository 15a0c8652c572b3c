"""Attention states against an independent softmax in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from eventful.ops import attend, backends, merge, replace_keys

from .conftest import DTYPES, FUSED_EXPONENTIAL, TOLERANCE, error

BACKENDS = ("fused", "plain")
BATCH, HEADS, QUERIES, KEYS, DIM = 3, 2, 7, 11, 5
SCALE = 0.3
INF = torch.inf


def state(q, k, v, scale=SCALE, bias=None):
    """Output and log-sum-exp in float64, one query at a time; keys of -inf are left out."""
    q, k, v = (x.double().numpy() for x in (q, k, v))
    bias = np.zeros(()) if bias is None else bias.double().numpy()
    bias = np.broadcast_to(bias, (*q.shape[:3], k.shape[2]))
    o, lse = np.zeros_like(q), np.full(q.shape[:3], -np.inf)
    for row, head, query in np.ndindex(*lse.shape):
        scores = k[row, head] @ q[row, head, query] * scale + bias[row, head, query]
        seen = scores > -np.inf
        if seen.any():
            top = scores.max()
            weights = np.exp(scores[seen] - top)
            lse[row, head, query] = top + math.log(weights.sum())
            o[row, head, query] = weights @ v[row, head, seen] / weights.sum()
    return torch.from_numpy(o), torch.from_numpy(lse)


def assert_state(found, expected, dtype, tolerance=TOLERANCE, exponentials=0.0):
    """Outputs to the dtype's tolerance, log-sum-exps to float32's or better; -inf where it is.

    `exponentials` is the relative error of those that were summed.
    """
    (o, lse), (o_expected, lse_expected) = found, expected
    wide = torch.promote_types(dtype, torch.float32)
    assert error(o, o_expected) < tolerance[dtype]
    empty = lse_expected == -INF
    assert torch.equal(lse == -INF, empty)
    assert (o[empty] == 0).all()
    if not empty.all():
        lse, lse_expected = lse[~empty], lse_expected[~empty]
        inexact = exponentials / lse_expected.abs().max().item()
        assert error(lse, lse_expected) < tolerance[wide] + inexact


def of_scores_up_to(largest):
    """Float32 rounds scores to half an eps of their size: weights, of two of them, to an eps.

    The weights' sum, by which they are divided, is off by as much.
    """
    return {torch.float32: 2 * largest * torch.finfo(torch.float32).eps}


def exponentials(backend, dtype):
    return FUSED_EXPONENTIAL if backend == "fused" and dtype.itemsize == 2 else 0.0


def draw(dtype=torch.float32, queries=QUERIES, keys=KEYS, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = (queries, keys, keys)
    shapes = [(BATCH, HEADS, size, DIM) for size in sizes]
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


def partly_masked(*shape):
    """A bias that hides keys; of some queries all of them, if it has queries."""
    generator = torch.Generator().manual_seed(1)
    bias = torch.randn(shape, generator=generator)
    bias = bias.masked_fill(torch.rand(shape, generator=generator) < 0.4, -INF)
    if len(shape) > 1 and shape[-2] > 1:
        bias[..., 2, :] = -INF
    return bias


BIASES = {
    "none": None,
    "whole": torch.randn(BATCH, HEADS, QUERIES, KEYS, generator=torch.Generator().manual_seed(3)),
    "of a key": partly_masked(KEYS),
    "of a batch row": partly_masked(BATCH, 1, 1, KEYS),
    "of a head": partly_masked(HEADS, 1, KEYS),
    "of a query": torch.linspace(-2, 2, QUERIES)[:, None],
    "rows masked": partly_masked(BATCH, HEADS, QUERIES, KEYS),
    "all masked": torch.tensor(-INF),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_attend_is_softmax_in_float64(backend, bias, dtype):
    q, k, v = draw(dtype)
    bias = None if BIASES[bias] is None else BIASES[bias].to(dtype)
    o, lse = attend(q, k, v, SCALE, bias, backend)
    assert o.dtype == dtype
    assert lse.dtype == torch.promote_types(dtype, torch.float32)
    found = o, lse
    assert_state(found, state(q, k, v, bias=bias), dtype, exponentials=exponentials(backend, dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("queries", "keys"), [(0, KEYS), (QUERIES, 0), (0, 0)])
def test_no_queries_or_no_keys_is_the_empty_state(queries, keys, backend, dtype):
    """The fused operator would end the process."""
    o, lse = attend(*draw(dtype, queries, keys), SCALE, None, backend)
    assert o.shape == (BATCH, HEADS, queries, DIM)
    assert lse.shape == (BATCH, HEADS, queries)
    assert o.dtype == dtype
    assert lse.dtype == torch.promote_types(dtype, torch.float32)
    assert (o == 0).all()
    assert (lse == -INF).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (3, 5), (1, 7), (5, 1), (3, 37)])
def test_attend_at_odd_sizes(queries, keys, backend, dtype):
    """37 keys fill a vector register on every processor, and leave some over."""
    q, k, v = draw(dtype, queries, keys)
    found = attend(q, k, v, SCALE, None, backend)
    assert_state(found, state(q, k, v), dtype, exponentials=exponentials(backend, dtype))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("masked", [slice(0, 600), slice(100, None), slice(512, None)])
def test_whole_tiles_of_masked_keys_leave_no_trace(masked, backend):
    """The fused operator goes through keys in tiles of up to 512."""
    q, k, v = draw(queries=3, keys=700)
    bias = torch.zeros(700)
    bias[masked] = -INF
    found = attend(q, k, v, SCALE, bias, backend)
    assert_state(found, state(q, k, v, bias=bias), torch.float32)


@pytest.mark.parametrize("backend", BACKENDS)
def test_attend_reads_views_of_a_buffer(backend):
    generator = torch.Generator().manual_seed(0)
    buffer = torch.randn(BATCH, KEYS, 3, HEADS, DIM, generator=generator)
    q, k, v = buffer.permute(2, 0, 3, 1, 4).unbind(0)
    expected = state(q, k[:, :, 2:9:2], v[:, :, 2:9:2])
    found = attend(q, k[:, :, 2:9:2], v[:, :, 2:9:2], SCALE, None, backend)
    assert_state(found, expected, torch.float32)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("apart", ["qkv", "q", "k", "v"])
def test_attend_reads_values_that_do_not_lie_side_by_side(apart, backend):
    """PyTorch 2.5's fused operator does not."""
    wide = {name: x.repeat_interleave(2, dim=-1) for name, x in zip("qkv", draw(), strict=True)}
    views = {name: x[..., ::2] for name, x in wide.items()}
    q, k, v = (x if name in apart else x.contiguous() for name, x in views.items())
    assert_state(attend(q, k, v, SCALE, None, backend), state(q, k, v), torch.float32)


class OnCuda(TorchDispatchMode):
    """Records what CUDA's fused operators are called with."""

    def __init__(self):
        super().__init__()
        self.name, self.tensors, self.bias = None, (), None

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "attention" in func.overloadpacket.__name__:
            self.name = func.overloadpacket.__name__
            self.tensors = args[:3]
            self.bias = args[3] if "efficient" in self.name else None
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("has_flash", [True, False])
@pytest.mark.parametrize("bias_strides", [None, "whole", "broadcast", "transposed"])
@pytest.mark.parametrize("view", ["whole", "of a wider row", "from the middle"])
@pytest.mark.parametrize(
    ("dtype", "dim"),
    [(torch.float32, 12), (torch.float16, 24), (torch.bfloat16, 40), (torch.float16, 264)],
)
def test_cuda_operators_are_called_as_their_schemas_say(
    dtype, dim, view, bias_strides, has_flash, monkeypatch
):
    """On meta tensors: shapes come back right, and rows lie where vectors can be read."""
    monkeypatch.setattr(backends, "_has_flash", lambda device: has_flash)
    width = 3 * HEADS * dim
    extra, first = {"of a wider row": (3, 0), "from the middle": (16, 3)}.get(view, (0, 0))
    x = torch.empty(BATCH, KEYS, width + extra, dtype=dtype, device="meta")
    x = x[..., first : first + width].unflatten(-1, (3, HEADS, dim)).permute(2, 0, 3, 1, 4)
    q, k, v = x[0, :, :, :QUERIES], x[1], x[2]
    bias = {
        None: lambda: None,
        "whole": lambda: q.new_empty(BATCH, HEADS, QUERIES, KEYS),
        "broadcast": lambda: q.new_empty(1).expand(BATCH, HEADS, QUERIES, KEYS),
        "transposed": lambda: q.new_empty(BATCH, HEADS, KEYS, QUERIES).mT,
    }[bias_strides]()
    with OnCuda() as call:
        o, lse = backends._attend_cuda(q, k, v, SCALE, bias)
    assert (o.shape, o.dtype) == (q.shape, dtype)
    assert (lse.shape, lse.dtype) == (q.shape[:3], torch.float32)
    flash = has_flash and bias is None and dtype != torch.float32 and dim <= 256
    assert call.name == f"_scaled_dot_product_{'flash' if flash else 'efficient'}_attention"
    for x in call.tensors:
        assert x.stride(-1) == 1
        assert all(s * x.element_size() % 16 == 0 for s in (x.storage_offset(), *x.stride()[:-1]))
    if bias is not None:
        assert call.bias.shape == (BATCH, HEADS, QUERIES, KEYS)
        assert (call.bias.dtype, call.bias.stride(-1)) == (dtype, 1)
        assert all(step % 16 == 0 for step in call.bias.stride()[:-1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shift", [-128.0, 128.0])
def test_large_scores_do_not_overflow(shift, backend):
    q, k, v = draw()
    bias = torch.full((KEYS,), shift)
    found = attend(q, k, v, SCALE, bias, backend)
    assert_state(found, state(q, k, v, bias=bias), torch.float32, of_scores_up_to(128))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bias_dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_bias_may_have_a_dtype_of_its_own(backend, bias_dtype):
    q, k, v = draw()
    bias = partly_masked(KEYS).to(bias_dtype)
    o, lse = attend(q, k, v, SCALE, bias, backend)
    assert (o.dtype, lse.dtype) == (torch.float32, torch.float32)
    assert_state((o, lse), state(q, k, v, bias=bias), torch.float32)


class LargestProduct(TorchDispatchMode):
    """Records the most elements that a matrix product gave."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ == "bmm":
            self.elements = max(self.elements, result.numel())
        return result


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
@pytest.mark.parametrize("bias", ["none", "rows masked", "of a query"])
def test_the_plain_form_goes_through_queries_in_chunks(bias, rows, monkeypatch):
    limit = rows * BATCH * HEADS * KEYS
    monkeypatch.setattr(backends, "_PLAIN_SCORES", limit)
    q, k, v = draw()
    with LargestProduct() as largest:
        found = backends.attend_plain(q, k, v, SCALE, BIASES[bias])
    assert largest.elements == limit
    assert_state(found, state(q, k, v, bias=BIASES[bias]), torch.float32)


def test_the_plain_form_takes_a_query_at_a_time_at_least(monkeypatch):
    monkeypatch.setattr(backends, "_PLAIN_SCORES", 1)
    q, k, v = draw()
    assert_state(attend(q, k, v, SCALE, None, "plain"), state(q, k, v), torch.float32)


def test_fused_by_name_on_another_device_raises():
    q, k, v = (x.to("meta") for x in draw())
    with pytest.raises(ValueError, match=r"runs on a CPU or on CUDA, got tensors on meta.*'plain'"):
        attend(q, k, v, SCALE, backend="fused")
    o, lse = attend(q, k, v, SCALE)
    assert (o.device.type, o.shape, lse.shape) == ("meta", q.shape, q.shape[:3])


def test_an_unknown_backend_raises():
    with pytest.raises(ValueError, match="'fused' or 'plain', got 'flash'"):
        attend(*draw(), SCALE, backend="flash")


@settings(deadline=None, max_examples=30)
@given(cut=st.integers(0, KEYS), seed=st.integers(0, 99), dtype=st.sampled_from(DTYPES[:2]))
def test_states_of_disjoint_sets_merge_into_the_state_of_their_union(cut, seed, dtype):
    q, k, v = draw(dtype, seed=seed)
    left = attend(q, k[:, :, :cut], v[:, :, :cut], SCALE)
    right = attend(q, k[:, :, cut:], v[:, :, cut:], SCALE)
    assert_state(merge(*left, *right), state(q, k, v), dtype)


def test_empty_states_merge_into_the_empty_state():
    empty = torch.zeros(1, 2, 3, 5), torch.full((1, 2, 3), -INF)
    o, lse = merge(*empty, *empty)
    assert torch.equal(o, empty[0])
    assert torch.equal(lse, empty[1])


@settings(deadline=None, max_examples=30)
@given(
    replaced=st.sets(st.integers(0, KEYS - 1), max_size=KEYS - 1),
    seed=st.integers(0, 99),
    dtype=st.sampled_from(DTYPES[:2]),
)
def test_replacing_keys_gives_the_state_over_the_new_keys(replaced, seed, dtype):
    """The scores are small, so that every key keeps a mass that float32 can do without."""
    q, k, v = draw(dtype, seed=seed)
    q = 0.3 * q
    keys = sorted(replaced)
    new_k, new_v = (x[:, :, : len(keys)] for x in draw(dtype, seed=seed + 1000)[1:])
    removed = attend(q, k[:, :, keys], v[:, :, keys], SCALE)
    added = attend(q, new_k, new_v, SCALE)
    found = replace_keys(*attend(q, k, v, SCALE), removed, added)
    k[:, :, keys], v[:, :, keys] = new_k, new_v
    left = 1 - len(keys) / KEYS
    tolerance = {d: 3 * value / left for d, value in TOLERANCE.items()}  # grows as 1 / z
    assert_state(found, state(q, k, v), dtype, tolerance)


def test_replacing_nothing_changes_nothing():
    q, k, v = draw()
    o, lse = attend(q, k, v, SCALE)
    nothing = attend(q, k[:, :, :0], v[:, :, :0], SCALE)
    o_new, lse_new = replace_keys(o, lse, nothing, nothing)
    assert torch.equal(o_new, o)
    assert torch.equal(lse_new, lse)


@pytest.mark.parametrize("gain", [100.0, 2000.0])
def test_keys_of_overwhelming_mass_do_not_overflow(gain):
    """exp(L_new - L) is past float32's range from a difference of 88 on."""
    q, k, v = draw()
    q, k = q.abs(), k.clone()
    old = attend(q, k[:, :, 3:5], v[:, :, 3:5], SCALE)
    o, lse = attend(q, k, v, SCALE)
    k[:, :, 3:5] = gain * (1 + k[:, :, 3:5].abs())
    added = attend(q, k[:, :, 3:5], v[:, :, 3:5], SCALE)
    assert (added[1] - lse).max() > 88
    found, expected = replace_keys(o, lse, old, added), state(q, k, v)
    assert_state(found, expected, torch.float32, of_scores_up_to(expected[1].max().item()))
    assert error(found[1], expected[1]) < TOLERANCE[torch.float32]
