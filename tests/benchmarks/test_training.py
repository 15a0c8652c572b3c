"""Scripts that train heads, and the training loop that they share."""

from itertools import islice

import numpy as np
import pytest
import torch

from tests.benchmarks.conftest import finite


def test_training(script):
    training, seen = script("training"), []

    def run():
        torch.manual_seed(0)
        head = torch.nn.Linear(3, 1).train()
        x = torch.randn(10, 3)
        y = x.sum(dim=1, keepdim=True)

        def loss(numbers):
            seen.append(numbers)
            return (head(x[numbers]) - y[numbers]).square().mean()

        return head, training.fit(head, 10, loss, epochs=40, batch=4, rate=0.1)

    (head, losses), (_, again) = run(), run()
    assert not head.training
    assert losses == again
    assert len(losses) == 40
    assert losses[-1] < 0.05 * losses[0]
    assert len(seen) == 2 * 40 * 2  # two of ten examples fill no batch
    assert all(len({*a, *b}) == 8 for a, b in zip(seen[::2], seen[1::2], strict=True))


def test_train_people(run, data, tmp_path):
    weights, cache = tmp_path / "weights.safetensors", tmp_path / "cache"
    small = ("--pictures", 5, "--epochs", 2, "--sizes", 70, "--cache", cache)
    found = run("train_people", *small, "--weights", weights)
    assert weights.is_file()
    assert found["training"]["pictures"] == 5
    assert found["training"]["people"] >= 2
    assert found["campus"]["70"]["frames"] == 5
    assert found["later_frames"]["70"]["frames"] == 0  # the small video ends before
    assert len(found["losses"]) == 2
    assert finite(found)
    assert run("train_people", "--score", "--sizes", 70, "--weights", weights) == found


def test_people_pictures(script):
    """A person is cut out as drawn, and stands where the box says."""
    pictures = script("people_pictures")
    frames, boxes = [], []
    for number in range(60):
        frame = np.full((120, 160, 3), 40, np.uint8)
        frame[30:70, 10 + 2 * number : 26 + 2 * number] = 200
        frames.append(frame)
        boxes.append(np.array([[10.0 + 2 * number, 30, 26 + 2 * number, 70, 1]]))
    footage, dark = pictures.Footage(frames, boxes), np.zeros((120, 160, 3), np.uint8)
    people = pictures.cutouts(footage, np.full((120, 160, 3), 40, np.uint8))
    assert len(people) == 15  # of every 4th frame
    assert people[3].mask.sum() == 40 * 16
    assert people[3].mask[6:46, 6:22].all()
    rng, alone = np.random.default_rng(1), 0
    while alone < 5:
        image, found = pictures.composed(rng, [dark], people)
        x, y = (found[:, side::2] for side in (0, 1))
        if len(found) != 1 or min(x.min(), y.min()) < 2 or x.max() > 390 or y.max() > 292:
            continue
        alone += 1
        rows, columns = np.nonzero(image.max(axis=2) > 50)
        ends = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert np.abs(found[0] - ends).max() <= 4
    made = list(islice(pictures.pictures(footage, [dark], seed=3), 6))
    again = list(islice(pictures.pictures(footage, [dark], seed=3), 6))
    for one, two in zip(made, again, strict=True):
        assert one.pixels.shape == (294, 392, 3)
        assert 0 <= one.pixels.min() <= one.pixels.max() <= 1
        assert one.boxes.shape[1:] == (4,)
        assert np.array_equal(one.pixels, two.pixels)


def test_people_who_do_not_stand_free(script):
    pictures = script("people_pictures")
    box, other = np.array([0.0, 0, 10, 10]), np.array([[5.0, 0, 20, 10]])
    assert pictures.covered(box, other) == 0.5
    assert pictures.covered(box, other[:0]) == 0
    assert pictures.mirrored(np.array([[1.0, 2, 4, 6]]), 10).tolist() == [[6, 2, 9, 6]]
    frame = np.zeros((60, 60, 3), np.uint8)
    with pytest.raises(ValueError, match="expected people who stand free"):
        pictures.cutouts(pictures.Footage([frame], [np.empty((0, 5))]), frame)


def test_train_segmentation(run, data, tmp_path):
    weights = tmp_path / "weights.safetensors"
    found = run("train_segmentation", "--size", 70, "--epochs", 2, "--weights", weights)
    assert weights.is_file()
    assert found["trained_on"] == ["blackswan", "breakdance"]
    assert found["examples"] == 2 * 3 * 3
    assert found["unseen"].keys() == {"parkour"}
    assert len(found["losses"]) == 2
    assert finite(found)


def test_train_vehicles(run, data, tmp_path):
    weights = tmp_path / "weights.safetensors"
    found = run("train_vehicles", "--size", 70, "--epochs", 1, "--weights", weights)
    assert weights.is_file()
    assert found["training"]["frames"] >= 4
    assert len(found["losses"]) == 1
    assert finite(found["losses"])
