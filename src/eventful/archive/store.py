"""The folder of an archive: what it is of, what is planned, what is done."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from hashlib import blake2b
from pathlib import Path
from typing import Any, final

import pyarrow as pa
from pyarrow import parquet

from eventful.archive.footage import Footage
from eventful.archive.problems import Problem
from eventful.archive.settings import versions
from eventful.archive.work import Prepared
from eventful.outputs.lock import Lock
from eventful.outputs.rows import writing
from eventful.provenance import write_json

KIND = "eventful archive"
BEGUN = {".lock", "manifest.part"}  # what a run leaves that ends in its first write


@final
class Store:
    """A folder that one run at a time writes to.

    It holds `manifest.json` (settings, versions, a digest of the weights and the costs for each
    shape of frames, how much is done), `videos.parquet` (the plan), `problems.parquet`, and
    `frames/VIDEO/SEGMENT.parquet`. A segment is done when its file is there.

    Args:
        folder: Where; made if it is not there.
        identity: What all rows depend on.

    Raises:
        ValueError: The folder holds an archive of something else, or other files; or another run
            is writing to it.
        OutputError: It cannot be written to.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp(), "out")
        >>> with Store(folder, {"model": "demo"}) as store:
        ...     store.segment("a/b.mp4", 3).relative_to(folder).as_posix()
        'frames/b.mp4-d7e1ac16/00003.parquet'
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        self._manifest = self._claimed(dict(identity))
        self._lock = Lock(folder, "another run")

    def __enter__(self) -> Store:
        self._sweep()
        self.save()
        return self

    def __exit__(self, *error: object) -> None:
        self._sweep()
        self._lock.release()

    def _sweep(self) -> None:
        """Clear away what was being written when a run, or a worker, was killed."""
        for pattern in ("*", "frames/*/*", "problems/*"):
            for path in self.folder.glob(pattern):
                if path.name.startswith(".") and path.name.endswith(".part") and path.is_file():
                    path.unlink(missing_ok=True)

    def _claimed(self, identity: dict[str, Any]) -> dict[str, Any]:
        """The manifest that is there, if it is of the same, or a new one."""
        path = self.folder / "manifest.json"
        if not path.exists():
            if self.folder.exists() and not self.folder.is_dir():
                raise ValueError(f"{self.folder} is a file; name a folder to write to")
            if self.folder.is_dir() and {p.name for p in self.folder.iterdir()} - BEGUN:
                raise ValueError(
                    f"{self.folder} holds files that are no archive; write to another folder"
                )
            with writing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
            return {"kind": KIND, "settings": identity, "shapes": {}, "complete": False}
        try:
            manifest = json.loads(path.read_text())
            there = manifest["settings"]
            assert manifest["kind"] == KIND
        except (ValueError, KeyError, TypeError, AssertionError):
            raise ValueError(f"{path} is no manifest of an archive; write elsewhere") from None
        names = [n for n in {**identity, **there} if identity.get(n) != there.get(n)]
        if names and not (self.folder / "frames").exists():  # nothing was computed with them
            (self.folder / "videos.parquet").unlink(missing_ok=True)
            return {"kind": KIND, "settings": identity, "shapes": {}, "complete": False}
        if names:
            says = ", ".join(f"{n} {there.get(n)} (now {identity.get(n)})" for n in names)
            raise ValueError(
                f"{self.folder} holds an archive with {says}; write to another folder, or give it "
                f"the same settings to go on"
            )
        return manifest

    def save(self, **what: Any) -> None:
        """Write the manifest, with something more in it."""
        self._manifest |= {"versions": versions(), **what}
        path = self.folder / "manifest.json"
        with writing(path):
            write_json(self._manifest, path)

    def prepared(self) -> dict[tuple[int, int], Prepared]:
        """What is known of shapes of frames."""
        known = self._manifest["shapes"].items()
        return {_shape(text): Prepared(**one) for text, one in known}

    def prepare(self, shape: tuple[int, int], found: Prepared) -> None:
        """Take note of what segments with frames of a shape share."""
        self._manifest["shapes"]["{}x{}".format(*shape)] = found._asdict()
        self.save()

    def videos(self) -> dict[str, Footage]:
        """The videos that have been looked through, by name."""
        path = self.folder / "videos.parquet"
        if not path.exists():
            return {}
        return {
            row["video"]: Footage.from_dict(row) for row in parquet.read_table(path).to_pylist()
        }

    def write_videos(self, videos: Iterable[Footage]) -> None:
        """Write the table of videos again."""
        self._write([video.to_dict() for video in videos], _VIDEOS, "videos.parquet")

    def segment(self, video: str, number: int) -> Path:
        """The file of a segment."""
        return self.folder / "frames" / slug(video) / f"{number:05d}.parquet"

    def problem(self, video: str, number: int | None = None) -> Path:
        """The file that says what is wrong with a segment that is done, or with all of a video."""
        of = "all" if number is None else f"{number:05d}"
        return self.folder / "problems" / f"{slug(video)}-{of}.json"

    def write_problems(self, more: Iterable[Problem]) -> list[Problem]:
        """Write the table of problems: those of segments that are done, and others."""
        paths = sorted((self.folder / "problems").glob("*.json"))
        found = [*more, *(Problem(**json.loads(path.read_text())) for path in paths)]
        found = list(dict.fromkeys(found))
        self._write([asdict(one) for one in found], _PROBLEMS, "problems.parquet")
        return found

    def _write(self, rows: list[dict[str, Any]], schema: pa.Schema, name: str) -> None:
        part = self.folder / f".{name}.part"
        with writing(self.folder / name):
            parquet.write_table(pa.Table.from_pylist(rows, schema), part, compression="zstd")
            os.replace(part, self.folder / name)


_TYPES = {"str": pa.string(), "int": pa.int64(), "Access": pa.string(), "Kind": pa.string()}
_VIDEOS = pa.schema(
    [(f.name, _TYPES.get(str(f.type), pa.list_(pa.list_(pa.int64(), 3)))) for f in fields(Footage)]
)
_PROBLEMS = pa.schema([(f.name, _TYPES.get(str(f.type), pa.int64())) for f in fields(Problem)])


def slug(video: str) -> str:
    """A name for a folder, which no other video has.

    Example:
        >>> slug("a/b c.mp4")
        'b-c.mp4-7fdbe441'
    """
    name = re.sub(r"[^\w.]+", "-", video.rstrip("/").rpartition("/")[2])[-60:].strip("-.")
    return f"{name}-{blake2b(video.encode(), digest_size=4).hexdigest()}"


def _shape(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return int(height), int(width)
