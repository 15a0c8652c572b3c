"""Streams: videos running through a converted model, and what is remembered between frames."""

from eventful.stream.stream import GateView, Stream

__all__ = ["GateView", "Stream"]
