"""Labels carried along features, against a plain loop."""

import math

import numpy as np
import pytest
import torch

from eventful.evaluation.measures.labels import Carrying, Labels, mask_of


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
