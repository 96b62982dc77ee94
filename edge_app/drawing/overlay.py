"""Draw a result over its frame: boxes, labels, bar charts, a status line."""

from __future__ import annotations

import numpy as np

from ..settings import Settings
from ..types import Decision, Faces, Result
from .canvas import CHART_ROWS, Canvas, Colour, Rect
from .pixelate import Pixelate
from .steady import Memory, Shown
from .words import word

# Light colours that differ from each other and from skin, in an order that keeps neighbours apart.
PALETTE: tuple[Colour, ...] = (
    (64, 196, 255), (255, 202, 40), (105, 240, 174), (255, 110, 180), (212, 225, 87), (179, 136, 255), (255, 145, 60)
)  # fmt: skip
GREY: Colour = (176, 184, 188)
CHARTS_FROM = 300  # px of the picture's shorter side; below that a chart would cover what it explains


class Overlay:
    """Called with a result, returns its frame as an annotated copy (H, W, 3) uint8 RGB. One per run: it may remember.

    `labels` is the language ("en", "ko"); `blur` pixelates faces; `bars` draws a chart of the probabilities where there
    is room beside a face; `status` "live" draws fps, latency, drops and device, "clock" the media time, "" nothing.
    `muted` is a label that is drawn in grey, so that what it denies stands out. Percentages are renewed twice a second,
    or when they jump; `results.jsonl` has each.
    """

    def __init__(
        self, *, labels: str = "en", blur: bool = False, bars: bool = True, status: str = "live", muted: str = ""
    ):
        self._language, self._bars, self._status, self._memory = labels, bars, status, Memory()
        self._muted = muted
        self._pixelate = Pixelate() if blur else None

    def __call__(self, result: Result) -> np.ndarray:
        image, faces = result.frame.image.copy(), result.faces
        if self._pixelate:
            self._pixelate(image, result)
        boxes = [Rect(*box) for box in np.rint(faces.boxes).astype(int).tolist()]
        colours = [colour(faces, row, self._muted) for row in range(len(faces))]
        now = result.frame.time_ns
        shown = self._shown(result)
        canvas = Canvas(image, boxes)
        if caption := self._caption(result):
            canvas.corner(caption)
        for box, ink in zip(boxes, colours, strict=True):
            canvas.box(box, ink)
        for row, (box, ink, one) in enumerate(zip(boxes, colours, shown, strict=True)):
            number = "" if faces.ids is None else f"#{faces.ids[row]}"
            one.tag = canvas.tag(box, ink, self._label(faces, row, one, now), number, one.tag)
        if self._bars and faces.decisions and min(image.shape[:2]) >= CHARTS_FROM:
            for box, ink, decision, one in zip(boxes, colours, faces.decisions, shown, strict=True):
                if one.may_chart(now):
                    one.charted(canvas.chart(box, ink, self._chart(decision), one.chart), now)
        return image

    def _shown(self, result: Result) -> list[Shown]:
        """What stood at each face before; nothing while faces are not tracked."""
        frame, ids = result.frame, result.faces.ids
        if ids is None:
            return [Shown(frame.time_ns) for _ in range(len(result.faces))]
        return self._memory.of(ids.tolist(), frame.source, frame.time_ns)

    def _label(self, faces: Faces, row: int, shown: Shown, now: int) -> str:
        if faces.decisions is None:
            name, share = "face", float(faces.scores[row])
        else:
            decision = faces.decisions[row]
            if decision.unsure:
                return f"{word('unsure', self._language)} · {word(decision.why, self._language)}"
            name, share = decision.label, decision.confidence
        return f"{word(name, self._language)} {shown.percent(name, share, now)}%"

    def _chart(self, decision: Decision) -> dict[str, float]:
        """The likeliest labels in the model's order, so that rows do not dance, with their probabilities."""
        likeliest = sorted(decision.probs, key=lambda name: -decision.probs[name])[:CHART_ROWS]
        return {word(name, self._language): decision.probs[name] for name in decision.probs if name in likeliest}

    def _caption(self, result: Result) -> str:
        if self._status == "live":
            state, dropped = result.status, word("dropped", self._language)
            rate = f"{state.fps:.1f} fps   " if state.fps else ""
            return f"{rate}{state.age_ms:.0f} ms   {dropped} {state.dropped}   {state.device}".rstrip()
        if self._status == "clock":
            minutes, seconds = divmod(result.frame.time_ns // 10_000_000, 6000)
            return f"{minutes}:{seconds // 100:02d}.{seconds % 100:02d}"
        return ""


def overlay(settings: Settings, status: str, muted: str) -> Overlay:
    """What draws as the settings say; `status` and `muted` as `Overlay` takes them."""
    status = status if settings.hud else ""
    return Overlay(labels=settings.labels, blur=settings.blur, bars=settings.bars, status=status, muted=muted)


def colour(faces: Faces, row: int, muted: str = "") -> Colour:
    """Of one face: by its track number, so that it stays; by its row while untracked; grey when unsure or `muted`."""
    if faces.decisions and (faces.decisions[row].unsure or faces.decisions[row].label == muted):
        return GREY
    return PALETTE[int(row if faces.ids is None else faces.ids[row]) % len(PALETTE)]
