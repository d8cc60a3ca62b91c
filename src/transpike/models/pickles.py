"""Analyses a pickle without building it: how deep it nests, whether it ends, and the names that it uses."""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from typing import IO

__all__ = ["scan_pickle"]

OPERATIONS = 3_000_000
"""The largest number of operations in one pickle. A state dict has about 35 for each tensor."""

DEPTH = 200
"""The largest depth of containers. Python's own comparisons, hashes and texts of deeper ones overflow the stack."""

REPEATS = 1_000_000
"""How many more values than written a pickle may contain, if a shared value counts at each place."""

_LEAF = 0
_MARK = -1


class _Built:
    """The containers that a pickle builds, by number, with their contents. Leaves are only counted."""

    def __init__(self) -> None:
        self.leaves = [1]
        self.inner: dict[int, list[int]] = {}

    def container(self, items: list[int]) -> int:
        self.leaves.append(1)
        self.fill(len(self.leaves) - 1, items)
        return len(self.leaves) - 1

    def fill(self, container: int, items: list[int]) -> None:
        inner = [item for item in items if item != _LEAF]
        if inner:
            self.inner.setdefault(container, []).extend(inner)
        self.leaves[container] += len(items) - len(inner)

    def check(self, most: int) -> None:
        """Raise an error for a container that contains itself, nests too deeply, or has more than ``most`` values.

        A shared value counts at each place.
        """
        size, depth = [0] * len(self.leaves), [0] * len(self.leaves)
        for container in self._inner_first():
            inner = self.inner.get(container, [])
            size[container] = self.leaves[container] + sum(size[item] for item in inner)
            depth[container] = 1 + max((depth[item] for item in inner), default=0)
            if depth[container] > DEPTH:
                raise ValueError(f"it nests more than {DEPTH} levels deep")
            if size[container] > most:
                raise ValueError("it repeats its own parts more often than can be read")

    def _inner_first(self) -> Iterator[int]:
        """Yield every container after all of its contents."""
        new, open_, closed = 0, 1, 2
        state = [new] * len(self.leaves)
        for start in range(len(self.leaves)):
            waiting = [start]
            while waiting:
                container = waiting.pop()
                if container < 0:
                    state[~container] = closed
                    yield ~container
                elif state[container] == open_:
                    raise ValueError("it contains itself")
                elif state[container] == new:
                    state[container] = open_
                    waiting.append(~container)
                    waiting += [item for item in self.inner.get(container, []) if state[item] != closed]


def scan_pickle(data: bytes | IO[bytes]) -> set[tuple[str, str]]:
    """Follow a pickle's operations without executing them, and return the classes and functions that it names.

    Args:
        data: the pickle, or a file at its start. Afterwards the file is at its end.

    Returns:
        Pairs of a module and a name in it, as written. A pickle of protocol 2 has the names of Python 2.

    Raises:
        ValueError: The pickle is damaged, contains itself, or nests or repeats its parts too much. Reading, printing or
            comparing its result might never end.

    Example:
        >>> import pickle
        >>> scan_pickle(pickle.dumps({"best": complex(1, 2)}, protocol=2))
        {('__builtin__', 'complex')}
        >>> loop: list[object] = []
        >>> loop.append(loop)
        >>> scan_pickle(pickle.dumps(loop))
        Traceback (most recent call last):
        ...
        ValueError: it contains itself
    """
    built, count = _Built(), 0
    names: set[tuple[str, str]] = set()
    stack: list[int] = []
    memo: dict[object, int] = {}
    try:
        for operation, argument, _ in pickletools.genops(data):
            count += 1
            if count > OPERATIONS:
                raise ValueError(f"it has more than {OPERATIONS} operations")
            if operation.name == "GLOBAL":
                module, _, name = str(argument).partition(" ")
                names.add((module, name))
            _follow(operation, argument, stack, memo, built)
    except (IndexError, KeyError, OverflowError, MemoryError) as error:
        raise ValueError(f"its pickle is damaged ({type(error).__name__})") from error
    built.check(REPEATS + count)
    return names


def _follow(
    operation: pickletools.OpcodeInfo, argument: object, stack: list[int], memo: dict[object, int], built: _Built
) -> None:
    name, before = operation.name, operation.stack_before
    if name in ("PUT", "BINPUT", "LONG_BINPUT"):
        memo[argument] = stack[-1]
    elif name == "MEMOIZE":
        memo[len(memo)] = stack[-1]
    elif name in ("GET", "BINGET", "LONG_BINGET"):
        stack.append(memo[argument])
    elif name == "DUP":
        stack.append(stack[-1])
    elif name == "MARK":
        stack.append(_MARK)
    else:
        items: list[int] = []
        if pickletools.markobject in before:
            while (item := stack.pop()) != _MARK:
                items.append(item)
            before = before[: before.index(pickletools.markobject)]
        items += [stack.pop() for _ in before]
        if not operation.stack_after:
            return
        if name in ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS"):
            if items[-1] != _LEAF:
                built.fill(items[-1], items[:-1])
            stack.append(items[-1])
        elif name == "BUILD":  # a state, which is ignored with the object, or metadata of a mapping
            stack.append(items[-1])
        elif items or name.startswith("EMPTY"):
            stack.append(built.container(items))
        else:
            stack.append(_LEAF)
