"""One run at a time in a folder: a lock that the system takes back when its holder dies."""

import contextlib
import errno
import fcntl
import os
import pathlib
import platform
import sys
import time
from collections.abc import Iterator

from moe.registry import Mistake

_CANNOT = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}


@contextlib.contextmanager
def hold(folder: pathlib.Path, patience_s: float = 0.0) -> Iterator[None]:
    """Holds FOLDER/.lock, which says who holds it, while the block runs.

    patience_s: how long to wait for another holder, as for processes that die with their parent.
    Raises Mistake, one line, when another process holds it; waits for nobody otherwise.
    """
    with open(folder / ".lock", "a+", encoding="utf-8") as file:
        deadline = time.monotonic() + patience_s
        while not _taken(file):
            if time.monotonic() > deadline:
                file.seek(0)
                holder = file.read().strip() or "another process"
                raise Mistake(
                    f"--workdir={folder}: is in use by {holder}; wait for it, or choose another"
                )
            time.sleep(0.1)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield


def _taken(file) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        print(f"{file.name}: this file system has no locks; run here only once", file=sys.stderr)
    return True
