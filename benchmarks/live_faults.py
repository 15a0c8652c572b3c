"""One of many cameras fails, and all of them come back after their server has been away.

The camera that fails has a server of its own. Cameras send slowly and no frame is dropped: what the
others give then depends on their frames alone, and can be compared frame by frame.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from live_clips import Clip, lengthen, write
from live_watch import Row, Server, Session, spread

from eventful.video import Reader

FAULTS = "killed", "slowed", "resized"
ROUNDING = 1e-3  # tokens are kept in 16 bits
SLOWED = 2  # times; cameras of less than a frame a second take long to open


class Files:
    """Files for cameras that send rarely, and those that one of them sends when it fails.

    Args:
        clips: Of the cameras; the first fails.
        rate: Of the clips, in frames a second.
        slower: How many times more slowly they are sent here.
        seconds: Length of the files.
    """

    def __init__(self, clips: Sequence[Clip], rate: int, slower: int, seconds: float) -> None:
        first, *others = clips
        self.name, folder = first.name, first.file.parent

        def made(period: Path, slower: int) -> Path:
            file = folder / f"{period.stem}-{slower}.mp4"
            if not file.exists():
                lengthen(period, file, rate, seconds, slower)
            return file

        self.others = {clip.name: made(clip.period, slower) for clip in others}
        self.usual = {self.name: made(first.period, slower)}
        small = folder / f"{first.name}-small.mp4"
        if not small.exists():
            frames = [frame.pixels for frame in islice(Reader(first.period), 4 * rate)]
            write(small, [cv2.resize(pixels, None, fx=0.5, fy=0.5) for pixels in frames], rate)
        self.failing: Mapping[str, dict[str, Path] | None] = {
            "killed": None,
            "slowed": {self.name: made(first.period, slower * SLOWED)},
            "resized": {self.name: made(small, slower)},
        }


def turn(files: Files, policy: str, *, size: int, seconds: float, settle: float) -> dict[str, Any]:
    """An undisturbed run and one for each fault, one after the other: what the others give.

    Args:
        files: What cameras send.
        policy: Of all cameras; no shared budget, so that the others owe the failing one nothing.
        size: Side of the squares that the model sees.
        seconds: From the fault to the end.
        settle: Seconds before the fault.
    """
    before, after = _run(files, policy, None, size, seconds, settle)
    calm = before + after
    found: dict[str, Any] = {"policy": policy, "undisturbed": _figures(after, calm, seconds)}
    for fault in FAULTS:
        _, after = _run(files, policy, fault, size, seconds, settle)
        found[fault] = _figures(after, calm, seconds)
    return found


def _run(
    files: Files, policy: str, fault: str | None, size: int, seconds: float, settle: float
) -> tuple[list[Row], list[Row]]:
    """The other cameras' results before the fault, or so long without one, and those after it."""
    others, own = Server(files.others), Server(files.usual)
    urls = {files.name: own.url(files.name)} | {name: others.url(name) for name in files.others}
    try:
        session = Session(urls, policy, size=size, exact=True)
        try:
            session.start(settle)
            begin = len(session.rows)
            failing = threading.Thread(target=_fail, args=(own, files, fault))
            failing.start()
            session.tick_for(seconds)
            failing.join()
            before, after = session.rows[:begin], session.rows[begin:]
            return tuple([r for r in each if r.camera != files.name] for each in (before, after))  # type: ignore[return-value]
        finally:
            session.watcher.close()
    finally:
        others.kill()
        own.kill()


def _fail(own: Server, files: Files, fault: str | None) -> None:
    if fault is None:
        return
    own.kill()
    instead = files.failing[fault]
    if instead is not None:
        own.start(instead)


def _figures(rows: Sequence[Row], calm: Sequence[Row], seconds: float) -> dict[str, Any]:
    """Latency and results of a run, and how many are equal to those of the undisturbed one."""
    mine, theirs = ({(r.camera, r.time): r for r in each} for each in (rows, calm))
    both = mine.keys() & theirs.keys()
    return {
        "latency_ms": spread([row.latency for row in rows]),
        "results_per_second": len(rows) / seconds,
        "compared": len(both),
        "equal": sum(alike(mine[key], theirs[key]) for key in both) / max(1, len(both)),
    }


def alike(one: Row, other: Row) -> bool:
    """Whether two results are equal, to the rounding of passes over other numbers of cameras."""
    assert one.mean is not None
    assert other.mean is not None
    off = np.linalg.norm(one.mean - other.mean)
    return one.kind == other.kind and bool(off <= ROUNDING * np.linalg.norm(other.mean))


def reconnect(clips: Sequence[Clip], *, size: int, away: float, settle: float) -> dict[str, Any]:
    """The server of all cameras is killed and started again.

    Cameras carry, and would take a dense frame of their own after a thousand: every dense one after
    the server's return is for its return, or for a scene cut.

    Args:
        clips: Of the cameras, at their own rate.
        size: Side of the squares that the model sees.
        away: Seconds without a server.
        settle: Seconds after the first results before it is killed.

    Returns:
        Seconds from when the server listens to the first result of the first and of the last
        camera, the least and the most dense frames that a camera took for the return, and those
        that all of them took for scene cuts: what a camera sees may have changed since its last.
    """
    files = {clip.name: clip.file for clip in clips}
    server = Server(files)
    try:
        urls = {name: server.url(name) for name in files}
        session = Session(urls, "carry:1000", size=size)
        try:
            session.start(settle)
            server.kill()
            session.tick_for(away)
            return _return(session, lambda: server.start(files), list(files))
        finally:
            session.watcher.close()
    finally:
        server.kill()


def _return(session: Session, start: Callable[[], None], names: Sequence[str]) -> dict[str, Any]:
    """Let the server return, until each camera has given three results."""
    begin, listening = len(session.rows), list[float]()
    lanes: dict[str, Any] = {name: session.watcher._lanes[name] for name in names}
    before = {name: Counter(lane.stream.stats.flush_reasons) for name, lane in lanes.items()}

    def again() -> None:
        start()
        listening.append(time.monotonic())

    def rows(name: str) -> list[Row]:
        return [row for row in session.rows[begin:] if row.camera == name]

    thread = threading.Thread(target=again)
    thread.start()
    session.tick_until(lambda: all(len(rows(name)) >= 3 for name in names))
    thread.join()
    firsts = [rows(name)[0].moment - listening[0] for name in names]
    why = [lanes[name].stream.stats.flush_reasons - before[name] for name in names]
    cuts = [each.pop("scene cut", 0) for each in why]
    dense = [sum(each.values()) for each in why]
    return {
        "first": min(firsts),
        "last": max(firsts),
        "least_dense": min(dense),
        "dense": max(dense),
        "scene_cuts": sum(cuts),
    }
