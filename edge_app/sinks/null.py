"""Counts and forgets: a sink for those who want nothing written, tests among them."""

from __future__ import annotations

from ..types import Result


class Sink:
    """Knows afterwards how many `frames` and `faces` came."""

    name = "null"

    def __init__(self) -> None:
        self.frames = self.faces = 0

    def __enter__(self) -> Sink:
        return self

    def write(self, result: Result) -> None:
        self.frames += 1
        self.faces += len(result.faces)

    def __exit__(self, *exc: object) -> None:
        return None
