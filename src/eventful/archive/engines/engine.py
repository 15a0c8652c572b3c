"""What runs the calls of a driver on workers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

ATTEMPTS = 3  # of a call over which its worker dies


class Call(NamedTuple):
    """A method of `Worker` and its argument."""

    method: str
    argument: Any


@dataclass(frozen=True)
class Lost:
    """Workers died over a call, time and again."""

    reason: str


class Engine(ABC):
    """Runs calls on workers, each of which keeps its models loaded."""

    @property
    @abstractmethod
    def workers(self) -> int:
        """How many there are."""

    @abstractmethod
    def run(self, calls: Iterable[Call]) -> Iterator[tuple[Call, Any]]:
        """Run calls, taken one by one as workers become free.

        Yields:
            Each call with what it returned, as they end; with `Lost` where its worker died.

        Raises:
            Exception: What a call raised. The others are given up then.
        """

    @abstractmethod
    def close(self) -> None:
        """End all workers."""

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
