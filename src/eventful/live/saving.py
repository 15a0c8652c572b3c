"""What all cameras remember, in a folder that holds either the old state or the whole new one."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, final

from eventful.live.camera import Camera
from eventful.live.lane import Lane
from eventful.live.sources import Source
from eventful.outputs.rows import writing

CURRENT = "current.json"
FORMAT = 1


@final
class Saved:
    """A folder of states, one beside the other until the newer one is whole.

    Args:
        folder: The folder, which need not be there.

    Raises:
        ValueError: It holds something else than a state.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cameras: dict[str, Any] = {}
        self._number = 0
        path = folder / CURRENT
        if not path.exists():
            return
        try:
            content = json.loads(path.read_text())
            found = content["format"], content["number"], content["cameras"]
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(path) from error
        if found[0] != FORMAT:
            raise ValueError(f"{path} is of format {found[0]}, and {FORMAT} is expected here")
        if type(found[1]) is not int or not _is_table(found[2]):
            raise _damaged(path)
        self._number, self._cameras = found[1], found[2]

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

    def save(self, lanes: list[Lane]) -> None:
        """Write the state of all cameras; nothing secret is in it.

        Raises:
            OutputError: It cannot be written. The old state is still there.
        """
        number, cameras = self._number + 1, {}
        folder = self._folder / f"{number:06d}"
        with writing(self._folder):
            shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
            folder.mkdir(parents=True)
            for position, lane in enumerate(lanes):
                cameras[lane.camera.source.name] = self._one(folder, position, lane)
            part = self._folder / f".{CURRENT}.part"
            content = {"format": FORMAT, "number": number, "cameras": cameras}
            with part.open("w") as file:
                file.write(json.dumps(content, indent=1))
                file.flush()
                os.fsync(file.fileno())  # else it may be empty after a power failure
            os.replace(part, self._folder / CURRENT)
        self._number, self._cameras = number, cameras
        for old in self._folder.iterdir():  # also what a process left that was killed just here
            if old != folder and _is_ours(old):
                shutil.rmtree(old, ignore_errors=True)

    @staticmethod
    def _one(folder: Path, position: int, lane: Lane) -> dict[str, Any]:
        camera = lane.camera
        figures: dict[str, Any] = {name: getattr(lane, name) for name in Lane.COUNTS}
        figures |= {name: getattr(camera, name) for name in camera.COUNTS}
        ends = (figures[name] for name in ("processed", "broken", "damaged"))
        figures["dropped"] = figures["received"] - sum(ends)  # what waits is lost to who goes on
        figures |= {"source": camera.source.masked, "seen": lane.seen}
        if lane.stream is not None and lane.stream.stats.frames:
            file = f"{position}.pt"
            with suppress(ValueError):  # its policy is of another kind since its last frame
                lane.stream.snapshot(folder / file)
                figures["file"] = file
        return figures


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
