"""What all cameras remember, in a folder that holds either the old state or the whole new one."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, final

from eventful.live.lane import Lane
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
            raise ValueError(
                f"{path} is no state of cameras; remove the folder, or name another"
            ) from error
        if found[0] != FORMAT:
            raise ValueError(f"{path} is of format {found[0]}, and {FORMAT} is expected here")
        self._number, self._cameras = found[1], found[2]

    def of(self, camera: str) -> tuple[Path | None, dict[str, Any]]:
        """The snapshot of a camera and its figures, as far as they are there."""
        known = self._cameras.get(camera, {})
        file = known.get("file")
        path = None if file is None else self._folder / f"{self._number:06d}" / file
        return path if path is not None and path.exists() else None, known

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
            part.write_text(json.dumps(content, indent=1))
            os.replace(part, self._folder / CURRENT)
        before, self._number, self._cameras = self._number, number, cameras
        shutil.rmtree(self._folder / f"{before:06d}", ignore_errors=True)

    @staticmethod
    def _one(folder: Path, position: int, lane: Lane) -> dict[str, Any]:
        camera = lane.camera
        figures: dict[str, Any] = {name: getattr(lane, name) for name in Lane.COUNTS}
        figures |= {name: getattr(camera, name) for name in camera.COUNTS}
        figures["source"] = camera.source.masked
        if lane.stream is not None and lane.stream.stats.frames:
            figures["file"] = f"{position}.pt"
            lane.stream.snapshot(folder / figures["file"])
        return figures
