"""The watcher over files: every frame accounted for, policies, state, pictures, what comes out."""

import json
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from pyarrow import dataset, parquet

import eventful
from eventful.live import JsonLines, ParquetFolder
from eventful.video import Reader
from tests.archive.tiny import network
from tests.live.conftest import accounted, until
from tests.live.senders import stream


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Three files of 60 frames."""
    root = tmp_path_factory.mktemp("files")
    made = [root / f"{name}.ts" for name in "abc"]
    for number, path in enumerate(made):
        path.write_bytes(stream(60, first=20 * number))
    return made


def watched(running, files, **options):
    """Watch files to their end."""
    run = running(forever=False, **options)
    for path in files:
        run.watcher.add(path.stem, str(path))
    run.start().wait()
    return run


def test_fast_files_lose_no_frame_and_come_in_order(running, files):
    run = watched(running, files, fast=True)
    for path in files:
        assert [result.frame for result in run.of(path.stem)] == list(range(60))
        times = [result.time for result in run.of(path.stem)]
        assert np.allclose(np.diff(times), 0.04)
        assert run.camera(path.stem).dropped == run.camera(path.stem).failed == 0


def test_a_camera_gives_what_a_stream_gives(running, files):
    run = watched(running, files[:1], fast=True, policy="error:0.2")
    made = network(56, 84)
    eventful.convert(made.model, eventful.Auto(max_error=0.2))
    stream = eventful.Stream(made.model, normalize=True, method="forward_features", scene_cuts=None)
    with Reader(files[0], 84, keep_aspect=True) as reader:
        for frame, result in zip(reader, run.of("a"), strict=True):
            output = stream(frame.image)
            assert stream.stats.rows[0].kind == result.kind
            assert stream.stats.rows[0].estimate == result.estimate
            embedding = output[0, 1:].float().mean(0).half().numpy()
            assert np.array_equal(result.values["embedding"], embedding)


def test_files_are_paced_and_the_newest_frame_is_taken(running, files):
    start = time.monotonic()

    def slow(_):
        time.sleep(0.15)

    run = running(forever=False)
    run.watcher._on_result = lambda result: (run.results.append(result), slow(result))
    for path in files[:1]:
        run.watcher.add(path.stem, str(path))
    run.start().wait()
    assert 2.2 < time.monotonic() - start < 5
    status = run.camera("a")
    assert status.dropped > 20
    assert accounted(status) == 60
    assert max(np.diff([result.frame for result in run.of("a")])) >= 3


def test_lossless_waits_in_place_of_dropping(running, files):
    run = running(forever=False, lossless=True)
    run.watcher._on_result = lambda result: (run.results.append(result), time.sleep(0.06))
    run.watcher.add("a", str(files[0]))
    run.start().wait()
    assert run.camera("a").dropped == 0
    assert len(run.of("a")) == 60


def test_a_budget_is_shared_and_held(running, files):
    run = watched(running, files, fast=True, policy="auto:0.4")
    cameras = [run.camera(path.stem) for path in files]
    used = sum(camera.operations for camera in cameras)
    assert used == pytest.approx(0.4 * sum(c.dense_operations for c in cameras), rel=0.1)
    assert run.watcher.status().policy == "auto:0.4"


def test_a_policy_acts_at_once_and_a_bad_one_changes_nothing(running, sender):
    run = running(policy="auto:0.4").start()
    run.watcher.add("a", sender().url)
    run.more("a", 5)
    for text in ("auto:0.6", "error:0.3", "auto:0.5", "time:0.6", "latency:50", "carry:3"):
        run.watcher.set_policy(text)
        assert run.watcher.status().policy == text
        run.more("a", 3)
        assert run.camera("a").failed == 0
    run.watcher.set_policy("time:0.6")
    run.more("a", 3)
    for text, match in [
        ("time:1e-9", "takes at least"),
        ("nonsense", "not understood"),
        ("top:5", "frame policy"),
        ("auto:7", "at most 1"),
    ]:
        with pytest.raises(ValueError, match=match):
            run.watcher.set_policy(text)
        assert run.watcher.status().policy == "time:0.6"
        run.more("a", 2)


def test_it_is_asked_between_two_frames_however_busy_it_is(running, files):
    run = running(policy="auto:0.5", fast=True)
    for number in range(12):
        run.watcher.add(str(number), str(files[number % 3]))
    run.start()
    run.more("11", 5)
    took = []
    for share in np.linspace(0.3, 0.7, 20):
        start = time.monotonic()
        run.watcher.set_policy(f"auto:{share:g}")
        took.append(time.monotonic() - start)
    assert max(took) < 0.3


def test_no_dense_frame_comes_of_moving_the_budget(running, sender):
    run = running(policy="auto:0.4").start()
    run.watcher.add("a", sender().url)
    run.more("a", 3)
    stream = run.watcher._lanes["a"].stream
    for share in (0.5, 0.45, 0.6):
        run.watcher.set_policy(f"auto:{share}")
        run.more("a", 2)
    assert dict(stream.stats.flush_reasons) == {"first frame": 1}


def test_cameras_come_and_go_while_it_runs(running, sender):
    run = running().start()
    one = sender()
    run.watcher.add("a", one.url)
    run.more("a", 3)
    with pytest.raises(ValueError, match="a camera a already"):
        run.watcher.add("a", one.url)
    run.watcher.add("b", one.url)
    run.more("b", 3)
    before = threading.active_count()
    run.watcher.remove("a")
    assert [camera.name for camera in run.watcher.status().cameras] == ["b"]
    for call in (run.watcher.remove, run.watcher.history):
        with pytest.raises(KeyError):
            call("a")
    run.more("b", 3)
    until(lambda: threading.active_count() < before)
    run.watcher.add("a", one.url)
    run.more("a", 3)


def test_state_is_saved_and_gone_on_from(running, files, tmp_path):
    state = tmp_path / "state"
    options = {"fast": True, "policy": "error:0.2", "state": state}
    whole = watched(running, files[:1], **options | {"state": None})
    first = watched(running, files[:1], **options)
    assert dict(first.watcher._lanes["a"].stream.stats.flush_reasons) == {"first frame": 1}
    again = watched(running, files[:1], **options)
    camera = again.camera("a")
    assert camera.processed == 120
    assert again.of("a")[0].frame == 60
    assert camera.operations > first.camera("a").operations
    stream = again.watcher._lanes["a"].stream
    assert dict(stream.stats.flush_reasons) == {}  # nothing was computed again
    assert stream.stats.frames == 120
    assert len([*state.iterdir()]) == 3  # the old state is gone
    assert len(whole.of("a")) == 60


def test_a_state_of_another_model_or_size_is_begun_again(running, files, tmp_path):
    state = tmp_path / "state"
    watched(running, files[:1], fast=True, state=state)
    other = watched(running, files[:1], fast=True, state=state, size=112)
    assert other.of("a")[0].kind == "dense"
    assert other.camera("a").failed == 0


def test_a_folder_that_is_no_state_is_refused(running, tmp_path):
    (tmp_path / "current.json").write_text('{"cameras": 3}')
    with pytest.raises(ValueError, match="no state of cameras"):
        running(state=tmp_path)


def test_secrets_are_in_no_state(running, sender, tmp_path):
    run = running(state=tmp_path / "state").start()
    run.watcher.add("a", sender().url + "?token=s3cr3t")
    run.more("a", 3)
    run.end()
    for path in (tmp_path / "state").rglob("*"):
        assert path.is_dir() or b"s3cr3t" not in path.read_bytes()


def test_outputs_hold_every_result(running, files, tmp_path):
    lines, folder = tmp_path / "out.jsonl", tmp_path / "parquet"
    run = watched(running, files, fast=True, outputs=[JsonLines(lines), ParquetFolder(folder)])
    told = [json.loads(line) for line in lines.read_text().splitlines()]
    table = dataset.dataset(folder, format="parquet").to_table()
    assert len(told) == table.num_rows == len(run.results) == 180
    for result, line, row in zip(run.results, told, table.to_pylist(), strict=True):
        assert line["camera"] == row["camera"] == result.camera
        assert line["frame"] == row["frame"] == result.frame
        assert np.array_equal(np.float16(row["embedding"]), result.values["embedding"])
        assert np.allclose(line["embedding"], result.values["embedding"], atol=1e-5)
    assert not [*folder.glob(".*")]


def test_parquet_files_are_begun_anew(running, files, tmp_path, monkeypatch):
    monkeypatch.setattr(ParquetFolder, "ROWS", 50)
    watched(running, files, fast=True, outputs=[ParquetFolder(tmp_path)])
    counts = [parquet.read_metadata(path).num_rows for path in sorted(tmp_path.iterdir())]
    assert counts == [50, 50, 50, 30]


def test_a_full_disk_ends_the_watch_with_its_name(running, files):
    run = running(forever=False, fast=True)
    run.watcher._outputs.append(JsonLines(Path("/dev/full")))
    run.watcher.add("a", str(files[0]))
    run.start()
    with pytest.raises(OSError, match="cannot write /dev/full"):
        run.wait()
    run._error = None
    assert run.camera("a").state == "ended"


def test_pictures_show_the_result(running, files):
    run = watched(running, files[:1], fast=True)
    encoded = run.watcher.picture("a", 48)
    shown = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape == (32, 48, 3)
    shot, values = run.watcher._lanes["a"].last
    from eventful.live.drawing import drawn, filled  # noqa: PLC0415

    plain = cv2.imdecode(np.frombuffer(drawn(shot, {}, 96), np.uint8), cv2.IMREAD_COLOR)
    box = {"boxes": np.array([[10.0, 20.0, 60.0, 50.0]])}
    boxed = cv2.imdecode(np.frombuffer(drawn(shot, box, 96), np.uint8), cv2.IMREAD_COLOR)
    changed = np.abs(plain.astype(int) - boxed).sum(2) > 60
    assert changed[20, 12:58].mean() > 0.9
    assert changed[30:40, 25:50].mean() < 0.1
    assert filled(values["mask_counts"], values["mask_size"]).shape == tuple(values["mask_size"])


def test_history_latencies_and_subscriptions(running, files):
    run = running(forever=False, fast=True)
    for path in files[:2]:
        run.watcher.add(path.stem, str(path))
    everyone, one = run.watcher.subscribe(), run.watcher.subscribe("b")
    gone = run.watcher.subscribe()
    gone.close()
    run.start().wait()
    assert len(run.watcher.history("a")) == 60
    bounds, counts, total = run.watcher.latencies()
    assert bounds[-1] == float("inf")
    assert counts[-1] == 120 == max(counts)
    assert total == pytest.approx(sum(result.latency_ms for result in run.results))
    got = [one.get(0.01) for _ in range(60)]
    assert [result.frame for result in got] == list(range(60))
    assert {result.camera for result in got} == {"b"}
    assert one.get(0.01) is None
    assert sum(everyone.get(0.01) is not None for _ in range(130)) == 120
    assert gone.get(0.01) is None


def test_a_slow_subscriber_loses_the_oldest(running, files):
    run = running(forever=False, fast=True)
    for path in files:
        run.watcher.add(path.stem, str(path))
        run.watcher.add(path.stem + "2", str(path))
    slow = run.watcher.subscribe()
    run.start().wait()
    got = []
    while (result := slow.get(0.01)) is not None:
        got.append(result)
    assert len(got) == 256
    assert [id(r) for r in got] == [id(r) for r in run.results[-256:]]


def test_weights_are_shared_between_shapes(running, files, tmp_path):
    upright = tmp_path / "upright.ts"
    upright.write_bytes(stream(10, size=(64, 96)))
    run = watched(running, [files[0], upright], fast=True)
    models = run.watcher._models._networks
    assert len(models) == 2
    one, other = (dict(network.model.named_parameters()) for network in models.values())
    shared = [name for name in one if one[name] is other[name]]
    assert len(shared) > 0.8 * len(one)


def test_a_camera_of_another_rate_is_served_at_its_own(running, sender):
    """In the order of its results, since how many come in a second depends on the machine."""
    run = running(policy="auto:0.3")
    run.watcher.add("slow", sender(rate=4).url)
    run.watcher.add("fast", sender(rate=40).url)
    until(lambda: run.watcher.tick() == 2)
    start = len(run.results)
    until(lambda: run.watcher.tick() + 1 and len(run.of("slow")) >= 8)
    order = "".join(result.camera[0] for result in run.results[start:])
    between = order.split("s")[1:-1]
    assert len(between) >= 4
    assert np.mean([len(ones) for ones in between]) >= 2  # the fast one waits for no slow one
    assert run.camera("fast").processed >= 2 * run.camera("slow").processed
    assert all(accounted(run.camera(name)) >= 8 for name in ("slow", "fast"))


def test_a_policy_may_be_set_while_frames_of_other_cameras_wait(running, tmp_path):
    """By a callback: a dense frame's result comes before those that share a pass are computed."""
    run = running(policy="carry:3", fast=True, forever=False)
    for number in range(3):
        file = tmp_path / f"{number}.ts"
        file.write_bytes(stream(30, first=20 * number))
        run.watcher.add(str(number), str(file))
    watcher, waited = run.watcher, []
    for number, lane in enumerate(watcher._lanes.values()):
        until(lambda lane=lane: lane.camera.waiting)
        shot = lane.camera.take()
        lane.ask(shot, watcher._models, eventful.parse(f"carry:3+{number}"), None)
        lane.answer(shot, watcher._models, watcher._policy)

    def told(result):
        waited.append([lane.waits for lane in watcher._lanes.values()])
        if len(waited) == 4:
            watcher.set_policy("carry:4")

    watcher._on_result = told
    run.start().wait()
    assert any(any(each) for each in waited[:4])
    assert [run.camera(str(number)).processed for number in range(3)] == [30] * 3
    assert [run.camera(str(number)).failed for number in range(3)] == [0] * 3


def test_a_pace_asks_for_no_less_than_what_every_frame_costs(running, sender, monkeypatch):
    costs = eventful.Costs(dense=10.0, carried=3.0, held=2.9, partial=4.0, token=0.1)
    monkeypatch.setattr("eventful.stream.measure.timed_costs", lambda *_, beside: costs)
    run = running(policy="time:0.6").start()
    run.watcher.add("a", sender().url)
    run.more("a", 3)
    run.watcher.set_policy("latency:50")
    run.more("a", 3)
    assert run.watcher.status().policy == "latency:50"
    assert run.camera("a").failed == 0
