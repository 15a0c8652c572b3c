"""Region and boundary of masks, against plain loops."""

import math

import numpy as np
import pytest

from eventful.evaluation.measures.masks import boundary, boundary_f, dilated, region_j, statistics


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
