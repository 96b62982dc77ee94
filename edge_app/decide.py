"""From probabilities frame by frame to one steady decision per face, or "unsure" where nothing carries one.

All times are media time in seconds, so that 5 and 120 frames per second decide alike. A face seen once, as in a
photograph, is decided at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from .geometry import sizes, turn
from .labels import UNSURE
from .manifest import Head
from .types import Decision, Faces, Frame

MEMORY_S = 0.5  # time constant of the consensus
HOLD_S = 0.3  # what is said has not been proposed for this long before another is said, or for half of a new face's life
LEAD = 0.1  # of another label's probability over that of the one said; with less ...
HOLD_SLIGHT_S = 1.0  # ... it must lead for this long
SLACK = 0.05  # by which the confidence of a label once said may fall below the model's threshold
GOOD_TO_SAY = 0.5  # share of good sightings, in time, that a decision needs ...
GOOD_TO_KEEP = 0.35  # ... and that keeps it once said
FORGET_S = 1.0  # a face unseen for longer is decided anew, as one seen for the first time
LONGEST_STEP_S = 0.25  # time that one sighting speaks for, at most
FIRST_STEP_S = 1 / 30  # and that the first one speaks for
POOR = 0.01  # weight of a sighting that is too small, turned or blurred, against 1 of a good one

# What a face must be like to carry a decision. Measured with former weights of `emotions` on the 2,857 validation
# pictures of their run (from FER2013's train part). Of the answers above the confidence threshold 79 % are right, 75 %
# of crops that were shrunk to 24 px, 69 % at 20, 59 % at 16; 72 % after a Gaussian blur of 1.25 px at 48 px (median
# sharpness 1130), 68 % after 1.5 px (680), 49 % after 2 px (290); 79 % below a turn of 0.2, 66 % at 0.7 to 0.85, 63 %
# (of 82) above 1.0, which is about 35 degrees: the nose's tip then lies some 1.4 half ear distances before the axis of
# the ears.
SMALL = 20.0  # px, shorter side of the box; the crop is a little larger
TURNED = 1.0  # of geometry.turn
BLURRED = 500.0  # preprocess.sharpness of the crop
DARK = 40.0  # mean light of the crop, of 255; the sharpness falls with its square, and it is a lamp that is missing


class Decider:
    """A stage that fills `decisions` from the probabilities of one head; without ids every face is decided alone."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._known: dict[int, _Evidence] = {}
        self._before: tuple[str, int] = ("", 0)  # source and time of the last frame

    def __call__(self, frame: Frame, faces: Faces) -> Faces:
        now = frame.time_ns
        self._forget(frame.source, now)
        if not len(faces):
            return replace(faces, decisions=())
        ids = [None] * len(faces) if faces.ids is None else faces.ids.tolist()
        rows = zip(ids, faces.heads[self._head.name], self._flaws(faces), strict=True)
        return replace(faces, decisions=tuple(self._decide(*row, now) for row in rows))

    def _decide(self, track: int | None, probabilities: np.ndarray, flaw: str, now_ns: int) -> Decision:
        evidence = self._known.get(track) or _Evidence(now_ns, now_ns)
        if track is not None:
            self._known[track] = evidence
        evidence.add(probabilities, flaw, now_ns)
        return evidence.decide(self._head, now_ns)

    def _forget(self, source: str, now_ns: int) -> None:
        if source != self._before[0] or now_ns < self._before[1]:
            self._known.clear()
        self._before = (source, now_ns)
        oldest = now_ns - FORGET_S * 1e9
        for track in [track for track, evidence in self._known.items() if evidence.seen_ns < oldest]:
            del self._known[track]

    @staticmethod
    def _flaws(faces: Faces) -> list[str]:
        """Per face what is wrong with it: "small", "turned", "dark", "blurred" or ""."""
        none = [False] * len(faces)
        small = (sizes(faces.boxes).min(axis=1) < SMALL).tolist()
        turned = none if faces.points is None else (turn(faces.points) > TURNED).tolist()
        blurred = none if faces.sharpness is None else (faces.sharpness < BLURRED).tolist()
        dark = none if faces.crops is None or not any(blurred) else (faces.crops.mean(axis=(1, 2, 3)) < DARK).tolist()
        return [
            "small" if s else "turned" if t else "" if not b else "dark" if d else "blurred"
            for s, t, b, d in zip(small, turned, blurred, dark, strict=True)
        ]


@dataclass(slots=True)
class _Evidence:
    """What was seen of one face, fading with MEMORY_S, and what is said of it."""

    began_ns: int
    seen_ns: int
    sums: np.ndarray | float = 0.0  # (C,) probabilities times quality times seconds
    weight: float = 0.0  # quality times seconds
    seconds: float = 0.0
    flaw: str = ""  # the last one seen
    why: str = ""  # the last reason to be unsure
    said: str = ""  # a label or "unsure"; "" before the first decision
    proposed: str = ""  # what would be said instead ...
    since_ns: int = 0  # ... and since when this or anything else but what is said
    gap_ns: int = 0  # between the last two sightings

    def add(self, probabilities: np.ndarray, flaw: str, now_ns: int) -> None:
        self.gap_ns = now_ns - self.seen_ns
        gap = self.gap_ns / 1e9
        fade = math.exp(-gap / MEMORY_S)
        step = min(gap, LONGEST_STEP_S) if self.seconds else FIRST_STEP_S
        weight = step * (POOR if flaw else 1.0)
        self.sums = self.sums * fade + probabilities * weight
        self.weight = self.weight * fade + weight
        self.seconds = self.seconds * fade + step
        self.flaw = flaw or self.flaw
        self.seen_ns = now_ns

    def decide(self, head: Head, now_ns: int) -> Decision:
        mean = dict(zip(head.labels, (self.sums / self.weight).tolist(), strict=True))
        steady = self.said in mean
        top = max(mean, key=mean.__getitem__)
        hold = HOLD_SLIGHT_S if steady and mean[top] - mean[self.said] < LEAD else HOLD_S
        flawed = self.weight < (GOOD_TO_KEEP if steady else GOOD_TO_SAY) * self.seconds
        doubtful = mean[top] < head.unsure_below - (SLACK if steady else 0)
        if flawed or doubtful:
            top, hold, self.why = UNSURE, HOLD_S, self.flaw if flawed else "confidence"
        self._say(top, hold, now_ns)
        if self.said == UNSURE:
            return Decision(UNSURE, max(mean.values()), mean, True, self.why)
        return Decision(self.said, mean[self.said], mean)

    def _say(self, proposal: str, hold: float, now_ns: int) -> None:
        if proposal != self.proposed and self.said in ("", proposal, self.proposed):
            unseen = self.gap_ns >= HOLD_S * 1e9  # nobody knows what was between: it may have been there since
            self.since_ns = now_ns - self.gap_ns * unseen
        self.proposed = proposal
        if now_ns - self.since_ns >= min(hold * 1e9, (now_ns - self.began_ns) / 2):
            self.said = proposal
