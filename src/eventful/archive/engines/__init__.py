"""Where workers run: in processes of this machine, or on a Ray cluster."""

from __future__ import annotations

from importlib import import_module

from eventful.archive.engines.engine import Call, Engine, Lost
from eventful.archive.engines.local import Local
from eventful.archive.settings import Settings

__all__ = ["NAMES", "Call", "Engine", "Local", "Lost", "engine_named"]

NAMES = "local", "ray"


def engine_named(name: str, settings: Settings, workers: int | None, address: str | None) -> Engine:
    """Start an engine.

    Args:
        name: "local" or "ray".
        settings: Of the archive.
        workers: How many; None as many as there are processors for.
        address: Of the Ray cluster; None starts one here, or joins the one this process is part of.

    Raises:
        ValueError: There is no such engine.
        ModuleNotFoundError: Ray is not installed; the message has the pip line.
    """
    if name not in NAMES:
        raise ValueError(f"engine is one of {', '.join(NAMES)}, got {name!r}")
    if name == "local":
        if address is not None:
            raise ValueError(f"address={address!r} goes with engine='ray'")
        return Local(settings, workers)
    return import_module("eventful.archive.engines.on_ray").OnRay(settings, workers, address)
