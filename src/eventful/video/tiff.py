"""TIFF, as far as it says how a picture is stored; EXIF data have the same form."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from eventful.video.extent import DamageError

MAGIC = (b"II*\0", b"MM\0*")

SUBFILE: Final = 254
COMPRESSION: Final = 259
PHOTOMETRIC: Final = 262
ORIENTATION: Final = 274
SAMPLE_FORMAT: Final = 339

# What says how pixels are stored. FFmpeg, asked to be strict, refuses what else it does not know:
# resolution units, software, dates.
STORAGE = {256, 257, 258, COMPRESSION, PHOTOMETRIC, 266, 273, 277, 278, 279, 282, 283, 284}
STORAGE |= {292, 293, 317, 320, 322, 323, 324, 325}
JPEG = (6, 7)
YCBCR = 6
REDUCED, MASK = 1, 4  # bits of the kind of a subfile: a smaller copy of a picture, its outline

_ENTRY = 12
_WIDTHS = {3: "H", 4: "I"}  # short, long


@dataclass(frozen=True)
class Directory:
    """What a file says of one picture.

    Attributes:
        order: Of bytes, as `struct` has it.
        offset: Where it begins.
        entries: By tag, twelve bytes each.
        following: Where the next one begins; 0 after the last.
    """

    order: str
    offset: int
    entries: dict[int, bytes]
    following: int

    def value(self, data: bytes, tag: int) -> int | None:
        """The first number of an entry; None without such an entry."""
        entry = self.entries.get(tag)
        if entry is None:
            return None
        kind, count = struct.unpack_from(f"{self.order}HI", entry, 2)
        width = _WIDTHS.get(kind)
        if width is None:
            return None
        inside = count * struct.calcsize(width) <= 4
        if inside:
            return struct.unpack_from(f"{self.order}{width}", entry, 8)[0]
        (where,) = struct.unpack_from(f"{self.order}I", entry, 8)
        return struct.unpack_from(f"{self.order}{width}", data, where)[0]


def directories(data: bytes) -> Iterator[Directory]:
    """All pictures of a file, thumbnails included.

    Raises:
        struct.error: The file ends before a directory does.
    """
    order = "<" if data.startswith(b"II") else ">"
    (offset,) = struct.unpack_from(f"{order}I", data, 4)
    seen: set[int] = set()
    while offset and offset not in seen:
        seen.add(offset)
        (count,) = struct.unpack_from(f"{order}H", data, offset)
        begin, end = offset + 2, offset + 2 + _ENTRY * count
        (following,) = struct.unpack_from(f"{order}I", data, end)
        entries = [data[at : at + _ENTRY] for at in range(begin, end, _ENTRY)]
        by_tag = {struct.unpack_from(f"{order}H", entry)[0]: entry for entry in entries}
        yield Directory(order, offset, by_tag, following)
        offset = following


def orientation(data: bytes) -> int:
    """How the picture is to be turned, from 1 (upright) to 8; 1 where nothing is said."""
    try:
        return next(directories(data)).value(data, ORIENTATION) or 1
    except (struct.error, StopIteration):
        return 1


def plain(data: bytes) -> bytes:
    """The same file, its first picture described by nothing but how it is stored.

    Raises:
        DamageError: It holds several pictures, or one that FFmpeg would decode wrongly and not
            say so.
    """
    try:
        first, *more = directories(data)
        pages = [d for d in more if not (d.value(data, SUBFILE) or 0) & (REDUCED | MASK)]
        form = first.value(data, COMPRESSION), first.value(data, PHOTOMETRIC)
        samples = first.value(data, SAMPLE_FORMAT)
    except (struct.error, ValueError):
        return data  # FFmpeg says what is wrong
    if pages:
        raise DamageError(f"it holds {1 + len(pages)} pictures; save each to a file of its own")
    if form[0] in JPEG or form[1] == YCBCR:
        raise DamageError("it is a TIFF in JPEG or YCbCr, which is not read; save it as PNG")
    if samples not in (None, 1):
        raise DamageError("its pixels are signed or floating-point; save it as PNG")
    kept = [entry for tag, entry in first.entries.items() if tag in STORAGE]
    count = struct.pack(f"{first.order}H", len(kept))
    directory = count + b"".join(kept) + bytes(4)
    return data[: first.offset] + directory + data[first.offset + len(directory) :]
