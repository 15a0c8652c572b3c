"""Generated videos and pictures against what was written, FFmpeg and Pillow.

    python benchmarks/video_fuzz.py [--count 1000] [--seed 0] [--only 17 ...] [--out FILE]

makes files of random containers, codecs, sizes, rotations, pixel ratios and rates, several
recordings in one file among them, and cuts some at a random byte. It reads each with
`eventful.video.Reader` and holds frames, times and shapes against what was written, against PyAV
alone (the number of frames) and against Pillow (pictures). A cut file must end in an error of a
documented type or in frames of the whole file. Writes benchmarks/results/video_fuzz.json; each case
follows from the seed and its number, and `--only` repeats some.
"""

import argparse
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from fuzz_pictures import (
    PICTURES,
    TYPED,
    WrongError,
    check_cut_picture,
    check_picture,
    drawn,
    picture,
)
from PIL import Image

from eventful.provenance import commit, machine, version, write_json
from eventful.video import Frame, Reader

RESULT = Path(__file__).parent / "results" / "video_fuzz.json"

# Containers: codecs with pixel formats, and the step of their clock in seconds (0: exact).
H264 = ("libx264", ("yuv420p", "yuv444p", "yuvj420p", "yuv420p10le"))
HEVC = ("libx265", ("yuv420p", "yuv444p"))
MPEG4, JPEG = ("mpeg4", ("yuv420p",)), ("mjpeg", ("yuvj420p", "yuvj444p"))
MPEG1, MPEG2 = ("mpeg1video", ("yuv420p",)), ("mpeg2video", ("yuv420p",))
VP8, VP9 = ("libvpx", ("yuv420p",)), ("libvpx-vp9", ("yuv420p", "yuv444p"))
FFV1, PNG = ("ffv1", ("yuv420p", "bgr0")), ("png", ("rgb24",))
PRORES = ("prores_ks", ("yuv422p10le",))
HUFFYUV = ("huffyuv", ("yuv422p", "rgb24"))
MILLISECOND = Fraction(1, 1000)
CONTAINERS: dict[str, tuple[tuple[tuple[str, tuple[str, ...]], ...], Fraction | int]] = {
    "mp4": ((H264, HEVC, MPEG4, JPEG, VP9), 0),
    "mov": ((H264, PNG, JPEG, PRORES), 0),
    "mkv": ((H264, HEVC, FFV1, VP8, VP9, MPEG2, JPEG), MILLISECOND),
    "webm": ((VP8, VP9), MILLISECOND),
    "avi": ((H264, MPEG4, JPEG, FFV1, HUFFYUV), 0),
    "nut": ((H264, FFV1, MPEG4), 0),
    "ts": ((H264, HEVC, MPEG2), Fraction(1, 15000)),
    "mpg": ((MPEG1, MPEG2), Fraction(1, 90000)),
    "vob": ((MPEG2,), Fraction(1, 90000)),
    "flv": ((H264, ("flv", ("yuv420p",))), MILLISECOND),
    "wmv": ((("wmv2", ("yuv420p",)), ("msmpeg4", ("yuv420p",))), MILLISECOND),
    "h264": ((H264,), 0),
    "m2v": ((MPEG2,), 0),
    "y4m": ((("rawvideo", ("yuv420p", "yuv444p")),), 0),
    "gif": ((("gif", ("rgb8",)),), Fraction(1, 100)),
    "apng": ((("apng", ("rgb24",)),), MILLISECOND),
}
DRIFTING = ("gif", "mpg", "vob")  # whose frames each last a whole number of ticks
JUMPING = ("mpg", "vob")  # in which FFmpeg leaves out a frame's time now and then
TIMELESS = ("h264", "m2v")
JOINABLE = ("ts", "mpg", "vob")
RATES = [Fraction(r) for r in (24, 25, 30, 50)] + [Fraction(n, 1001) for n in (24000, 30000)]
ODD_RATES = [Fraction(r) for r in (10, 12)] + [Fraction(15, 2)]
RATIOS = (Fraction(1), Fraction(1), Fraction(2), Fraction(1, 2), Fraction(16, 15))
TURNS = (0, 0, 1, 2, 3)  # quarters counter-clockwise, in MP4 and MOV
NEAR = {"rgb8": 60, "gif": 60}  # levels of 255 that a mean pixel may be off
LOSSY = 14


@dataclass
class Video:
    """A file that was written, and what it shows.

    Attributes:
        name: Container, codec and pixel format.
        counts: Frames of each recording.
        step: Of the container's clock.
        turn: Quarters counter-clockwise.
        ratio: Width of a pixel over its height.
    """

    name: str
    path: Path
    size: tuple[int, int]
    rate: Fraction
    counts: list[int]
    step: Fraction | int
    turn: int = 0
    ratio: Fraction = Fraction(1)

    def frame(self, k: int) -> np.ndarray:
        """The kth frame, upright."""
        for count in self.counts:
            if k < count:
                break
            k -= count
        return np.rot90(picture(k, *self.size), self.turn)

    @property
    def shown(self) -> tuple[Fraction, Fraction]:
        """Width and height as meant to be shown."""
        width, height = self.size[0] * self.ratio, Fraction(self.size[1])
        return (height, width) if self.turn % 2 else (width, height)


@dataclass
class Found:
    """What all cases came to."""

    kinds: Counter[str] = field(default_factory=Counter)
    containers: dict[str, Counter[str]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    frames: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)


def made(random: Random, folder: Path) -> Video:
    """Write a video."""
    suffix = random.choice(list(CONTAINERS))
    codecs, step = CONTAINERS[suffix]
    codec, formats = random.choice([one for one in codecs if one[0] in av.codecs_available])
    pix_fmt = random.choice(formats)
    least = 64 if codec == "libx265" else 16
    side = 1 if pix_fmt in ("yuv444p", "yuvj444p", "rgb24", "bgr0", "rgb8") else 2
    size = random.randrange(least, 100) // side * side, random.randrange(least, 100) // side * side
    strict = codec in ("mpeg1video", "mpeg2video")
    rate = random.choice(RATES if strict or suffix == "y4m" else RATES + ODD_RATES)
    joins = suffix in JOINABLE and random.random() < 0.5
    least = 5 if suffix in JOINABLE else 2  # FFmpeg knows no transport stream by less
    counts = [random.randint(least, 18) for _ in range(random.randint(2, 3) if joins else 1)]
    video = Video(f"{suffix} {codec} {pix_fmt}", folder / f"a.{suffix}", size, rate, counts, step)
    if suffix in ("mp4", "mov") and codec != "png":
        video.ratio = random.choice(RATIOS)
    parts = [_written(video, codec, pix_fmt, count) for count in counts]
    data = bytearray(b"".join(parts))
    if suffix in ("mp4", "mov"):
        video.turn = random.choice(TURNS)
        _turn(data, video.turn)
    video.path.write_bytes(data)
    return video


def _written(video: Video, codec: str, pix_fmt: str, count: int) -> bytes:
    options = {"libx264": {"crf": "8"}, "libx265": {"x265-params": "log-level=none:crf=8"}}
    kind = {".gif": {"loop": "0"}, ".apng": {"plays": "0"}}.get(video.path.suffix, {})
    name = {".y4m": "yuv4mpegpipe", ".m2v": "mpeg2video"}.get(video.path.suffix)
    with av.open(str(video.path), "w", format=name, container_options=kind) as container:
        stream = container.add_stream(codec, rate=video.rate, options=options.get(codec, {}))
        stream.codec_context.thread_count = 1
        stream.width, stream.height = video.size
        stream.pix_fmt = pix_fmt
        if video.ratio != 1:
            stream.codec_context.sample_aspect_ratio = video.ratio
        if not options.get(codec) and codec not in ("gif", "apng", "png", "rawvideo"):
            stream.codec_context.bit_rate = 4_000_000
        for k in range(count):
            frame = av.VideoFrame.from_ndarray(picture(k, *video.size), format="rgb24")
            container.mux(stream.encode(frame.reformat(format=pix_fmt)))
        container.mux(stream.encode(None))
    return video.path.read_bytes()


def _turn(data: bytearray, quarters: int) -> None:
    a, b = [(1, 0), (0, -1), (-1, 0), (0, 1)][quarters]
    matrix = struct.pack(">9i", a << 16, b << 16, 0, -b << 16, a << 16, 0, 0, 0, 1 << 30)
    begin = data.index(b"tkhd") + 44
    data[begin : begin + len(matrix)] = matrix


def fitted(random: Random, video: Video) -> tuple[dict[str, Any], tuple[int, int]]:
    """Options of `Reader`, and the (width, height) that frames must then have."""
    width, height = video.size
    upright = (height, width) if video.turn % 2 else (width, height)
    side, patch = random.randint(14, 90), random.choice((8, 14, 16))
    longest = max(video.shown)
    sides = [max(1, int(x * side / longest / patch + Fraction(1, 2))) for x in video.shown]
    return random.choice(
        [
            ({}, upright),
            ({"size": side}, (side, side)),
            (
                {"size": side, "keep_aspect": True, "patch": patch},
                (sides[0] * patch, sides[1] * patch),
            ),
        ]
    )


def decoded(path: Path) -> int:
    """How many frames PyAV alone gives of a file, up to the first error."""
    count = 0
    try:
        with av.open(str(path)) as container:
            for _ in container.decode(video=0):
                count += 1
    except FFmpegError:
        pass
    return count


def check_whole(video: Video, random: Random) -> int:
    """Hold a file against what was written; returns its number of frames.

    Raises:
        WrongError: Something differs.
    """
    options, size = fitted(random, video)
    with Reader(video.path, **options) as reader:
        frames = list(reader)
    count = sum(video.counts)
    if (len(frames), reader.damage) != (count, None):
        raise WrongError(f"{len(frames)} frames of {count}, damage {reader.damage}")
    if decoded(video.path) != count:
        raise WrongError(f"PyAV gives {decoded(video.path)} frames of {count}")
    if (reader.width, reader.height) != size:
        raise WrongError(f"{reader.width} x {reader.height} in place of {size}")
    loose = Fraction(1, 50) if video.step else 0
    if count > 1 and abs(reader.rate / video.rate - 1) > loose and video.step != Fraction(1, 100):
        raise WrongError(f"rate {reader.rate} in place of {video.rate}")
    for k, frame in enumerate(frames):
        _check_frame(video, k, frame, size)
    return count


def _check_frame(video: Video, k: int, frame: Frame, size: tuple[int, int]) -> None:
    expected = k / video.rate
    drifts = video.path.suffix[1:] in DRIFTING
    slack = video.step * ((3 + k) if drifts else len(video.counts))
    slack += (1 + k // 10) / video.rate if video.path.suffix[1:] in JUMPING else 0
    if abs(frame.time - expected) > slack:
        raise WrongError(f"frame {k} at {frame.time} in place of {expected}")
    if frame.pixels.shape != (size[1], size[0], 3):
        raise WrongError(f"frame {k} has shape {frame.pixels.shape}")
    truth = np.asarray(Image.fromarray(video.frame(k)).resize(size, Image.Resampling.BICUBIC))
    off = np.abs(frame.pixels.astype(int) - truth).mean()
    if off > NEAR.get(video.name.split()[-1], LOSSY):
        raise WrongError(f"frame {k} is {off:.1f} levels off")


def check_cut(video: Video, random: Random) -> str:
    """Cut a file at a random byte; what can be read must be of the whole file.

    Returns:
        What it came to: "whole" (nothing that is shown was cut off), "damage", "unseen" (fewer
        frames and not a word: the container states no length), or the name of an error.

    Raises:
        WrongError: A frame is not of the whole file.
    """
    with Reader(video.path) as reader:
        whole = {frame.time: frame.pixels for frame in reader}
    data = video.path.read_bytes()
    video.path.write_bytes(data[: random.randrange(len(data))])
    try:
        with Reader(video.path) as reader:
            frames = list(reader)
    except TYPED as error:
        return type(error).__name__
    strange = [frame.index for frame in frames if not _is_of(video, frame, whole)]
    if len(strange) > (reader.damage is None):  # the last packet of a stream may be cut unseen
        raise WrongError(f"frames {strange} are not of the whole file")
    if reader.damage is not None:
        return "damage"
    return "whole" if len(frames) == len(whole) and not strange else "unseen"


def _is_of(video: Video, frame: Frame, whole: dict[Fraction, np.ndarray]) -> bool:
    if video.path.suffix[1:] in TIMELESS:  # a frame that is missing has no time to leave out
        return any(np.array_equal(frame.pixels, pixels) for pixels in whole.values())
    return np.array_equal(frame.pixels, whole.get(frame.time, []))


def case(number: int, seed: int, folder: Path, found: Found) -> None:
    """Make and check one file."""
    random = Random(f"{seed} {number}")
    kind = random.choices(("video", "cut video", "picture", "cut picture"), (45, 20, 25, 10))[0]
    name = kind
    try:
        if "video" in kind:
            video = made(random, folder)
            name = video.name
            seen = found.containers.setdefault(video.path.suffix[1:], Counter())
            if kind == "video":
                found.frames += check_whole(video, random)
                seen["whole files right"] += 1
            else:
                seen[f"cut: {check_cut(video, random)}"] += 1
        else:
            path = folder / f"a.{random.choice(list(PICTURES))}"
            mode, expected = drawn(random, path)
            name = f"{path.suffix[1:]} {mode}"
            seen = found.containers.setdefault(path.suffix[1:], Counter())
            if kind == "picture":
                check_picture(path, expected)
                seen["whole files right"] += 1
            else:
                seen[f"cut: {check_cut_picture(path, mode, random)}"] += 1
        found.kinds[kind] += 1
    except Exception as error:  # what is not typed is what is looked for
        found.failures.append(
            {
                "case": number,
                "kind": kind,
                "file": name,
                "error": f"{type(error).__name__}: {error}",
            }
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all cases and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1000, help="files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, nargs="+", help="these cases alone")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    av.logging.set_level(av.logging.PANIC)
    found, start = Found(), time.perf_counter()
    numbers = options.only or range(options.count)
    for number in numbers:
        with tempfile.TemporaryDirectory() as folder:
            case(number, options.seed, Path(folder), found)
    result = {
        "commit": commit(),
        "machine": machine() | {name: version(name) for name in ("av", "pillow")},
        "seed": options.seed,
        "files": len(numbers),
        "right": sum(found.kinds.values()),
        "frames_compared": found.frames,
        "seconds": round(time.perf_counter() - start, 1),
        "kinds": dict(found.kinds),
        "formats": {
            name: dict(sorted(seen.items())) for name, seen in sorted(found.containers.items())
        },
        "failures": found.failures,
    }
    write_json(result, options.out)
    print(
        {key: result[key] for key in ("files", "right", "frames_compared", "seconds", "failures")}
    )


if __name__ == "__main__":
    main()
