"""The log of test photos: what read them, and when. Photos that are to be read once a campaign leave a trace each time."""

from __future__ import annotations

import csv
import hashlib
from datetime import UTC, datetime
from pathlib import Path

HEADER = ["read", "reader", "system", "photos", "sha256"]  # as bench/src/reads.rs writes it


def note(log: Path, reader: str, system: str, tar: Path) -> None:
    """Append to `log` that `reader` is about to show the photos of `tar` to `system`."""
    new = not log.is_file()
    if not new and log.read_text().split("\n", 1)[0] != ",".join(HEADER):
        raise SystemExit(f"{log} is no log of reads: its first line is not {','.join(HEADER)}")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(HEADER)
        digest = hashlib.sha256(tar.read_bytes()).hexdigest()[:12]
        writer.writerow([datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), reader, system, tar.name, digest])
