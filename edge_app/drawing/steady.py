"""What was drawn for each face in the pictures before, so that texts can be read and nothing hops about."""

from __future__ import annotations

from dataclasses import dataclass

REREAD_NS = 500_000_000  # a percentage is written anew after that time ...
JUMP = 5  # ... or when it has moved by that many points
HIDDEN_NS = 1_000_000_000  # a chart that had to go stays away that long
KEPT_NS = 2_000_000_000  # of a face that is not seen


@dataclass(slots=True)
class Shown:
    """What stands at one face."""

    seen_ns: int
    word: str = ""
    points: int = 0
    written_ns: int = 0
    tag: int | None = None  # the last places of tag and chart, as `Canvas` counts them
    chart: int | None = None
    gone_ns: int | None = None  # when the chart had to go

    def percent(self, word: str, share: float, now_ns: int) -> int:
        """`share` (0 to 1) in percent, as it is written beside `word` at `now_ns`."""
        points = round(share * 100)
        if word != self.word or abs(points - self.points) >= JUMP or now_ns - self.written_ns >= REREAD_NS:
            self.word, self.points, self.written_ns = word, points, now_ns
        return self.points

    def may_chart(self, now_ns: int) -> bool:
        """Whether its chart may be drawn, if there is room."""
        return self.gone_ns is None or now_ns - self.gone_ns >= HIDDEN_NS

    def charted(self, place: int | None, now_ns: int) -> None:
        """Its chart was drawn at `place`, or found none."""
        if place is not None:
            self.chart, self.gone_ns = place, None
        elif self.chart is not None and self.gone_ns is None:
            self.gone_ns = now_ns


class Memory:
    """What is shown, by track."""

    def __init__(self) -> None:
        self._shown: dict[int, Shown] = {}

    def of(self, tracks: list[int], source: str, now_ns: int) -> list[Shown]:
        """One for each of `tracks`, in the picture of `source` at `now_ns` of its time."""
        for track in tracks:
            self._shown.setdefault(track, Shown(now_ns)).seen_ns = now_ns
        self._shown = {track: one for track, one in self._shown.items() if now_ns - one.seen_ns < KEPT_NS}
        return [self._shown[track] for track in tracks]
