"""Files are written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import OutputError


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to: it takes the place of `path` when the block ends well, else it is removed.

    Its suffix is that of `path`, which Keras, NumPy and Matplotlib look at. OutputError when it cannot be written.
    """
    part = path.with_name(f"{path.stem}.part{path.suffix}")
    try:
        yield part
        part.replace(path)
    except OSError as error:
        raise OutputError.of(path, error) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
