"""What the tests of a running tail are given, by environment variables: NARROWS_ADDRESS (host:port), NARROWS_CERTS (the
folder of `narrows-tail certs`, with the devices `honest` and `faulty`), NARROWS_BUNDLE (a bundle's folder) and, for the
tests of memory, NARROWS_TAIL_PID (the process)."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import pytest
from narrows_reference import Tables

from narrows_client import messages
from narrows_client.connection import configuration, dial


class Server:
    """A running tail."""

    def __init__(self, address: str, certs: Path, bundle: Path):
        self.address, self.certs, self.bundle = address, certs, bundle
        self.identity = hashlib.sha256((bundle / "manifest.toml").read_bytes()).digest()
        self.tables = Tables((bundle / "tables.bin").read_bytes())

    def settings(self, device: str | None, **more):
        """The settings of a device; without one those of an anonymous client."""
        return configuration(self.certs / "devices" / device if device else None, self.certs / "ca.pem", **more)

    def dial(self, device: str | None, **more):
        """Connects as a device."""
        return dial(self.address, self.settings(device, **more))

    def vector(self, name: str) -> bytes:
        """A file of the bundle's test vectors."""
        return (self.bundle / "vectors" / name).read_bytes()

    async def answers(self) -> None:
        """Checks that an honest device is answered."""
        async with self.dial("honest") as connection:
            await connection.hello(self.identity, ["classify"])
            reply = await connection.ask(
                1, [messages.classify(0)], messages.packet(self.vector("photo-0-level1.packet"))
            )
            assert isinstance(reply, messages.Reply), reply
            assert len(reply.answers[0].outcome) == 5, reply


@pytest.fixture(scope="session")
def server() -> Server:
    if "NARROWS_ADDRESS" not in os.environ:
        pytest.skip("NARROWS_ADDRESS is not set: no tail to talk to")
    return Server(os.environ["NARROWS_ADDRESS"], Path(os.environ["NARROWS_CERTS"]), Path(os.environ["NARROWS_BUNDLE"]))


@pytest.fixture
def run():
    """Runs a coroutine to its end."""
    return asyncio.run
