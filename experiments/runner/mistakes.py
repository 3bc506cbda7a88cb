"""Which errors are the user's or the machine's, said in one line, and which are bugs."""

import errno
import os
import pathlib

from experiments.text import printable
from moe.files import Failed, words
from moe.registry import Mistake

LONGEST = 2000  # characters of a line
# Failures of the machine, not of the program: full disk, permission, a file of another kind.
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_PATH = {errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}
_NO_PATH |= {errno.ENOTEMPTY, errno.ENXIO, errno.ENODEV, errno.EXDEV}
_NO_DEVICE = {errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.EBUSY, errno.ENOTCONN}
_NO_DEVICE |= {errno.ETIMEDOUT, errno.ENOMEM, errno.EAGAIN, errno.ETXTBSY}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, *_NO_ROOM, *_NO_PATH, *_NO_DEVICE}
_MEMORY = "; lower train.batch or data.sequence_length, raise train.accumulate, set model.remat"


def is_mistake(error: BaseException, workdir: object = None) -> bool:
    """Whether the user or the machine is the cause, so one line says all; the rest are bugs.

    workdir: a file that is gone below it was removed while the run went on.
    """
    if isinstance(error, Mistake | Failed) or _out_of_memory(error):
        return True
    if not isinstance(error, OSError):
        return False
    gone = error.errno == errno.ENOENT and workdir and error.filename
    return error.errno in _REFUSED or bool(gone and _inside(error.filename, workdir))


def line(error: BaseException, workdir: object = None) -> str:
    """The error in one line; a full disk is told with its folder, which the system leaves out."""
    if _out_of_memory(error):
        text = f"out of memory: {words(error)[:300].rstrip('.') or 'the system gave none'}{_MEMORY}"
        return _shown(text + "; what is saved is kept, and the same command resumes")
    if not isinstance(error, OSError) or isinstance(error, Failed) or error.strerror is None:
        return _shown(words(error))
    where = error.filename or (f"--workdir={workdir}" if workdir else "")
    text = f"{where}: {error.strerror}" if where else f"[Errno {error.errno}] {error.strerror}"
    if error.errno in _NO_ROOM and workdir:
        text += "; what is saved is kept; the same command resumes"
    return _shown(text)


def _shown(text: str) -> str:
    """The text as a terminal can show it on one line: its controls escaped, its middle left out."""
    text = printable(text).replace("\n", "\\n")
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    return f"{text[:half]} ... ({len(text):,} characters) ... {text[-half:]}"


def _inside(path: str | bytes, folder: object) -> bool:
    above = os.path.abspath(str(folder))
    return pathlib.Path(os.path.abspath(os.fsdecode(path))).is_relative_to(above)


def _out_of_memory(error: BaseException) -> bool:
    """Of numpy, Python or XLA, whose error is known by name: nothing is imported for it here."""
    xla = type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError")
    return isinstance(error, MemoryError) or (xla and "RESOURCE_EXHAUSTED" in str(error))
