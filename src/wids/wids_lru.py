"""Keys -> values, of which only those stay that were used last; whoever goes is told to a handler."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, ItemsView, KeysView, ValuesView
from typing import Any

ReleaseHandler = Callable[[Any, Any], object]


class LRUCache:
    """A mapping that keeps the `capacity` values that were used last.

    `cache[key]` gives None where there is nothing. The handler is called with (key, value) once for each value that
    goes: evicted, replaced by another one, deleted, or cleared.

    Attributes:
        cache: the `OrderedDict`, what was used longest ago first.
    """

    def __init__(self, capacity: int, release_handler: ReleaseHandler | None = None) -> None:
        self.cache: OrderedDict[Any, Any] = OrderedDict()
        self.capacity = capacity
        self.release_handler = release_handler

    def __getitem__(self, key: Any) -> Any:
        if key not in self.cache:
            return None
        self.cache.move_to_end(key)
        return self.cache[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        if key in self.cache and self.cache[key] is not value:
            self._release(key, self.cache.pop(key))
        self.cache[key] = value
        self.cache.move_to_end(key)
        while len(self.cache) > self.capacity:
            self._release(*self.cache.popitem(last=False))

    def __delitem__(self, key: Any) -> None:
        if key in self.cache:
            self._release(key, self.cache.pop(key))

    def __contains__(self, key: Any) -> bool:
        return key in self.cache

    def __len__(self) -> int:
        return len(self.cache)

    def keys(self) -> KeysView[Any]:
        """The keys, that of the value that was used longest ago first."""
        return self.cache.keys()

    def values(self) -> ValuesView[Any]:
        """The values, in the same order."""
        return self.cache.values()

    def items(self) -> ItemsView[Any, Any]:
        """Both."""
        return self.cache.items()

    def clear(self) -> None:
        """Let all values go."""
        while self.cache:
            self._release(*self.cache.popitem(last=False))

    def __del__(self) -> None:
        if hasattr(self, "cache"):
            self.clear()

    def _release(self, key: Any, value: Any) -> None:
        if self.release_handler is not None:
            self.release_handler(key, value)


__all__ = ["LRUCache"]
