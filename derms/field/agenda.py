"""An agenda: what is due when, so that a moment at which nothing is due costs nothing."""

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Agenda(Generic[K]):
    """Times [s] at which keys are due, one per key; keys of one time come in the order in which they were put."""

    def __init__(self) -> None:
        self._at_s: dict[K, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._count = 0

    def put(self, key: K, at_s: float) -> None:
        """Make a key due at a time, and not at the one before."""
        self._count += 1
        self._at_s[key] = (at_s, self._count)
        heapq.heappush(self._heap, (at_s, self._count, key))

    def due(self, now_s: float) -> list[K]:
        """Take out every key whose time has come, the earliest first."""
        keys: list[K] = []
        while self._heap and self._heap[0][0] <= now_s:
            at_s, count, key = heapq.heappop(self._heap)
            if self._at_s.get(key) == (at_s, count):  # else it was put anew since
                del self._at_s[key]
                keys.append(key)
        return keys
