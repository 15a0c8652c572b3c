"""Measures of tasks on patch tokens, against plain loops and rank statistics."""

import math

import numpy as np
import pytest
import torch

from eventful.evaluation.measures.errors import TokenErrors, summarised
from eventful.evaluation.measures.labels import Carrying, Labels, mask_of
from eventful.evaluation.measures.maps import MapCounts, MapScores, map_scores
from eventful.evaluation.measures.masks import boundary, boundary_f, dilated, region_j, statistics
from eventful.evaluation.measures.patches import fitted_frame, share
from eventful.evaluation.measures.probe import fit


def scores_of(*frames):
    counts = MapCounts()
    for values, mask in frames:
        counts.add(torch.as_tensor(values), torch.as_tensor(mask))
    return map_scores(counts.arrays())


def rank_auc(values, mask):
    """The statistic of Mann and Whitney, pair by pair, ties half."""
    inside, outside = values[mask][:, None], values[~mask][None]
    return ((inside > outside) + 0.5 * (inside == outside)).mean()


def loop_f_beta(values, mask):
    best = 0.0
    for level in range(256):
        found = values >= level / 255
        hits = (found & mask).sum()
        if hits:
            precision, recall = hits / found.sum(), hits / mask.sum()
            best = max(best, 1.3 * precision * recall / (0.3 * precision + recall))
    return best


@pytest.mark.parametrize("shape", ["even", "low", "steps"])
def test_map_scores_are_those_of_plain_computations(shape):
    rng = np.random.default_rng(3)
    values = rng.random((11, 17)).astype(np.float32)
    if shape == "low":
        values = values**7  # most of them near zero, where few thresholds lie
    elif shape == "steps":
        values = np.round(values * 5) / 5 * 0.99 + 0.003  # ties
    mask = rng.random((11, 17)) < 0.2 + 0.5 * values
    scores = scores_of((values[:4], mask[:4]), (values[4:], mask[4:]))
    assert scores.auc == pytest.approx(rank_auc(values, mask), abs=1e-3)
    assert scores.f_beta == pytest.approx(loop_f_beta(values, mask))
    assert scores.mae == pytest.approx(np.abs(values - mask).mean(), rel=1e-6)


def test_maps_at_their_ends():
    """Values of exactly 0 and 1 have no finite log-odds."""
    ones = scores_of(([0.0, 1.0, 1.0], [False, True, True]))
    assert ones == MapScores(1.0, pytest.approx(1.0), 0.0)
    assert scores_of(([0.5, 0.5], [False, False])) == MapScores(None, None, 0.5)
    assert scores_of(([0.5, 0.5], [True, True])).auc is None
    assert scores_of() == MapScores(None, None, None)


def test_maps_that_are_none():
    counts = MapCounts()
    with pytest.raises(ValueError, match=r"a map \(3,\) for a mask \(5,\)"):
        counts.add(torch.zeros(3), torch.zeros(5, dtype=torch.bool))
    for bad in (math.nan, 1.5):
        with pytest.raises(ValueError, match=r"expected values in \[0, 1\]"):
            counts.add(torch.tensor([0.5, bad]), torch.tensor([True, False]))


def loop_boundary(mask):
    """As DAVIS: any of the three neighbours to the right and below differs, the edge goes on."""
    height, width = mask.shape
    found = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            down, right = min(y + 1, height - 1), min(x + 1, width - 1)
            others = mask[down, x], mask[y, right], mask[down, right]
            found[y, x] = any(other != mask[y, x] for other in others)
    return found


def loop_boundary_f(found, truth, radius):
    ours, theirs = np.argwhere(loop_boundary(found)), np.argwhere(loop_boundary(truth))
    if not len(ours) or not len(theirs):
        return float(len(ours) == len(theirs))

    def matched(points, others):
        near = ((points[:, None] - others[None]) ** 2).sum(axis=2) <= radius**2
        return near.any(axis=1).mean()

    precision, recall = matched(ours, theirs), matched(theirs, ours)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.fixture(scope="module")
def blobs():
    """Pairs of masks (23, 37) of all kinds, empty and full ones among them."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:23, :37]
    masks = [np.zeros((23, 37), bool), np.ones((23, 37), bool), rng.random((23, 37)) < 0.1]
    for _ in range(5):
        cy, cx, r = rng.uniform(0, 23), rng.uniform(0, 37), rng.uniform(2, 12)
        masks.append((y - cy) ** 2 + ((x - cx) / 1.5) ** 2 < r**2)
    return masks


def test_region_and_boundary_are_those_of_plain_loops(blobs):
    for found in blobs:
        assert np.array_equal(boundary(found), loop_boundary(found))
        for truth in blobs:
            union = (found | truth).sum()
            expected = (found & truth).sum() / union if union else 1.0
            assert region_j(found, truth) == pytest.approx(expected)
            for tolerance, radius in ((0.008, 1), (0.06, 3)):
                assert math.ceil(tolerance * math.hypot(23, 37)) == radius
                expected = loop_boundary_f(found, truth, radius)
                assert boundary_f(found, truth, tolerance) == pytest.approx(expected)


def test_a_disk_at_the_size_of_davis():
    """0.008 of the diagonal of 854 x 480 is 7.8 pixels: a disk of radius 8."""
    mask = np.zeros((480, 854), bool)
    mask[100, 200] = mask[479, 853] = True
    radius = math.ceil(0.008 * math.hypot(480, 854))
    near = np.argwhere(dilated(mask, radius))
    assert radius == 8
    y, x = np.mgrid[:480, :854]
    expected = np.minimum((y - 100) ** 2 + (x - 200) ** 2, (y - 479) ** 2 + (x - 853) ** 2) <= 64
    assert np.array_equal(near, np.argwhere(expected))


def test_statistics_by_hand():
    values = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    mean, recall, decay = statistics(values)  # type: ignore[misc]
    assert (mean, recall) == (pytest.approx(0.5), pytest.approx(4 / 9))  # 0.5 is not above it
    assert decay == pytest.approx(0.8 - 0.2)  # of the first and last three
    assert statistics([]) is None
    assert statistics([0.7]) == (0.7, 1.0, 0.0)


def loop_share(mask, grid):
    """Exact areas: every pixel is cut into as many parts as cells need."""
    big = np.kron(mask.astype(float), np.ones(grid))
    height, width = mask.shape
    cells = big.reshape(grid[0], height, grid[1], width)
    return cells.mean(axis=(1, 3))


def test_share_of_patches():
    mask = np.random.default_rng(2).random((7, 11)) < 0.4
    for grid in ((3, 5), (7, 11), (1, 1), (9, 2)):
        found = share(torch.from_numpy(mask), grid)
        assert found.numpy() == pytest.approx(loop_share(mask, grid), abs=1e-6)


def test_errors_of_tokens():
    torch.manual_seed(0)
    dense, other = torch.randn(2, 5, 3)
    objects = torch.tensor([True, False, True, False, False])
    errors = TokenErrors()
    errors.add(other, dense, objects)
    errors.add(other, dense, torch.zeros(5, dtype=torch.bool))
    errors.add(dense, dense, None)
    whole = ((other - dense) ** 2).sum().sqrt() / (dense**2).sum().sqrt()
    own = (((other - dense)[[0, 2]]) ** 2).sum().sqrt() / (dense[[0, 2]] ** 2).sum().sqrt()
    arrays = errors.arrays()
    assert arrays["error"] == pytest.approx([float(whole), float(whole), 0.0])
    assert arrays["error_objects"] == pytest.approx([float(own), np.nan, np.nan], nan_ok=True)
    assert summarised(arrays["error"]).mean == pytest.approx(2 / 3 * float(whole))
    assert summarised(np.array([np.nan])) == (None, None, None)


def loop_labels(frames, label, grid, how):
    """Label of every patch of every frame, one patch and neighbour at a time."""
    frames = [frame / np.linalg.norm(frame, axis=1, keepdims=True) for frame in frames]
    places = [divmod(at, grid[1]) for at in range(grid[0] * grid[1])]
    known = [label]
    for number in range(1, len(frames)):
        latest = [one for one in range(number - how.context, number) if one > 0]
        values = []
        for at, feature in enumerate(frames[number]):
            y, x = places[at]
            pairs = [
                (float(feature @ frames[source][other]), known[source][other])
                for source in [0, *latest]
                for other, (v, u) in enumerate(places)
                if max(abs(v - y), abs(u - x)) <= how.radius
            ]
            best = sorted(pairs, reverse=True)[: how.neighbours]
            weights = [math.exp(cosine / how.temperature) for cosine, _ in best]
            labels = [weight * value for weight, (_, value) in zip(weights, best, strict=True)]
            values.append(sum(labels) / sum(weights))
        known.append(np.array(values))
    return known


def test_labels_are_those_of_a_plain_loop():
    rng = np.random.default_rng(0)
    grid, how = (3, 5), Carrying(context=2, neighbours=3, radius=1)
    frames, label = rng.normal(size=(6, 15, 4)), rng.random(15)
    expected = loop_labels(frames, label, grid, how)
    labels = Labels(grid, torch.tensor(frames[0]), torch.tensor(label, dtype=torch.float32), how)
    for frame, one in zip(frames[1:], expected[1:], strict=True):
        assert labels(torch.tensor(frame)).numpy() == pytest.approx(one, abs=1e-5)


def test_labels_of_a_grid_with_fewer_patches_than_neighbours():
    label = torch.tensor([1.0, 0.0])
    assert Labels((1, 2), torch.eye(2), label)(torch.eye(2)).tolist() == pytest.approx(
        [1 / (1 + math.exp(-10)), 1 / (1 + math.exp(10))]
    )


def test_masks_of_labels():
    empty = mask_of(torch.zeros(15), (3, 5), (9, 10))
    assert not empty.any()
    label = torch.zeros(15)
    label[7] = 0.3  # of little weight, and still the object
    found = mask_of(label, (3, 5), (9, 10))
    assert found[4, 4:6].all()
    assert not found[[0, -1]].any()


def test_a_probe_finds_the_direction():
    torch.manual_seed(1)
    tokens = torch.randn(400, 7) * torch.tensor([1.0, 5, 1, 1, 1, 1, 0]) + 3
    labels = tokens[:, 1] > 4
    probe = fit(tokens, labels)
    assert ((probe(tokens) > 0.5) == labels).float().mean() > 0.98
    with torch.inference_mode():
        again = fit(tokens, labels)
    assert torch.equal(again.weight, probe.weight)
    for same in (torch.zeros(400, dtype=torch.bool), torch.ones(400, dtype=torch.bool)):
        with pytest.raises(ValueError, match="a probe needs patches on and off objects; all 400"):
            fit(tokens, same)


def test_frames_at_the_models_size():
    image = torch.rand(3, 20, 30)
    assert fitted_frame(image, (14, 42)).shape == (1, 3, 14, 42)
    assert torch.equal(fitted_frame(image, (20, 30))[0], image)
