"""Action recognition: views, counts, top-1 and top-5."""

import copy

import numpy as np
import pytest
import torch

import eventful
from eventful import KeepAll, Stream, TopR
from eventful.counting import Observer
from eventful.evaluation import VARIANTS, ActionTask, Choice, Setting
from eventful.models.vivit import ViViT, spatial_tokens
from tests.evaluation import data

R = Setting("incremental", TopR(3), VARIANTS["incremental"])
DENSE = Setting("dense", None)


def answers(*rows):
    """Logits and class of each video."""
    return [{"logits": np.array(logits), "label": np.array(label)} for logits, label in rows]


def test_accuracy_by_hand(kinetics):
    logits = [0.1, 0.2, 0.9, 0.3, 0.5, 0.4, 0.6]  # places 7, 6, 1, 5, 3, 4, 2
    found = answers((logits, 2), (logits, 6), (logits, 3), (logits, 1), (logits, 0))
    scores = kinetics().score([*found, {}])
    assert scores == {"top1": 20.0, "top5": 60.0}


def test_of_equal_guesses_the_lower_class_is_first(kinetics):
    assert kinetics().score(answers(([1.0, 1.0, 0.0], 1)))["top1"] == 0
    assert kinetics().score(answers(([1.0, 1.0, 0.0], 0)))["top1"] == 100


def test_nothing_to_score(kinetics):
    assert kinetics().score([{}]) == {"top1": None, "top5": None}


def test_dense_is_the_model_itself(kinetics):
    task, model = kinetics(), data.recogniser(3)
    runner = task.runner(DENSE)
    for clip in list(task.data)[:2]:
        found, _ = task.run(runner, clip)
        views = torch.stack([view.frames for view in clip])
        with torch.no_grad():
            logits = model((views[None] - 0.45) / 0.225)[0]
        np.testing.assert_allclose(found["logits"], logits, atol=1e-4)
        assert found["label"] == clip.target.label


def test_views_are_rows_and_clips_start_anew(kinetics):
    task = kinetics()
    runner = task.runner(R)
    clips = list(task.data)[:3]
    there = [task.run(runner, clip)[0]["logits"] for clip in clips]
    back = [task.run(runner, clip)[0]["logits"] for clip in clips[::-1]][::-1]
    np.testing.assert_array_equal(there, back)

    model = data.recogniser(3)
    eventful.convert(model.spatial, TopR(3), prefix="gated")
    for clip, logits in zip(clips, there, strict=True):
        tokens = []
        for view in clip:  # one stream a view
            stream = Stream(model.spatial, normalize=True, scene_cuts=None)
            tokens.append(spatial_tokens(stream, view.frames[None])[0])
        with torch.inference_mode():
            expected = model.classify(torch.stack(tokens)[None])[0]
        np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["incremental", "full", "token-wise"])
def test_counts_are_those_of_streams_and_the_rest(kinetics, name):
    task, model = kinetics(), data.recogniser(3)
    clip = task.data[0]
    runner = task.runner(Setting(name, TopR(3), VARIANTS[name]))
    _, after = task.run(runner, clip)
    eventful.convert(model.spatial, TopR(3), prefix="gated", **VARIANTS[name])
    used, first = 0, 0
    for view in clip:
        stream = Stream(model.spatial, normalize=True, scene_cuts=None)
        tokens = spatial_tokens(stream, view.frames[None])
        used += stream.stats.total_operations
        first += stream.stats.total_dense_operations // tokens.shape[1]
    assert sum(step.operations for step in runner.steps) == used
    assert runner.steps[0].operations == first
    assert [step.first for step in runner.steps] == [True, False]
    with Observer() as observer, torch.inference_mode():
        model.classify(torch.zeros(1, 2, 2, 24))
    assert after == observer.total


def test_what_stands_behind_the_spatial_model_is_counted_as_in_the_paper():
    """By hand: two views of tokens (class token and clips) through a block, then the classifier."""
    classes, dim, tokens, views = 7, 24, 3, 2
    sizes = {"frames": 4, "dim": dim, "heads": 3, "depth": 1, "temporal_depth": 1, "patch": 4}
    model = ViViT(classes=classes, img_size=16, **sizes).eval()
    task = ActionTask.__new__(ActionTask)
    task._vivit = model
    linear = tokens * (12 * dim * dim + 9 * dim)  # qkv, projection, MLP with their biases
    attention, additions = 2 * tokens * tokens * dim, 3 * tokens * dim
    head = dim * classes + classes
    _, found = task._classify(torch.zeros(views, tokens - 1, dim))
    assert found == views * (linear + attention + additions + head)


def test_keep_all_classifies_as_dense(kinetics):
    task = kinetics()
    clip = task.data[1]
    dense, _ = task.run(task.runner(DENSE), clip)
    for name in ("token-wise", "incremental"):
        setting = Setting(name, KeepAll(), VARIANTS[name])
        found, _ = task.run(task.runner(setting), clip)
        np.testing.assert_allclose(found["logits"], dense["logits"], atol=1e-4)


def test_a_clip_that_cannot_be_read_is_left_out(kinetics):
    task = kinetics()
    runner = task.runner(R)
    found, after = task.run(runner, task.data[4])
    assert (found, after, runner.steps) == ({}, 0, [])
    assert task.describe(found) == {"scored": 0, "label": None, "guess": None}
    assert task.data.problems.counts == {"video": 1}


def test_epic(tmp_path):
    task = data.make_epic(data.recogniser(97), Choice(data.write_epic(tmp_path)))
    runner = task.runner(R)
    found = [task.run(runner, clip)[0] for clip in task.data]
    assert [int(arrays["label"]) for arrays in found] == [4, 0, 4]
    best = [int(arrays["logits"].argmax()) for arrays in found]
    assert task.score(found)["top1"] == pytest.approx(
        100 * np.mean([guess == label for guess, label in zip(best, (4, 0, 4), strict=True)])
    )
    assert task.identity()["views"] == str(data.VIEWS)


def test_a_table_with_other_classes_is_refused(kinetics):
    with pytest.raises(ValueError, match="has 3 classes and the model 4; use the complete table"):
        ActionTask("kinetics", data.recogniser(4), kinetics().data)


def test_views_that_do_not_fit(kinetics):
    model = copy.deepcopy(data.recogniser(3))
    model.frames = 6
    with pytest.raises(ValueError, match="views have 4 frames and the model takes 6"):
        ActionTask("kinetics", model, kinetics().data)
