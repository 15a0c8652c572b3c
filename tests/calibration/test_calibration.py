"""Calibration as a whole: what it promises of the clip, what it refuses, and its file."""

import json

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

import eventful
from eventful.calibration import KINDS, calibrate, check_writable, content, write
from eventful.policies import Threshold, TopFraction, parse

TOKENS = 15


def small_vit():
    torch.manual_seed(0)
    vit = VisionTransformer(
        img_size=(12, 20), patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=7
    )
    return eventful.convert(vit, eventful.KeepAll())


@pytest.fixture(scope="module")
def model():
    return small_vit()


@pytest.fixture(scope="module")
def clip():
    """Five frames of a bright square that moves over noise."""
    noise = torch.rand(6, 3, 12, 20, generator=torch.Generator().manual_seed(1))
    frames = (noise[:1] + 0.05 * noise[1:]) / 2
    for t, frame in enumerate(frames):
        frame[:, 2:9, 2 + 3 * t : 7 + 3 * t] = 1.0
    return list(frames[:, None])


def patches(tokens):
    return tokens[:, 1:]


def again(model, clip, policy):
    """Error and share of operations behind the first frame, straight from a stream."""
    stream = eventful.Stream(model, policy=policy, method="forward_features")
    dense = [model.forward_features(frame)[:, 1:].detach() for frame in clip]
    errors, used, whole = [], 0, 0
    for frame, exact in zip(clip, dense, strict=True):
        y = stream(frame)[:, 1:]
        errors.append(((y - exact).norm() / exact.norm()).item())
        used += stream.stats.operations.total
        whole += stream.stats.dense_operations.total
    assert dict(stream.stats.flush_reasons) == {"first frame": 1}
    first = stream.stats.total_dense_operations / len(clip)
    return sum(errors[1:]) / (len(clip) - 1), (used - first) / (whole - first)


@pytest.fixture(scope="module")
def calibrated(model, clip):
    """Calibrates once for each kind and target."""
    known = {}

    def calibrated(kind, **target):
        key = kind, tuple(target.items())
        if key not in known:
            options = {"output": patches, "method": "forward_features"}
            known[key] = calibrate(model, clip, kind=kind, **target, **options)
        return known[key]

    return calibrated


@pytest.mark.parametrize("target", [{"target_share": 0.5}, {"target_error": 0.02}], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_gives_what_was_measured_and_keeps_to_the_target(
    model, clip, calibrated, kind, target
):
    found = calibrated(kind, **target)
    assert found.reached
    error, share = again(model, clip, found.policy)
    assert (error, share) == pytest.approx((found.measured.error, found.measured.share), rel=1e-4)
    wanted, kept = (share, 0.5) if "target_share" in target else (error, 0.02)
    assert wanted <= kept * (1 + 1e-4)
    assert found.policy.of(eventful.Stream(model).gates)
    expected = Threshold if kind == "threshold" else TopFraction
    assert {type(policy) for _, policy in found.policy.gates} == {expected}


def test_gates_get_policies_of_their_own(calibrated):
    levels = [policy.h for _, policy in calibrated("threshold", target_share=0.5).policy.gates]
    assert len(set(levels)) == len(levels)
    assert all(level > 0 for level in levels)


@pytest.mark.parametrize("target", [{"target_share": 0.5}, {"target_error": 0.02}], ids=str)
def test_shares_of_their_own_are_never_worse_on_the_clip_than_an_equal_one(calibrated, target):
    found = calibrated("top", **target)
    ours, equal = found.measured, found.equal
    if "target_share" in target:
        assert ours.error <= equal.error
    else:
        assert ours.share <= equal.share


@pytest.mark.parametrize("kind", KINDS)
def test_a_target_out_of_reach_gives_what_comes_closest_and_says_so(calibrated, kind):
    found, easier = (calibrated(kind, target_share=share) for share in (0.01, 0.5))
    assert not found.reached
    assert 0.01 < found.measured.share < easier.measured.share
    assert found.measured.share <= found.equal.share


def test_progress_counts_up_to_no_more_than_was_said(model, clip):
    steps = []
    options = {"method": "forward_features", "progress": lambda *step: steps.append(step)}
    calibrate(model, clip[:2], target_share=0.5, **options)
    assert [done for done, _ in steps] == list(range(1, len(steps) + 1))
    assert len(steps) <= steps[0][1] == steps[-1][1]


def test_one_gate_for_all_blocks(clip):
    model = eventful.convert(
        eventful.restore(small_vit()), eventful.KeepAll(), gating="input", measure="relative"
    )
    found = calibrate(model, clip, target_share=0.5)
    assert [name for name, _ in found.policy.gates] == ["blocks.0.qkv"]
    assert found.reached


@pytest.mark.parametrize("count", [0, 1])
def test_one_frame_is_no_clip(model, clip, count):
    with pytest.raises(ValueError, match=rf"at least two frames, got {count}"):
        calibrate(model, clip[:count], target_share=0.5)


def test_a_still_clip_is_refused(model, clip):
    with pytest.raises(ValueError, match="nothing changes in this clip"):
        calibrate(model, [clip[0], clip[0].clone(), clip[0]], target_share=0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs one target"),
        ({"target_share": 0.5, "target_error": 0.1}, "needs one target"),
        ({"target_share": 0.0}, "the target share must lie between 0 and 1, .*got 0.0"),
        ({"target_share": 1.5}, "the target share must lie between 0 and 1, .*got 1.5"),
        ({"target_error": -0.1}, "the target error must lie between 0 and 1, .*got -0.1"),
        ({"target_error": float("nan")}, "the target error must lie between 0 and 1, .*got nan"),
        ({"target_share": 0.5, "kind": "fraction"}, "kind is one of threshold, top, got 'frac"),
    ],
)
def test_targets_and_kinds_that_are_none(model, clip, options, message):
    with pytest.raises(ValueError, match=message):
        calibrate(model, clip, **options)


def test_a_model_that_is_not_converted(clip):
    with pytest.raises(ValueError, match=r"holds no eventful block; call eventful\.convert"):
        calibrate(eventful.restore(small_vit()), clip, target_share=0.5)


def test_an_output_that_is_no_tensor(model, clip):
    with pytest.raises(TypeError, match=r"returns a list; pass output=\.\.\."):
        calibrate(model, clip, target_share=0.5, output=lambda y: [y])


def test_the_file_gives_the_policies_back(calibrated, tmp_path):
    found = calibrated("threshold", target_share=0.5)
    path = tmp_path / "street.json"
    write(found, path, {"model": "small"})
    assert [p.name for p in tmp_path.iterdir()] == ["street.json"]
    assert parse(str(path)).gates == found.policy.gates
    held = json.loads(path.read_text())
    assert held == content(found, {"model": "small"})
    assert held["target"] == {"share": 0.5}
    assert held["measured"] == {"error": found.measured.error, "share": found.measured.share}
    with pytest.raises(ValueError, match=r"street\.json was calibrated for a model with other"):
        eventful.convert(VisionTransformer(depth=1, embed_dim=24, num_heads=3), parse(str(path)))


def test_where_no_file_can_be_written(tmp_path):
    with pytest.raises(ValueError, match=r"is written to a \.json file, got .*street"):
        check_writable(tmp_path / "street")
    with pytest.raises(FileNotFoundError, match=r"none/street\.json cannot be written: No such"):
        check_writable(tmp_path / "none" / "street.json")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(IsADirectoryError, match=r"folder\.json is a folder"):
        check_writable(tmp_path / "folder.json")
    (tmp_path / "street.part").write_text("of somebody else")
    assert check_writable(tmp_path / "street.json") == tmp_path / "street.json"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.json", "street.part"]
