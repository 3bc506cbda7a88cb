"""Which errors are the user's or the machine's, said in one line, and which are bugs."""

import errno
import pathlib
import traceback

# Failures of the machine, not of the program: full disk, permission, read-only file system.
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_ENVIRONMENT = {errno.EACCES, errno.EPERM, errno.EROFS, *_NO_ROOM}
_PACKAGES = [pathlib.Path(__file__).parent.parent / p for p in ("moe", "configs", "experiments")]


def is_mistake(error: Exception) -> bool:
    """Whether our own code raised it on purpose, or the machine refused; the rest are bugs."""
    if isinstance(error, OSError) and error.errno in _ENVIRONMENT:
        return True
    frame = traceback.extract_tb(error.__traceback__)[-1]
    ours = any(pathlib.Path(frame.filename).is_relative_to(package) for package in _PACKAGES)
    return ours and frame.line.startswith("raise ")


def line(error: Exception, workdir: object = None) -> str:
    """The error in one line; a full disk is told with its folder, which the system leaves out."""
    if isinstance(error, OSError) and error.errno in _NO_ROOM and workdir:
        place = error.filename or f"--workdir={workdir}"
        return f"{place}: {error.strerror}; what is saved is kept; the same command resumes"
    return " ".join(str(error).split())
