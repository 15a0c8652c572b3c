"""The page's own files: a fixed table, so that no path from the network reaches the file system."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from importlib.resources import files

from fastapi import APIRouter
from starlette.responses import Response

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
}
PAGES = {"/": "index.html", "/login": "login.html"}
STATIC = (
    "adding.js",
    "api.js",
    "controls.js",
    "facts.js",
    "grafana.json",
    "icon.svg",
    "large.js",
    "login.js",
    "main.js",
    "page.css",
    "pictures.js",
    "plot.js",
    "tiles.js",
    "words.js",
)


@cache
def content(name: str) -> bytes:
    """A file of the package's folder `static`."""
    return (files("eventful.live.page") / "static" / name).read_bytes()


def dashboard() -> str:
    """The dashboard for Grafana, as JSON to import there.

    Example:
        >>> import json
        >>> json.loads(dashboard())["title"]
        'eventful: live cameras'
    """
    return content("grafana.json").decode()


def router() -> APIRouter:
    """Routes of all files."""
    router = APIRouter()
    table = PAGES | {f"/static/{name}": name for name in STATIC}
    for path, name in table.items():
        router.add_api_route(path, _answer(name), include_in_schema=False, response_model=None)
    return router


def _answer(name: str) -> Callable[[], Awaitable[Response]]:
    kind = TYPES["." + name.rpartition(".")[2]]

    async def answer() -> Response:
        return Response(content(name), media_type=kind)

    return answer
