"""Workers as actors of a Ray cluster."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, final

from eventful.archive.engines.engine import ATTEMPTS, Call, Engine, Lost
from eventful.archive.settings import Settings
from eventful.archive.work import Worker

try:
    import ray
    from ray.exceptions import RayActorError, RayTaskError
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "engine 'ray' needs Ray; pip install 'eventful-transformers[ray]'", name="ray"
    ) from error


Starting = dict[Any, tuple[Any, int]]  # by what answers then: actors, and which attempt it is


@final
class OnRay(Engine):
    """Actors, each with a model and `settings.threads` processors.

    A call goes to an actor that is free; no more than one waits at any, so that what is queued
    stays small however many segments there are. An actor that dies, with its node or alone, is
    replaced, and its call goes to the next that is free. Actors that do not fit the cluster wait
    for room, which tells an autoscaler to make some; the others go on meanwhile.

    Args:
        settings: Of the archive.
        workers: How many actors; None for as many as the cluster's processors give threads for.
        address: Of the cluster; None starts one on this machine unless one is joined already.
    """

    def __init__(
        self, settings: Settings, workers: int | None = None, address: str | None = None
    ) -> None:
        if workers is not None and workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        self._ours = not ray.is_initialized()
        if self._ours:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        self._settings = settings
        processors = int(ray.cluster_resources().get("CPU", 1))
        self._count = workers or max(1, processors // settings.threads)
        self._actor = ray.remote(num_cpus=settings.threads)(Worker)
        self._actors: list[Any] = []

    @property
    def workers(self) -> int:
        """How many actors."""
        return self._count

    def run(self, calls: Iterable[Call]) -> Iterator[tuple[Call, Any]]:
        """Run calls on whichever actor is free, once it is there."""
        while len(self._actors) < self._count:
            self._actors.append(self._actor.remote(self._settings))
        starting: Starting = {actor.ready.remote(): (actor, 1) for actor in self._actors}
        running: dict[Any, tuple[Any, Call, int]] = {}
        fresh, again, free = iter(calls), deque[tuple[Call, int]](), list[Any]()
        try:
            while True:
                while free and (task := _next(again, fresh)) is not None:
                    (call, attempt), actor = task, free.pop()
                    ref = getattr(actor, call.method).remote(call.argument)
                    running[ref] = actor, call, attempt
                if free and not running:
                    return
                (ref,), _ = ray.wait([*starting, *running], num_returns=1)
                if ref in starting:
                    free += self._started(ref, starting)
                    continue
                actor, call, attempt = running.pop(ref)
                found = _found(ref)
                if not isinstance(found, RayActorError):
                    free.append(actor)
                else:
                    self._replace(actor, 1, starting)
                    if attempt < ATTEMPTS:
                        again.append((call, attempt + 1))
                        continue
                    found = Lost(f"{attempt} workers died over it: {str(found).splitlines()[0]}")
                yield call, found
        finally:
            if running:
                self._end_actors()

    def _started(self, ref: Any, starting: Starting) -> list[Any]:
        """The actor that has started; none if it died over that, and another is to start."""
        actor, attempt = starting.pop(ref)
        found = _found(ref)
        if not isinstance(found, RayActorError):
            return [actor]
        if attempt == ATTEMPTS:
            raise found
        self._replace(actor, attempt + 1, starting)
        return []

    def _replace(self, actor: Any, attempt: int, starting: Starting) -> None:
        """Put another actor in the place of one that died; it starts when there is room."""
        self._actors.remove(actor)
        self._actors.append(self._actor.remote(self._settings))
        starting[self._actors[-1].ready.remote()] = self._actors[-1], attempt

    def _end_actors(self) -> None:
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []

    def close(self) -> None:
        """End all actors, and leave the cluster."""
        if ray.is_initialized():
            self._end_actors()
            if self._ours:
                ray.shutdown()


def _found(ref: Any) -> Any:
    """What an actor answers, or the error that it died by."""
    try:
        return ray.get(ref)
    except RayTaskError as error:
        raise error.cause from None
    except RayActorError as error:
        return error


def _next(again: deque[tuple[Call, int]], fresh: Iterator[Call]) -> tuple[Call, int] | None:
    """A call whose worker died, else a new one, with which attempt it is."""
    if again:
        return again.popleft()
    call = next(fresh, None)
    return None if call is None else (call, 1)
