"""The reference itself: against dense models, PyTorch's interpolation and pooling, and by hand."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.paper import grids, models
from tests.paper.reference import AttentionValue, Sampler, TokenGate, Variant, everything, top

FORMS = ("dense", "query_key", "full")


@pytest.fixture(autouse=True)
def inference():
    with torch.inference_mode():
        yield


def keep_all(gate, row):
    return everything


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize(
    "model",
    [
        models.plain((3, 5)),
        models.windowed((3, 5)),
        models.windowed((4, 4), window=3, qk_norm=True, init_values=0.5),
    ],
    ids=["plain", "windows", "square"],
)
def test_with_all_tokens_it_is_the_dense_model(model, form, before):
    variant = Variant(form, gate_before_norm=before)
    reference = models.with_reference(model, keep_all, variant)
    grid = model.patch_embed.grid_size
    for frame in models.clip(grid, batch=2, frames=2):
        expected = model.forward_features(frame)
        assert models.error(reference.forward_features(frame), expected) < 1e-12


FULL = Variant("full")
DIFFERENT = {
    "query-key": (FULL, Variant("query_key")),
    "STGT": (FULL, replace(FULL, stgt=True)),
    "gate before norm": (FULL, replace(FULL, gate_before_norm=True)),
    "pooling": (FULL, replace(FULL, pooling=2)),
    "half": (FULL, replace(FULL, half=True)),
    "positions": (FULL, replace(FULL, positions="paper")),
    "pooling without deltas": (replace(FULL, pooling=2), Variant("query_key", pooling=2)),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_these_models_and_frames_tell_variants_apart(name):
    pair = [
        models.with_reference(models.vitdet((4, 4), 3), lambda gate, row: top(3), variant)
        for variant in DIFFERENT[name]
    ]
    errors = [
        models.error(*(model.forward_features(frame) for model in pair))
        for frame in models.clip((5, 5))
    ]
    assert max(errors) > (1e-5 if name == "half" else 1e-2)


def test_query_key_updates_change_nothing():
    pair = [
        models.with_reference(models.vitdet((3, 5)), lambda gate, row: top(3), Variant(form))
        for form in ("query_key", "dense")
    ]
    for frame in models.clip((3, 5)):
        assert models.error(*(model.forward_features(frame) for model in pair)) < 1e-12


def test_the_tokens_that_sampling_keeps_change():
    variant = replace(FULL, sampling={1: 11})
    model = models.with_reference(models.plain((3, 5)), lambda gate, row: top(3, 1), variant)
    slots = []
    for frame in models.clip((3, 5)):
        model.forward_features(frame)
        slots.append(model.blocks[0].rows[0][1].sampler.slots.tolist())
    stay = [sum(map(int.__eq__, *pair)) for pair in pairwise(slots)]
    assert min(stay) < 11
    assert any(tokens != sorted(tokens) for tokens in slots)
    assert max(stay) > 1


def test_relative_positions_of_another_grid_are_those_of_timm():
    model, grid = models.windowed((3, 5)), (5, 7)
    reference = models.with_reference(model, keep_all, Variant())
    frame = models.clip(grid, frames=1)[0]
    expected = model.forward_features(frame)
    assert models.error(reference.forward_features(frame), expected) < 1e-12


@pytest.mark.parametrize("size", [3, 4, 7, 11])
def test_tables_are_resized_as_pytorch_does(size):
    offsets = np.random.default_rng(0).normal(size=(9, 2))  # of a grid of 5
    x = torch.from_numpy(offsets).T[None]
    expected = F.interpolate(x, 2 * size - 1, mode="linear")[0].T
    assert np.allclose(grids.linear(offsets, size), grids.gather(expected.numpy()))
    x = torch.from_numpy(grids.gather(offsets)).permute(2, 0, 1)[None]
    expected = F.interpolate(x, (size, size), mode="bicubic")[0].permute(1, 2, 0)
    assert np.allclose(grids.bicubic(offsets, size), expected)


@pytest.mark.parametrize("grid", [(3, 5), (4, 4), (4, 7)])
def test_cells_are_pooled_as_pytorch_does(grid):
    x = torch.randn(2, grid[0] * grid[1], 3, dtype=torch.float64)
    planes = x.mT.unflatten(2, grid)
    expected = F.avg_pool2d(planes, 2, ceil_mode=True, count_include_pad=False)
    assert np.allclose(grids.pool_cells(x.numpy(), grid, 2), expected.flatten(2).mT)


def test_pooled_index_sets_by_hand():
    """Of 3 x 5 tokens in 2 x 3 cells: tokens 1 and 6 share a cell, 14 is alone in its corner."""
    assert grids.pooled_index(np.array([1, 6, 14]), (3, 5), 2).tolist() == [0, 5]


def test_a_token_gate_by_hand():
    gate, still = TokenGate(top(1), stgt=False), np.zeros((3, 1))
    assert gate(still).tolist() == [0, 1, 2]
    assert gate(np.array([[0.0], [2.0], [1.5]])).tolist() == [1]
    assert gate(np.array([[0.0], [2.0], [1.5]])).tolist() == [2]
    assert gate.u.tolist() == [[0.0], [2.0], [1.5]]


def test_the_stgt_gate_forgets_what_did_not_pass():
    gate = TokenGate(top(1), stgt=True)
    gate(np.zeros((3, 1)))
    gate(np.array([[0.0], [2.0], [1.5]]))
    assert gate(np.array([[0.1], [2.0], [1.5]])).tolist() == [0]


def test_the_product_by_deltas_is_that_of_the_two_references():
    generator = np.random.default_rng(0)
    product, a, v = AttentionValue(Variant()), *generator.normal(size=(2, 5, 5))
    product(a, v, np.arange(5), True)
    for _ in range(4):
        index = generator.choice(5, 2, replace=False)
        a, v[index] = generator.normal(size=(5, 5)), generator.normal(size=(2, 5))
        found = product(a, v, index, False)
        assert np.allclose(found, product.a_gate.u.T @ product.v_gate.u)
        assert not np.allclose(found, a @ v, rtol=0.1)


def test_half_precision_is_close_and_not_the_same():
    generator = np.random.default_rng(0)
    a, v = generator.random((2, 5, 5))
    exact, rounded = AttentionValue(Variant()), AttentionValue(Variant(half=True))
    everyone = np.arange(5)
    for index in (everyone, np.array([1, 3])):
        v[index] = generator.random((len(index), 5))
        expected = exact(a, v, index, False)
        found = rounded(a, v, index, False)
        assert 1e-6 < abs(found - expected).max() < 2e-3


def test_sampled_tokens_keep_their_slots():
    sampler = Sampler(3)
    v = np.ones((1, 5, 2))

    def kept(*scores):
        return sampler([np.array([scores])], v).tolist()

    assert kept(0.0, 0.1, 0.3, 0.2, 0.4) == [0, 2, 4]
    assert kept(0.0, 0.5, 0.3, 0.2, 0.4) == [0, 1, 4]
    assert kept(0.0, 0.5, 0.3, 0.2, 0.0) == [0, 1, 2]
    assert kept(0.0, 0.1, 0.3, 0.2, 0.0) == [0, 3, 2]
    assert kept(0.0, 0.5, 0.0, 0.0, 0.4) == [0, 1, 4]
