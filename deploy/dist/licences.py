#!/usr/bin/env python3
"""Collect the licences of every crate in one program into a text file.

    licences.py --report BUILD.jsonl --package narrows-head --target TARGET --out THIRD-PARTY-LICENCES

Texts are those in the crates' own folders, also of C libraries that they bring along; the same text is written once, with the
crates that it stands in. A crate without a text gets the texts of a crate from the same repository, else that of its licence from
another crate of this program; where no crate has one, that is an error.
"""

import re
import sys
from pathlib import Path
from typing import Any

import linked

NAMES = re.compile(r"(?i)(un)?licen[cs]e|copying|notice|copyright|patents")
# By which words a text is known.
KNOWN = {
    "MIT": "Permission is hereby granted, free of charge",
    "Apache-2.0": "Apache License",
    "Zlib": "This software is provided 'as-is'",
    "BSD-3-Clause": "Neither the name",
    "BSD-2-Clause": "Redistribution and use in source and binary forms",
    "ISC": "Permission to use, copy, modify, and",
    "BSL-1.0": "Boost Software License",
    "Unicode-3.0": "UNICODE LICENSE V3",
    "Unlicense": "This is free and unencumbered software",
}


def main() -> None:
    args = linked.arguments(__doc__)
    crates = linked.read(args.report, args.package, args.target, args.cargo)
    foreign = [entry for entry in crates.packages if entry["source"]]
    texts: dict[str, list[str]] = {}
    # What a repository's crates have; tract and nom put a text into some of them alone.
    repositories: dict[str, list[str]] = {}
    without = []
    for package in foreign:
        name = f"{package['name']} {package['version']}"
        own = found(Path(package["manifest_path"]).parent)
        for text in own:
            texts.setdefault(text, []).append(name)
        if own:
            repositories.setdefault(home(package), own)
        else:
            without.append((name, package))
    for name, package in without:
        for text in repositories.get(home(package)) or [standard(name, package["license"], texts)]:
            texts[text].append(f"{name} (without a text of its own)")
    lines = [f"Third-party software in {args.package}, and its licences", ""]
    lines += [f"{entry['name']} {entry['version']}: {entry['license']}" for entry in foreign]
    for text, names in sorted(texts.items(), key=lambda entry: entry[1]):
        lines += ["", "-" * 80, *names, "-" * 80, "", text]
    args.out.write_text("\n".join(lines) + "\n")


def home(package: dict[str, Any]) -> str:
    """The repository that a crate comes from, without the folder in it."""
    address = package["repository"] or package["name"]
    return "/".join(address.removesuffix(".git").split("/")[:5]).lower()


def found(folder: Path) -> list[str]:
    """The texts of licences in a crate's folder and those of what it brings along, in the order of their paths."""
    texts = []
    for path in sorted(folder.rglob("*")):
        near = len(path.relative_to(folder).parts) <= 3
        if near and path.is_file() and NAMES.match(path.name) and path.suffix.lower() not in (".rs", ".py", ".toml", ".html"):
            text = path.read_text(errors="replace").strip()
            if text and text not in texts:
                texts.append(text)
    return texts


def standard(name: str, expression: Any, texts: dict[str, list[str]]) -> str:
    """The text of the first licence of `expression` that another crate has."""
    wanted = re.split(r"\s*(?:/|\bOR\b|\bAND\b)\s*", (expression or "").strip("()"))
    # A text of Apache-2.0 names no holder of rights, so it is the same for all.
    for identifier in sorted(wanted, key=lambda entry: entry != "Apache-2.0"):
        words = KNOWN.get(identifier)
        same = sorted(text for text in texts if words and words in text[:2000])
        if same:
            return min(same, key=len) if identifier == "Apache-2.0" else same[0]
    sys.exit(f"{name}: no text of a licence in its folder, and none known for {expression!r}")


if __name__ == "__main__":
    main()
