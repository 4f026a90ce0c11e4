"""Parquet: reading a table as text, and writing columns; by pyarrow, of the extra `parquet`."""

import os
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xception_cli.errors import MachineError
from xception_cli.numerals import count_of
from xception_cli.regular import open_regular
from xception_cli.texts import LARGEST_TEXT

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SUFFIX = ".parquet"
# What a table may unpack to, however small it is; paths and labels compress well.
_ROWS = 1_000_000  # and one more for each byte of the file
_RATIO = 100  # bytes of text for each byte of the file, in addition to LARGEST_TEXT


def require_parquet() -> None:
    """Check that the package of the extra `parquet` is installed.

    Raises:
        MachineError: It is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise MachineError(
            f"Parquet files need a package that is not installed: {error.name}",
            hint="pip install 'xception-cli[parquet]'",
        ) from error


def read_parquet(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Read a table as `read_table` of CSV does: columns, and each row with its number, from 1.

    Nested and binary columns, such as images, come last: their names have their type, and rows no
    cells of them.

    Raises:
        ValueError: It is not a Parquet file, or it unpacks to far more than its size implies.
        OSError: It cannot be read.
        MachineError: The package is not installed.
    """
    require_parquet()
    from pyarrow import ArrowException, types
    from pyarrow.parquet import ParquetFile

    opened = os.fdopen(open_regular(path, follow=True), "rb")
    try:
        with opened:
            with ParquetFile(opened) as file:
                fields = list(file.schema_arrow)
            left_out = [f for f in fields if types.is_nested(f.type) or "binary" in str(f.type)]
            flat = [field.name for field in fields if field not in left_out]
            # A text that is stored once for many rows stays one text in memory.
            with ParquetFile(opened, read_dictionary=flat) as file:
                _check_unpacked(file.metadata, {*flat}, os.fstat(opened.fileno()).st_size)
                columns = [_texts(column) for column in file.read(columns=flat).columns]
    except (ArrowException, OSError) as error:
        raise ValueError("it is not a Parquet file, or it is damaged") from error
    rows = zip(*columns, strict=True)
    names = flat + [f"{f.name} ({str(f.type).partition('<')[0]})" for f in left_out]
    return names, [(number, list(row)) for number, row in enumerate(rows, start=1)]


def _check_unpacked(metadata: Any, names: AbstractSet[str], size: int) -> None:
    """Refuse a file whose columns need far more memory than its size implies."""
    parts = (metadata.row_group(at) for at in range(metadata.num_row_groups))
    chunks = (part.column(at) for part in parts for at in range(part.num_columns))
    unpacked = sum(c.total_uncompressed_size for c in chunks if c.path_in_schema in names)
    rows = metadata.num_rows
    if rows > _ROWS + size or unpacked > LARGEST_TEXT + _RATIO * size:
        raise ValueError(
            f"its {size:,} bytes unpack to {count_of(rows, 'row')} of {unpacked:,} bytes"
        )


def _texts(column: Any) -> list[str]:
    texts: list[str] = []
    for chunk in column.chunks:
        if hasattr(chunk, "dictionary"):
            values = [_text(value) for value in chunk.dictionary.to_pylist()]
            texts += ["" if at is None else values[at] for at in chunk.indices.to_pylist()]
        else:
            texts += map(_text, chunk.to_pylist())
    return texts


def _text(value: Any) -> str:
    if value is None or value != value:  # nan is a missing value of pandas
        return ""
    if isinstance(value, float) and value.is_integer():  # pandas stores integers with gaps so
        return str(int(value))
    return str(value)


def to_parquet(columns: Mapping[str, "Sequence[str] | NDArray[np.float32]"]) -> bytes:
    """Return the bytes of a Parquet file.

    Args:
        columns: By name: texts, numbers `(rows,)`, or `(rows, n)` as lists of that fixed length.

    Raises:
        MachineError: The package is not installed.
    """
    require_parquet()
    import pyarrow
    from pyarrow.parquet import write_table

    arrays = {}
    for name, values in columns.items():
        if getattr(values, "ndim", 1) == 2:
            flat = pyarrow.array(values.ravel())  # type: ignore[union-attr]
            arrays[name] = pyarrow.FixedSizeListArray.from_arrays(flat, values.shape[1])  # type: ignore[union-attr]
        else:
            arrays[name] = pyarrow.array(values)
    buffer = BytesIO()
    write_table(pyarrow.table(arrays), buffer)
    return buffer.getvalue()
