"""What is saved and gone on from: killed at any moment, damaged, old, of another camera."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from eventful.live import saving
from eventful.live.lane import Lane
from eventful.outputs import OutputError
from tests.live.conftest import until
from tests.live.senders import stream

FRAMES = 22  # no multiple of the 5 after which frames are dense anyway


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.ts"
    path.write_bytes(stream(FRAMES))
    return path


def watched(running, path, state, **options):
    run = running(forever=False, fast=True, state=state, **options)
    run.watcher.add("a", str(path))
    run.start().wait()
    return run


def saved(state):
    return json.loads((state / "current.json").read_text())


def test_a_state_that_is_old_is_not_trusted(running, file, tmp_path, monkeypatch):
    state = tmp_path / "state"
    watched(running, file, state)
    assert watched(running, file, state).of("a")[0].kind == "held"
    monkeypatch.setattr(Lane, "TRUSTED", -1.0)  # as if hours had passed
    run = watched(running, file, state)
    assert [run.of("a")[0].kind, run.of("a")[0].frame] == ["dense", 2 * FRAMES]


def test_a_state_is_as_old_as_its_last_frame(running, sender, tmp_path, monkeypatch):
    one, state = sender(), tmp_path / "state"
    run = running(state=state).start()
    run.watcher.add("a", one.url)
    run.more("a", 3)
    one.mode = "stall"
    until(lambda: run.camera("a").state == "waiting")
    run.end()
    assert saved(state)["cameras"]["a"]["seen"] == run.of("a")[-1].arrived
    again = running(state=state).start()  # no frame comes: the time stays
    again.watcher.add("a", one.url)
    until(lambda: again.camera("a").state == "waiting")
    again.end()
    assert saved(state)["cameras"]["a"]["seen"] == run.of("a")[-1].arrived


def test_a_state_of_a_time_to_come_is_not_trusted(running, file, tmp_path):
    state = tmp_path / "state"
    watched(running, file, state)
    content = saved(state)
    content["cameras"]["a"]["seen"] += 3600  # the machine's clock was set back
    (state / "current.json").write_text(json.dumps(content))
    assert watched(running, file, state).of("a")[0].kind == "dense"


def test_a_camera_that_is_elsewhere_now_is_another(running, file, tmp_path):
    state, other = tmp_path / "state", tmp_path / "b.ts"
    watched(running, file, state)
    other.write_bytes(file.read_bytes())
    run = watched(running, other, state)
    assert [run.of("a")[0].kind, run.of("a")[0].frame] == ["dense", 0]


def test_a_camera_that_is_removed_begins_again(running, file, tmp_path):
    state = tmp_path / "state"
    watched(running, file, state)
    run = running(fast=True, state=state).start()
    run.watcher.add("a", str(file))
    run.more("a", FRAMES)
    run.watcher.remove("a")
    run.watcher.add("a", str(file))
    run.more("a", FRAMES)
    assert [result.frame for result in run.of("a")] == [*range(FRAMES, 2 * FRAMES), *range(FRAMES)]


def test_a_policy_of_another_kind_keeps_no_state_from_being_saved(running, file, tmp_path):
    state = tmp_path / "state"
    run = running(state=state, policy="auto:0.4", fast=True)
    for name in ("bad", "good"):
        run.watcher.add(name, str(file))
    until(lambda: run.watcher.tick() and all(run.of(name) for name in ("bad", "good")))
    bad = run.watcher._lanes["bad"].camera
    bad.stop()  # it gives no frame from here on
    assert bad.join(5)
    bad.drain()
    before = len(run.of("good"))
    run.watcher.set_policy("skip:3")
    until(lambda: run.watcher.tick() and len(run.of("good")) > before)
    run.watcher.close()
    known = saved(state)["cameras"]
    assert "file" not in known["bad"]
    assert known["bad"]["processed"] == len(run.of("bad"))
    assert "file" in known["good"]


@pytest.mark.parametrize(
    "content",
    [
        '{"format": 1, "number": "1", "cameras": {}}',
        '{"format": 1, "number": 1, "cameras": []}',
        '{"format": 1, "number": 1, "cameras": {"a": 3}}',
        '{"format": 1, "number": 1, "cameras": {"a": {"processed": "x"}}}',
        '{"format": 1, "number": 1, "cameras": {"a": {"received": -1}}}',
        '{"format": 1, "number": 1, "cameras": {"a": {"file": "../../x.pt"}}}',
        '{"format": 1, "number": 1, "cameras": {"a": {"seen": null}}}',
        "",
        "[]",
        "\x00\x00",
    ],
)
def test_a_damaged_state_is_refused_at_the_start(running, tmp_path, content):
    (tmp_path / "current.json").write_text(content)
    with pytest.raises(ValueError, match="no state of cameras"):
        running(state=tmp_path)


def test_a_state_of_another_format_is_refused(running, tmp_path):
    (tmp_path / "current.json").write_text('{"format": 9, "number": 1, "cameras": {}}')
    with pytest.raises(ValueError, match="of format 9, and 1 is expected"):
        running(state=tmp_path)


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda _: b"", lambda b: b[::-1]])
def test_a_damaged_snapshot_costs_one_dense_frame(running, file, tmp_path, damage):
    state = tmp_path / "state"
    watched(running, file, state)
    (snapshot,) = state.rglob("*.pt")
    snapshot.write_bytes(damage(snapshot.read_bytes()))
    run = watched(running, file, state)
    assert [run.of("a")[0].kind, run.camera("a").failed, len(run.of("a"))] == ["dense", 0, FRAMES]


def test_what_a_killed_process_left_is_cleared_away(running, file, tmp_path):
    state = tmp_path / "state"
    others = "20261129/photo.jpg", "000123/notes.txt", "holiday/0.pt"
    for left in ("000007/0.pt", "000007/1.ptx_3.part", "000001/0.pt", *others):
        (state / left).parent.mkdir(parents=True, exist_ok=True)
        (state / left).write_bytes(b"left")
    for number in (1, 2):
        watched(running, file, state)
        ours = {f"00000{number}", "current.json", ".lock"}
        assert {path.name for path in state.iterdir()} == ours | {o.split("/")[0] for o in others}
    assert all((state / other).exists() for other in others)


def test_a_full_disk_names_the_folder_and_leaves_the_old_state(running, file, tmp_path):
    state = tmp_path / "state"
    watched(running, file, state)
    before = saved(state)
    run = running(fast=True, state=state)
    run.watcher.add("a", str(file))
    while run.watcher.tick() == 0:
        time.sleep(0.01)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, limits[1]))
    try:
        with pytest.raises(OutputError, match=f"cannot write {state}"):
            run.watcher.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert saved(state) == before
    assert watched(running, file, state).of("a")[0].kind == "held"


SAVES = """
import sys
from pathlib import Path
from tests.archive.tiny import network
from eventful.live import Watcher
watcher = Watcher(network, "skip:5", size=84, fast=True, state=Path(sys.argv[1]))
watcher.SAVED = 0.0  # after each tick
for name in "abc":
    watcher.add(name, sys.argv[2])
print("runs", flush=True)
watcher.run()
"""


def test_a_process_that_is_killed_leaves_a_state_that_is_whole(running, tmp_path):
    state, path, chance = tmp_path / "state", tmp_path / "a.ts", random.Random(0)
    path.write_bytes(stream(300))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    frames = 0
    for _ in range(2):
        command = [sys.executable, "-c", SAVES, str(state), str(path)]
        process = subprocess.Popen(
            command, env=environment, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE
        )
        assert process.stdout.readline() == b"runs\n"
        time.sleep(0.3 + chance.random() / 4)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        content = saved(state)
        assert sum(c["processed"] for c in content["cameras"].values()) > frames
        frames = sum(c["processed"] for c in content["cameras"].values())
        for known in content["cameras"].values():
            assert known["received"] == known["processed"] + known["dropped"]
            assert known["dropped"] <= 9  # waited at one of the saves
    run = running(fast=True, state=state)
    run.watcher.add("a", str(path))
    while run.watcher.tick() == 0:
        time.sleep(0.01)
    assert run.of("a")[0].frame == content["cameras"]["a"]["received"]
    assert run.of("a")[0].kind == "dense" or run.watcher._lanes["a"].stream.stats.frames > 1
    run.watcher.close()
    assert len([*state.iterdir()]) == 3


def test_a_state_that_another_watch_goes_on_with_is_refused(running, file, tmp_path):
    state = tmp_path / "state"
    first = running(state=state)
    first.watcher.add("a", str(file))
    for _ in range(2):  # being refused takes nothing away
        with pytest.raises(ValueError, match=f"another watch is writing to {state}; wait for it"):
            running(state=state)
    first.start()
    first.more("a", 3)
    with pytest.raises(ValueError, match="another watch"):
        running(state=state)
    first.end()
    assert watched(running, file, state).of("a")[0].frame >= 3


def test_what_is_refused_or_fails_holds_no_state(running, file, tmp_path):
    state = tmp_path / "state"
    with pytest.raises(ValueError, match="frame policy"):
        running(state=state, policy="top:3")
    state.mkdir()
    (state / "current.json").write_text("[]")
    with pytest.raises(ValueError, match="no state"):
        running(state=state)
    (state / "current.json").unlink()
    watched(running, file, state)


def test_a_process_that_is_killed_holds_no_state(running, file, tmp_path):
    state = tmp_path / "state"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", SAVES, str(state), str(file)],
        env=environment,
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"runs\n"
    process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(ValueError, match="another watch"):
            running(state=state)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    watched(running, file, state)


@pytest.fixture
def slow_disk(monkeypatch):
    """Writing takes until the second event is set; the first tells that it has begun."""
    begun, done, write = threading.Event(), threading.Event(), saving.write

    def waits(*given):
        begun.set()
        assert done.wait(20)
        write(*given)

    monkeypatch.setattr(saving, "write", waits)
    yield begun, done
    done.set()


def test_nobody_waits_for_a_disk_while_a_state_is_written(running, sender, tmp_path, slow_disk):
    begun, done = slow_disk
    run = running(state=tmp_path / "state", policy="auto:0.4")
    run.watcher.SAVED = 0.5
    run.start()
    for name in "ab":
        run.watcher.add(name, sender().url)
    assert begun.wait(20)
    before = len(run.results)
    start = time.monotonic()
    run.watcher.set_policy("auto:0.5")
    run.watcher.add("c", sender().url)
    run.watcher.remove("b")
    assert time.monotonic() - start < 2
    assert run.watcher.tick() + 1  # frames are computed too, by whoever asks for them
    assert len(run.results) >= before
    run.watcher.SAVED = 300.0
    done.set()
    until((tmp_path / "state" / "current.json").exists)
    assert "b" not in saved(tmp_path / "state")["cameras"]  # it was removed meanwhile
    run.more("a", 3)
    run.end()
    assert saved(tmp_path / "state")["cameras"].keys() == {"a", "c"}
