"""Which names and sources of cameras the API takes."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection
from urllib.parse import urlsplit

from eventful.live.page.refusals import Refusal

ALLOWED = ("rtsp", "rtsps")
_NAME = re.compile(r"[^\W_][\w .()-]{0,62}[\w)]|[^\W_]")
_SOURCE = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://[!-~]+", re.IGNORECASE | re.ASCII)
_CREDENTIALS = re.compile(r"(?<=://)[^/?#\s]*@")
_METADATA = {ipaddress.ip_address(address) for address in ("100.100.100.200", "fd00:ec2::254")}
LONGEST = 1_024


def check_name(name: str) -> None:
    """Refuse what could not be the name of a file, a label or a part of a URL.

    Raises:
        Refusal: It could not.

    Example:
        >>> check_name("front door 2")
        >>> check_name("../etc")
        Traceback (most recent call last):
        ...
        eventful.live.page.refusals.Refusal: a camera's name has 1 to 64 letters, ...
    """
    if not _NAME.fullmatch(name):
        raise Refusal(
            "invalid",
            "a camera's name has 1 to 64 letters, digits, spaces and . _ - ( ), begins with a "
            "letter or digit and does not end with a space or dot",
        )


def check_source(source: str, allowed: Collection[str]) -> None:
    """Refuse a source that no operator has allowed: other schemes, paths, devices, metadata.

    Names of hosts are not looked up: one that leads to such an address is not found out.

    Args:
        source: As a client sent it.
        allowed: Schemes.

    Raises:
        Refusal: It is refused.

    Example:
        >>> check_source("rtsp://10.0.0.7/stream1", ALLOWED)
        >>> check_source("file:///etc/passwd", ALLOWED)
        Traceback (most recent call last):
        ...
        eventful.live.page.refusals.Refusal: a source is a URL that begins with rtsp:// or rtsps://
    """
    url = _SOURCE.fullmatch(source) if len(source) <= LONGEST else None
    if url is None or url["scheme"].lower() not in allowed:
        schemes = " or ".join(f"{scheme}://" for scheme in sorted(allowed))
        raise Refusal(
            "source_not_allowed",
            f"a source is a URL that begins with {schemes}" if schemes else "no source is allowed",
        )
    try:
        parts = urlsplit(source)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or "\\" in source:
        raise Refusal(
            "source_not_allowed", "a source is a URL with a host, as rtsp://10.0.0.7/live"
        )
    if _is_reserved(host):
        raise Refusal(
            "source_not_allowed", "addresses of cloud metadata and link-local ones are refused"
        )


def masked(text: str) -> str:
    """The text without credentials of the URLs in it.

    Example:
        >>> masked("rtsp://admin:secret@10.0.0.7/live is not there")
        'rtsp://***@10.0.0.7/live is not there'
    """
    return _CREDENTIALS.sub("***@", text)


def _is_reserved(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:
            address = ipaddress.ip_address(socket.inet_aton(host))  # 0xa9fea9fe and the like
        except OSError:
            return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_link_local or mapped in _METADATA or mapped.is_unspecified
