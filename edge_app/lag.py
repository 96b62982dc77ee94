"""How far a stream's packets are behind, by the clock that stamps them, and whether this computer is the cause."""

from __future__ import annotations

_SECOND = 1_000_000_000
_DRIFT = 1000  # the clocks may run apart by one part in so many
_JUMP = 5 * _SECOND  # further ahead, or half a second back, the sender's clock has been set
_BACK = _SECOND // 2
_WINDOW = _SECOND
_WAITS = 0.25  # of a window, or of what was stamped in it if that is more: to read quickly what lay there is no wait


class Lag:
    """What a packet is later than the promptest one, in ns.

    A clock that is set begins anew, one that drifts is followed: the promptest is forgotten slowly. It is forgotten at
    once where the reader waited a quarter of a second's time for packets: then nothing lies unread, and what seems
    late is a clock that runs wrong or a slow network. `busy` says that in the last second it did not wait so.
    """

    def __init__(self) -> None:
        self.busy = False
        self._last: tuple[int, int] | None = None  # moment and stamp

    def of(self, moment_ns: int, stamp_ns: int, waited_ns: int) -> int:
        """The lag of a packet stamped `stamp_ns` that came at `moment_ns`, after waiting for it for `waited_ns`."""
        late = moment_ns - stamp_ns
        if self._last is None or not -_BACK < stamp_ns - self._last[1] < _JUMP:
            self._promptest = late
            self._begin(moment_ns, stamp_ns, late)
        else:
            self._promptest = min(late, self._promptest + (moment_ns - self._last[0]) // _DRIFT)
            self._least, self._waited = min(late, self._least), self._waited + waited_ns
        self._last = moment_ns, stamp_ns
        passed, stamped = moment_ns - self._begun[0], stamp_ns - self._begun[1]
        if passed >= _WINDOW:
            self.busy = self._waited < _WAITS * max(passed, stamped)
            if not self.busy:
                self._promptest = max(self._promptest, self._least)
            self._begin(moment_ns, stamp_ns, late)
        return late - self._promptest

    def _begin(self, moment_ns: int, stamp_ns: int, late_ns: int) -> None:
        self._begun, self._least, self._waited = (moment_ns, stamp_ns), late_ns, 0


class Skipping:
    """Which pictures a decoder leaves out (libav's words), so that a late one catches up.

    From BEHIND ns those that no other one needs, from FAR ns all but the key frames; all are decoded again once it is
    less than CAUGHT_UP ns behind or waits, after key frames alone from the next of them on, or LONGEST ns after the
    first if none comes.
    """

    BEHIND, FAR, CAUGHT_UP, LONGEST = _SECOND, 3 * _SECOND // 2, 3 * _SECOND // 10, 10 * _SECOND

    def __init__(self) -> None:
        self.level = "DEFAULT"
        self._since = 0

    def choose(self, lag_ns: int, moment_ns: int, *, busy: bool, key: bool) -> str:
        """The level for the packet that came at `moment_ns`; `key` says that a decoder may begin with it."""
        if busy and lag_ns > self.FAR and self.level != "NONKEY":
            self.level, self._since = "NONKEY", moment_ns
        elif busy and lag_ns > self.BEHIND and self.level == "DEFAULT":
            self.level = "NONREF"
        elif lag_ns < self.CAUGHT_UP or not busy:
            if key or self.level == "NONREF" or moment_ns - self._since > self.LONGEST:
                self.level = "DEFAULT"
        return self.level
