"""What real servers do to a camera stays with it, is shown, and mends itself."""

import time
from contextlib import closing

import pytest

from eventful.live.feeds import feed
from eventful.live.sources import Source
from eventful.stream import bound
from tests.live.conftest import LIMITS, until


def dense(results):
    return sum(result.kind == "dense" for result in results)


def test_a_killed_server_is_found_again_with_one_dense_frame(running, rtsp):
    server = rtsp()
    server.start()
    run = running(policy="skip:1000").start()
    run.watcher.add("door", server.url)
    run.more("door", 10)
    server.kill()
    until(lambda: run.camera("door").state == "waiting")
    assert run.camera("door").reason
    assert 0 <= run.camera("door").retry_in <= 0.5
    before, lost = run.of("door"), time.monotonic()
    server.start()
    run.more("door", 1)
    assert time.monotonic() - lost < 3.0 + 1.0  # the server itself takes a second to start
    run.more("door", 10)
    after = run.of("door")[len(before) :]
    assert dense(before) == 1
    assert dense(after) == 1
    assert run.camera("door").reconnects == 1
    assert run.camera("door").state == "live"
    assert run.camera("door").reason == ""


def test_a_camera_of_few_frames_a_second_opens_with_its_first_frames(running, rtsp):
    """It needs no seven frames first; five a second come here, every other one a key frame."""
    server = rtsp()
    server.start(rate=5)
    run = running().start()  # keeps the server's pictures coming
    run.watcher.add("door", server.url)
    run.more("door", 1)
    took = []
    for _ in range(3):
        start = time.monotonic()
        with closing(feed(Source("other", server.url), LIMITS)) as frames:
            next(frames)
        took.append(time.monotonic() - start)
    assert min(took) < 0.8


def test_a_camera_that_is_back_holds_no_block_to_its_original_again(running, sender, monkeypatch):
    """Which would cost as much as another dense frame."""
    checks, check = [], bound.checked
    monkeypatch.setattr(bound, "checked", lambda *given: (checks.append(1), check(*given))[1])
    one = sender()
    run = running(policy="skip:1000").start()
    run.watcher.add("door", one.url)
    run.more("door", 3)
    one.mode = "end"
    until(lambda: run.camera("door").state == "waiting")
    one.mode = "send"
    run.more("door", 3)
    assert run.camera("door").reconnects >= 1
    assert dense(run.of("door")) == 1 + run.camera("door").reconnects
    assert len(checks) == 1


def test_a_server_that_returns_with_another_size_is_served_at_that(running, rtsp):
    server = rtsp()
    server.start(96, 64)
    run = running(policy="skip:1000").start()
    run.watcher.add("door", server.url)
    run.more("door", 5)
    server.kill()
    server.start(64, 96)
    until(lambda: run.camera("door").size == (96, 64))
    run.more("door", 5)
    assert dense(run.of("door")) == 2


def test_a_password_that_is_wrong_or_missing_is_told_and_not_shown(running, rtsp):
    server = rtsp()
    server.start(96, 64, "me", "s3cr3t")
    run = running().start()
    given = server.url.replace("//", "//me:wr0ng@")
    run.watcher.add("wrong", given)
    run.watcher.add("none", server.url)
    run.watcher.add("right", server.url.replace("//", "//me:s3cr3t@"))
    run.more("right", 3)
    for name in ("wrong", "none"):
        until(lambda name=name: run.camera(name).state == "waiting")
        assert "password" in run.camera(name).reason
        assert run.camera(name).retry_in > 2  # many tries may lock an account
    everything = repr(run.watcher.status()) + repr(run.results)
    assert "s3cr3t" not in everything
    assert "wr0ng" not in everything


@pytest.mark.parametrize("mode", ["stall", "dribble", "garbage", "end"])
def test_a_camera_that_fails_does_so_alone_and_comes_back(running, sender, mode):
    bad, good = sender(), sender()
    run = running(policy="skip:1000").start()
    run.watcher.add("bad", bad.url)
    run.watcher.add("good", good.url)
    run.more("bad", 3)
    bad.mode = mode
    until(lambda: run.camera("bad").state == "waiting", what=f"a failure by {mode}")
    before = len(run.of("bad"))
    run.more("good", 10)
    assert run.camera("bad").reason
    bad.mode = "send"
    run.more("bad", 5)
    assert run.camera("bad").reconnects >= 1
    if mode != "garbage":  # in between some of it may look like a frame
        assert dense(run.of("bad")[before:]) == 1
    assert dense(run.of("good")) == 1
    assert run.camera("good").reconnects == 0


def test_nobody_at_the_address(running):
    run = running().start()
    run.watcher.add("door", "rtsp://me:secret@127.0.0.1:9/live")
    until(lambda: run.camera("door").state == "waiting")
    assert "refused" in run.camera("door").reason.lower()
    assert "secret" not in repr(run.camera("door"))


def test_waits_grow_and_are_capped(running, sender):
    gone = sender()
    gone.mode = "end"
    run = running().start()
    run.watcher.add("door", gone.url)
    time.sleep(2.0)
    tried = gone.connections  # after 0.05, 0.1, 0.2, 0.4, 0.4, ... s, a quarter more or less
    assert 4 <= tried <= 10
    until(lambda: gone.connections > tried, 3)


def test_another_size_in_one_stream_takes_one_dense_frame(running, sender):
    one = sender()
    run = running(policy="skip:1000").start()
    run.watcher.add("door", one.url)
    run.more("door", 5)
    one.size = (64, 96)
    until(lambda: run.camera("door").size == (96, 64))
    run.more("door", 5)
    assert dense(run.of("door")) == 2
    assert "64 x 96" in run.camera("door").reason or run.camera("door").reconnects


def test_others_get_the_same_whatever_one_does(running, tmp_path):
    """Two files are computed frame by frame, beside a third camera that fails in between.

    Equal to rounding, which changes with the number of frames in a pass.
    """
    from tests.live.senders import Sender, stream  # noqa: PLC0415

    files = [tmp_path / "a.ts", tmp_path / "b.ts"]
    for number, file in enumerate(files):
        file.write_bytes(stream(60, first=20 * number))

    def results(bad):
        run = running(policy="error:0.2", fast=True)
        for number, file in enumerate(files):
            run.watcher.add(str(number), str(file))
        if bad is not None:
            run.watcher.add("bad", bad.url)
        run.start()
        for mode in ("send", "garbage", "end", "send"):
            if bad is not None:
                bad.mode = mode
                bad.size = (64, 96) if mode == "end" else (96, 64)
                time.sleep(0.2)
        until(lambda: all(run.camera(n).state == "ended" for n in "01"))
        until(lambda: all(run.camera(n).processed == 60 for n in "01"))
        run.end()
        return [run.of(n) for n in "01"]

    alone = results(None)
    sender = Sender()
    try:
        beside = results(sender)
    finally:
        sender.kill()
    for one, other in zip(alone, beside, strict=True):
        for mine, theirs in zip(one, other, strict=True):
            assert (mine.frame, mine.kind) == (theirs.frame, theirs.kind)
            assert mine.estimate == pytest.approx(theirs.estimate, rel=1e-3)
            for name, values in mine.values.items():
                assert values == pytest.approx(theirs.values[name], rel=2e-3, abs=1e-3)
