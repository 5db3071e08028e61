#!/usr/bin/env python3
"""Write the software bill of materials of one program: CycloneDX 1.6, JSON.

    sbom.py --report BUILD.jsonl --package narrows-head --target TARGET --out narrows-head.cdx.json

Components are the crates that were compiled for the program, with their versions, licences and SHA-256 of Cargo.lock, the
C libraries that they bring along, and Rust's standard library. The same input gives the same bytes: the time is
SOURCE_DATE_EPOCH and the serial number is made from the content.
"""

import datetime
import hashlib
import os
import re
import subprocess
import uuid
from pathlib import Path
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

import linked

LICENCES = LicenseFactory()
# C libraries whose source is in a crate: the library's name, its home, and where its version stands.
WITHIN = {
    "zstd-sys": ("zstd", "https://github.com/facebook/zstd", None),
    "libwebp-sys": ("libwebp", "https://chromium.googlesource.com/webm/libwebp", "vendor/configure.ac"),
}


def main() -> None:
    args = linked.arguments(__doc__)
    crates = linked.read(args.report, args.package, args.target, args.cargo)
    hashes = linked.checksums(Path("Cargo.lock"))
    bom = Bom()
    made = {crates.root["id"]: component(crates.root, hashes, ComponentType.APPLICATION)}
    bom.metadata.component = made[crates.root["id"]]
    for package in crates.packages:
        made[package["id"]] = component(package, hashes, ComponentType.LIBRARY)
        bom.components.add(made[package["id"]])
    std = standard_library()
    bom.components.add(std)
    for package in [crates.root, *crates.packages]:
        used = [made[entry] for entry in crates.edges[package["id"]]] + [std]
        if within := vendored(package):
            bom.components.add(within)
            used.append(within)
        bom.register_dependency(made[package["id"]], used)
    epoch = int(os.environ["SOURCE_DATE_EPOCH"])
    bom.metadata.timestamp = datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc)
    content = hashlib.sha256(args.target.encode())
    for entry in sorted(str(found.bom_ref.value) for found in bom.components):
        content.update(entry.encode() + b"\n")
    bom.serial_number = uuid.UUID(bytes=content.digest()[:16], version=4)
    args.out.write_text(JsonV1Dot6(bom).output_as_string(indent=1) + "\n")


def component(package: dict[str, Any], hashes: dict[tuple[str, str], str], kind: ComponentType) -> Component:
    """The entry of a crate."""
    name, version = package["name"], package["version"]
    made = Component(
        name=name,
        version=version,
        type=kind,
        bom_ref=f"{name}@{version}",
        description=package["description"],
        purl=PackageURL("cargo", name=name, version=version),
    )
    if package["license"]:
        # Crates of before 2018 write MIT/Apache-2.0.
        made.licenses.add(LICENCES.make_from_string(package["license"].replace("/", " OR ")))
    if digest := hashes.get((name, version)):
        made.hashes.add(HashType(alg=HashAlgorithm.SHA_256, content=digest))
    if package["repository"]:
        address = XsUri(package["repository"])
        made.external_references.add(ExternalReference(type=ExternalReferenceType.VCS, url=address))
    return made


def vendored(package: dict[str, Any]) -> Component | None:
    """The C library that a crate brings along."""
    if package["name"] not in WITHIN:
        return None
    name, home, file = WITHIN[package["name"]]
    if file:
        text = (Path(package["manifest_path"]).parent / file).read_text()
        version = re.search(r"AC_INIT\(\[\w+\],\s*\[([\d.]+)\]", text)[1]
    else:
        version = package["version"].rpartition(f"+{name}.")[2]
    made = Component(name=name, version=version, type=ComponentType.LIBRARY, bom_ref=f"{name}@{version}")
    made.purl = PackageURL("generic", name=name, version=version)
    made.licenses.add(LICENCES.make_from_string("BSD-3-Clause"))
    made.external_references.add(ExternalReference(type=ExternalReferenceType.VCS, url=XsUri(home)))
    return made


def standard_library() -> Component:
    """Rust's standard library, which every program has in it."""
    said = subprocess.run(["rustc", "-vV"], check=True, stdout=subprocess.PIPE, text=True).stdout
    version = re.search(r"^release: (.*)$", said, re.MULTILINE)[1]
    made = Component(name="std", version=version, type=ComponentType.LIBRARY, bom_ref=f"std@{version}")
    made.description = "Rust's standard library"
    made.purl = PackageURL("generic", name="rust-std", version=version)
    made.licenses.add(LICENCES.make_from_string("MIT OR Apache-2.0"))
    address = XsUri("https://github.com/rust-lang/rust")
    made.external_references.add(ExternalReference(type=ExternalReferenceType.VCS, url=address))
    return made


if __name__ == "__main__":
    main()
