"""A short soak: sources with random faults; memory, threads and files stay, frames add up."""

import gc
import os
import random
import threading
import time

import psutil
import pytest

from tests.live.conftest import accounted, until

MODES = "send", "send", "stall", "garbage", "end", "dribble", "password"


def soak(running, senders, seconds, seed):
    """Disturb cameras at random; returns the run and memory by second, in bytes."""
    chance = random.Random(seed)
    run = running(policy="auto:0.3").start()
    for number, sender in enumerate(senders):
        run.watcher.add(str(number), sender.url)
    process, memory = psutil.Process(), []
    for _ in range(seconds):
        sender = chance.choice(senders)
        sender.mode = chance.choice(MODES)
        sender.size = chance.choice([(96, 64), (64, 96)])
        time.sleep(1.0)
        run.results.clear()
        gc.collect()
        memory.append(process.memory_info().rss)
    for sender in senders:
        sender.mode = "send"
    for number in range(len(senders)):
        run.more(str(number), 3)
    return run, memory


def check(running, sender, count, seconds, seed=0):
    senders = [sender() for _ in range(count)]
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    run, memory = soak(running, senders, seconds, seed)
    cameras = [lane.camera for lane in run.watcher._lanes.values()]
    run.end()
    for camera in cameras:
        status = run.camera(camera.source.name)
        assert accounted(status) == camera.received
        assert status.processed > 0
    assert sum(camera.reconnects for camera in cameras) > 0
    for one in senders:
        one.kill()
    until(lambda: threading.active_count() <= threads - count)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= files
    return memory


@pytest.mark.slow
def test_a_few_cameras_for_some_seconds(running, sender):
    check(running, sender, 3, 8)


@pytest.mark.slow
def test_many_cameras_for_minutes(running, sender):
    memory = check(running, sender, 8, 120)
    assert max(memory[60:]) <= 1.05 * memory[60]
