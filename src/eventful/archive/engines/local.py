"""Workers as processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, final

from eventful.archive.engines.engine import ATTEMPTS, Call, Engine, Lost
from eventful.archive.settings import Settings
from eventful.archive.work import Worker

_PRELOADED = ["eventful.archive.work"]


@dataclass
class _Process:
    """A worker's process, the driver's end of its pipe, and what it is at."""

    process: Any
    pipe: Connection
    call: Call | None = None
    attempt: int = 0


@final
class Local(Engine):
    """Processes, each with a model and `settings.threads` threads.

    A worker that dies is replaced, and its call is tried again. When this process dies, however it
    does, its workers end at once.

    Args:
        settings: Of the archive.
        workers: How many processes; None for as many as the processors give threads for.
    """

    def __init__(self, settings: Settings, workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        self._settings = _pickled(settings)
        self._count = workers or max(1, _processors() // settings.threads)
        method = "spawn" if sys.platform == "win32" else "forkserver"
        self._context: Any = multiprocessing.get_context(method)
        if method == "forkserver":
            self._context.set_forkserver_preload(_PRELOADED)
        self._processes: list[_Process] = []

    @property
    def workers(self) -> int:
        """How many processes."""
        return self._count

    def run(self, calls: Iterable[Call]) -> Iterator[tuple[Call, Any]]:
        """Run calls on whichever process is free."""
        waiting = iter(calls)
        try:
            yield from self._run(waiting)
        finally:
            if any(one.call is not None for one in self._processes):
                self.close()  # what was given up must not answer later

    def _run(self, waiting: Iterator[Call]) -> Iterator[tuple[Call, Any]]:
        open_ = True
        while True:
            while open_ and (free := self._free()) is not None:
                call = next(waiting, None)
                open_ = call is not None
                if call is not None:
                    self._hand(free, call, 1)
            busy = [one for one in self._processes if one.call is not None]
            if not busy:
                return
            ready = wait([one.pipe for one in busy])
            for one in [one for one in busy if one.pipe in ready]:
                call, found = one.call, self._answer(one)
                if found is not None:
                    assert call is not None
                    yield call, found[0]

    def _free(self) -> _Process | None:
        for one in self._processes:
            if one.call is None:
                return one
        return self._start() if len(self._processes) < self._count else None

    def _start(self, attempt: int = 1) -> _Process:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve, args=(theirs, self._settings), daemon=True, name="eventful-worker"
        )
        try:
            process.start()
        except (EOFError, ConnectionError):  # the server that forks workers has died
            ours.close()
            theirs.close()
            if attempt == ATTEMPTS:
                raise
            return self._start(attempt + 1)
        theirs.close()
        self._processes.append(_Process(process, ours))
        return self._processes[-1]

    def _hand(self, one: _Process, call: Call, attempt: int) -> None:
        one.call, one.attempt = call, attempt
        try:
            one.pipe.send(call)
        except OSError:
            return  # it is dead, which `_answer` will find

    def _answer(self, one: _Process) -> tuple[Any] | None:
        """What a process has to say; None if it died and its call goes to another."""
        call, attempt = one.call, one.attempt
        assert call is not None
        try:
            good, found = one.pipe.recv()
        except (EOFError, OSError):
            one.process.join()
            self._processes.remove(one)
            one.pipe.close()
            if attempt < ATTEMPTS:
                self._hand(self._start(), call, attempt + 1)
                return None
            return (Lost(f"{attempt} workers died over it, exit code {one.process.exitcode}"),)
        one.call = None
        if not good:
            raise found
        return (found,)

    def close(self) -> None:
        """End all processes at once; files that they write by then are left unfinished."""
        for one in self._processes:
            one.process.kill()
        for one in self._processes:
            one.process.join()
            one.pipe.close()
        self._processes = []


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _pickled(settings: Settings) -> bytes:
    try:
        return pickle.dumps(settings)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"workers cannot be told how to build the network ({error}); pass a function of a "
            f"module, or a functools.partial of one"
        ) from error


def _serve(pipe: Connection, settings: bytes) -> None:
    """The work of a process: answer calls until there are no more."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        worker = Worker(pickle.loads(settings))
    except Exception as error:
        pipe.recv()
        pipe.send((False, error))
        return
    with worker:
        while True:
            try:
                call = pipe.recv()
            except (EOFError, KeyboardInterrupt):
                return
            try:
                answer: tuple[bool, Any] = True, getattr(worker, call.method)(call.argument)
            except KeyboardInterrupt:
                return
            except Exception as error:
                answer = False, error
            pipe.send(answer)


def _end_with(parent: Any) -> None:
    """End this process when its parent does."""
    parent.join()
    os._exit(1)
