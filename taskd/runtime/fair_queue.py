"""
`Turns`: a queue in which everybody gets a turn.

What waits is taken in turn from each owner that has something waiting, and of one owner first in,
first out. A thousand that one has put in do not hold up the single one of another.
"""

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """What waits, by owner."""

    def __init__(self) -> None:
        # In the order of the turns: whoever had one goes to the end.
        self._waiting: dict[str, deque[T]] = {}

    def __len__(self) -> int:
        return sum(len(waiting) for waiting in self._waiting.values())

    def add(self, owner: str, item: T) -> None:
        """Put an item at the end of its owner's."""
        self._waiting.setdefault(owner, deque()).append(item)

    def take(self) -> T:
        """The next one's oldest. Raises `IndexError` where nothing waits."""
        if not self._waiting:
            raise IndexError("nothing waits")
        owner, waiting = next(iter(self._waiting.items()))
        item = waiting.popleft()
        del self._waiting[owner]
        if waiting:
            self._waiting[owner] = waiting
        return item

    def remove(self, owner: str, item: T) -> bool:
        """Take this one out; False where it does not wait."""
        waiting = self._waiting.get(owner, deque())
        if item not in waiting:
            return False
        waiting.remove(item)
        if not waiting:
            del self._waiting[owner]
        return True

    def counts(self) -> dict[str, int]:
        """How many wait, by owner."""
        return {owner: len(waiting) for owner, waiting in self._waiting.items()}

    def clear(self) -> list[T]:
        """Take all of them, in the order of their turns."""
        return [self.take() for _ in range(len(self))]
