"""Tables as Parquet files under a seal: numpy columns, row group by row group, and a record.

The seal is the SHA-256 of the whole file with zeros in its own place, so any changed byte is told.
pyarrow is loaded where a file is written or read.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from moe import files

RECORD = b"moe.record"
_SEAL = b"moe.seal"
_OPEN = b"seal:" + b"0" * 64
_SEALED = re.compile(rb"seal:([0-9a-f]{64})")
_CHUNK = 2**22  # bytes


@dataclasses.dataclass(frozen=True)
class Some:
    """A column that a few rows have: row_S, rising, and value_SD; others have an empty list."""

    row_S: np.ndarray
    value_SD: np.ndarray


Columns = dict[str, Any]  # name -> array of shape (T,) or (T, K), or Some


def write(
    path: pathlib.Path, groups: Iterable[Columns], record: Callable[[], dict[str, Any]]
) -> None:
    """Writes row groups as they come, the whole file or nothing.

    Args:
      groups: at least one, all of the same columns and types; a Some last has T from the others.
      record: JSON, asked for when all rows are written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    writer = None
    try:
        for columns in groups:
            table = pa.table({name: _arrow(columns, name) for name in columns})
            if writer is None:
                writer = pq.ParquetWriter(part, table.schema, compression="zstd")
            writer.write_table(table, row_group_size=max(1, table.num_rows))
        if writer is None:
            raise ValueError("no row group")
        said = json.dumps(record(), allow_nan=False).encode()
        writer.add_key_value_metadata({RECORD: said, _SEAL: _OPEN})
        writer.close()
        _seal(part)
        os.replace(part, path)
    finally:
        if writer is not None:
            writer.close()
        part.unlink(missing_ok=True)


def _arrow(columns: Columns, name: str):
    """A column as Arrow has it."""
    import pyarrow as pa

    value = columns[name]
    if isinstance(value, Some):
        rows = len(next(iter(columns.values())))
        long_T = np.zeros(rows, np.int32)
        long_T[value.row_S] = value.value_SD.shape[1]
        ends = np.concatenate([[0], np.cumsum(long_T)]).astype(np.int32)
        return pa.ListArray.from_arrays(ends, pa.array(value.value_SD.reshape(-1)))
    if value.ndim == 1:
        return pa.array(value)
    return pa.FixedSizeListArray.from_arrays(pa.array(value.reshape(-1)), value.shape[1])


def _numpy(column) -> Any:
    """A column as numpy has it."""
    import pyarrow as pa

    column, kind = column.combine_chunks(), column.type
    if pa.types.is_list(kind):
        long_T = np.diff(column.offsets.to_numpy())
        row_S = np.flatnonzero(long_T).astype(np.int32)
        value = column.flatten().to_numpy(zero_copy_only=False)
        return Some(row_S, value.reshape(len(row_S), -1) if len(row_S) else value.reshape(0, 0))
    if pa.types.is_fixed_size_list(kind):
        value = column.flatten().to_numpy(zero_copy_only=False)
        return value.reshape(len(column), kind.list_size)
    return column.to_numpy(zero_copy_only=False)


class Table:
    """A file that `write` left; opening it checks its seal.

    Attributes:
      record: what was said of it.
      types: name of each column -> its type as `type_of` has it, in order.
      rows: their number.
    """

    def __init__(self, path: str | os.PathLike):
        """Raises Unreadable, one line, for a file that is not whole or was changed."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = pathlib.Path(path)
        _check_seal(self.path)
        try:
            self._file = pq.ParquetFile(self.path)
            self.record: dict[str, Any] = json.loads(self._file.metadata.metadata[RECORD])
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            raise files.Unreadable(path, f"is no table of ours ({files.one_line(error)})") from None
        self.rows: int = self._file.metadata.num_rows
        self.types = {field.name: _type_of(field.type) for field in self._file.schema_arrow}

    def groups(self) -> Iterator[Columns]:
        """The row groups, one after the other."""
        for number in range(self._file.num_row_groups):
            table = self._file.read_row_group(number)
            yield {name: _numpy(table.column(name)) for name in table.column_names}


def type_of(value: Any) -> str:
    """The type of a column as text: int16, int16[2] for a table of two, int16[] for a Some."""
    if isinstance(value, Some):
        return f"{value.value_SD.dtype}[]"
    return str(value.dtype) + (f"[{value.shape[1]}]" if value.ndim > 1 else "")


def _type_of(kind) -> str:
    """The same of a type of Arrow."""
    import pyarrow as pa

    lists = pa.types.is_list(kind), pa.types.is_fixed_size_list(kind)
    size = f"[{kind.list_size}]" if lists[1] else "[]" if lists[0] else ""
    one = kind.value_type if any(lists) else kind
    try:
        return f"{np.dtype(one.to_pandas_dtype())}{size}"
    except (NotImplementedError, TypeError):
        return f"{one}{size}"


def _seal(path: pathlib.Path) -> None:
    """Puts the hash of the file into the place that was left for it."""
    place = _place(path)
    digest = _digest(path, place)
    with open(path, "r+b") as file:
        file.seek(place)
        file.write(digest)
        file.flush()
        os.fsync(file.fileno())


def _place(path: pathlib.Path) -> int:
    """Where the 64 digits of the seal lie; raises Unreadable where there is no place for them."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 8))
            end = file.read()
            long = int.from_bytes(end[:4], "little") + 8
            if size < 12 or end[4:] != b"PAR1" or long > size:
                raise files.Unreadable(path, "is cut off, or no Parquet file")
            file.seek(size - long)
            found = [match.start(1) for match in _SEALED.finditer(file.read())]
    except OSError as error:
        raise files.Unreadable(path, f"cannot be read ({error.strerror})") from None
    if not found:
        raise files.Unreadable(path, "has no seal: it is no table of ours")
    return size - long + found[-1]


def _digest(path: pathlib.Path, place: int) -> bytes:
    """The hash of the file with zeros in that place, 64 digits."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        left = place
        while left:
            block = file.read(min(left, _CHUNK))
            found.update(block)
            left -= len(block)
        file.read(64)
        found.update(b"0" * 64)
        while block := file.read(_CHUNK):
            found.update(block)
    return found.hexdigest().encode()


def _check_seal(path: pathlib.Path) -> None:
    place = _place(path)
    with open(path, "rb") as file:
        file.seek(place)
        said = file.read(64)
    if said != _digest(path, place):
        raise files.Unreadable(path, "its seal does not fit: a part of it was changed or lost")
