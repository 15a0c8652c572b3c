"""Brings files of any file system to where they can be decoded."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import final

import fsspec

from eventful.archive.sources import is_url

KEPT = 2


@final
class Fetched:
    """Local paths of places; what is not local is fetched whole, and the latest few are kept.

    Example:
        >>> with Fetched() as fetched:
        ...     fetched.path("videos/a.mp4")
        PosixPath('videos/a.mp4')
    """

    def __init__(self) -> None:
        self._folder: str | None = None
        self._kept: OrderedDict[str, Path] = OrderedDict()

    def __enter__(self) -> Fetched:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def path(self, place: str) -> Path:
        """Where a video can be opened.

        Raises:
            OSError: It cannot be fetched.
        """
        if not is_url(place):
            return Path(place)
        if place.startswith("file://"):
            return Path(fsspec.url_to_fs(place)[1])
        if place in self._kept:
            self._kept.move_to_end(place)
            return self._kept[place]
        while len(self._kept) >= KEPT:
            self._kept.popitem(last=False)[1].unlink(missing_ok=True)
        self._kept[place] = self._fetch(place)
        return self._kept[place]

    def _fetch(self, place: str) -> Path:
        self._folder = self._folder or tempfile.mkdtemp(prefix="eventful-archive-")
        system, inside = fsspec.url_to_fs(place)
        handle, path = tempfile.mkstemp(dir=self._folder, suffix=Path(inside).suffix)
        os.close(handle)
        try:
            system.get_file(inside, path)
        except BaseException:
            Path(path).unlink()
            raise
        return Path(path)
