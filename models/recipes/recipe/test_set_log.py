"""The log of test set uses: every evaluation on the labelled test photos appends one line.

The test photos must not choose between checkpoints. The log shows how often, by what and for which network they were used.
"""

from __future__ import annotations

import csv
import hashlib
from datetime import UTC, datetime
from pathlib import Path

FILE = "test-set-log.csv"
HEADER = ["read", "reader", "system", "photos", "sha256"]  # `narrows-bench evaluate --log` writes the same columns


def note(log: Path, reader: str, system: str, tar: Path) -> None:
    """Append to `log` that the command `reader` is about to evaluate `system` on the photos of `tar`.

    Exits with a message if `log` is another table.
    """
    new = not log.is_file()
    if not new and log.read_text().split("\n", 1)[0] != ",".join(HEADER):
        raise SystemExit(f"{log} is no log of test set uses: its first line is not {','.join(HEADER)}")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(HEADER)
        digest = hashlib.sha256(tar.read_bytes()).hexdigest()[:12]
        writer.writerow([datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), reader, system, tar.name, digest])
