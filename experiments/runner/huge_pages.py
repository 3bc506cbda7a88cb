"""Huge pages for large arrays, which come and go at every step: the kernel maps them far faster.

Read by the C library when a process starts (glibc 2.35 or newer; unknown elsewhere, and ignored).
Not for arrays of 100 MB and more that every call allocates anew: in a virtual machine those became
slower.
"""

import contextlib
import os
import sys
from collections.abc import Iterator

_NAME, _SETTING = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"


@contextlib.contextmanager
def in_new_processes() -> Iterator[None]:
    """Asks for them in processes that are started inside."""
    before = os.environ.get(_NAME)
    _ask()
    try:
        yield
    finally:
        if before is None:
            del os.environ[_NAME]
        else:
            os.environ[_NAME] = before


def restart() -> None:
    """Starts this program again with them, unless it has them or cannot."""
    if sys.platform == "linux" and _SETTING not in os.environ.get(_NAME, ""):
        _ask()
        os.execv(sys.executable, sys.orig_argv)


def _ask() -> None:
    os.environ[_NAME] = ":".join(filter(None, [os.environ.get(_NAME), _SETTING]))
