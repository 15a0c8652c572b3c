"""Snapshots: a stream goes on elsewhere as if nothing had happened, or is refused unchanged."""

import contextlib
import dataclasses
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import eventful
from eventful.policies import Policy
from tests.zoo import build, clip, relative, same, stream_of

POLICY = eventful.TopR(3)
FORMS = ("dense", "query_key", "cached", "incremental")
CUTS = eventful.SceneCuts(level=0.9, memory=5)


def run(stream, video):
    return [stream(frame) for frame in video]


def started(name="plain", frames=4, batch=2, dtype=torch.float32, **options):
    stream = stream_of(name, POLICY, dtype, **options)
    run(stream, clip(frames, batch, dtype))
    return stream


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.eventful"


def in_memory(stream, path):
    return stream.snapshot()


def in_a_file(stream, path):
    stream.snapshot(path)
    return path


@pytest.mark.parametrize("through", [in_memory, in_a_file])
@pytest.mark.parametrize("attention", FORMS)
@pytest.mark.parametrize("name", ["layer_scale", "dinov3"])
def test_a_fresh_stream_goes_on_with_the_same_outputs(name, attention, through, path):
    video = clip(9)
    stream = stream_of(name, POLICY, attention=attention)
    run(stream, video[:4])
    saved = through(stream, path)
    expected = run(stream, video[4:])
    fresh = stream_of(name, eventful.KeepAll(), attention=attention)
    fresh.load_snapshot(saved)
    assert fresh.policy == POLICY
    assert (fresh.stats.frames, fresh.stats.state_bytes) == (4, stream.stats.state_bytes)
    assert all(map(torch.equal, run(fresh, video[4:]), expected))
    assert same(fresh.snapshot(), stream.snapshot())
    assert fresh.stats.operations == stream.stats.operations
    assert fresh.stats.total_operations == stream.stats.total_operations
    assert fresh.stats.flush_reasons == {}


@pytest.mark.parametrize("through", [in_memory, in_a_file])
def test_a_stream_goes_back_to_its_own_snapshot(through, path):
    stream, video = started(), clip(8)
    saved = through(stream, path)
    expected = run(stream, video[4:])
    stream.load_snapshot(saved)
    assert stream.stats.frames == 4
    assert all(map(torch.equal, run(stream, video[4:]), expected))


def test_a_snapshot_is_a_copy_both_ways():
    stream, video = started(), clip(8)
    saved = stream.snapshot()
    kept = stream.snapshot()
    expected = run(stream, video[4:])
    assert same(saved, kept)
    fresh = stream_of("plain", POLICY)
    fresh.load_snapshot(saved)
    run(fresh, video[4:])
    assert same(saved, kept)
    for tensors in saved["engine"]["tensors"].values():
        for tensor in tensors.values():
            tensor.fill_(torch.nan)
    stream.load_snapshot(kept)
    assert all(map(torch.equal, run(stream, video[4:]), expected))


SCRIPT = """
import sys
import torch, eventful
from tests.zoo import clip, stream_of
torch.set_num_threads(1)
stream = stream_of("dinov3", eventful.KeepAll(), torch.float64)
stream.load_snapshot(sys.argv[1])
outputs = [stream(frame) for frame in clip(9, dtype=torch.float64)[4:]]
torch.save({"outputs": outputs, "policy": str(stream.policy)}, sys.argv[2])
"""


def test_a_fresh_process_goes_on_with_the_same_outputs(path):
    stream, video = started("dinov3", dtype=torch.float64), clip(9, dtype=torch.float64)
    stream.snapshot(path)
    expected = run(stream, video[4:])
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)])}
    result = path.with_name("result.pt")
    command = [sys.executable, "-c", SCRIPT, str(path), str(result)]
    subprocess.run(command, env=environment, check=True, timeout=120)
    found = torch.load(result)
    assert found["policy"] == "top:3"
    for ours, theirs in zip(found["outputs"], expected, strict=True):
        assert relative(ours, theirs) < 1e-13


@pytest.mark.parametrize(
    "policy",
    [
        eventful.TopR(5),
        eventful.TopFraction(0.1 + 0.2),
        eventful.Threshold(1 / 3),
        eventful.Threshold(1e-9),
        eventful.KeepAll(),
    ],
    ids=str,
)
def test_policies_come_with_it(policy, path):
    stream = started()
    stream.policy = {"blocks.1.mlp": policy, "*.proj": eventful.TopFraction(0.5)}
    stream.snapshot(path)
    fresh = stream_of("plain", eventful.TopR(1))
    fresh.load_snapshot(path)
    assert fresh.policy == stream.policy


@dataclasses.dataclass(frozen=True)
class Own(Policy):
    """A policy without a text form."""

    def select(self, error):
        return eventful.TopR(2).select(error)


def test_a_policy_of_ones_own_stays_that_of_the_new_stream(path):
    stream = started()
    stream.policy = {"*.qkv": Own(), "*.mlp": eventful.TopR(7)}
    stream.snapshot(path)
    fresh = stream_of("plain", eventful.KeepAll())
    fresh.load_snapshot(path)
    assert fresh.policy["blocks.0.qkv"] == eventful.KeepAll()
    assert fresh.policy["blocks.0.mlp"] == eventful.TopR(7)
    assert fresh.policy["blocks.0.proj"] == POLICY


def with_cuts(model):
    return eventful.Stream(model, scene_cuts=CUTS, method="forward_features")


@pytest.mark.parametrize("through", [in_memory, in_a_file])
def test_histories_of_scene_cuts_come_with_it(through, path):
    """The change at frame 6 is above the level and no jump over what frames 3 to 5 showed."""
    model = eventful.convert(build("plain"), POLICY)
    stream, video = with_cuts(model), clip(9)
    video[6:, 0] = clip(9, seed=9)[6:, 0]
    run(stream, video[:6])
    stream._engine._histories[0].extend([0.8] * 5)
    saved = through(stream, path)
    loaded, without = with_cuts(model), with_cuts(model)
    loaded.load_snapshot(saved)
    run(without, video[:6])
    for each in (stream, loaded, without):
        each(video[6])
    assert loaded.snapshot()["engine"]["histories"] == stream.snapshot()["engine"]["histories"]
    assert len(loaded.snapshot()["engine"]["histories"][0]) == CUTS.memory
    assert loaded.stats.flush_reasons == {}
    assert without.stats.flush_reasons == {"first frame": 2, "scene cut": 1}


@pytest.mark.parametrize("rows", [None, [1]])
def test_a_reset_asked_for_comes_with_it(rows, path):
    stream, frame = started(), clip(5)[4]
    stream.reset(rows)
    stream.snapshot(path)
    fresh = stream_of("plain", POLICY)
    fresh.load_snapshot(path)
    assert torch.equal(fresh(frame), stream(frame))
    flushed = [(f.frame, f.row, f.reason) for f in fresh.stats.flushes]
    assert flushed == [(4, row, "requested") for row in rows or [0, 1]]


def test_there_is_nothing_to_save_before_the_first_frame(path):
    with pytest.raises(ValueError, match="nothing to save before the first frame"):
        stream_of("plain", POLICY).snapshot(path)
    assert not path.exists()


def other_weights():
    stream = stream_of("plain", POLICY)
    with torch.no_grad():
        stream._bound.model.blocks[2].mlp.fc2.bias[5] += 1e-3
    return stream


OTHERS = {
    "kind": (lambda: stream_of("qk_norm", POLICY), r"model is another: .*[qk]_norm"),
    "prefix": (lambda: stream_of("registers", POLICY), "model is another: .*(reg_token|pos_embed)"),
    "attention": (
        lambda: stream_of("plain", POLICY, attention="dense"),
        r"was converted otherwise: blocks\.\d is .*'incremental'.* there and .*'dense'.* here",
    ),
    "gate": (lambda: stream_of("plain", POLICY, gate="stgt"), "was converted otherwise"),
    "norm": (lambda: stream_of("plain", POLICY, gate_before_norm=True), "converted otherwise"),
    "blocks": (
        lambda: stream_of("plain", POLICY, where=lambda name, _: name != "blocks.1"),
        r"was converted otherwise: blocks\.1 is .* there and None here",
    ),
    "weights": (other_weights, "same shapes but other weights; load them"),
    "dtype": (lambda: stream_of("plain", POLICY, torch.float64), "other weights"),
    "size": (lambda: started(batch=3), r"snapshot is of frames \(\(2, 3, 12, 20\).*new stream"),
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("begun", [False, True])
def test_a_snapshot_of_something_else_is_refused(other, begun):
    saved = started().snapshot()
    make, message = OTHERS[other]
    stream, control = make(), make()
    batch = 3 if other == "size" else 2
    dtype = torch.float64 if other == "dtype" else torch.float32
    video = clip(4, batch, dtype)
    if begun:
        run(stream, video[:2]), run(control, video[:2])
    before = stream.snapshot() if stream.stats.frames else {}
    with pytest.raises(ValueError, match=message):
        stream.load_snapshot(saved)
    assert stream.policy == control.policy
    assert same(stream.snapshot() if stream.stats.frames else {}, before)
    assert all(map(torch.equal, run(stream, video[2:]), run(control, video[2:])))


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.write_text, (self.path, "the code has run"))


def torch_file(payload, path):
    torch.save({"model": payload}, path)


def pickle_file(payload, path):
    path.write_bytes(pickle.dumps({"model": payload}, protocol=2))


def inside_a_snapshot(payload, path):
    torch.save(started().snapshot() | {"outside": payload}, path)


@pytest.mark.parametrize("hide", [torch_file, pickle_file, inside_a_snapshot])
def test_a_file_that_holds_code_is_refused_and_the_code_does_not_run(hide, path):
    harm = path.with_name("harm")
    hide(Payload(harm), path)
    stream = started()
    before = stream.snapshot()
    with pytest.raises(ValueError, match=r"state\.eventful is refused: it is damaged, or holds"):
        stream.load_snapshot(path)
    assert not harm.exists()
    assert same(stream.snapshot(), before)
    with contextlib.suppress(RuntimeError):  # once the code has run, no snapshot is found
        torch.load(path, weights_only=False)
    assert harm.exists()  # the file is what it is meant to be


def refused(path, message=r"state\.eventful is refused"):
    stream = started()
    before = stream.snapshot()
    with pytest.raises(ValueError, match=message):
        stream.load_snapshot(path)
    assert same(stream.snapshot(), before)


@pytest.mark.parametrize(
    "share",
    [0.001, 0.1, 0.4, 0.7, 0.95],
)
def test_a_truncated_file_is_refused(share, path):
    started().snapshot(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    refused(path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"frame,time_s\n0,0.0\n",
        bytes(range(256)),
        b"PK\x03\x04" + bytes(200),
        b"settings of a camera\n",
    ],
)
def test_a_file_of_another_kind_is_refused(data, path):
    path.write_bytes(data)
    refused(path)


@pytest.mark.parametrize(
    "content",
    [{}, [1, 2], {"model": 1}, torch.ones(3), {"state_dict": {"a": torch.ones(2)}}],
    ids=["empty", "list", "part", "tensor", "weights"],
)
def test_what_is_no_snapshot_is_refused(content, path):
    torch.save(content, path)
    refused(path, "not a snapshot that Stream.snapshot")
    if isinstance(content, dict):
        refused(content, "not a snapshot that Stream.snapshot")


def test_a_snapshot_with_a_key_too_many_or_too_few_is_refused():
    saved = started().snapshot()
    refused(saved | {"extra": 1}, "not a snapshot")
    del saved["outside"]
    refused(saved, "not a snapshot")


def test_a_missing_file_is_a_missing_file(path):
    with pytest.raises(FileNotFoundError, match=r"state\.eventful"):
        started().load_snapshot(path)


def test_a_file_with_a_flipped_bit_is_refused(path):
    stream = started()
    stream.snapshot(path)
    data = bytearray(path.read_bytes())
    reference = stream.snapshot()["engine"]["tensors"]["blocks.1"]["qkv.reference"]
    place = data.find(reference.numpy().tobytes())
    assert place > 0
    data[place + 7] ^= 0x40
    path.write_bytes(data)
    refused(path, message="the snapshot is damaged")


def test_a_failing_write_keeps_the_old_file(path, monkeypatch):
    stream = started()
    stream.snapshot(path)
    old = path.read_bytes()
    stream(clip(5)[4])

    def save(content, file):
        file.write(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(OSError, match="no space left"):
        stream.snapshot(path)
    assert path.read_bytes() == old
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_new_snapshot_replaces_the_old_file(path):
    stream, video = started(), clip(7)
    stream.snapshot(path)
    stream(video[4])
    stream.snapshot(str(path))
    expected = run(stream, video[5:])
    fresh = stream_of("plain", POLICY)
    fresh.load_snapshot(path)
    assert fresh.stats.frames == 5
    assert all(map(torch.equal, run(fresh, video[5:]), expected))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_snapshot_into_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        started().snapshot(tmp_path / "nowhere" / "state")
