"""Reads and writes video as tensors, exactly timed, on PyAV.

`read` is all that most programs need; `Reader` adds times, rates and a damage report, and
`Writer` makes H.264 files. Needs the extra `video`.
"""

try:
    import av as _av  # noqa: F401
except ImportError as error:
    raise ImportError(
        "eventful.video needs PyAV; pip install 'eventful-transformers[video]'"
    ) from error

from eventful.video.reader import DamagedVideoWarning, Frame, Reader, read
from eventful.video.writer import Writer

__all__ = ["DamagedVideoWarning", "Frame", "Reader", "Writer", "read"]
