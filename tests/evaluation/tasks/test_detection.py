"""Detection: state, counts and mean average precision."""

import numpy as np
import pytest
import torch
from torch import nn

import eventful
from eventful import KeepAll, Stream, TopR
from eventful.datasets import Boxes, ImageNetVID
from eventful.evaluation import VARIANTS, Choice, Setting
from eventful.evaluation.tasks.detection import DetectionTask, _packed
from eventful.models.vitdet import Detections, ViTDetBackbone
from tests.evaluation import data
from tests.zoo import TOLERANCE, relative

R = Setting("incremental", TopR(4), VARIANTS["incremental"])


class Oracle(nn.Module):
    """Finds what it is told to find, frame after frame."""

    def __init__(self, answers):
        super().__init__()
        self.backbone = ViTDetBackbone(
            data.SIZE, embed_dim=6, depth=1, num_heads=1, global_blocks=(0,)
        )
        self.answers = iter(answers)
        self.sizes = []

    def features(self, frame):
        return {"p2": self.backbone(frame)}

    def detect(self, features, sizes):
        self.sizes += sizes
        return [next(self.answers)]


def found(boxes, scores, labels):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Detections(boxes, torch.tensor(scores), torch.tensor(labels, dtype=torch.int64))


def run_all(task, setting):
    runner = task.runner(setting)
    return {video.id: (task.run(runner, video)[0], list(runner.steps)) for video in task.data}


def targets(root):
    return [frame.target for video in ImageNetVID(root, size=data.SIZE) for frame in video]


def test_a_perfect_detector_scores_100(vid_root):
    answers = [Detections(t.boxes, torch.ones(len(t.boxes)), t.labels) for t in targets(vid_root)]
    model = Oracle(answers)
    task = DetectionTask(model, ImageNetVID(vid_root, size=data.SIZE))
    runs = run_all(task, R)
    assert task.score(arrays for arrays, _ in runs.values()) == {"mAP50": 100, "mAP": 100}
    assert model.sizes == [(32, 64)] * 7  # of the pictures, without the padding below
    assert [task.describe(arrays) for arrays, _ in runs.values()] == [
        {"scored": 3, "objects": 2, "detections": 2},
        {"scored": 4, "objects": 4, "detections": 4},
    ]


def test_average_precision_by_hand(vid):
    """Of two dogs one is found, at overlap 0.625; a cat is not there.

    Precision is 1 up to recall 1/2, which are 51 of COCO's 101 points, at the overlaps 0.5, 0.55
    and 0.6 of ten. The detection on the frame without objects scores lower and changes nothing.
    """
    frames = [
        (found([[0, 0, 10, 5]], [0.9], [8]), Boxes.of([([0, 0, 10, 8], 8, 0)])),
        (found([[0, 0, 10, 5]], [0.5], [8]), Boxes.of([])),
        (found([], [], []), Boxes.of([([1, 2, 3, 4], 8, 0)])),
    ]
    scores = vid().score([_packed(frames[:2]), _packed(frames[2:])])
    assert scores["mAP50"] == pytest.approx(100 * 51 / 101)
    assert scores["mAP"] == pytest.approx(100 * 51 / 101 * 3 / 10)


def test_a_false_alarm_on_a_frame_without_objects_counts(vid):
    """It comes first, so that precision is 1/2 at every recall."""
    right, alarm = found([[0, 0, 9, 9]], [0.6], [3]), found([[0, 0, 9, 9]], [0.7], [3])
    dog = Boxes.of([([0, 0, 9, 9], 3, 0)])
    scores = vid().score([_packed([(right, dog), (alarm, Boxes.of([]))])])
    assert scores["mAP50"] == pytest.approx(50)


def test_classes_weigh_the_same(vid):
    frames = [(found([[0, 0, 9, 9]] * 2, [0.9, 0.8], [1, 2]), Boxes.of([([0, 0, 9, 9], 1, 0)]))]
    frames += [(found([], [], []), Boxes.of([([0, 0, 9, 9], 2, 0)]))]
    # Class 2 is found where it is not: 0. Class 1: 100.
    assert vid().score([_packed(frames)])["mAP50"] == pytest.approx(50)


def test_nothing_to_score(vid):
    empty = {"mAP50": None, "mAP": None}
    assert vid().score([]) == empty
    assert vid().score([{}, _packed([])]) == empty
    alarm = found([[0, 0, 9, 9]], [0.6], [3])
    assert vid().score([_packed([(alarm, Boxes.of([]))])]) == empty


def test_order_of_videos_does_not_matter(vid):
    task = vid()
    runner = task.runner(R)
    videos = list(task.data)
    there = {video.id: (task.run(runner, video)[0], list(runner.steps)) for video in videos}
    back = {video.id: (task.run(runner, video)[0], list(runner.steps)) for video in videos[::-1]}
    for name, (arrays, steps) in there.items():
        for key, values in arrays.items():
            np.testing.assert_array_equal(values, back[name][0][key])
        counts = [(step.operations, step.dense_operations, step.first) for step in steps]
        assert counts == [(s.operations, s.dense_operations, s.first) for s in back[name][1]]
        assert [step.first for step in steps] == [True] + [False] * (len(steps) - 1)


@pytest.mark.parametrize("name", ["incremental", "full", "stgt", "spatiotemporal", "query-key"])
def test_counts_and_detections_are_those_of_a_stream(vid, name):
    task = vid()
    runs = run_all(task, Setting(name, TopR(5), VARIANTS[name]))
    model = eventful.convert(data.detector(), TopR(5), **VARIANTS[name])
    for video in task.data:
        stream = Stream(model, normalize=True, scene_cuts=None, method="features")
        arrays, steps = runs[video.id]
        boxes = []
        for frame, step in zip(video, steps, strict=True):
            boxes.append(model.detect(stream(frame.image[None]), [frame.size])[0].boxes)
            assert step.operations == stream.stats.operations.total
            assert step.dense_operations == stream.stats.dense_operations.total
        np.testing.assert_array_equal(arrays["boxes"], torch.cat(boxes))
        assert steps[1].operations < steps[0].operations <= steps[0].dense_operations


def test_dense_is_the_model_itself(vid):
    task = vid()
    runs = run_all(task, Setting("dense", None))
    everything = run_all(task, Setting("token-wise", KeepAll(), {"attention": "dense"}))
    model = data.detector()
    mean, std = (
        torch.tensor(model.backbone.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std")
    )
    for video in task.data:
        arrays, steps = runs[video.id]
        for name, values in everything[video.id][0].items():
            np.testing.assert_allclose(arrays[name], values, atol=1e-4)
        assert {step.operations for step in steps} == {everything[video.id][1][0].operations}
        found = [model(((f.image - mean) / std)[None], [f.size])[0].boxes for f in video]
        boxes = torch.from_numpy(arrays["boxes"])
        assert relative(boxes, torch.cat(found)) < TOLERANCE[torch.float32]


def test_frames_without_a_target_serve_the_state_alone(tmp_path):
    whole = data.write_vid(tmp_path / "whole")
    videos = {
        name: {n: None if n == 6 else things for n, things in frames.items()}
        for name, frames in data.VIDEOS.items()
    }
    part = data.write_vid(tmp_path / "part", videos)
    runs = [run_all(data.make_vid(data.detector(), Choice(root)), R) for root in (whole, part)]
    (full, steps), (less, fewer) = (run["street"] for run in runs)
    assert len(fewer) == len(steps) == 4
    assert len(full["counts"]) == 4
    np.testing.assert_array_equal(less["counts"], full["counts"][[0, 2, 3]])
    np.testing.assert_array_equal(less["boxes"][-7:], full["boxes"][-7:])  # the last frame's


def test_an_unreadable_frame_in_the_middle(vid, vid_root):
    path = vid_root / "Data/VID/val/street/000006.JPEG"
    path.write_bytes(path.read_bytes()[:150])
    task = vid()
    arrays, steps = run_all(task, R)["street"]
    assert [step.first for step in steps] == [True, False, False]  # the state goes on
    assert len(arrays["counts"]) == 3
    assert task.data.problems.counts == {"image": 1}


def test_a_limit_of_frames(vid_root):
    task = data.make_vid(data.detector(), Choice(vid_root, frames=2))
    assert [len(steps) for _, steps in run_all(task, R).values()] == [2, 2]


def test_a_size_that_is_no_multiple_of_the_patch(vid_root):
    with pytest.raises(ValueError, match="--size must be a multiple of 16 for ViTDet, got 70"):
        DetectionTask(data.detector(), ImageNetVID(vid_root, size=70))


def test_lookahead_is_refused(vid_root):
    task = DetectionTask(data.detector(), ImageNetVID(vid_root, size=data.SIZE))
    late = Setting("carry, lookahead", eventful.Carry(3), {}, "carry:3", 4)
    with pytest.raises(ValueError, match="lookahead is for tasks on annotated video"):
        task.runner(late)
