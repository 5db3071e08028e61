"""Progress lines with the remaining time, on standard error, one line per message so that they suit a log file."""

from __future__ import annotations

import sys
import time


class Progress:
    """Progress of `total` items; prints a line at most every `every` seconds, and at the end."""

    def __init__(self, name: str, total: int, start: int = 0, every: float = 10.0):
        self.name, self.total, self.start, self.every = name, total, start, every
        self.began = self.printed = time.monotonic()

    def step(self, done: int, text: str = "") -> None:
        """Report that `done` items are complete."""
        now = time.monotonic()
        if now - self.printed < self.every and done < self.total:
            return
        self.printed = now
        rate = (done - self.start) / max(now - self.began, 1e-9)
        left = (self.total - done) / rate if rate > 0 else 0.0
        print(f"{self.name} {done}/{self.total} · {rate:.2f}/s · {clock(left)} left {text}", file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """A duration as h:mm:ss."""
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
