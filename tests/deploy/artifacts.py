#!/usr/bin/env python3
"""Check what `make dist` says of its programs: bills of materials, licences, checksums.

Run with the Python of `make dist` (target/dist-tools/venv), in the project's folder. Judges that have no part in making them: the
CycloneDX schema, `cargo tree`, the crates whose paths are in the program's panic messages, and sha256sum.
"""

import json
import os
import re
import subprocess
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

STAGE = Path("dist-out/stage")
TARGETS = {
    "arm64": "aarch64-unknown-linux-gnu",
    "amd64": "x86_64-unknown-linux-gnu",
    "armhf": "armv7-unknown-linux-gnueabihf",
}


def main() -> None:
    programs = sorted(STAGE.glob("*/narrows-*.cdx.json"))
    programs = [path for path in programs if path.parent.name in TARGETS]
    assert programs, f"no programs in {STAGE}: make dist"
    for path in programs:
        check(path)
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd="dist-out", check=True)
    listed = {line.split()[1].lstrip("*") for line in Path("dist-out/SHA256SUMS").read_text().splitlines()}
    files = {path.name for path in Path("dist-out").iterdir() if path.is_file()} - {"SHA256SUMS"}
    assert listed == files, f"SHA256SUMS names other files than there are: {sorted(listed ^ files)}"
    print(f"test-dist: {len(files)} files have the SHA-256 that SHA256SUMS says")


def check(path: Path) -> None:
    """Checks the bill of materials `path` and the licences of the program beside it."""
    program = path.name.removesuffix(".cdx.json")
    text = path.read_text()
    if errors := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise SystemExit(f"{path}: {errors}")
    bom = json.loads(text)
    assert bom["metadata"]["component"]["name"] == program
    crates = set()
    for entry in bom["components"]:
        assert entry.get("licenses"), f"{path}: {entry['name']} has no licence"
        # The rest is Rust's standard library, and C libraries whose source is in crates.
        if entry["purl"].startswith("pkg:cargo/"):
            crates.add((entry["name"], entry["version"]))
            assert entry["name"].startswith("narrows-") or entry.get("hashes"), f"{path}: {entry['name']} has no SHA-256"
    expected = tree(program, TARGETS[path.parent.name])
    assert crates == expected, f"{path}: missing {sorted(expected - crates)}, too many {sorted(crates - expected)}"
    within = paths(path.with_name(program))
    assert len(within) > 20, f"{program} names {len(within)} crates in its messages"
    assert within <= crates, f"{path}: the program has crates that are missing: {sorted(within - crates)}"
    licences = path.with_name(f"THIRD-PARTY-LICENCES-{program}").read_text().splitlines()
    for name, version in sorted(crates):
        entries = {f"{name} {version}", f"{name} {version} (without a text of its own)"}
        assert name.startswith("narrows-") or entries & set(licences), f"{path.parent}: no licence of {name} {version}"
    print(f"test-dist: {path.parent.name} {program}: {len(crates)} crates, those of cargo tree; {len(within)} seen in the program")


def tree(program: str, target: str) -> set[tuple[str, str]]:
    """The crates that `cargo tree` says are in the program, but for itself."""
    command = [os.environ.get("CARGO", "cargo"), "tree", "--locked", "--package", program, "--target", target]
    command += ["--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = {(line.split()[0], line.split()[1].removeprefix("v")) for line in said.splitlines() if line}
    return {entry for entry in found if entry[0] != program}


def paths(program: Path) -> set[tuple[str, str]]:
    """The crates of the registry whose files are named in the program, by its messages of panics."""
    found = re.findall(rb"/cargo/registry/src/[^/]+/([a-zA-Z0-9_-]+?)-(\d+\.\d+\.\d+[^/]*)/", program.read_bytes())
    return {(name.decode(), version.decode()) for name, version in found}


if __name__ == "__main__":
    main()
