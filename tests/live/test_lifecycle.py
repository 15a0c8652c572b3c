"""Begun, ended and changed from many threads; failures of heads, models, outputs and callbacks."""

import json
import math
import socket
import threading
import time
from typing import ClassVar

import cv2
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import dataset

from eventful.live import JsonLines, Output, ParquetFolder, Result
from eventful.live.drawing import drawn
from eventful.live.models import Models
from eventful.outputs import Head, Network, OutputError
from eventful.policies import Skip
from tests.archive.tiny import network
from tests.live.conftest import accounted, until
from tests.live.senders import stream


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.ts"
    path.write_bytes(stream(30))
    return path


def named(prefix):
    return [thread for thread in threading.enumerate() if thread.name.startswith(prefix)]


def test_none_is_added_once_it_ends(running, sender):
    one = sender()
    run = running()
    run.watcher.close()
    with pytest.raises(ValueError, match="has ended"):
        run.watcher.add("late", one.url)
    assert not named("late")


def test_a_camera_that_is_added_while_all_ends_does_not_stay(running):
    for _ in range(30):
        run, begun = running(), threading.Event()

        def add(run=run, begun=begun):
            begun.set()
            for number in range(20):
                try:
                    run.watcher.add(f"racing{number}", "rtsp://127.0.0.1:9/")
                except ValueError:
                    return

        thread = threading.Thread(target=add)
        thread.start()
        begun.wait()
        run.watcher.close()
        thread.join()
    until(lambda: not named("racing"), 2)


def test_no_room_for_a_thread_leaves_nothing(running, monkeypatch, tmp_path):
    def fail(self):
        raise RuntimeError("can't start new thread")

    run = running(state=tmp_path / "state")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="new thread"):
            run.watcher.add("a", "rtsp://127.0.0.1:9/")
    assert run.watcher.status().cameras == ()
    run.watcher.close()


def test_standard_input_is_one_camera(running):
    run = running()
    run.watcher.add("a", "-")
    with pytest.raises(ValueError, match="only one camera"):
        run.watcher.add("b", "-")
    run.watcher.close()


def test_two_at_once_do_not_run_it(running):
    run = running().start()
    until(run.watcher._runs.locked)
    with pytest.raises(RuntimeError, match="runs already"):
        run.watcher.run()
    run.end()
    run.watcher.run()  # there is nothing left to do
    run.watcher.stop()
    run.watcher.close()


def test_cameras_and_policies_change_from_many_threads(running, sender):
    one = sender()
    run = running(policy="auto:0.4").start()
    run.watcher.add("stays", one.url)
    failed = []

    def change(number):
        try:
            for turn in range(15):
                run.watcher.add(f"c{number}", one.url)
                run.watcher.set_policy(("skip:3", "auto:0.4", "error:0.2")[turn % 3])
                run.watcher.status()
                run.watcher.history("stays")
                run.watcher.remove(f"c{number}")
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=change, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    run.more("stays", 5)
    lane = run.watcher._lanes["stays"]
    run.end()
    assert accounted(run.camera("stays")) == lane.camera.received
    assert run.camera("stays").failed == 0
    until(lambda: not named("c"))


@pytest.mark.parametrize("lossless", [False, True])
def test_frames_of_a_camera_that_is_removed_add_up(running, sender, lossless):
    run = running(lossless=lossless).start()
    run.watcher.add("a", sender().url)
    run.more("a", 3)
    lane = run.watcher._lanes["a"]
    run.watcher.remove("a")
    assert lane.camera.join(5)
    assert accounted(lane.status()) == lane.camera.received


@pytest.mark.parametrize("scheme", ["rtsp", "http", "rtmp"])
def test_one_that_never_answers_keeps_nobody_waiting_for_long(running, scheme):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/a/b"
        run = running().start()  # two seconds to open
        run.watcher.add("a", url)
        run.watcher.add("b", url)
        time.sleep(0.1)
        start = time.monotonic()
        run.watcher.remove("a")
        assert time.monotonic() - start < 0.2
        run.end()
        assert time.monotonic() - start < 3.5


class Fails(Head):
    """Fails at some of the outputs that it sees."""

    types: ClassVar = {"n": pa.int32()}

    def __init__(self, at):
        self.seen, self._at = 0, at

    def values(self, output, shown):
        self.seen += 1
        if self.seen in self._at:
            raise RuntimeError("no luck at rtsp://me:s3cr3t@host/live")
        return {"n": self.seen}


def with_head(run, head):
    run.watcher._models._build = lambda height, width: Network(
        network(height, width).model, (head,), "forward_features"
    )


def test_a_head_that_fails_costs_its_frames_and_shows_no_older_values(running, file):
    run = running(forever=False, fast=True, policy="skip:5")
    with_head(run, Fails({2}))
    run.watcher.add("a", str(file))
    run.start().wait()
    assert [run.camera("a").failed, run.camera("a").processed] == [1, 29]
    shown = [result.values["n"] for result in run.results]
    assert shown == [1] * 5 + [3] * 4 + [n for n in (4, 5, 6, 7) for _ in range(5)]
    stats = run.watcher._lanes["a"].stream.stats
    assert run.camera("a").dense_operations == stats.total_dense_operations  # of the failed too


def test_what_a_head_says_is_shown_without_secrets(running, file):
    run = running(forever=False, fast=True)
    with_head(run, Fails(range(100)))
    run.watcher.add("a", str(file))
    run.start().wait()
    assert run.camera("a").failed == 30
    assert "no luck" in run.camera("a").reason
    assert "s3cr3t" not in run.camera("a").reason


def test_what_fails_now_is_told_before_what_failed_once(running, sender):
    one = sender()
    run = running().start()
    run.watcher.add("a", one.url)
    run.more("a", 3)
    one.size = (64, 96)
    until(lambda: "its size changed" in run.camera("a").reason)
    with_head(run, Fails(range(10_000)))
    run.watcher._models._networks.clear()
    one.size = (160, 64)
    until(lambda: "no luck" in run.camera("a").reason)


def test_a_model_that_cannot_be_made_is_not_tried_for_every_frame(running, file):
    tries = []

    def build(height, width):
        tries.append((height, width))
        raise ValueError("not of this shape")

    run = running(forever=False, fast=True)
    run.watcher._models._build = build
    run.watcher.add("a", str(file))
    run.start().wait()
    assert len(tries) == 1
    assert run.camera("a").failed == 30
    assert "not of this shape" in run.camera("a").reason


def test_a_model_that_could_not_be_made_is_tried_again_later(monkeypatch):
    broken = [True]

    def build(height, width):
        if broken:
            raise OSError("the disk is away")
        return network(height, width)

    models = Models(build, "torch", False)
    for _ in range(2):
        with pytest.raises(OSError, match="the disk is away"):
            models.network((28, 28), Skip(2))
    broken.clear()
    with pytest.raises(OSError, match="the disk is away"):
        models.network((28, 28), Skip(2))
    monkeypatch.setattr(Models, "AGAIN", 0.0)
    assert models.network((28, 28), Skip(2)) is models.network((28, 28), Skip(2))


def test_networks_of_sizes_that_have_passed_are_forgotten(running, sender):
    one = sender()
    run = running().start()
    run.watcher.add("a", one.url)
    for height in range(64, 192, 16):
        one.size = (96, height)
        until(lambda height=height: run.camera("a").size == (height, 96))
        run.more("a", 2)
    assert len(run.watcher._models._networks) <= 1 + Models.SPARE


class Broken(Output):
    """Fails at the end, as on a full disk."""

    def write(self, result, types):
        pass

    def close(self):
        raise OutputError(28, "no room")


def test_an_output_that_fails_keeps_no_other_from_its_end(running, file, tmp_path):
    folder, state = tmp_path / "parquet", tmp_path / "state"
    outputs = [Broken(), ParquetFolder(folder), Broken()]
    run = running(forever=False, fast=True, outputs=outputs, state=state)
    run.watcher.add("a", str(file))
    run.start()
    with pytest.raises(OutputError, match="no room"):
        run.wait()
    assert dataset.dataset(folder, format="parquet").count_rows() == 30
    assert (state / "current.json").exists()


def test_a_callback_that_fails_ends_it_with_all_accounted_for(running, file, tmp_path):
    run = running(forever=False, fast=True, state=tmp_path / "state")

    def fail(result):
        if result.frame == 5:
            raise LookupError("mine")

    run.watcher._on_result = fail
    run.watcher.add("a", str(file))
    run.start()
    with pytest.raises(LookupError, match="mine"):
        run.wait()
    camera = run.watcher._lanes["a"].camera
    assert accounted(run.camera("a")) == camera.received
    known = json.loads((tmp_path / "state" / "current.json").read_text())["cameras"]["a"]
    assert known["processed"] == 6


def test_closed_from_elsewhere_while_it_writes(running, sender, tmp_path):
    folder = tmp_path / "parquet"
    run = running(outputs=[ParquetFolder(folder)]).start()
    run.watcher.add("a", sender(rate=200).url)
    run.more("a", 20)
    run.watcher.close()
    run.wait()
    assert not [*folder.glob(".*")]
    rows = dataset.dataset(folder, format="parquet").count_rows()
    assert len(run.results) - 1 <= rows <= len(run.results)


def result(frame=0, **values):
    return Result("a", frame, 0.5, 0.5, "dense", values.pop("estimate", None), 1.0, values)


def test_lines_are_json_whatever_the_numbers(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = JsonLines(path)
    numbers = np.array([1.0, math.nan, math.inf], np.float16)
    lines.write(
        result(
            estimate=math.nan,
            x=numbers,
            y=np.float32(-math.inf),
            z="text",
            w=[{"v": (np.float32(2), math.nan)}],
        ),
        {},
    )
    lines.close()

    def refuse(name):
        raise AssertionError(name)

    told = json.loads(path.read_text(), parse_constant=refuse)
    assert told["x"] == [1.0, None, None]
    assert told["w"] == [{"v": [2.0, None]}]
    assert [told["y"], told["estimated_error"], told["z"]] == [None, None, "text"]


def test_a_line_that_a_crash_cut_short_spoils_no_other(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"frame": 0}\n{"fra')
    for frame in (1, 2):
        lines = JsonLines(path)
        lines.write(result(frame), {})
        lines.close()
    *whole, first, second = path.read_text().splitlines()
    assert whole == ['{"frame": 0}', '{"fra']
    assert [json.loads(line)["frame"] for line in (first, second)] == [1, 2]


def test_parquet_files_of_two_processes_do_not_replace_each_other(tmp_path, monkeypatch):
    for process in (1001, 1002):
        monkeypatch.setattr("os.getpid", lambda process=process: process)
        folder = ParquetFolder(tmp_path)
        folder.write(result(process, n=1), {"n": pa.int32()})
        folder.close()
    assert dataset.dataset(tmp_path, format="parquet").count_rows() == 2


def test_a_subscription_ends_twice(running):
    subscription = running().watcher.subscribe()
    subscription.close()
    subscription.close()


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (1, 9000), (2, 2000), (2000, 2)])
def test_frames_of_any_shape_are_computed_and_drawn(running, tmp_path, size):
    width, height = size
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    run = running(forever=False, fast=True)
    run.watcher.add("a", str(tmp_path / "a.png"))
    run.start().wait()
    assert [run.camera("a").size, run.camera("a").processed] == [(height, width), 1]
    for asked in (1, 320, 10_000):
        found = cv2.imdecode(np.frombuffer(run.watcher.picture("a", asked), np.uint8), 1)
        assert found.shape[0] <= height
        assert found.shape[1] <= width
        assert max(found.shape) <= 4096


def test_boxes_beyond_all_bounds_are_drawn(running, file):
    run = running(forever=False, fast=True)
    run.watcher.add("a", str(file))
    run.start().wait()
    shot, _ = run.watcher._lanes["a"].last
    boxes = np.array([[math.nan, -math.inf, math.inf, 1e30], [-1e12, 3.0, 1e12, 5.0]], np.float32)
    assert drawn(shot, {"boxes": boxes}, 96).startswith(b"\xff\xd8")
    assert drawn(shot, {"boxes": boxes[:0]}, 96).startswith(b"\xff\xd8")
