"""The page that `eventful watch` serves, from its options."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eventful.live.board import Board

TOKEN = "EVENTFUL_TOKEN"
_TAKEN = {errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES}


@dataclass(frozen=True)
class Place:
    """Where the page is served, and for whom.

    Attributes:
        host: The address or name to listen at.
        port: The port; 0 takes a free one.
        token_file: Holds what clients have to know; None takes it from the environment, if it is
            there.
        allow: Schemes of sources that the API may add, joined by commas; none where it is empty.
        names: Of this machine, as clients call it.
        certificate: A file in PEM format, for HTTPS.
        key: The certificate's key, unless the same file has it.
    """

    host: str
    port: int
    token_file: Path | None
    allow: str
    names: tuple[str, ...]
    certificate: Path | None
    key: Path | None


@contextmanager
def served(board: Board, place: Place | None) -> Iterator[None]:
    """Serve the page and say on standard error where; None serves none.

    Raises:
        ValueError: The token cannot be used, is missing, or can be read by others; or a scheme is
            none that cameras have.
        OSError: The page cannot listen there, or a file cannot be read.
    """
    if place is None:
        yield
        return
    from eventful.live.page import serve  # noqa: PLC0415 - optional libraries

    allow, token = schemes(place.allow), read_token(place.token_file)
    if place.key is not None and place.certificate is None:
        raise ValueError("--key is of a certificate: give --certificate FILE too")
    try:
        page = serve(
            board,
            place.host,
            place.port,
            token=token,
            allow=allow,
            hosts=place.names,
            certificate=place.certificate,
            key=place.key,
        )
    except OSError as error:
        if error.errno not in _TAKEN:
            raise
        raise type(error)(
            f"the page {error.strerror}: give another port with --port (0 takes a free one), "
            f"another address with --host, or --no-page"
        ) from None
    with page:
        asks = ", which asks for the token" if token else ""
        sys.stderr.write(f"page: {page.url}{asks}\n")
        sys.stderr.flush()
        yield


def schemes(text: str) -> tuple[str, ...]:
    """The schemes of a list with commas.

    Raises:
        ValueError: One is of no camera.

    Example:
        >>> schemes("rtsp, http")
        ('rtsp', 'http')
    """
    from eventful.live.sources import NETWORK  # noqa: PLC0415 - optional libraries

    found = tuple(name for part in text.split(",") if (name := part.strip().lower()))
    if unknown := sorted({*found} - {*NETWORK}):
        raise ValueError(
            f"--allow takes schemes of cameras, {', '.join(NETWORK)}, joined by commas; got "
            f"{', '.join(unknown)}"
        )
    return found


def read_token(file: Path | None) -> str | None:
    """The token of a file, or of the environment; None where there is none.

    Raises:
        ValueError: It is too short, or others can read the file.
        OSError: The file cannot be read.
    """
    from eventful.live.page.access import check_token  # noqa: PLC0415 - optional libraries

    where, token = f"the environment variable {TOKEN}", os.environ.get(TOKEN)
    if file is not None:
        where, token = f"--token-file {file}", _content(file)
    if token is None:
        return None
    try:
        check_token(token)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return token


def _content(file: Path) -> str:
    try:
        with file.open(encoding="ascii", errors="replace") as opened:
            mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
            if os.name == "posix" and mode & stat.S_IRWXO:
                raise ValueError(
                    f"--token-file {file} is to be kept from other users of this machine, and its "
                    f"mode is {mode:o}; chmod 600 {file}"
                )
            return opened.read(4_096).strip()
    except OSError as error:
        raise type(error)(
            f"--token-file {file} cannot be read: {error.strerror}; name a file that holds the "
            f"token alone"
        ) from None
