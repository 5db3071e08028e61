#!/usr/bin/env python3
"""Unpack ONNX Runtime's shared libraries from its official wheel into a folder.

    python3 tail/runtime/fetch.py .runtime                the build that is there already, else the one for CPUs
    python3 tail/runtime/fetch.py --build cpu .runtime    the build for CPUs
    python3 tail/runtime/fetch.py --build gpu .runtime    the build for CUDA (256 MB)

pip downloads the one version that cpu.txt or gpu.txt pins and checks its SHA-256. Nothing is installed into
Python. A folder that already holds the pinned version of that build is left as it is.
"""

import argparse
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# The wheels differ between Python versions in their Python module alone, so any one serves.
PYTHON = "3.12"
GLIBC = ("manylinux_2_28", "manylinux_2_27", "manylinux2014")
LIBRARY = "libonnxruntime.so"
BUILDS = ("cpu", "gpu")
MACHINES = ("x86_64", "aarch64")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", choices=BUILDS, help="which build [default: the one that is there, else cpu]")
    parser.add_argument(
        "--machine",
        choices=MACHINES,
        default=platform.machine(),
        help="the processor that it is for [default: this machine's]",
    )
    parser.add_argument("folder", type=Path, help="where the libraries go")
    args = parser.parse_args()
    chosen = args.folder / "build.txt"
    build = args.build or (chosen.read_text().strip() if chosen.is_file() else BUILDS[0])
    if build not in BUILDS:
        sys.exit(f"{chosen} says {build!r}, which is no build of ONNX Runtime: give --build cpu or --build gpu")
    pinned = Path(__file__).with_name(f"{build}.txt")
    stamp = args.folder / "pinned.txt"
    if not (stamp.is_file() and stamp.read_bytes() == pinned.read_bytes() and (args.folder / LIBRARY).exists()):
        print(f"Fetching ONNX Runtime ({build}) as pinned in {pinned}", flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            unpack(download(pinned, args.machine, Path(scratch)), args.folder)
        shutil.copyfile(pinned, stamp)
    chosen.write_text(f"{build}\n")


def download(pinned: Path, machine: str, folder: Path) -> Path:
    """The wheel that `pinned` names, for the processor `machine`, in `folder`."""
    if sys.platform != "linux" or machine not in MACHINES:
        sys.exit(
            f"no pinned ONNX Runtime for {sys.platform} on {machine}: build or fetch {LIBRARY} yourself "
            "and point NARROWS_ORT at it"
        )
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--require-hashes", "-r", str(pinned), "-d", str(folder)]
    command += ["--implementation", "cp", "--python-version", PYTHON, "--abi", f"cp{PYTHON.replace('.', '')}"]
    command += [word for glibc in GLIBC for word in ("--platform", f"{glibc}_{machine}")]
    if subprocess.run(command, check=False).returncode != 0:
        sys.exit(f"pip could not download what {pinned} pins; see its message above")
    return next(folder.glob("*.whl"))


def unpack(wheel: Path, folder: Path) -> None:
    """Writes the wheel's shared libraries and licences into `folder`, all or nothing."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            base = name.rsplit("/", 1)[-1]
            library = base.startswith("libonnxruntime") and ".so" in base
            if library or base in ("LICENSE", "ThirdPartyNotices.txt"):
                # The versioned name `libonnxruntime.so.1.32.0` becomes the plain one that is looked for.
                target = LIBRARY if base.startswith(LIBRARY) else base
                with archive.open(name) as source, (part / target).open("wb") as sink:
                    shutil.copyfileobj(source, sink)
    if not (part / LIBRARY).is_file():
        sys.exit(f"{wheel.name} holds no {LIBRARY}")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


if __name__ == "__main__":
    main()
