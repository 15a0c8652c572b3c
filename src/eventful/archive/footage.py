"""A video as an archive sees it: how many frames, and how to begin at any of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream

from eventful.archive.problems import Problem, of_error
from eventful.archive.settings import Settings
from eventful.archive.sources import Source
from eventful.video import Reader
from eventful.video.decode import Video, open_file
from eventful.video.extent import DamageError, Extent
from eventful.video.stills import Stills, is_image, list_images

Access = Literal["seek", "start", "images"]
JUMPS = ("mp4", "matroska")  # containers whose packets have times that a jump can rely on
LOOKED_AT = 24  # frames at whose times decoder and packets must agree, for jumps to be used


class Start(NamedTuple):
    """Where a segment begins.

    Attributes:
        pts: Time of its first frame, in ticks of the container.
        key: Time of the key frame to decode from.
        jump: The time to jump to, which leads there.
    """

    pts: int
    key: int
    jump: int


@dataclass(frozen=True)
class Footage:
    """A video that has been looked through, packet by packet.

    Attributes:
        video: Its name in the archive.
        place: Where it is.
        bytes: Size of the file.
        frames: How many good frames it holds.
        rate: Average frames per second, as text of a fraction.
        height: Of frames as the model sees them, in pixels.
        width: The same.
        native_height: Of the upright first frame, in pixels.
        native_width: The same.
        access: "seek" where decoding can begin at key frames; "start" where it must begin at the
            first frame; "images".
        starts: For "seek", where each segment begins.
    """

    video: str
    place: str
    bytes: int
    frames: int
    rate: str
    height: int
    width: int
    native_height: int
    native_width: int
    access: Access
    starts: tuple[Start, ...] = ()

    def spans(self, segment: int) -> list[range]:
        """The frames of each segment of so many."""
        firsts = range(0, self.frames, segment)
        return [range(first, min(first + segment, self.frames)) for first in firsts]

    def to_dict(self) -> dict[str, Any]:
        """A row of the table of videos."""
        return asdict(self) | {"starts": [list(start) for start in self.starts]}

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Footage:
        """Read a row back."""
        starts: Any = tuple(Start(*start) for start in row["starts"])
        return cls(**(row | {"starts": starts}))


class Looked(NamedTuple):
    """A video's footage, and what is wrong with it."""

    footage: Footage
    problem: Problem | None


def look(source: Source, path: Path, settings: Settings) -> Looked:
    """Look a video through.

    Args:
        source: The video.
        path: Where it can be opened.
        settings: Say what frames are brought to, and how long segments are.

    Raises:
        OSError, ValueError: It is not there, or no video.
    """
    kept, patch = not settings.square, settings.patch
    native = Reader(path)
    fitted = Reader(path, settings.size, keep_aspect=kept, patch=patch)

    def footage(access: Access, frames: int, starts: tuple[Start, ...] = ()) -> Footage:
        return Footage(
            video=source.video,
            place=source.place,
            bytes=size(path),
            frames=frames,
            rate=str(native.rate),
            height=fitted.height,
            width=fitted.width,
            native_height=native.height,
            native_width=native.width,
            access=access,
            starts=starts,
        )

    images = stills(path)
    if images is not None:
        return Looked(footage("images", images.frames), None)
    found = _packets(path)
    if found is not None:
        return Looked(footage("seek", len(found.times), found.starts(settings.segment)), None)
    frames, problem = _counted(source.video, path)
    return Looked(footage("start", frames), problem)


def size(path: Path) -> int:
    """Bytes of a file, or of the images of a folder."""
    if path.is_dir():
        return sum(image.stat().st_size for image in list_images(path))
    return path.stat().st_size


def stills(path: Path) -> Stills | None:
    """The images of a folder, or one; None for a video file."""
    if path.is_dir():
        return Stills(list_images(path))
    return Stills((path,)) if is_image(path) else None


def _counted(video: str, path: Path) -> tuple[int, Problem | None]:
    """Count good frames by decoding them all."""
    count = 0
    try:
        for _ in Video.probe(path).decode():
            count += 1
    except DamageError as error:
        return count, of_error(video, error)
    return count, None


class _Packets(NamedTuple):
    """Times of all packets of a video, in ticks.

    Attributes:
        times: Presentation times, ascending.
        keys: Presentation times of key frames with what to jump to, ascending.
    """

    times: list[int]
    keys: list[tuple[int, int]]

    def starts(self, segment: int) -> tuple[Start, ...]:
        """Where segments begin."""
        keys = [pts for pts, _ in self.keys]
        found = []
        for pts in self.times[::segment]:
            key, jump = self.keys[max(0, bisect_right(keys, pts) - 1)]
            found.append(Start(pts, key, jump))
        return tuple(found)


def _packets(path: Path) -> _Packets | None:
    """Read all packets; None where frames cannot be told from them."""
    rate = Video.probe(path).rate
    try:
        with open_file(path) as container:
            stream = container.streams.best("video")
            assert isinstance(stream, VideoStream)
            if not any(name in container.format.name for name in JUMPS):
                return None
            tick, extent = stream.time_base, Extent.of(container, stream, rate)
            found = _sound([*_demuxed(container, extent, stream)])
            extent.check()
    except (DamageError, FFmpegError):
        return None
    if found is None or tick is None:
        return None
    return found if _as_decoded(path, found, tick) else None


class _Packet(NamedTuple):
    pts: int
    jump: int
    key: bool


def _demuxed(container: InputContainer, extent: Extent, stream: VideoStream) -> Iterator[_Packet]:
    for packet in container.demux(*extent.streams):
        extent.add(packet)
        if packet.stream.index == stream.index and packet.size:
            if packet.is_corrupt or packet.is_discard or packet.pts is None:
                raise DamageError("times of frames cannot be told from packets")
            jump = packet.pts if packet.dts is None else packet.dts
            yield _Packet(packet.pts, jump, packet.is_keyframe)


def _sound(packets: list[_Packet]) -> _Packets | None:
    """The times of packets, where there is one frame to each of them."""
    times = sorted(packet.pts for packet in packets)
    keys = sorted((packet.pts, packet.jump) for packet in packets if packet.key)
    if not times or not keys or keys[0][0] != times[0]:
        return None
    if any(before == after for before, after in pairwise(times)):
        return None
    return _Packets(times, keys)


def _as_decoded(path: Path, found: _Packets, tick: Fraction) -> bool:
    """Whether the first frames have the times that packets say."""
    try:
        frames = [*islice(Video.probe(path).decode(), LOOKED_AT)]
    except DamageError:
        return False
    said = [(pts - found.times[0]) * tick for pts in found.times[:LOOKED_AT]]
    return [frame.time for frame in frames] == said
