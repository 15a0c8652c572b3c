"""Why a request is refused: every kind, its status, and the JSON that says so."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import final

from starlette.responses import Response

KINDS: dict[str, int] = {
    "bad_request": 400,  # no HTTP, or no Host header
    "bad_json": 400,
    "token_needed": 401,
    "wrong_token": 401,
    "other_origin": 403,  # a page of another site sent it
    "source_not_allowed": 403,
    "not_found": 404,
    "no_such_camera": 404,
    "no_picture_yet": 404,
    "method_not_allowed": 405,
    "too_slow": 408,
    "camera_refused": 409,  # the name is taken, or the source is not understood
    "too_many_cameras": 409,
    "body_too_large": 413,
    "target_too_long": 414,
    "not_json": 415,
    "wrong_host": 421,
    "invalid": 422,  # JSON, but not what is expected
    "too_many_streams": 429,
    "headers_too_large": 431,
    "failed": 500,  # a mistake of ours
    "stuck": 503,  # the cameras do not answer, or nothing is computed any more
}


@final
class Refusal(Exception):  # noqa: N818 - an answer, not a mistake of ours
    """A request that is not answered, and why.

    Args:
        kind: One of `KINDS`.
        message: For people; what was expected and how to mend it. It never repeats what was sent.
        headers: More for the answer.
    """

    def __init__(self, kind: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = KINDS[kind]
        self.headers = dict(headers or {})

    @property
    def body(self) -> bytes:
        """What the client gets.

        Example:
            >>> Refusal("not_found", "There is nothing here.").body
            b'{"error": {"type": "not_found", "message": "There is nothing here."}}'
        """
        return json.dumps({"error": {"type": self.kind, "message": str(self)}}).encode()


@final
class Refusals:
    """Makes answers of refusals and counts them by kind."""

    def __init__(self) -> None:
        self.counts = Counter(dict.fromkeys(KINDS, 0))

    def answer(self, refusal: Refusal) -> Response:
        """The answer; it counts as given."""
        self.counts[refusal.kind] += 1
        return Response(
            refusal.body, refusal.status, refusal.headers, media_type="application/json"
        )
