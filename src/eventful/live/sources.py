"""Which cameras are meant: what they are called and where they are; secrets stay out of sight."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import unquote, urlsplit

Kind = Literal["network", "webcam", "file", "input"]

NETWORK = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https")
NAME = re.compile(r"[^\W_][\w .()-]{0,62}[\w)]|[^\W_]")
_NAMED = re.compile(r"([^=:/?]+)=(.+)", re.DOTALL)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_URL = re.compile(r"(?<=://)\S+")
_PIECE = re.compile(r"([^=&;#'\"<>]+=)?[^&;#'\"<>]+")
_QUERY = re.compile(r"(?<=[?&;])([^=&;\s#'\"]+=)[^&;\s#'\"]*")
_USER = re.compile(r".*@", re.DOTALL)
_NO_SCHEME = re.compile(r"^[^/]*:.*@", re.DOTALL)
_WORD = re.compile(r"(?i)((?:pass|passwd|password|pwd|token|secret|key)=)[^&;/?\s#'\"]+")


def mask(text: str) -> str:
    """Hide what may be secret of the URLs in a text: users, passwords, queries.

    Passwords may hold any sign, so all up to the last @ is taken for one; and some cameras want
    theirs in the path, as in `/user=me_password=secret`.

    Example:
        >>> mask("refused by rtsp://me:secret@10.0.0.5/live?token=abc&n=1")
        'refused by rtsp://***@10.0.0.5/live?token=***&n=***'
    """
    text = _QUERY.sub(r"\1***", _URL.sub(_masked, text))
    return _WORD.sub(r"\1***", text)


def _masked(found: re.Match[str]) -> str:
    user, at, rest = found[0].rpartition("@")
    place, mark, query = rest.partition("?")
    hidden = _PIECE.sub(lambda piece: f"{piece[1] or ''}***", query)
    return ("***@" if user or at else "") + place + mark + hidden


@dataclass(frozen=True)
class Source:
    """A camera to watch.

    Attributes:
        name: What it is called: 1 to 64 letters, digits, spaces and `. _ - ( )`.
        place: Where it is, as it is opened. It may hold a password and is not shown.

    Raises:
        ValueError: The name is not allowed, or the place is not understood.

    Example:
        >>> Source("door", "rtsp://me:secret@10.0.0.5/live")
        Source(name='door', place='rtsp://***@10.0.0.5/live')
        >>> Source("door", "/dev/video0").kind
        'webcam'
    """

    name: str
    place: str = field(repr=False)

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(
                f"a camera's name has 1 to 64 letters, digits, spaces and . _ - ( ), and begins "
                f"with a letter or digit, got {mask(self.name)!r}"
            )
        if self.scheme not in (None, *NETWORK):
            raise ValueError(
                f"expected {', '.join(NETWORK)}://..., a webcam such as /dev/video0, a video file, "
                f"or - for standard input; got {self.masked}"
            )
        if not self.place:
            raise ValueError(f"the camera {self.name} has no place; write {self.name}=URL")
        if any(unicodedata.category(sign) in ("Cc", "Cf", "Cs") for sign in self.place):
            raise ValueError(f"the place of {self.name} has signs that nobody sees; remove them")

    def __repr__(self) -> str:
        return f"Source(name={self.name!r}, place={self.masked!r})"

    @property
    def scheme(self) -> str | None:
        """The scheme of its URL, in small letters; None if it is none."""
        found = _SCHEME.match(self.place)
        return None if found is None else found[1].lower()

    @property
    def kind(self) -> Kind:
        """What it is: "network", "webcam", "file" or "input"."""
        if self.scheme is not None:
            return "network"
        if self.place == "-":
            return "input"
        return "webcam" if self.place.startswith("/dev/video") else "file"

    @property
    def masked(self) -> str:
        """The place without its secrets."""
        begin, mark, rest = self.place.partition("://")
        if not mark:  # perhaps a URL whose scheme was forgotten
            return mask(_NO_SCHEME.sub("***@", self.place))
        return mask(begin + mark + _USER.sub("***@", rest))

    def hide(self, text: str) -> str:
        """Hide the secrets of this source in a text, such as a library's message."""
        return mask(self._without_secrets(text))

    def _without_secrets(self, text: str) -> str:
        given = self.place.partition("://")[2].rpartition("@")[0]
        user, _, password = given.partition(":")
        found = [password, user] if password else []
        text = text.replace(self.place, self.masked)
        for secret in sorted({s for f in found if f for s in (f, unquote(f))}, key=len)[::-1]:
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
        return text

    def check(self) -> None:
        """See that a file is there.

        Raises:
            FileNotFoundError: It is not.
        """
        if self.kind == "file" and not Path(self.place).exists():
            raise FileNotFoundError(
                f"there is nothing at {self.masked}; a relative path starts at {Path.cwd()}, and "
                f"cameras have URLs such as rtsp://10.0.0.5/live"
            )


def read(given: Iterable[str], config: Path | None = None) -> list[Source]:
    """The cameras meant by a command's arguments and a file.

    Args:
        given: `name=PLACE`, or a place, which is named after its host or file.
        config: A YAML or TOML file with a table `cameras` of places by name.

    Raises:
        ValueError: Two have one name, a name or place is not allowed, or there is none.
        FileNotFoundError: A file is not there.

    Example:
        >>> read(["door=rtsp://10.0.0.5/live", "http://10.0.0.6:8080/a.m3u8"])[1]
        Source(name='10.0.0.6', place='http://10.0.0.6:8080/a.m3u8')
    """
    found = [] if config is None else _configured(config)
    for text in given:
        taken = {source.name for source in found}
        named = _NAMED.fullmatch(text)
        name, place = (named[1], named[2]) if named else (_free(_called(text), taken), text)
        found.append(Source(name, place))
    names = [source.name for source in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two cameras are called {twice[0]}; give each a name of its own")
    if not found:
        raise ValueError("no camera is given; write name=URL, or name a file with --config")
    if sum(source.kind == "input" for source in found) > 1:
        raise ValueError("standard input can be only one camera; it is given twice")
    for source in found:
        source.check()
    return found


def _called(place: str) -> str:
    """A name for a place: its host, or its file's."""
    text = re.sub(r"[^A-Za-z0-9_.-]", "-", _host(place) or Path(place).stem).strip("-._")[:60]
    return "input" if place == "-" else text or "camera"


def _host(place: str) -> str | None:
    try:
        return urlsplit(place).hostname if _SCHEME.match(place) else None
    except ValueError:
        return None


def _free(name: str, taken: set[str]) -> str:
    numbers = (f"{name}-{number}" for number in range(2, len(taken) + 3))
    return name if name not in taken else next(each for each in numbers if each not in taken)


def _configured(path: Path) -> list[Source]:
    """The cameras of a file; relative paths start at its folder."""
    content = _content(path)
    cameras = content.get("cameras") if isinstance(content, Mapping) else None
    if not isinstance(cameras, Mapping) or not all(isinstance(p, str) for p in cameras.values()):
        raise ValueError(
            f"{path} needs a table of cameras, a place by each name, such as "
            f"cameras: {{door: 'rtsp://10.0.0.5/live'}}"
        )
    unknown = sorted(map(str, set(content) - {"cameras"}))
    if unknown:
        raise ValueError(f"{path} holds cameras and nothing else, got {mask(', '.join(unknown))}")
    found = [Source(str(name), place) for name, place in cameras.items()]
    folder = path.parent
    return [Source(s.name, str(folder / s.place)) if s.kind == "file" else s for s in found]


def _content(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of cameras {path}")
    text = path.read_text()
    if path.suffix.lower() == ".toml":
        if sys.version_info < (3, 11):
            raise ValueError(f"{path}: TOML needs Python 3.11; write the same as YAML")
        import tomllib  # noqa: PLC0415

        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{path} is no TOML: {mask(str(error))}") from None
    import yaml  # noqa: PLC0415

    try:
        return cast(Any, yaml.safe_load(text))
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = "" if where is None else f" at line {where.line + 1}"
        raise ValueError(f"{path} is no YAML{line}; it needs a table of cameras") from None
