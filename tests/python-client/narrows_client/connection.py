"""Connections of a client (PROTOCOL.md sections 1 and 2)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent, StopSendingReceived, StreamDataReceived, StreamReset

from . import messages

ALPN = "narrows/1"

# The time in which everything ends on the slowest machine, in seconds.
LONG = 30


class StreamEnded(Exception):
    """The server reset its direction of a stream, with a code of section 7."""

    def __init__(self, code: int):
        super().__init__(f"stream ended with code {code}")
        self.code = code


class Closed(Exception):
    """The connection ended; `code` is one of section 7 unless `transport` says that it is one of QUIC's."""

    def __init__(self, event: ConnectionTerminated):
        super().__init__(f"closed with code {event.error_code}: {event.reason_phrase}")
        self.code, self.reason, self.transport = event.error_code, event.reason_phrase, event.frame_type is not None


@dataclass
class Stream:
    """A stream that the client opened."""

    connection: Connection
    number: int

    def __post_init__(self) -> None:
        self.received = bytearray()
        self.stopped: int | None = None
        self.end: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        # An answer that nobody waits for is no error.
        self.end.add_done_callback(lambda end: end.cancelled() or end.exception())

    def send(self, data: bytes, end: bool = True) -> None:
        """Sends bytes, and ends the client's direction unless more follows."""
        self.connection.quic.send_stream_data(self.number, data, end)
        self.connection.transmit()

    def give_up(self) -> None:
        """Resets the client's direction and stops the server's: the answer is no longer needed (section 2, 4)."""
        self.connection.quic.reset_stream(self.number, 0)
        self.connection.quic.stop_stream(self.number, 0)
        self.connection.transmit()

    async def answer(self, seconds: float = LONG) -> bytes:
        """The server's whole message. Raises `StreamEnded` or `Closed`."""
        return await asyncio.wait_for(asyncio.shield(self.end), seconds)


class Connection(QuicConnectionProtocol):
    """A connection of a client that keeps no rule by itself."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.streams: dict[int, Stream] = {}
        self.end: asyncio.Future[Closed] = asyncio.get_running_loop().create_future()

    @property
    def quic(self):
        """The state machine of aioquic."""
        return self._quic

    def open(self, unidirectional: bool = False) -> Stream:
        """A new stream."""
        number = self.quic.get_next_available_stream_id(is_unidirectional=unidirectional)
        self.streams[number] = Stream(self, number)
        # aioquic creates a stream when it is first written to.
        self.quic.send_stream_data(number, b"")
        return self.streams[number]

    async def exchange(self, message: bytes) -> bytes:
        """Sends a message on a new stream and waits for the answer."""
        stream = self.open()
        stream.send(message)
        return await stream.answer()

    async def hello(self, bundle: bytes, tasks: list[str]) -> messages.Welcome:
        """Opens the session."""
        answer = messages.parse_hello_reply(await self.exchange(messages.hello([bundle], tasks)))
        assert isinstance(answer, messages.Welcome), answer
        assert answer.version == 1 and [each.identity for each in answer.bundles] == [bundle], answer
        return answer

    async def ask(self, id: int, tasks: list[bytes], payload: bytes, **more) -> messages.Reply | messages.Refusal:
        """Sends a request and checks that the answer is that of its frame."""
        reply = messages.parse_reply(await self.exchange(messages.request(id, tasks, payload, **more)))
        assert reply.id == id, reply
        return reply

    async def closed(self, seconds: float = LONG) -> Closed:
        """Waits until the server has closed the connection."""
        return await asyncio.wait_for(asyncio.shield(self.end), seconds)

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ConnectionTerminated):
            closed = Closed(event)
            self.end.done() or self.end.set_result(closed)
            for stream in self.streams.values():
                stream.end.done() or stream.end.set_exception(closed)
            return
        stream = self.streams.get(getattr(event, "stream_id", None))
        if stream is None or stream.end.done():
            return
        if isinstance(event, StreamDataReceived):
            stream.received += event.data
            if event.end_stream:
                stream.end.set_result(bytes(stream.received))
        elif isinstance(event, StopSendingReceived):
            # The server reads no further; its answer may still follow.
            stream.stopped = event.error_code
        elif isinstance(event, StreamReset):
            stream.end.set_exception(StreamEnded(event.error_code))


def configuration(identity: Path | None, ca: Path, **more) -> QuicConfiguration:
    """The settings of section 1. Without an identity the client is anonymous."""
    settings = {"alpn_protocols": [ALPN], "is_client": True, "server_name": "localhost", "idle_timeout": 10.0}
    result = QuicConfiguration(**(settings | more))
    result.load_verify_locations(str(ca))
    if identity:
        result.load_cert_chain(str(identity / "cert.pem"), str(identity / "key.pem"))
    return result


@contextlib.asynccontextmanager
async def dial(address: str, settings: QuicConfiguration) -> AsyncIterator[Connection]:
    """A connection after the handshake. The client learns only with its first answer whether its certificate is accepted."""
    host, port = address.rsplit(":", 1)
    opened = connect(host, int(port), configuration=settings, create_protocol=Connection, local_port=0)
    async with opened as connection:
        yield connection
