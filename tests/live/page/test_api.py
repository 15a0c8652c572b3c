"""What the API says and does."""

import threading
import time
from urllib.parse import quote

import cv2
import numpy as np
import pytest

from eventful.live.page import serve
from tests.live.page.boards import SECRET
from tests.live.page.conftest import Client, wait


def test_status_is_the_boards(ask, board):
    status = ask("GET", "/api/status").json
    assert (status["model"], status["policy"], status["token"]) == (
        "demo ViT-S/14",
        "auto:0.2",
        False,
    )
    assert status["allowed"] == ["rtsp", "rtsps"]
    front, back = status["cameras"]
    assert (front["name"], back["name"]) == ("front", "back")
    assert front["size"] == [360, 640]
    assert front["processed"] == 11
    known = board.cameras["front"]
    assert front["share"] == known.operations / known.dense_operations
    assert ask("GET", "/api/cameras").json["cameras"] == status["cameras"]


def test_a_state_that_is_not_a_number_is_null(ask, board):
    board.change("front", estimate=float("nan"), rate=float("inf"))
    front, _ = ask("GET", "/api/status").json["cameras"]
    assert (front["estimate"], front["rate"]) == (None, None)


def test_credentials_are_masked_although_the_board_forgot_to(ask, board):
    board.change("front", source=SECRET, reason=f"cannot open {SECRET}: refused")
    text = ask("GET", "/api/status").body.decode()
    assert "very-secret" not in text
    assert "rtsp://***@10.0.0.7/live" in text
    assert "cannot open rtsp://***@10.0.0.7/live: refused" in text


def test_cameras_are_added_and_removed(ask, board):
    camera = {"name": "hall 2", "source": "rtsp://user:word@10.0.0.9:8554/live?a=b"}
    answer = ask("POST", "/api/cameras", camera)
    assert (answer.status, answer.json) == (201, {"name": "hall 2"})
    assert board.cameras["hall 2"].source == camera["source"]
    assert [each["name"] for each in ask("GET", "/api/status").json["cameras"]][-1] == "hall 2"
    assert ask("POST", "/api/cameras", camera).error == (409, "camera_refused")
    assert ask("DELETE", "/api/cameras/hall%202").status == 204
    assert "hall 2" not in board.cameras
    assert ask("DELETE", "/api/cameras/hall%202").error == (404, "no_such_camera")


def test_what_the_board_says_of_a_source_is_masked(ask, board, monkeypatch):
    def add(camera, source):
        raise ValueError(f"{source} is not understood")

    monkeypatch.setattr(board, "add", add)
    answer = ask("POST", "/api/cameras", {"name": "c", "source": SECRET})
    assert answer.error == (409, "camera_refused")
    assert answer.json["error"]["message"] == "rtsp://***@10.0.0.7/live is not understood"


@pytest.mark.parametrize(
    "policy", ["auto:0.05", "error:0.1", "auto:0.2/0.5", "carry:5+2", "latency:40"]
)
def test_the_policy_is_set(ask, board, policy):
    assert ask("PUT", "/api/policy", {"policy": policy}).json == {"policy": policy}
    assert board.policies == [policy]
    assert ask("GET", "/api/policy").json == {"policy": policy}


@pytest.mark.parametrize(
    "policy",
    ["", "auto", "auto:", "auto:2", "auto:nan", "error:1e999", "error:-1", "top:5", "all",
     "auto:0.2/0.1", "budgets.json", "../budgets.json", "auto:0.1.json", "carry:0", "AUTO:0.2",
     "auto:0.2\n"],
)  # fmt: skip
def test_a_policy_that_is_none_changes_nothing(refusing, policy):
    assert refusing("PUT", "/api/policy", {"policy": policy}).error == (422, "invalid")
    assert refusing.board.policies == []


def test_a_policy_never_reads_a_file(ask, board, tmp_path, monkeypatch):
    """`eventful.parse` would: a calibration is named by its path."""
    monkeypatch.chdir(tmp_path)
    read = []
    monkeypatch.setattr("pathlib.Path.read_text", lambda path, *_: read.append(path))
    for text in ("0.json", "auto:0.json", str(tmp_path / "a.json"), "0.json@abc"):
        assert ask("PUT", "/api/policy", {"policy": text}).error == (422, "invalid")
    assert read == []


def test_history_is_of_a_camera_and_after_a_time(ask, board):
    whole = ask("GET", "/api/cameras/front/history").json
    assert whole.pop("camera") == "front"
    assert {name: len(values) for name, values in whole.items()} == dict.fromkeys(
        ("time", "kind", "estimate", "share", "latency_ms"), 11
    )
    assert whole["kind"] == [point.kind for point in board.points["front"]]
    after = ask("GET", f"/api/cameras/front/history?since={whole['time'][7]!r}").json
    assert after["time"] == whole["time"][8:]
    assert ask("GET", "/api/cameras/none/history").error == (404, "no_such_camera")
    assert ask("GET", "/api/cameras/front/history?since=x").error == (422, "invalid")


def test_pictures_are_jpeg_of_one_of_three_widths(ask):
    for width, given in ((16, 320), (320, 320), (321, 640), (1000, 1280), (4000, 1280)):
        answer = ask("GET", f"/api/cameras/front/picture?width={width}")
        assert answer.headers["content-type"] == "image/jpeg"
        pixels = cv2.imdecode(np.frombuffer(answer.body, np.uint8), cv2.IMREAD_COLOR)
        assert pixels.shape == (given * 360 // 640, given, 3)
    assert ask("GET", "/api/cameras/front/picture?width=15").error == (422, "invalid")
    assert ask("GET", "/api/cameras/front/picture?width=9999999999999").error == (422, "invalid")
    assert ask("GET", "/api/cameras/none/picture").error == (404, "no_such_camera")


def test_a_picture_is_drawn_once_for_many_clients(ask, board):
    for _ in range(20):
        assert ask("GET", "/api/cameras/front/picture").status == 200
    assert board.pictures < 10


def test_a_camera_without_a_frame_has_no_picture(ask, board):
    board.add("new", "rtsp://10.0.0.3/")
    assert ask("GET", "/api/cameras/new/picture").error == (404, "no_picture_yet")


def test_names_of_the_command_line_may_hold_anything(ask, board):
    for name in ("a/b/../c", "<script>", "a/history", "ü 1 %2F", "..", "x?y#z"):
        board.add(name, "rtsp://10.0.0.3/")
        board.tick()
        answer = ask("GET", f"/api/cameras/{quote(name, safe='')}/history")
        assert answer.json["camera"] == name
        assert ask("DELETE", f"/api/cameras/{quote(name, safe='')}").status == 204
        assert name not in board.cameras


def test_health_needs_an_answer_of_the_board(ask, board, monkeypatch):
    assert ask("GET", "/healthz").json == {"status": "ok"}
    monkeypatch.setattr("eventful.live.page.api.STUCK", 0.2)
    time.sleep(0.3)  # what was known is no longer taken
    board.lock.acquire()  # as a board that hangs
    try:
        assert ask("GET", "/healthz").error == (503, "stuck")
    finally:
        board.lock.release()
    assert ask("GET", "/healthz").json == {"status": "ok"}


def test_a_mistake_of_the_board_is_told_in_the_log_alone(ask, board, monkeypatch, caplog):
    def status():
        raise RuntimeError(f"somewhere in {SECRET}")

    monkeypatch.setattr(board, "status", status)
    answer = ask("GET", "/api/status")
    assert answer.error == (500, "failed")
    assert "secret" not in answer.body.decode()
    wait(lambda: "could not answer" in caplog.text)
    assert "rtsp://***@10.0.0.7/live" in caplog.text
    assert "very-secret" not in caplog.text
    assert answer.headers["x-frame-options"] == "DENY"


def test_the_schema_names_every_path(ask):
    paths = ask("GET", "/api/openapi.json").json["paths"]
    assert {"/api/status", "/api/cameras", "/api/policy", "/metrics", "/healthz"} <= {*paths}


def test_pages_end_with_all_their_threads_and_sockets(board):
    before = {*threading.enumerate()}
    with serve(board, port=0) as page:
        assert Client(page)("GET", "/api/status").status == 200
    page.close()
    wait(lambda: {*threading.enumerate()} <= before)
    with pytest.raises(ConnectionRefusedError):
        Client(page)("GET", "/healthz")


def test_a_port_that_is_taken_is_said(board, page):
    with pytest.raises(
        OSError, match=f"cannot listen at 127.0.0.1, port {page.port}: Address already"
    ):
        serve(board, port=page.port)
