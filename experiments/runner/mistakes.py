"""Which errors are the user's or the machine's, said in one line, and which are bugs."""

import errno

from moe.files import Failed, words
from moe.registry import Mistake

# Failures of the machine, not of the program: full disk, permission, read-only file system.
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_ENVIRONMENT = {errno.EACCES, errno.EPERM, errno.EROFS, *_NO_ROOM}


def is_mistake(error: Exception) -> bool:
    """Whether the user or the machine is the cause, so one line says all; the rest are bugs."""
    refused = isinstance(error, OSError) and error.errno in _ENVIRONMENT
    return refused or isinstance(error, Mistake | Failed)


def line(error: Exception, workdir: object = None) -> str:
    """The error in one line; a full disk is told with its folder, which the system leaves out."""
    if isinstance(error, OSError) and error.errno in _NO_ROOM and workdir:
        where = error.filename or f"--workdir={workdir}"
        return f"{where}: {error.strerror}; what is saved is kept; the same command resumes"
    return words(error)
