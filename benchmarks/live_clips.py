"""Clips for cameras: real video as H.264 files that last, and the dense tokens of each frame.

A clip goes forwards and backwards. Its period is encoded once, with a key frame every second, and
its packets are repeated until the file is long enough. All of it is kept in a folder.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from live import AGO, errors, places
from torch import Tensor

from eventful.outputs import Network, Shown, demo_network
from eventful.video import Reader
from eventful.video.decode import Timed, Video
from eventful.video.geometry import to_pixels


@dataclass(frozen=True)
class Settings:
    """How clips are made.

    Attributes:
        cameras: How many; half of them move, half are nearly still.
        frames: Of a clip, at most, before it turns back.
        size: Side of the squares that the model sees, in pixels.
        rate: Frames a second.
        step: Takes every so many frames of the video.
        seconds: Length of the files.
    """

    cameras: int = 16
    frames: int = 60
    size: int = 224
    rate: int = 8
    step: int = 1
    seconds: int = 150


def identity(timed: Timed) -> int:
    """A checksum of every eighth row of a frame's luma, which tells frames of a clip apart."""
    plane, frame = timed.frame.planes[0], timed.frame
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    return zlib.crc32(rows[: frame.height : 8, : frame.width].tobytes())


@dataclass(frozen=True)
class Clip:
    """A clip of one camera.

    Attributes:
        name: What its camera is called.
        period: A file of one period.
        file: The long file.
        moves: Whether it is one of those that move.
    """

    name: str
    period: Path
    file: Path
    moves: bool

    @cached_property
    def tokens(self) -> np.ndarray:
        """Dense tokens (frames of the period, patches, dim), float16, as they lie on disk."""
        return np.load(self.period.with_suffix(".npy"), mmap_mode="r")

    @cached_property
    def places(self) -> dict[int, int]:
        """Numbers of the period's frames by their identities."""
        stored = np.load(self.period.with_suffix(".ids.npy"))
        return {int(each): number for number, each in enumerate(stored)}

    def dense(self, number: int) -> Tensor:
        """The dense tokens of a frame; numbers go on over the ends of the period."""
        return torch.from_numpy(np.array(self.tokens[number % len(self.tokens)], np.float32))

    def errors(self, number: int, shown: Tensor) -> tuple[float, float]:
        """Relative error over all patches and over those that move, while a frame is present."""
        return errors(self.dense(number), self.dense(number - AGO), shown)


def made(root: Path, folder: Path, settings: Settings) -> list[Clip]:
    """The clips, made where the folder does not hold them yet.

    Args:
        root: Of the videos.
        folder: Where they are kept; one folder for one `Settings`.
        settings: How they are made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    taken = settings.frames * settings.step
    network = None
    clips = []
    for number, (path, first) in enumerate(places(root, taken, settings.cameras)):
        name = f"{number:02d}"
        period, file = folder / f"{name}-period.mp4", folder / f"{name}.mp4"
        clips.append(Clip(name, period, file, number < (settings.cameras + 1) // 2))
        if not file.exists():
            frames = [f.pixels for f in islice(Reader(path), first, first + taken, settings.step)]
            write(period, [*frames, *frames[-2:0:-1]], settings.rate)
            lengthen(period, file, settings.rate, settings.seconds)
        if not period.with_suffix(".npy").exists():
            network = network or demo_network(settings.size, settings.size, ("patches",))
            _run_dense(network, period, settings.size)
    return clips


def write(path: Path, frames: Sequence[np.ndarray], rate: int) -> None:
    """Encode frames, with a key frame every second and none that look ahead."""
    height, width = (side - side % 2 for side in frames[0].shape[:2])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1  # a slice a frame
        stream.options = {"preset": "veryfast", "crf": "28", "g": str(rate), "bf": "0"}
        for pixels in frames:
            cut = np.ascontiguousarray(pixels[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(cut, format="rgb24")))
        container.mux(stream.encode(None))


def lengthen(period: Path, file: Path, rate: int, seconds: float, slower: int = 1) -> None:
    """Repeat a file's packets until it lasts so many seconds, at a rate a few times slower."""
    part = file.with_suffix(".part")
    with av.open(str(period)) as source, av.open(str(part), "w", format="mp4") as container:
        stream = source.streams.video[0]
        out = container.add_stream_from_template(stream)
        packets = [(bytes(p), p.is_keyframe) for p in source.demux(stream) if p.size]
        tick = round(1 / (rate * stream.time_base)) * slower
        for number in range(max(len(packets), round(seconds * rate / slower))):
            content, key = packets[number % len(packets)]
            packet = av.Packet(content)
            packet.pts = packet.dts = number * tick
            packet.duration, packet.time_base = tick, stream.time_base
            packet.is_keyframe, packet.stream = key, out
            container.mux(packet)
    part.replace(file)


def _run_dense(network: Network, period: Path, size: int) -> None:
    """Write the dense tokens and the identities of a period's frames."""
    model: Any = network.model
    (head,), seen = network.heads, Shown((size, size), (size, size))
    mean, std = (torch.tensor(model.pretrained_cfg[k]).view(1, -1, 1, 1) for k in ("mean", "std"))
    reformatter, found, numbers = VideoReformatter(), [], []
    for timed in Video.probe(period).decode():
        numbers.append(identity(timed))
        pixels = to_pixels(timed.frame, reformatter, timed.turn, size, size)
        x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            output = getattr(model, network.method)((x - mean) / std)
        found.append(head.values(output, seen)["patches"])
    np.save(period.with_suffix(".ids.npy"), np.array(numbers, np.int64))
    np.save(period.with_suffix(".npy"), np.stack(found))


def staleness(clips: Sequence[Clip], ages: int, every: int = 7) -> list[tuple[float, float]]:
    """Mean errors of dense tokens that are 0, 1, 2, ... frames old, over all and moving patches."""
    rows = []
    for age in range(ages):
        each = [
            fmean(found)
            for clip in clips
            for found in zip(
                *(clip.errors(n, clip.dense(n - age)) for n in range(0, len(clip.tokens), every)),
                strict=True,
            )
        ]
        rows.append((fmean(each[::2]), fmean(each[1::2])))
    return rows
