"""The page of a real watcher: real files and senders, a tiny network, nothing made up."""

import http.client
import json
import sys
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from eventful.live import Watcher
from eventful.live.page import serve
from eventful.outputs import Boxes, Mask, Network
from tests.archive import tiny
from tests.live.conftest import LIMITS, until
from tests.live.page.conftest import Client
from tests.live.page.test_metrics import of, samples
from tests.live.senders import stream

ORANGE = 255, 170, 40
UNLIKELY = 60.0, 2.0, 82.0, 20.0  # found, but not drawn
BOX = 14.0, 14.0, 56.0, 42.0  # in pixels of the model's frames of 84 x 56; 96 x 64 in the file


def network(height, width):
    """The tiny network, which also finds a box and a mask at one place each."""
    made = tiny.network(height, width)
    mask = torch.zeros(1, 1, height, width)
    mask[..., height // 2 :, width // 3 :] = 1.0
    found = SimpleNamespace(
        boxes=torch.tensor([BOX, UNLIKELY]),
        scores=torch.tensor([0.9, 0.3]),
        labels=torch.zeros(2, dtype=torch.long),
    )
    heads = made.heads[0], Boxes(lambda _: found), Mask(lambda _: mask)
    return Network(made.model, heads, made.method)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Three files of 60 frames."""
    root = tmp_path_factory.mktemp("files")
    made = [root / f"{name}.ts" for name in "abc"]
    for number, path in enumerate(made):
        path.write_bytes(stream(60, first=20 * number))
    return made


@contextmanager
def shown(watcher, **options):
    """The page of a watcher, and a client that asks it."""
    with serve(watcher, port=0, **options) as page:
        yield Client(page)


@pytest.fixture
def stepped(files):
    """A watcher over files that computes when it is told to: `stepped.tick()`."""
    made = Watcher(tiny.network, "auto:0.5", size=84, scene_cuts=False, fast=True, limits=LIMITS)
    for path in files:
        made.add(path.stem, str(path))
    yield made
    made.close()


def step(watcher):
    """A frame of each camera."""
    cameras = [lane.camera for lane in watcher._lanes.values()]
    until(lambda: all(camera.waiting for camera in cameras))
    assert watcher.tick() == len(cameras)


def decoded(answer):
    assert answer.headers["content-type"] == "image/jpeg"
    return cv2.imdecode(np.frombuffer(answer.body, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def unrolled(counts, size):
    """A mask of COCO's run lengths, a pixel at a time."""
    flat = [number % 2 for number, count in enumerate(counts) for _ in range(int(count))]
    height, width = map(int, size)
    return np.array([[flat[x * height + y] for x in range(width)] for y in range(height)], bool)


def test_the_status_is_the_watchers(stepped):
    with shown(stepped) as ask:
        for _ in range(7):
            step(stepped)
        time.sleep(0.3)  # what was known is no longer taken
        told, known = ask("GET", "/api/status").json, stepped.status()
        assert (told["model"], told["policy"]) == ("demo", "auto:0.5")
        assert [camera["name"] for camera in told["cameras"]] == ["a", "b", "c"]
        for camera, own in zip(told["cameras"], known.cameras, strict=True):
            assert camera["processed"] == own.processed == 7
            assert camera["size"] == [64, 96]
            assert camera["kind"] == own.kind
            assert camera["estimate"] == own.estimate
            assert camera["latency_ms"] == own.latency_ms > 0
            assert camera["share"] == own.operations / own.dense_operations < 1


def test_pictures_show_boxes_and_masks(running, files):
    run = running(fast=True)
    run.watcher._models._build = network
    run.watcher.add("a", str(files[0]))
    run.start()
    until(lambda: len(run.of("a")) == 60)
    with shown(run.watcher) as ask:
        seen = decoded(ask("GET", "/api/cameras/a/picture?width=640")).astype(int)
        assert ask("GET", "/api/cameras/z/picture").error == (404, "no_such_camera")
    assert seen.shape == (64, 96, 3)  # no larger than it is
    with av.open(str(files[0])) as file:
        plain = [*file.decode(video=0)][-1].to_ndarray(format="rgb24").astype(int)
    values = run.of("a")[-1].values
    scale = 96 / 84
    found = [[scale * edge for edge in box] for box in (BOX, UNLIKELY)]
    assert np.allclose(values["boxes"], found, atol=0.5)
    mask = unrolled(values["mask_counts"], values["mask_size"]).astype(np.uint8)
    mask = cv2.resize(mask, (96, 64), interpolation=cv2.INTER_NEAREST).astype(bool)
    assert 0.02 < mask.mean() < 0.98
    x0, y0, x1, y1 = (round(scale * edge) for edge in BOX)
    box = np.zeros((64, 96), bool)
    box[[y0, y1], x0 : x1 + 1] = box[y0 : y1 + 1, [x0, x1]] = True
    around = cv2.dilate(box.astype(np.uint8), np.ones((9, 9))).astype(bool)
    edge = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((5, 5))) > 0
    inside, outside = mask & ~around & ~edge, ~mask & ~around & ~edge
    assert min(inside.sum(), outside.sum()) > 50
    assert np.abs(seen - plain)[outside].mean() < 12
    assert np.abs(seen - (plain + ORANGE) / 2)[inside].mean() < 16
    assert np.abs(seen - plain)[inside].mean() > 30
    orange = (seen[..., 0] - seen[..., 2] > 60) & ~mask
    assert orange[box & ~mask].mean() > 0.7
    assert orange[outside].mean() < 0.05


def test_the_history_is_that_of_the_results(running, files):
    run = running(fast=True, policy="error:0.2")
    run.watcher.add("a", str(files[0]))
    run.start()
    until(lambda: len(run.of("a")) == 60)
    with shown(run.watcher) as ask:
        told = ask("GET", "/api/cameras/a/history").json
        middle = run.of("a")[30].arrived
        later = ask("GET", f"/api/cameras/a/history?since={middle!r}").json
    results = run.of("a")
    assert told["kind"] == [result.kind for result in results]
    assert told["estimate"] == [result.estimate for result in results]
    assert told["latency_ms"] == [result.latency_ms for result in results]
    assert told["time"] == [result.arrived for result in results]
    dense = [kind == "dense" for kind in told["kind"]]
    assert 0 < sum(dense) < 60
    assert all((share == 1) == full for share, full in zip(told["share"], dense, strict=True))
    assert len(later["time"]) == sum(result.arrived > middle for result in results)


def test_a_policy_acts_on_the_next_frame(stepped):
    kinds = lambda: {camera.kind for camera in stepped.status().cameras}  # noqa: E731

    def lanes():
        return stepped._lanes.values()

    with shown(stepped) as ask:

        def hold(policy):
            return ask("PUT", "/api/policy", {"policy": policy})

        for _ in range(4):
            step(stepped)
        assert hold("skip:1").json == {"policy": "skip:1"}
        for _ in range(4):
            step(stepped)
            assert kinds() == {"dense"}
        assert hold("skip:1000").json == {"policy": "skip:1000"}
        for _ in range(4):
            step(stepped)
            assert kinds() == {"held"}
        for policy, share in (("auto:0.9", 0.9), ("error:0.9", None), ("auto:0.3", 0.3)):
            assert hold(policy).json == {"policy": policy}
            assert ask("GET", "/api/policy").json == {"policy": policy}
            step(stepped)
            assert kinds() == {"dense"}  # once, where costs are counted in another unit
            step(stepped)
            assert "dense" not in kinds() or share == 0.9
            for lane in lanes():
                assert lane.stream.policy.share == share
        assert hold("auto:0.35").status == 200
        flushed = {sum(lane.stream.stats.flush_reasons.values()) for lane in lanes()}
        step(stepped)
        assert {sum(lane.stream.stats.flush_reasons.values()) for lane in lanes()} == flushed


def test_a_policy_that_asks_for_too_little_is_refused_and_the_old_one_holds(stepped):
    with shown(stepped) as ask:
        assert ask("PUT", "/api/policy", {"policy": "time:0.6"}).status == 200
        step(stepped)
        for text in ("time:0.00001", "time:1e-9"):
            answer = ask("PUT", "/api/policy", {"policy": text})
            assert answer.error == (422, "invalid")
            assert "takes at least" in answer.json["error"]["message"]
            assert ask("GET", "/api/policy").json == {"policy": "time:0.6"}
            step(stepped)
        assert [one.failed for one in stepped.status().cameras] == [0, 0, 0]
        lanes = stepped._lanes.values()
        assert {str(lane.stream.policy) for lane in lanes} == {"time:0.6"}
        assert {id(lane.stream.budget) for lane in lanes} == {id(stepped._budget)}


def test_what_frames_cannot_hold_is_told_by_the_cameras_and_can_be_taken_back(stepped):
    """What a frame takes in time is known only once a share of the time has been asked for."""
    with shown(stepped) as ask:
        step(stepped)
        assert ask("PUT", "/api/policy", {"policy": "time:1e-9"}).status == 200
        step(stepped)
        time.sleep(0.3)
        for camera in ask("GET", "/api/cameras").json["cameras"]:
            assert (camera["processed"], camera["failed"]) == (1, 1)
            assert "time:1e-09 asks for a share" in camera["reason"]
        assert ask("PUT", "/api/policy", {"policy": "auto:0.5"}).status == 200
        for _ in range(2):
            step(stepped)
        for camera in ask("GET", "/api/cameras").json["cameras"]:
            assert (camera["processed"], camera["failed"], camera["reason"]) == (3, 1, "")


def test_cameras_come_and_go_over_the_api(running, sender):
    run = running().start()
    one = sender()
    with shown(run.watcher, allow=("http",)) as ask:
        new = {"name": "door", "source": one.url}
        assert ask("POST", "/api/cameras", new).status == 201
        run.more("door", 5)
        assert ask("POST", "/api/cameras", new).error == (409, "camera_refused")
        file = {"name": "file", "source": "rtsp://10.0.0.1/"}
        assert ask("POST", "/api/cameras", file).error == (403, "source_not_allowed")
        (camera,) = ask("GET", "/api/cameras").json["cameras"]
        assert (camera["name"], camera["source"], camera["state"]) == ("door", one.url, "live")
        assert ask("DELETE", "/api/cameras/door").status == 204
        assert ask("DELETE", "/api/cameras/door").error == (404, "no_such_camera")
        assert ask("GET", "/api/cameras").json["cameras"] == []
        assert ask("GET", "/api/cameras/door/history").error == (404, "no_such_camera")
        assert ask("POST", "/api/cameras", new).status == 201  # the last one gone ended nothing
        run.more("door", 5)
        run.end()
        answer = ask("POST", "/api/cameras", new | {"name": "late"})
        assert answer.error == (409, "camera_refused")
        assert "the watch has ended" in answer.json["error"]["message"]


def test_results_are_followed_as_they_come(running, sender):
    run = running(policy="error:0.2").start()
    for name in ("one", "two"):
        run.watcher.add(name, sender().url)
        run.more(name, 3)
    with shown(run.watcher) as ask:
        connection = http.client.HTTPConnection(ask.page.host, ask.page.port, timeout=20)
        connection.request("GET", "/api/results?camera=two")
        answer = connection.getresponse()
        told = []
        while len(told) < 20:
            line = answer.readline()
            if line.startswith(b"data: "):
                told.append(json.loads(line[6:]))
        connection.close()
        until(lambda: not run.watcher._queued, what="the end of the subscription")
    results = {result.frame: result for result in run.of("two")}
    assert {result["camera"] for result in told} == {"two"}
    assert [result["frame"] for result in told] == sorted(result["frame"] for result in told)
    for result in told:
        own = results[result["frame"]]
        assert (result["kind"], result["estimate"]) == (own.kind, own.estimate)
        assert np.allclose(result["values"]["embedding"], own.values["embedding"], atol=1e-3)


def test_counters_are_the_watchers_and_miss_no_frame(running, files):
    run = running(policy="skip:1")
    calls, seen = [], run.results

    def slow(result):
        seen.append(result)
        time.sleep(0.03)  # slower than they come: some are dropped

    def build(height, width):
        made = tiny.network(height, width)
        head = made.heads[0]
        values = head.values

        def fails(output, shown):
            calls.append(output)
            if len(calls) % 7 == 4:
                raise RuntimeError("a frame that does not work")
            return values(output, shown)

        object.__setattr__(head, "values", fails)
        return made

    run.watcher._on_result, run.watcher._models._build = slow, build
    for path in files:
        run.watcher.add(path.stem, str(path))
    run.start()
    known = lambda: run.watcher.status().cameras  # noqa: E731
    until(lambda: all(one.state == "ended" for one in known()), 30)
    total = lambda one: one.processed + one.dropped + one.failed  # noqa: E731
    until(lambda: all(total(one) == 60 for one in known()))
    until(lambda: len(seen) == sum(one.processed for one in known()))
    with shown(run.watcher) as ask:
        found = samples(ask)
    results = len(seen)
    for one in known():
        for outcome in ("processed", "dropped", "failed"):
            value = of(found, "eventful_camera_frames_total", camera=one.name, outcome=outcome)
            assert value == getattr(one, outcome) > 0
        assert of(found, "eventful_camera_operations_total", camera=one.name) == one.operations
    assert of(found, "eventful_latency_seconds_count") == results
    assert of(found, "eventful_silent_seconds") < 5


def test_credentials_are_masked_everywhere(running, sender, caplog):
    run = running().start()
    refusing, good = sender(), sender()
    refusing.mode = "password"
    place = refusing.url.replace("//", "//admin:s3cr3t@") + "?key=t0ken"
    with shown(run.watcher, allow=("http",)) as ask:
        assert ask("POST", "/api/cameras", {"name": "a", "source": place}).status == 201
        other = good.url.replace("//", "//admin:s3cr3t@") + "?key=t0ken"
        assert ask("POST", "/api/cameras", {"name": "b", "source": other}).status == 201
        until(lambda: run.camera("a").state == "waiting")
        run.more("b", 3)
        again = ask("POST", "/api/cameras", {"name": "a", "source": place})
        bad = ask("POST", "/api/cameras", {"name": "c d ", "source": place})
        wrong = ask("POST", "/api/cameras", {"name": "c", "source": place.replace("http", "ftp")})
        assert [answer.status for answer in (again, bad, wrong)] == [409, 422, 403]
        paths = ("/api/status", "/api/cameras", "/metrics", "/api/cameras/a/history", "/healthz")
        told = [again, bad, wrong, *(ask("GET", path) for path in paths)]
        connection = http.client.HTTPConnection(ask.page.host, ask.page.port, timeout=20)
        connection.request("GET", "/api/events")
        answer = connection.getresponse()
        events = answer.readline() + answer.readline()
        connection.close()
    everything = b"".join(answer.body for answer in told) + events + caplog.text.encode()
    assert b"refuses the user and password" in everything
    assert b"***@127.0.0.1" in everything
    for secret in (b"s3cr3t", b"t0ken", b"admin"):
        assert secret not in everything


def test_health_tells_a_thread_that_is_stuck_or_has_ended(running, sender, monkeypatch):
    go = threading.Event()
    go.set()
    run = running()
    run.watcher._on_result = lambda _: go.wait(30)
    run.start()
    with shown(run.watcher) as ask:
        monkeypatch.setattr("eventful.live.page.api.SILENT", 1.5)
        time.sleep(2)
        assert ask("GET", "/healthz").json == {"status": "ok"}  # no camera is no fault
        run.watcher.add("a", sender().url)
        until(lambda: run.camera("a").processed > 3)
        go.clear()
        time.sleep(2)
        answer = ask("GET", "/healthz")
        assert answer.error == (503, "stuck")
        assert "nothing has been computed for" in answer.json["error"]["message"]
        assert ask("GET", "/api/status").json["silent"] > 1.5  # all else still answers
        go.set()
        until(lambda: ask("GET", "/healthz").status == 200)
        run.end()
        until(lambda: ask("GET", "/healthz").status == 503)
        assert ask("GET", "/healthz").json["error"]["message"] == "the watch has ended"
        assert ask("GET", "/api/status").json["silent"] is None
        assert of(samples(ask), "eventful_silent_seconds") == float("inf")


def test_a_watch_that_breaks_is_told(running, files):
    run = running(fast=True)

    def breaks(_):
        raise RuntimeError("a callback that does not work")

    run.watcher._on_result = breaks
    with shown(run.watcher) as ask:
        run.watcher.add("a", str(files[0]))
        run.start()
        until(lambda: ask("GET", "/healthz").status == 503)
    with pytest.raises(RuntimeError, match="callback"):
        run.wait()
    run._error = None


@pytest.fixture
def hurried():
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hurried")
def test_many_may_look_while_cameras_come_and_go(running, files):
    run = running(fast=True, policy="auto:0.5", size=28)
    for path in files:
        run.watcher.add(path.stem, str(path))
    run.start()
    ended, failures, asked = time.monotonic() + 2.5, [], [0]
    watcher = run.watcher

    def look(what):
        while time.monotonic() < ended:
            try:
                what()
            except KeyError:
                pass  # it went a moment ago
            except Exception as error:
                failures.append(error)
                return
            asked[0] += 1

    def change():
        for number in range(4):
            watcher.add(f"more {number}", str(files[number % 3]))
        watcher.set_policy("error:0.3")
        for number in range(4):
            watcher.remove(f"more {number}")
        watcher.set_policy("auto:0.5")

    def subscribe():
        subscription = watcher.subscribe()
        subscription.get(0.01)
        subscription.close()
        subscription.close()  # as often as one likes

    def consistent():
        names = [camera.name for camera in watcher.status().cameras]
        assert len(names) == len({*names})
        points = watcher.history("a")
        assert [point.time for point in points] == sorted(point.time for point in points)

    jobs = [
        *(4 * [consistent]),
        *(2 * [lambda: watcher.picture("a", 64), lambda: watcher.history("more 1")]),
        *(watcher.latencies, watcher.status, subscribe, change),
    ]
    threads = [threading.Thread(target=look, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert asked[0] > 100
    run.end()
    assert not watcher._queued


def test_what_others_read_is_never_changed_under_them(stepped):
    """A reader that is interrupted in the midst of the cameras, at the worst moment."""
    lanes = iter(stepped._lanes.values())
    next(lanes)
    stepped.remove("b")
    assert len([*lanes]) == 2
    stepped.add("d", str(stepped._lanes["a"].camera.source.place))
    step(stepped)
    lane = stepped._lanes["a"]
    with lane._told:  # as a reader of its history has it
        other = threading.Thread(target=lambda: step(stepped))
        other.start()
        before = len(lane._points), lane.processed
        time.sleep(0.3)
        assert (len(lane._points), lane.processed) == before
    other.join(20)
    assert len(lane.history()) == lane.processed
