"""A thread in another network namespace that runs functions there.

Sockets belong to the namespace of the thread that makes them, so this process can make a client's traffic.
Only the dedicated thread moves (setns(2) moves the calling thread alone, and it never moves back); the rest
of the process stays in its own namespace.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from lvslab.boot.net import namespaces
from lvslab.closing import Closing
from lvslab.errors import MachineError, StateError

P = ParamSpec("P")
T = TypeVar("T")


class NamespaceThread(Closing):
    """A thread in the network namespace that the open file descriptor ``fd`` refers to.

    ``fd`` may be closed as soon as this is made. Messages call the namespace ``name``. Calls from any
    threads run one after another. Raises MachineError where the namespace cannot be entered (CAP_SYS_ADMIN
    is needed).
    """

    def __init__(self, fd: int, name: str = "namespace") -> None:
        self.name = name
        self._closed = False
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        try:
            self._thread = self._executor.submit(_enter, fd, name).result()
        except BaseException:
            self._executor.shutdown()
            raise

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``function`` in the namespace; return or raise what it does."""
        if self._closed:
            raise StateError(f"the network namespace of {self.name} has been left already")
        if threading.get_ident() == self._thread:
            return function(*args, **kwargs)
        return self._executor.submit(function, *args, **kwargs).result()

    def close(self) -> None:
        """Wait for the running call, if any, and end the thread. A second time does nothing."""
        self._closed = True
        self._executor.shutdown(cancel_futures=True)


def _enter(fd: int, name: str) -> int:
    try:
        namespaces.setns(fd, namespaces.CLONE_NEWNET)
    except OSError as error:
        raise MachineError(
            f"cannot enter the network namespace of {name}: {error.strerror}",
            "a lab's namespaces can be entered by root only" if error.errno == 1 else None,
        ) from None
    return threading.get_ident()
