"""What clients see of a board, in values that JSON holds."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any, final

from eventful.live.board import Board, CameraStatus, Point, Status
from eventful.live.page.addresses import masked
from eventful.live.page.kept import Kept
from eventful.live.page.refusals import Refusal

WIDTHS = (320, 640, 1280)
STATUS_SECONDS = 0.25
PICTURE_SECONDS = 0.5
PICTURES = 64


@final
class Views:
    """Reads a board for clients, at most so often.

    Args:
        board: What is known of the cameras.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._status: Kept[None, Status] = Kept(lambda _: board.status(), STATUS_SECONDS)
        self._pictures: Kept[tuple[str, int], bytes | None] = Kept(
            lambda key: board.picture(*key), PICTURE_SECONDS, PICTURES
        )

    def forget(self) -> None:
        """See the board's state next time, after a change."""
        self._status.forget()
        self._pictures.forget()

    def board_status(self) -> Status:
        """The board's state, at most a quarter of a second old."""
        return self._status(None)

    def status(self) -> dict[str, Any]:
        """The board's state."""
        status = self.board_status()
        return {
            "model": status.model,
            "policy": status.policy,
            "started": status.started,
            "now": time.time(),
            "silent": status.silent,
            "cameras": [_camera(camera) for camera in status.cameras],
        }

    def check(self, camera: str) -> None:
        """Refuse a camera that is not there."""
        if all(known.name != camera for known in self.board_status().cameras):
            raise missing()

    def picture(self, camera: str, width: int) -> bytes:
        """The last frame with its result, as JPEG; of the next of three widths.

        Raises:
            Refusal: There is no such camera, or no frame yet.
        """
        width = next((known for known in WIDTHS if known >= width), WIDTHS[-1])
        try:
            picture = self._pictures((camera, width))
        except KeyError:
            raise missing() from None
        if picture is None:
            raise Refusal("no_picture_yet", "no frame of this camera has arrived yet")
        return picture

    def history(self, camera: str, since: float) -> dict[str, list[Any]]:
        """Frames taken in after a time, a list for each of their figures.

        Raises:
            Refusal: There is no such camera.
        """
        try:
            points = [point for point in self._board.history(camera) if point.time > since]
        except KeyError:
            raise missing() from None
        return {name: [getattr(point, name) for point in points] for name in Point._fields}


def missing() -> Refusal:
    """The refusal of a camera that is not there."""
    return Refusal("no_such_camera", "there is no camera of this name; /api/cameras lists them")


def _camera(camera: CameraStatus) -> dict[str, Any]:
    known = asdict(camera)
    used, dense = camera.operations, camera.dense_operations
    known["source"], known["reason"] = masked(camera.source), masked(camera.reason)
    known["share"] = used / dense if dense else None
    return known
