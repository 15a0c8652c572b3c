"""What all cameras remember, in a folder that holds either the old state or the whole new one."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, final

from eventful.live.camera import Camera
from eventful.live.lane import Lane
from eventful.live.sources import Source
from eventful.outputs.lock import Lock
from eventful.outputs.rows import writing
from eventful.stream.snapshots import write

CURRENT = "current.json"
FORMAT = 1


@final
class Saved:
    """A folder of states, one beside the other until the newer one is whole.

    It is this object's until it is closed: a watch that goes on from another's state, or removes
    it, would leave neither.

    Args:
        folder: The folder, which need not be there.

    Raises:
        ValueError: It holds something else than a state, or is another watch's.
        OutputError: It cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock: Lock | None = Lock(folder, "another watch")
        self._saving = threading.Lock()
        self._cameras: dict[str, Any] = {}
        self._number = 0
        path = folder / CURRENT
        if not path.exists():
            return
        try:
            self._number, self._cameras = self._read(path)
        except ValueError:
            self._lock.release()
            raise

    @staticmethod
    def _read(path: Path) -> tuple[int, dict[str, Any]]:
        """The number of the state that a file names, and its cameras."""
        try:
            content = json.loads(path.read_text())
            found = content["format"], content["number"], content["cameras"]
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(path) from error
        if found[0] != FORMAT:
            raise ValueError(f"{path} is of format {found[0]}, and {FORMAT} is expected here")
        if type(found[1]) is not int or not _is_table(found[2]):
            raise _damaged(path)
        return found[1], found[2]

    def of(self, source: Source) -> tuple[Path | None, dict[str, Any]]:
        """The snapshot of a camera and its figures, as far as they are there.

        A camera that is somewhere else now is another, whatever it is called.
        """
        known = self._cameras.get(source.name, {})
        if known.get("source") != source.masked:
            return None, {}
        file = known.get("file")
        path = None if file is None else self._folder / f"{self._number:06d}" / file
        return path if path is not None and path.exists() else None, known

    def forget(self, camera: str) -> None:
        """Have a camera that is removed begin again if it returns."""
        self._cameras = {name: known for name, known in self._cameras.items() if name != camera}

    def close(self) -> None:
        """Let others have the folder; nothing is saved from here on."""
        with self._saving:
            if self._lock is not None:
                self._lock.release()
            self._lock = None

    def save(self, still: Callable[[], AbstractContextManager[Sequence[Lane]]]) -> None:
        """Write the state of all cameras; nothing secret is in it.

        Args:
            still: Gives all cameras, and keeps them from computing frames and from being removed.
                They are copied within it, one at a time, and written outside it.

        Raises:
            OutputError: It cannot be written. The old state is still there.
        """
        with self._saving:
            if self._lock is not None:
                self._save(still)

    def _save(self, still: Callable[[], AbstractContextManager[Sequence[Lane]]]) -> None:
        number = self._number + 1
        folder = self._folder / f"{number:06d}"
        with still() as lanes:
            pass
        with writing(self._folder):
            shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
            folder.mkdir(parents=True)
            saved = [(one, _written(one, folder / f"{n}.pt", still)) for n, one in enumerate(lanes)]
            with still() as lanes:
                cameras = _named(saved, lanes)
            part = self._folder / f".{CURRENT}.part"
            content = {"format": FORMAT, "number": number, "cameras": cameras}
            with part.open("w") as file:
                file.write(json.dumps(content, indent=1))
                file.flush()
                os.fsync(file.fileno())  # else it may be empty after a power failure
            os.replace(part, self._folder / CURRENT)
        with still() as lanes:
            self._number, self._cameras = number, _named(saved, lanes)
        for old in self._folder.iterdir():  # also what a process left that was killed just here
            if old != folder and _is_ours(old):
                shutil.rmtree(old, ignore_errors=True)


def _written(
    lane: Lane, path: Path, still: Callable[[], AbstractContextManager[Sequence[Lane]]]
) -> dict[str, Any]:
    """What is saved of a camera beside its stream's snapshot, which is written to a file."""
    with still():
        figures, snapshot = _copied(lane)
    if snapshot is not None:
        write(snapshot, path)
        figures["file"] = path.name
    return figures


def _named(saved: Sequence[tuple[Lane, dict[str, Any]]], lanes: Sequence[Lane]) -> dict[str, Any]:
    """What was saved, by name, of those cameras that have not been removed since."""
    left = {id(lane) for lane in lanes}
    return {lane.camera.source.name: figures for lane, figures in saved if id(lane) in left}


def _copied(lane: Lane) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """A camera's figures and its stream's snapshot, if there is anything to save."""
    camera, snapshot = lane.camera, None
    figures: dict[str, Any] = {name: getattr(lane, name) for name in Lane.COUNTS}
    figures |= {name: getattr(camera, name) for name in camera.COUNTS}
    ends = (figures[name] for name in ("processed", "broken", "damaged"))
    figures["dropped"] = figures["received"] - sum(ends)  # what waits is lost to who goes on
    figures |= {"source": camera.source.masked, "seen": lane.seen}
    if lane.stream is not None and lane.stream.stats.frames:
        with suppress(ValueError):  # its policy is of another kind since its last frame
            snapshot = lane.stream.snapshot()
    return figures, snapshot


def _damaged(path: Path) -> ValueError:
    return ValueError(f"{path} is no state of cameras; remove the folder, or name another")


def _is_ours(folder: Path) -> bool:
    """Whether a folder is a state, and nothing else is in it."""
    if not re.fullmatch(r"\d{6,}", folder.name) or not folder.is_dir():
        return False
    return all(re.fullmatch(r"\d+\.pt(\w*\.part)?", file.name) for file in folder.iterdir())


def _is_table(cameras: Any) -> bool:
    """Whether this is what `save` writes of cameras."""
    return isinstance(cameras, dict) and all(_is_row(known) for known in cameras.values())


def _is_row(known: Any) -> bool:
    if not isinstance(known, Mapping):
        return False
    file, seen = known.get("file", "0.pt"), known.get("seen", 0.0)
    counts = [known.get(name, 0) for name in (*Lane.COUNTS, *Camera.COUNTS)]
    named = isinstance(file, str) and re.fullmatch(r"\d+\.pt", file) is not None
    timed = isinstance(seen, (int, float))
    return named and timed and all(type(count) is int and count >= 0 for count in counts)
