"""Which videos are meant: files, folders, globs, lists, and URLs of any file system."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
from pyarrow import csv, parquet

from eventful.video.stills import is_image

SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"),
    *(".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
)
LISTS = (".csv", ".parquet")
_COLUMNS = "path", "url", "file"


@dataclass(frozen=True)
class Source:
    """A video to archive.

    Attributes:
        video: Its name in the archive: what a list's column `id` says, else the place.
        place: A path, or a URL that fsspec reads.
    """

    video: str
    place: str


def is_url(place: str) -> bool:
    """Whether a place is a URL such as s3://bucket/a.mp4.

    Example:
        >>> is_url("s3://bucket/a.mp4"), is_url("videos/a.mp4")
        (True, False)
    """
    return "://" in place


def find(given: Iterable[str | os.PathLike[str]]) -> list[Source]:
    """List the videos meant, each once, in the order given; folders and globs sorted by name.

    Args:
        given: Files, folders (all videos below, and folders of images), globs, CSV or Parquet
            lists with a column `path`, and maybe `id`; URLs of files, folders and globs.

    Raises:
        FileNotFoundError: There is nothing at a path, or a glob or folder holds no video.
        ValueError: A list has no such column, or one name stands for two videos.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "b.mp4").touch(), Path(folder, "a.mkv").touch()
        ...     [Path(source.place).name for source in find([folder])]
        ['a.mkv', 'b.mp4']
    """
    found: dict[str, Source] = {}
    for one in given:
        for source in _meant(os.fspath(one)):
            if found.setdefault(source.video, source).place != source.place:
                raise ValueError(
                    f"the name {source.video!r} stands for two videos, "
                    f"{found[source.video].place} and {source.place}; give each its own id"
                )
    return list(found.values())


def _meant(given: str) -> Sequence[Source]:
    if is_url(given):
        return _named(_in_a_file_system(given), given)
    path = Path(given)
    if path.suffix.lower() in LISTS and path.is_file():
        return _listed(path)
    if path.is_dir():
        return _named(_below(path), given)
    if path.exists():
        return _named([given], given)
    if glob.has_magic(given):
        matches = sorted(glob.glob(given, recursive=True))
        return [source for match in matches for source in _meant(match)] or _nothing(given)
    raise FileNotFoundError(
        f"expected videos, folders, globs or lists; there is nothing at {given}. Check the path; a "
        f"relative one starts at {Path.cwd()}"
    )


def _below(folder: Path) -> Iterator[str]:
    """Videos in a folder and below; a folder of images is one."""
    for place, folders, names in os.walk(folder):
        folders.sort()
        files = [Path(place, name) for name in sorted(names) if not name.startswith(".")]
        if any(is_image(file) for file in files):
            yield place
        yield from (str(file) for file in files if file.suffix.lower() in SUFFIXES)


def _in_a_file_system(url: str) -> list[str]:
    system, path = fsspec.url_to_fs(url)
    if glob.has_magic(url):
        paths = sorted(map(str, system.glob(path)))
    elif system.isdir(path):
        paths = [p for p in sorted(system.find(path)) if Path(p).suffix.lower() in SUFFIXES]
    else:
        return [url]  # what is not there is found out when it is read
    paths = [p for p in paths if not Path(p).name.startswith(".")]
    behind = url.partition("::")[2]  # as in zip://*.mp4::s3://bucket/a.zip
    return [system.unstrip_protocol(p) + (f"::{behind}" if behind else "") for p in paths]


def _named(places: Iterable[str], given: str) -> list[Source]:
    return [Source(place, place) for place in places] or _nothing(given)


def _nothing(given: str) -> list[Source]:
    raise FileNotFoundError(f"{given} holds no video ({', '.join(SUFFIXES)}, or folders of images)")


def _listed(path: Path) -> list[Source]:
    """The videos of a list; relative paths start at its folder."""
    table: Any = csv.read_csv(path) if path.suffix.lower() == ".csv" else parquet.read_table(path)
    column = next((name for name in _COLUMNS if name in table.column_names), None)
    if column is None:
        raise ValueError(
            f"{path} needs a column {', '.join(_COLUMNS[:-1])} or {_COLUMNS[-1]}; it has "
            f"{', '.join(table.column_names)}"
        )
    places = [str(value) for value in table[column].to_pylist() if value]
    if not places:
        raise ValueError(f"{path} lists no video")
    places = [p if is_url(p) else str(path.parent / p) for p in places]
    names = table["id"].cast(pa.string()).to_pylist() if "id" in table.column_names else places
    return [Source(name, place) for name, place in zip(names, places, strict=True)]
