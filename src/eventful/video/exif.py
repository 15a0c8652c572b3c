"""How images are to be turned to stand upright, from the EXIF data of JPEG, PNG, WebP and TIFF.

PyAV does not pass them on whole.
"""

import struct

from eventful.video.geometry import QUARTERS, UPRIGHT, Turn
from eventful.video.tiff import MAGIC, orientation

TURNS: dict[int, Turn] = {
    1: UPRIGHT,
    2: (-1, 0, 0, 1),
    3: QUARTERS[2],
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: QUARTERS[3],
    7: (0, -1, -1, 0),
    8: QUARTERS[1],
}

_JPEG, _PNG, _WEBP = b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF....WEBP"
_HEAD = b"Exif\0\0"
_APPLICATION, _SCAN = 0xE1, 0xDA  # segments of a JPEG


def exif_turn(data: bytes) -> Turn:
    """Reads how the image in `data`, a whole file, must be turned."""
    try:
        return TURNS.get(orientation(_exif(data)), UPRIGHT)
    except struct.error:
        return UPRIGHT


def _exif(data: bytes) -> bytes:
    """The EXIF data of a file, in the form of a TIFF; empty without any."""
    if data.startswith(MAGIC):
        return data
    if data.startswith(_JPEG):
        return _of_jpeg(data)
    if data.startswith(_PNG):
        return _of_png(data)
    if data[:4] + data[8:12] == b"RIFFWEBP":
        return _of_webp(data)
    return b""


def _of_jpeg(data: bytes) -> bytes:
    """The segment of application data that begins as EXIF; segments end where the scan begins."""
    at = len(_JPEG)
    while data[at : at + 1] == b"\xff":
        kind, length = struct.unpack_from(">BH", data, at + 1)
        content = data[at + 4 : at + 2 + length]
        if kind == _SCAN:
            break
        if kind == _APPLICATION and content.startswith(_HEAD):
            return content.removeprefix(_HEAD)
        at += 2 + length
    return b""


def _of_png(data: bytes) -> bytes:
    """The chunk of EXIF data: length, name, content and checksum."""
    at = len(_PNG)
    while at < len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name == b"eXIf":
            return data[at + 8 : at + 8 + length]
        at += 12 + length
    return b""


def _of_webp(data: bytes) -> bytes:
    """The chunk of EXIF data: name, length, and content of an even length."""
    at = len(_WEBP)
    while at < len(data):
        name, length = struct.unpack_from("<4sI", data, at)
        if name == b"EXIF":
            return data[at + 8 : at + 8 + length].removeprefix(_HEAD)
        at += 8 + length + length % 2
    return b""
