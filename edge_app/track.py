"""Keep every face's identity from frame to frame: a state machine that sees boxes and media time, nothing else.

Association by predicted position, in the manner of SORT (Bewley et al. 2016, arXiv 1602.00763) with a cost that also
works without overlap, as frames lie up to 0.2 s apart. All constants are seconds or face sizes, so that the frame rate
does not matter; they were chosen on the stories in tests/test_track.py, at 5, 15, 30 and 120 frames per second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from .types import Faces, Frame

KEEP_S = 1.0  # a confirmed track outlives a gap this long
KEEP_NEW_S = 0.4  # an unconfirmed one
KEEP_NEXT_S = 3.0  # and a gap between two frames that follow each other, any track that was in the first
CONFIRMED_S = 0.1  # seen over this long, a track is confirmed
REACH = 0.5  # face sizes between the predicted and the found centre, at most ...
REACH_PER_S = 2.0  # ... and what every second of gap adds ...
REACH_MOST = 1.5  # ... up to this
GROWTH = 2.0  # the ratio of sizes between two sightings is below this
SMOOTH_S = 0.15  # time constant of the velocity estimate
COAST_S = 0.5  # time constant with which an unseen face is taken to come to rest


@dataclass(slots=True)
class _Track:
    id: int
    x: float  # centre when last seen, px
    y: float
    size: float  # geometric mean of width and height, px
    first_ns: int
    seen_ns: int
    vx: float = 0.0  # px/s
    vy: float = 0.0

    def alive(self, now_ns: int, before_ns: int) -> bool:
        """At `now_ns`, when the frame before was at `before_ns`."""
        confirmed = self.seen_ns - self.first_ns >= CONFIRMED_S * 1e9
        keep = KEEP_NEXT_S if self.seen_ns == before_ns else KEEP_S if confirmed else KEEP_NEW_S
        return now_ns - self.seen_ns <= keep * 1e9

    def cost(self, x: float, y: float, size: float, now_ns: int) -> float:
        """How badly a face at (x, y) continues this track, in face sizes; infinite when it cannot be the same."""
        gap = (now_ns - self.seen_ns) / 1e9
        coast = COAST_S * (1 - math.exp(-gap / COAST_S))
        mean = (size + self.size) / 2
        distance = math.hypot(x - self.x - self.vx * coast, y - self.y - self.vy * coast) / mean
        growth = max(size, self.size) / min(size, self.size)
        if growth >= GROWTH or distance > min(REACH + REACH_PER_S * gap, REACH_MOST):
            return math.inf
        return distance + math.log(growth)

    def see(self, x: float, y: float, size: float, now_ns: int) -> None:
        gap = (now_ns - self.seen_ns) / 1e9
        if gap > 0:
            share = 1 - math.exp(-gap / SMOOTH_S)
            self.vx += share * ((x - self.x) / gap - self.vx)
            self.vy += share * ((y - self.y) / gap - self.vy)
        self.x, self.y, self.size, self.seen_ns = x, y, size, now_ns


class Tracker:
    """A stage that fills `ids`: numbers from 1 that stay with a face, also through gaps of up to a second.

    Where frames lie further apart than that, up to three seconds, a face must be in each of them.

    A track begins with the first sighting. When time runs backwards or the source changes, all tracks end; a number is
    never given twice.
    """

    def __init__(self) -> None:
        self._tracks: list[_Track] = []
        self._next_id = 1
        self._before: tuple[str, int] = ("", 0)  # source and time of the last frame

    def __call__(self, frame: Frame, faces: Faces) -> Faces:
        source, time_ns = self._before
        if frame.source != source or frame.time_ns < time_ns:
            self._tracks.clear()
        self._before = (frame.source, frame.time_ns)
        self._tracks = [track for track in self._tracks if track.alive(frame.time_ns, time_ns)]
        found = [_centre_and_size(box) for box in faces.boxes.tolist()]
        ids = np.empty(len(found), np.int64)
        matched = self._match(found, frame.time_ns)
        for row, face in enumerate(found):
            track = matched.get(row) or self._begin(frame.time_ns, face)
            track.see(*face, frame.time_ns)
            ids[row] = track.id
        return replace(faces, ids=ids)

    def _match(self, found: list[tuple[float, float, float]], now_ns: int) -> dict[int, _Track]:
        """Row of a face to its track. Greedy, the cheapest pair first: with predicted motion as good as optimal."""
        pairs = [
            (cost, row, place)
            for place, track in enumerate(self._tracks)
            for row, face in enumerate(found)
            if (cost := track.cost(*face, now_ns)) < math.inf
        ]
        matched: dict[int, _Track] = {}
        taken: set[int] = set()
        for _, row, place in sorted(pairs):
            if row not in matched and place not in taken:
                matched[row] = self._tracks[place]
                taken.add(place)
        return matched

    def _begin(self, now_ns: int, face: tuple[float, float, float]) -> _Track:
        track = _Track(self._next_id, *face, first_ns=now_ns, seen_ns=now_ns)
        self._next_id += 1
        self._tracks.append(track)
        return track


def _centre_and_size(box: list[float]) -> tuple[float, float, float]:
    x1, y1, x2, y2 = box
    return (x1 + x2) / 2, (y1 + y2) / 2, math.sqrt(max(x2 - x1, 1.0) * max(y2 - y1, 1.0))
