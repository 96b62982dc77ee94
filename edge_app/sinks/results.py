"""Results as JSON lines and as a flat table, one file each for any number of inputs."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TextIO

from ..errors import OutputError
from ..files import bytes_kept, settle, takes_utf8
from ..result_line import result_line
from ..types import Result

FACE_COLUMNS = (
    "track_id",
    "x1",
    "y1",
    "x2",
    "y2",
    "confidence",
    "expression",
    "expression_confidence",
    "unsure",
    "why",
)
_FLUSH_SECONDS = 1.0  # what a kill may cost; a power cut costs what the kernel keeps back, half a minute
_LONGEST_LINE = 2**20  # bytes; looked at for the last whole one when the disk is full


class Sink:
    """One JSON line per frame, also without faces, into `jsonl` and `stream`; one row per face and frame into `csv`.

    `labels` are the probability columns of the table, in this order. Times are rounded to the microsecond, boxes to a
    hundredth of a pixel, probabilities to four digits, spans to the microsecond. May be entered again while it is
    open, so that many runs share it: the last exit completes the files, and a file without a line is not kept. When
    the disk is full, the whole lines that it took are kept. A stream whose reader has gone away is a BrokenPipeError.
    With `after`, the first so many bytes that an interrupted run left in `jsonl` and `csv` are kept, and it goes on there.
    """

    name = "results"

    def __init__(
        self,
        jsonl: str | Path | None = None,
        csv: str | Path | None = None,
        stream: TextIO | None = None,
        *,
        labels: Sequence[str] = (),
        after: Sequence[int] = (0, 0),
    ) -> None:
        self._jsonl, self._csv = _File(jsonl, after[0]), _File(csv, after[1])
        self._stream, self._labels = stream, tuple(labels)
        self._plain_stream = not takes_utf8(stream)
        self._depth = 0

    def __enter__(self) -> Sink:
        if not self._depth:
            with ExitStack() as opened:
                for file in (self._jsonl, self._csv):
                    opened.callback(file.close)
                    file.open()
                opened.pop_all()
            self._flushed, self._waiting = time.monotonic(), False
        self._depth += 1
        return self

    def write(self, result: Result) -> None:
        """Append one frame; OutputError when the disk is full, BrokenPipeError when nobody reads the stream any more."""
        line = result_line(result)
        text = _encodable(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
        self._jsonl.write(text)
        if self._csv.path:
            self._csv.write(_encodable(self._rows(line)))
        self._tell(json.dumps(line) + "\n" if self._plain_stream else text)
        self._waiting = True
        self.idle()

    def idle(self) -> None:
        """Nothing waits in memory for the next frame, which may never come."""
        if self._waiting and time.monotonic() - self._flushed >= _FLUSH_SECONDS:
            self._flushed, self._waiting = time.monotonic(), False
            self._jsonl.flush()
            self._csv.flush()

    def __exit__(self, *exc: object) -> None:
        self._depth -= 1
        if self._depth:
            return
        with ExitStack() as both:
            both.callback(self._csv.close)
            both.callback(self._jsonl.close)

    def sizes(self) -> tuple[int, int]:
        """Bytes of `jsonl` and `csv` by now, none of them waiting in memory; OutputError when they cannot be written."""
        return self._jsonl.flush(), self._csv.flush()

    def _rows(self, line: dict[str, Any]) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if self._csv.empty:
            writer.writerow(("frame", "t", "source", *FACE_COLUMNS, *self._labels))
        start = line["frame"], line["t"], line["source"]
        blank = ("",) * (len(FACE_COLUMNS) + len(self._labels))
        writer.writerows((*start, *cells) for cells in [self._cells(face) for face in line["faces"]] or [blank])
        return text.getvalue()

    def _cells(self, face: dict[str, Any]) -> tuple[object, ...]:
        expression = face.get("expression", {"name": "", "confidence": "", "probs": {}})
        unsure = str(face["unsure"]).lower() if "unsure" in face else ""
        about = expression["name"], expression["confidence"], unsure, face.get("why", "")
        columns = (expression["probs"].get(label, "") for label in self._labels)
        return face.get("track_id", ""), *face["box"].values(), face["confidence"], *about, *columns

    def _tell(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError.of("results stream", error) from error


class _File:
    """A text file that has its name only when nothing more comes; nothing at all without a path."""

    def __init__(self, path: str | Path | None, after: int = 0) -> None:
        self.path, self._after = Path(path) if path else None, after
        self.empty, self._failed = True, False
        self._file: IO[str] | None = None

    def open(self) -> None:
        if self.path is None:
            return
        self.empty, self._failed = not self._after, False
        with self._told():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self._after:
                if not self._part.exists():
                    os.replace(self.path, self._part)
                os.truncate(self._part, self._after)
            self._file = self._part.open("a" if self._after else "w", encoding="utf-8", newline="")

    def write(self, text: str) -> None:
        if self._file:
            with self._told():
                self._file.write(text)
            self.empty = False

    def flush(self) -> int:
        """Have nothing wait in memory; the file's bytes."""
        if self._file is None:
            return 0
        with self._told():
            self._file.flush()
            return bytes_kept(self._file.fileno(), self._part)

    def close(self) -> None:
        """Complete the file; remove it when nothing was written, cut it to whole lines when that failed or was broken off."""
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            with self._told():
                file.close()
                if not self.empty and not self._failed:
                    settle(self._part)
                    os.replace(self._part, self.path)
        finally:
            with suppress(OSError):
                file.close()
            with suppress(OSError):
                if not self.empty and not self.path.exists():
                    self._rescue()
            with suppress(OSError):
                if self.empty or self._failed:
                    self._part.unlink(missing_ok=True)

    @property
    def _part(self) -> Path:
        return Path(f"{self.path}.part")

    def _rescue(self) -> None:
        with self._part.open("rb+") as file:
            begin = file.seek(max(0, file.seek(0, os.SEEK_END) - _LONGEST_LINE))
            whole = file.truncate(begin + file.read().rfind(b"\n") + 1)
        if whole:
            os.replace(self._part, self.path)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What the operating system says about the file as our error."""
        try:
            yield
        except OSError as error:
            self._failed = True
            raise OutputError.of(self.path, error) from error


def _encodable(text: str) -> str:
    """Names of files may hold bytes that are no UTF-8: they are escaped as JSON does it."""
    return text.encode("utf-8", "backslashreplace").decode()
