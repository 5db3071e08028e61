"""The memory that a client makes the server take with packets that no QUIC library sends: one-byte fragments out of order,
and bursts of which the server must keep one byte (docs/operating.md, "Memory")."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest
from aioquic.buffer import Buffer
from aioquic.tls import Epoch

# What a connection may take, and what the allocator keeps of freed memory, in MiB.
CONNECTION, SLACK = 16, 24

# Linux: a burst of datagrams in one call (UDP_SEGMENT of linux/udp.h).
SOL_UDP, UDP_SEGMENT = 17, 103


def memory(line: str) -> int:
    """A line of the server's /proc/PID/status in MiB."""
    status = Path("/proc", os.environ["NARROWS_TAIL_PID"], "status").read_text()
    return next(int(each.split()[1]) // 1024 for each in status.splitlines() if each.startswith(line + ":"))


def fragment(stream: int, offset: int, data: bytes) -> bytes:
    """A STREAM frame with offset and length (RFC 9000 section 19.8)."""
    buffer = Buffer(capacity=32 + len(data))
    buffer.push_uint_var(0x0E)
    for number in [stream, offset, len(data)]:
        buffer.push_uint_var(number)
    buffer.push_bytes(data)
    return buffer.data


class Raw:
    """Packets of a connection with any frames, past aioquic's state of streams and of what is lost."""

    def __init__(self, connection):
        self.quic, self.sent = connection.quic, 0
        transport = connection._transport.get_extra_info("socket")
        self.socket = socket.socket(fileno=os.dup(transport.fileno()))
        self.address = self.quic._network_paths[0].addr
        # From here on aioquic takes no packet: it would answer for streams that it does not know, and follow a key update.
        connection.datagram_received = lambda data, address: None

    def packet(self, frames: bytes) -> bytes:
        number, keys = self.quic._packet_number, self.quic._cryptos[Epoch.ONE_RTT]
        self.quic._packet_number += 1
        first = 0x43 | keys.key_phase << 2
        header = bytes([first]) + self.quic._peer_cid.cid + (number & 0xFFFFFFFF).to_bytes(4, "big")
        return keys.encrypt_packet(header, frames, number)

    async def send(self, *burst: bytes) -> None:
        """Sends packets of one length, whose frames these are, in one call."""
        packets = [self.packet(frames) for frames in burst]
        segment = [(SOL_UDP, UDP_SEGMENT, len(packets[0]).to_bytes(2, "little"))] if len(packets) > 1 else []
        self.socket.sendmsg([b"".join(packets)], segment, 0, self.address)
        # Lets the server receive.
        self.sent += len(packets)
        await asyncio.sleep(0.001 if self.sent % 8 == 0 or len(packets) > 1 else 0)


async def fragments(raw: Raw, offsets: range) -> None:
    """Sends one-byte fragments of all streams with these offsets."""
    heads = [bytes([0x0E, 0x40, stream]) for stream in range(4, 4 + 4 * 30, 4)]
    frames = b""
    for offset in offsets:
        # A number of four bytes (RFC 9000 section 16), the length, and the byte.
        end = (0x8000_0000 | offset).to_bytes(4, "big") + b"\x01x"
        for head in heads:
            frames += head + end
            if len(frames) > 1100:
                await raw.send(frames)
                frames = b""


async def fragments_in_order(raw: Raw) -> None:
    """The streams never end."""
    await fragments(raw, range(20_000))


async def fragments_out_of_order(raw: Raw) -> None:
    """From the last to the second byte; the first never comes."""
    await fragments(raw, range(20_000, 0, -1))


async def bursts(raw: Raw) -> None:
    """Fills the window, then sends bursts whose first packet is one byte of a stream and whose others are nothing."""
    padded = [b"\x01" + bytes(1099)] * 50
    window = 1_900_000
    for offset in range(1, window, 1100):
        await raw.send(fragment(4, offset, bytes(1100)))
    for stream in range(8, 4 + 4 * 30, 4):
        for index in range(27):
            await raw.send(fragment(stream, 1 + 2 * index, b"x").ljust(1100, b"\0"), *padded)
    for index in range(800):
        await raw.send(fragment(4, window + 1110 + 2 * index, b"x").ljust(1100, b"\0"), *padded)


@pytest.mark.parametrize("attack", [fragments_in_order, fragments_out_of_order, bursts])
def test_fragments_take_no_more_memory_than_is_stated(server, run, attack):
    if "NARROWS_TAIL_PID" not in os.environ:
        pytest.skip("NARROWS_TAIL_PID is not set: no memory to look at")

    async def main():
        async with server.dial("faulty") as connection:
            await connection.hello(server.identity, ["classify"])
            await asyncio.sleep(0.2)
            Path("/proc", os.environ["NARROWS_TAIL_PID"], "clear_refs").write_text("5")
            before = memory("VmRSS")
            await attack(Raw(connection))
            peak = memory("VmHWM")
            assert peak <= before + CONNECTION + SLACK, (before, peak)

    run(main())
    run(server.answers())
