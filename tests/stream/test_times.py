"""Times are taken when the device has done its work, and all in one place."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch

import eventful.stream
from eventful.stream.bound import now


def test_the_clock_waits_for_a_gpu(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    first = now(cast(Any, SimpleNamespace(is_cuda=True, device="cuda:1")))
    assert waited == ["cuda:1"]
    assert first <= now(torch.zeros(1))
    assert len(waited) == 1


def test_nothing_else_reads_a_clock():
    folder = Path(eventful.stream.__file__).parent
    sources = {path.name: path.read_text() for path in folder.glob("*.py")}
    assert [name for name, source in sources.items() if "import time" in source] == ["bound.py"]
