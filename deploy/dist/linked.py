"""Which crates are in a program, by cargo's own report of the build."""

import argparse
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"


@dataclass(frozen=True)
class Linked:
    """The crates of one program."""

    root: dict[str, Any]
    """The program's package, as `cargo metadata` describes it."""
    packages: list[dict[str, Any]]
    """Every other package whose library was compiled for the program's target, by name and version."""
    edges: dict[str, list[str]]
    """Which of them each uses, by their identifiers."""


def arguments(description: str) -> argparse.Namespace:
    """The command line of a program that describes one build."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, required=True, help="what cargo build --message-format json wrote")
    parser.add_argument("--package", required=True, help="the program's package")
    parser.add_argument("--target", required=True, help="for which it was built")
    parser.add_argument("--cargo", default=os.environ.get("CARGO", "cargo"))
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def read(report: Path, package: str, target: str, cargo: str) -> Linked:
    """Reads the report that `cargo build --message-format json` wrote for `package`.

    Libraries that were compiled for the builder itself (procedural macros, what build scripts use) lie in another folder
    than those for `target`, and are not in the program.
    """
    command = [cargo, "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    packages = {entry["id"]: entry for entry in metadata["packages"]}
    linked = set()
    for line in report.read_text().splitlines():
        message = json.loads(line)
        if message["reason"] == "compiler-artifact" and any(f"/{target}/" in name for name in message["filenames"]):
            if set(message["target"]["kind"]) & {"lib", "rlib", "bin"}:
                linked.add(message["package_id"])
    root = next(entry for entry in packages.values() if entry["name"] == package)
    if root["id"] not in linked:
        raise SystemExit(f"{report}: {package} was not built for {target}")
    edges = {}
    for node in metadata["resolve"]["nodes"]:
        if node["id"] in linked:
            used = [
                dep["pkg"]
                for dep in node["deps"]
                if dep["pkg"] in linked and any(kind["kind"] is None for kind in dep["dep_kinds"])
            ]
            edges[node["id"]] = sorted(used)
    others = [packages[entry] for entry in linked if entry != root["id"]]
    others.sort(key=lambda entry: (entry["name"], entry["version"]))
    return Linked(root, others, edges)


def checksums(lock: Path) -> dict[tuple[str, str], str]:
    """The SHA-256 of every crate of Cargo.lock that comes from the registry, by name and version."""
    found: dict[tuple[str, str], str] = {}
    fields: dict[str, str] = {}
    for line in [*lock.read_text().splitlines(), "[["]:
        key, _, value = line.partition(" = ")
        if line.startswith("[["):
            if "checksum" in fields:
                found[fields["name"], fields["version"]] = fields["checksum"]
            fields = {}
        else:
            fields[key] = value.strip('"')
    return found
