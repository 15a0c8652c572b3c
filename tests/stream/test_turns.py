"""How often a frame turns from one file of the library to another, on its way through."""

import sys
from pathlib import Path

import pytest

import eventful
from eventful.stream.plan import Choice
from tests.laws.frames import NoMotion, flow_is, frame_stream
from tests.zoo import clip

ROOT = str(Path(eventful.__file__).parent)
MOST = 25


def turns(run):
    """Pairs of files (caller, callee) in the order of their first call; loops count once."""
    found = {}

    def inside(frame):
        name = frame.f_code.co_filename if frame else ""
        return name[len(ROOT) + 1 :] if name.startswith(ROOT) else None

    def watch(frame, event, _):
        if event == "call" and inside(frame):
            caller = frame.f_back
            while caller and not inside(caller):  # through torch and timm
                caller = caller.f_back
            if caller and inside(caller) != inside(frame):
                found.setdefault((inside(caller), inside(frame)), frame.f_code.co_name)

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        run()
    finally:
        sys.setprofile(before)
    return found


CHOICES = {
    "dense": Choice("dense"),
    "partial": Choice("partial", tokens=4),
    "carried": Choice("carried"),
    "held": Choice("held"),
}
TOO_MANY = pytest.mark.xfail(strict=True, reason="takes more turns than it should")


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("dense", marks=TOO_MANY),
        pytest.param("partial", marks=TOO_MANY),
        pytest.param("carried", marks=TOO_MANY),
        "held",
    ],
)
def test_a_frame_takes_few_turns(kind, monkeypatch):
    """The plan of `Auto` decides, and is then overruled."""
    flow_is(monkeypatch, NoMotion)
    stream = frame_stream("plain", eventful.Auto(share=0.5))
    first, second, third = clip(3, batch=1)
    stream(first), stream(second)
    plan = stream._engine._schedule.plans[0]
    decide = plan.decide
    plan.decide = lambda look: (decide(look), CHOICES[kind])[1]
    found = turns(lambda: stream(second if kind == "held" else third))
    assert stream.stats.rows[0].kind == kind
    lines = [f"{a} -> {b} ({name})" for (a, b), name in found.items()]
    assert len(found) <= MOST, "\n".join([f"{kind}: {len(found)} turns", *lines])
