"""Workers as actors of a Ray cluster."""

from __future__ import annotations

import logging
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


@final
class OnRay(Engine):
    """Actors, each with a model and `settings.threads` processors.

    A call goes to an actor that is free; no more than one waits at any, so that what is queued
    stays small however many segments there are. Ray starts an actor again that died with its node,
    elsewhere, and its call with it. Actors that do not fit the cluster wait for room, which tells
    an autoscaler to make some.

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
        actor = ray.remote(
            num_cpus=settings.threads, max_restarts=-1, max_task_retries=ATTEMPTS - 1
        )
        self._actor = actor(Worker)
        self._actors: list[Any] = []

    @property
    def workers(self) -> int:
        """How many actors."""
        return self._count

    def run(self, calls: Iterable[Call]) -> Iterator[tuple[Call, Any]]:
        """Run calls on whichever actor is free, once it is there."""
        while len(self._actors) < self._count:
            self._actors.append(self._actor.remote(self._settings))
        starting = {actor.ready.remote(): actor for actor in self._actors}
        running: dict[Any, tuple[Any, Call]] = {}
        waiting, open_ = iter(calls), True
        try:
            while running or open_:
                ready, _ = ray.wait([*starting, *running], num_returns=1)
                (ref,) = ready
                if ref in starting:
                    actor = starting.pop(ref)
                else:
                    actor, call = running.pop(ref)
                    yield call, self._found(ref, actor)
                call = next(waiting, None) if open_ else None
                open_ = call is not None
                if call is not None:
                    actor = actor if actor in self._actors else self._actors[-1]
                    running[getattr(actor, call.method).remote(call.argument)] = actor, call
        finally:
            if running:
                self._end_actors()

    def _found(self, ref: Any, actor: Any) -> Any:
        try:
            return ray.get(ref)
        except RayTaskError as error:
            raise error.cause from None
        except RayActorError as error:
            self._actors.remove(actor)
            self._actors.append(self._actor.remote(self._settings))
            return Lost(f"{ATTEMPTS} workers died over it: {str(error).splitlines()[0]}")

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
