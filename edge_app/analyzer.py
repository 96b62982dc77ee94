"""The Python interface: pictures in, faces and what they express out."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from .build import Analysis, open_with, turned
from .labels import UNSURE
from .preprocess import fit
from .run import Stop, drain, run
from .settings import Settings
from .types import Decision, Frame, Result, Sink, Status


class Analyzer(AbstractContextManager):
    """A detector and a model, loaded once.

        with Analyzer(model="emotions", device="auto") as analyzer:
            for decision in analyzer(image).faces.decisions:
                print(decision.label, decision.confidence)

    Keywords are the settings of `edge_app.settings.Settings`; an unknown one is a SettingsError, as is a wrong value.
    Give programs that you start meanwhile `env=os.environ`: what keeps MediaPipe from reporting its use is a proxy in the
    environment that they inherit otherwise, and through which they reach no https address.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings().merged(settings)
        self._analysis = Analysis(self.settings)
        self._ending = Stop()
        self._streams: set[threading.Thread] = set()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End what is streaming; release detector and model."""
        ending, self._ending = self._ending, Stop()
        ending()
        for thread in tuple(self._streams):
            if thread.is_alive():
                thread.join()  # it may be in the middle of a frame
        self._analysis.close()

    @property
    def labels(self) -> tuple[str, ...]:
        """What a face can express, in the model's order."""
        return self._analysis.head.labels

    def __call__(self, image: np.ndarray) -> Result:
        """The faces of one picture (H, W, 3) uint8 RGB, which stands alone; ValueError for another shape or dtype."""
        frame = Frame(np.ascontiguousarray(image), 0, 0, "picture")
        (_, faces), *_ = drain(self._analysis.stages(), [frame])
        return Result(frame, faces, {}, Status(0.0, 0.0, 0, faces.device))

    def classify(self, crops: Sequence[np.ndarray] | np.ndarray) -> list[Decision]:
        """What face crops express, each (h, w, 3) or (h, w) uint8 and cut as the model's manifest says.

        ValueError for one crop that is not in a list, and for another shape or dtype.
        """
        if isinstance(crops, np.ndarray) and _is_picture(crops):
            raise ValueError(f"expected a list of crops, got one of shape {crops.shape}; write [crop]")
        if not len(crops):
            return []
        for crop in map(np.asarray, crops):
            if crop.dtype != np.uint8 or not crop.size or not _is_picture(crop):
                raise ValueError(f"expected crops (h, w, 3) or (h, w) uint8, got {crop.shape} {crop.dtype}")
        head, spec = self._analysis.head, self._analysis.artifact.input
        ready = np.stack([fit(np.ascontiguousarray(crop), spec) for crop in crops])
        rows = self._analysis.classify.probabilities(ready)[head.name]
        return [_decision(dict(zip(head.labels, row.tolist(), strict=True)), head.unsure_below) for row in rows]

    def stream(self, source: str) -> Iterator[Result]:
        """Results of a file, folder, camera or network stream, one by one, with identities and steady decisions.

        Of a file every frame is read; of a camera or network stream the newest wins, turned and mirrored as the
        settings say. Leaving the iteration ends it.
        """
        opened = open_with(str(source), self.settings)
        if opened.live:
            opened = turned(opened, self.settings)
        handover, stop, failures = _Handover(latest=opened.live), Stop(), []

        def work() -> None:
            try:
                run(opened, self._analysis.stages(), [handover], live=opened.live, stop=stop)
            except Exception as error:
                failures.append(error)
            finally:
                handover.close()

        thread = threading.Thread(target=work, name="analyzer-stream", daemon=True)  # a forgotten one ends with us
        with self._ending.tells(stop), self._ending.tells(handover.close):
            self._streams.add(thread)
            thread.start()
            try:
                yield from handover
            finally:
                stop()
                handover.close()
                thread.join()
                self._streams.discard(thread)
        if failures:
            raise failures[0]


class _Handover(Sink):
    """A sink whose results are iterated in another thread; it waits until each is taken, or keeps the latest only."""

    def __init__(self, *, latest: bool) -> None:
        self._latest = latest
        self._waiting: deque[Result] = deque()
        self._change = threading.Condition()
        self._open = True

    def write(self, result: Result) -> None:
        """Hand one result over, once the one before was taken; without effect after `close`."""
        with self._change:
            self._change.wait_for(lambda: self._latest or not self._waiting or not self._open)
            if self._open:
                self._waiting.clear()
                self._waiting.append(result)
                self._change.notify_all()

    def __iter__(self) -> Iterator[Result]:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting or not self._open)
                if not self._waiting:
                    return
                result = self._waiting.popleft()
                self._change.notify_all()
            yield result

    def close(self) -> None:
        """Nothing more is handed over; what waits can still be taken."""
        with self._change:
            self._open = False
            self._change.notify_all()


def _is_picture(array: np.ndarray) -> bool:
    return array.ndim == 2 or array.ndim == 3 and array.shape[2] in (1, 3)


def _decision(probs: dict[str, float], unsure_below: float) -> Decision:
    label = max(probs, key=probs.__getitem__)
    if probs[label] < unsure_below:
        return Decision(UNSURE, probs[label], probs, True, "confidence")
    return Decision(label, probs[label], probs)
