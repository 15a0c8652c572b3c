"""What many clients ask for, made once and kept for a moment."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar, final

Key = TypeVar("Key")
Value = TypeVar("Value")


@final
class Kept(Generic[Key, Value]):
    """Values by key that are made again only when they are older than a moment.

    One is made at a time, so that clients, however many, never take more than one thread from the
    cameras.

    Args:
        make: Makes a value; what it raises is not kept.
        seconds: How long a value is kept.
        most: How many are.

    Example:
        >>> made = []
        >>> kept = Kept(lambda key: made.append(key) or len(made), seconds=60, most=2)
        >>> kept("a"), kept("a"), kept("b")
        (1, 1, 2)
    """

    def __init__(self, make: Callable[[Key], Value], seconds: float, most: int = 1) -> None:
        self._make = make
        self._seconds = seconds
        self._most = most
        self._values: OrderedDict[Key, tuple[float, Value]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, key: Key) -> Value:
        """The value of the key."""
        with self._lock:
            made, value = self._values.get(key, (None, None))
            if made is not None and time.monotonic() - made < self._seconds:
                return value  # type: ignore[return-value]
            value = self._make(key)
            self._values[key] = time.monotonic(), value
            self._values.move_to_end(key)
            while len(self._values) > self._most:
                self._values.popitem(last=False)
            return value

    def forget(self) -> None:
        """Make all again."""
        with self._lock:
            self._values.clear()
