"""What a running tail does with clients that break PROTOCOL.md, and that it answers an honest one after each."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time

import pytest
from aioquic.quic.connection import QuicConnection

from narrows_client import messages
from narrows_client.connection import LONG, Closed
from narrows_client.messages import Refusal, Reply, classify, packet

# Codes with which the server closes a connection (section 7).
VIOLATION, HELLO_TIMEOUT, HELLO_REFUSED, TOO_LARGE = 1, 2, 3, 4
# Errors of QUIC (RFC 9000 section 20.1).
STREAM_LIMIT_ERROR, PROTOCOL_VIOLATION = 0x4, 0xA


@pytest.fixture(autouse=True)
def served_afterwards(server, run):
    """An honest client is answered after every test."""
    yield
    run(server.answers())


async def opened(server, stack: contextlib.AsyncExitStack, **more):
    """A connection of the device `faulty` after its hello."""
    connection = await stack.enter_async_context(server.dial("faulty", **more))
    await connection.hello(server.identity, ["classify", "segment"])
    return connection


async def violation(server, name: str, message: bytes, words: list[str], hello: bool, code: int = VIOLATION):
    """Checks that a message makes the server close the connection, with a code and with words in its reason."""
    async with server.dial("faulty") as connection:
        if hello:
            await connection.hello(server.identity, ["classify"])
        connection.open().send(message)
        closed = await connection.closed()
        assert not closed.transport and closed.code == code, (name, closed)
        assert all(word in closed.reason for word in words), (name, closed)


async def violations(server, cases: list[tuple[str, bytes, list[str]]], hello: bool):
    """Checks each case, two at a time: a device may have few connections."""
    for at in range(0, len(cases), 2):
        await asyncio.gather(*(violation(server, *case, hello) for case in cases[at : at + 2]))


def test_an_anonymous_client_is_refused(server, run):
    async def main():
        with pytest.raises((Closed, ConnectionError)) as refused:
            async with server.dial(None) as connection:
                await connection.hello(server.identity, ["classify"])
        if isinstance(refused.value, Closed):
            assert refused.value.transport and refused.value.code == 0x100 + 116, "certificate required"

    run(main())


def test_a_client_of_another_protocol_is_refused(server, run):
    async def main():
        with pytest.raises((Closed, ConnectionError)):
            async with server.dial("faulty", alpn_protocols=["h3"]) as connection:
                await connection.hello(server.identity, ["classify"])

    run(main())


def test_a_hello_that_is_none_is_a_violation(server, run):
    cases = [
        ("garbage", bytes(range(200, 256)) * 8, ["expected hello"]),
        ("nothing", b"", ["hello", "type"]),
        ("unknown type", bytes([200]), ["200", "expected hello"]),
        ("request", messages.request(1, [classify(0)], packet(b"?")), ["request", "expected hello"]),
        ("cut", messages.hello([bytes(32)], ["classify"])[:20], ["hello", "bundle"]),
        ("too long", messages.hello([bytes(32)], ["classify"]) + b"?", ["hello", "end"]),
        ("no bundle", messages.hello([], ["classify"]), ["hello", "bundles"]),
        ("bundle twice", messages.hello([bytes(32)] * 2, []), ["hello", "bundles"]),
        ("task twice", messages.hello([bytes(32)], ["a", "a"]), ["hello", "tasks"]),
        ("17 bundles", messages.hello([bytes([i]) * 32 for i in range(17)], []), ["hello", "bundles", "16"]),
        ("upper case", messages.hello([bytes(32)], ["Classify"]), ["hello", "task"]),
        ("versions", messages.hello([bytes(32)], [], (3, 2)), ["hello"]),
    ]
    run(violations(server, cases, hello=False))


def test_a_hello_over_its_limit_closes_the_connection(server, run):
    run(violation(server, "long", bytes([1]) * (32 * 1024 + 1), ["hello"], False, TOO_LARGE))


@pytest.mark.parametrize(
    ("name", "change", "code"),
    [
        ("version", {"versions": (4, 9)}, 1),
        ("old version", {"versions": (0, 0)}, 1),
        ("bundle", {"bundles": [b"\x07" * 32]}, 2),
        ("task", {"tasks": ["depth"]}, 3),
    ],
)
def test_a_hello_that_does_not_fit_is_refused_with_what_the_server_has(server, run, name, change, code):
    async def main():
        async with server.dial("faulty") as connection:
            fields = {"bundles": [server.identity], "tasks": ["classify"]} | change
            refusal = messages.parse_hello_reply(await connection.exchange(messages.hello(**fields)))
            assert isinstance(refusal, Refusal) and refusal.code == code and refusal.text, refusal
            assert refusal.versions == (1, 3) and refusal.serves == [server.identity], refusal
            closed = await connection.closed()
            assert not closed.transport and closed.code == HELLO_REFUSED, closed

    run(main())


def test_versions_that_contain_the_server_s_are_accepted(server, run):
    async def main():
        async with server.dial("faulty") as connection:
            hello = messages.hello([b"\x07" * 32, server.identity], [], (0, 65535))
            welcome = messages.parse_hello_reply(await connection.exchange(hello))
            assert welcome.version == 3 and [each.identity for each in welcome.bundles] == [server.identity]
            assert welcome.standing is not None and welcome.standing[1:] == (0, ""), welcome

    run(main())


def test_a_client_without_a_hello_is_closed_after_five_seconds(server, run):
    async def main():
        async with server.dial("faulty") as silent, server.dial("faulty") as slow:
            slow.open().send(messages.hello([server.identity], ["classify"])[:10], end=False)
            begin = time.monotonic()
            await server.answers()
            for connection in (silent, slow):
                closed = await connection.closed()
                assert not closed.transport and closed.code == HELLO_TIMEOUT, closed
            assert time.monotonic() - begin > 3

    run(main())


def test_a_request_that_is_none_is_a_violation(server, run):
    cases = [
        ("garbage", bytes(range(256)), ["expected request"]),
        ("nothing", b"", ["request", "type"]),
        ("unknown type", bytes([200]), ["200", "expected request"]),
        ("second hello", messages.hello([bytes(32)], []), ["hello", "expected request"]),
        ("reply", bytes([17]) + bytes(40), ["reply", "expected request"]),
        ("cut", messages.request(1, [classify(0)], packet(b"???"))[:-1], ["request", "payload"]),
        ("too long", messages.request(1, [classify(0)], packet(b"?")) + b"?", ["request", "end"]),
        ("no task", messages.request(1, [], packet(b"?")), ["request"]),
        ("task twice", messages.request(1, [classify(0)] * 2, packet(b"?")), ["request", "twice"]),
        ("no class", messages.request(1, [classify(0, 0)], packet(b"?")), ["request", "top_k"]),
        ("1001 classes", messages.request(1, [classify(0, 1001)], packet(b"?")), ["request", "top_k"]),
        ("one side", messages.request(1, [messages.segment(1, 0, 5)], packet(b"?")), ["request", "map size"]),
        ("map side", messages.request(1, [messages.segment(1, 4097, 1)], packet(b"?")), ["request", "map size"]),
        ("map pixels", messages.request(1, [messages.segment(1, 4096, 513)], packet(b"?")), ["request", "map size"]),
        ("long query", messages.request(1, [b"\0\1\3\1\0\0"], packet(b"?")), ["request"]),
        ("no packet", messages.request(1, [classify(0)], packet(b"")), ["request", "payload"]),
        ("no image", messages.request(1, [classify(0)], messages.image(0, 1, 1, b"")), ["request", "payload"]),
        ("huge packet", messages.request(1, [classify(0)], b"\1\xff\xff\xff\xff?"), ["request", "payload", "limit"]),
        ("packet", messages.request(1, [classify(0)], packet(bytes(2**20 + 1))), ["request", "payload", "limit"]),
    ]
    run(violations(server, cases, hello=True))


def test_a_number_in_flight_that_is_used_again_is_a_violation(server, run):
    request = messages.request(5, [messages.segment(1)], packet(server.vector("photo-0-level1.packet")))

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            connection = await opened(server, stack)
            for _ in range(4):
                connection.open().send(request)
            closed = await connection.closed()
            assert not closed.transport and closed.code == VIOLATION and "5" in closed.reason, closed

    run(main())


def test_one_byte_fragments_are_put_together(server, run):
    request = messages.request(3, [classify(0)], packet(server.vector("photo-0-level5.packet")))

    async def main():
        async with server.dial("faulty") as connection:
            stream = connection.open()
            hello = messages.hello([server.identity], ["classify"])
            for at in range(len(hello)):
                stream.send(hello[at : at + 1], end=at == len(hello) - 1)
            assert isinstance(messages.parse_hello_reply(await stream.answer()), messages.Welcome)
            stream = connection.open()
            for at in range(len(request)):
                stream.send(request[at : at + 1], end=at == len(request) - 1)
                if at % 50 == 0:
                    await asyncio.sleep(0)
            assert isinstance(messages.parse_reply(await stream.answer()), Reply)

    run(main())


def test_unfinished_requests_take_nobody_else_s_turn(server, run):
    request = messages.request(1, [classify(0)], packet(server.vector("photo-0-level1.packet")))

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(3):
                connection = await opened(server, stack)
                for _ in range(8):
                    connection.open().send(request[:-1], end=False)
            await server.answers()

    run(main())


def test_a_reader_that_never_reads_takes_nobody_else_s_turn(server, run):
    request = messages.request(1, [messages.segment(1, 1448, 1448)], packet(server.vector("photo-0-level0.packet")))

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            # The client allows the server one byte of each answer after those of the welcome.
            connection = await opened(server, stack, max_data=200, max_stream_data=200)
            connection.quic._local_max_data.used = 0
            for id in range(4):
                connection.open().send(request[:1] + struct.pack("<Q", id) + request[9:])
            await server.answers()

    run(main())


def test_a_connection_that_is_closed_or_falls_silent_in_a_request_takes_nothing_along(server, run):
    request = messages.request(1, [messages.segment(1)], packet(server.vector("photo-0-level1.packet")))

    async def main():
        for length in (1, 100, len(request) - 1, len(request)):
            async with contextlib.AsyncExitStack() as stack:
                connection = await opened(server, stack)
                connection.open().send(request[:length], end=length == len(request))
            async with contextlib.AsyncExitStack() as stack:
                connection = await opened(server, stack)
                connection.open().send(request[:length], end=length == len(request))
                await asyncio.sleep(0.05)
                # Nothing more is sent, not even that the connection is closed.
                connection._transport.close()

    run(main())


def test_frames_that_are_given_up_at_once_take_nothing_along(server, run):
    request = messages.request(1, [messages.segment(1)], packet(server.vector("photo-0-level1.packet")))

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            connection = await opened(server, stack)
            for id in range(200):
                stream = connection.open()
                stream.send(request[:1] + struct.pack("<Q", id) + request[9:])
                stream.give_up()
                await asyncio.sleep(0.002)
            reply = await connection.ask(1000, [classify(0)], packet(server.vector("photo-0-level1.packet")))
            assert reply.id == 1000

    run(main())


def test_a_request_over_its_limit_is_refused_and_the_connection_goes_on(server, run):
    photo = server.vector("photo-0-level1.packet")

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            connection = await opened(server, stack)
            stream = connection.open()
            stream.send(messages.request(77, [classify(0)], packet(bytes(4 * 2**20 + 8 * 1024))))
            reply = messages.parse_reply(await stream.answer())
            assert isinstance(reply, Refusal) and (reply.id, reply.code) == (77, 23), reply
            assert stream.stopped == 1
            assert isinstance(await connection.ask(77, [classify(0)], packet(photo)), Reply)

    run(main())


async def breaks_quic(server, error: int, act):
    """Checks that an act against QUIC itself closes the connection with QUIC's error."""
    async with contextlib.AsyncExitStack() as stack:
        connection = await opened(server, stack)
        act(connection)
        connection.transmit()
        closed = await connection.closed()
        assert closed.transport and closed.code == error, closed


def test_datagrams_end_the_connection(server, run):
    run(breaks_quic(server, PROTOCOL_VIOLATION, lambda connection: connection.quic.send_datagram_frame(b"?")))


def test_unidirectional_streams_end_the_connection(server, run):
    def act(connection):
        connection.quic._remote_max_streams_uni = 1
        connection.quic._remote_max_stream_data_uni = 100
        connection.open(unidirectional=True).send(b"?")

    run(breaks_quic(server, STREAM_LIMIT_ERROR, act))


def test_more_streams_than_allowed_end_the_connection(server, run):
    def act(connection):
        connection.quic._remote_max_streams_bidi = 100_000
        for _ in range(1000):
            connection.quic.send_stream_data(connection.open().number, b"?")

    run(breaks_quic(server, STREAM_LIMIT_ERROR, act))


def test_a_second_stream_before_the_welcome_ends_the_connection(server, run):
    async def main():
        async with server.dial("faulty") as connection:
            connection.quic._remote_max_streams_bidi = 10
            connection.open().send(messages.hello([server.identity], [])[:5], end=False)
            connection.open().send(messages.request(1, [classify(0)], packet(b"?")))
            closed = await connection.closed()
            assert closed.transport and closed.code == STREAM_LIMIT_ERROR, closed

    run(main())


def test_handshakes_that_are_never_finished_lock_nobody_out(server, run):
    host, port = server.address.rsplit(":", 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as half_open:
        for _ in range(300):
            quic = QuicConnection(configuration=server.settings("faulty"))
            quic.connect((host, int(port)), now=time.monotonic())
            for datagram, _ in quic.datagrams_to_send(now=time.monotonic()):
                half_open.sendto(datagram, (host, int(port)))
        begin = time.monotonic()
        run(server.answers())
        assert time.monotonic() - begin < LONG


def test_datagrams_that_are_no_quic_are_ignored(server, run):
    host, port = server.address.rsplit(":", 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for first in range(256):
            for length in (1, 20, 1200):
                stranger.sendto(bytes([first]) * length, (host, int(port)))
