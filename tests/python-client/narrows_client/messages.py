"""The messages of PROTOCOL.md sections 3 to 5."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

import zstandard

HELLO, WELCOME, HELLO_REFUSAL, REQUEST, REPLY, REFUSAL = 1, 2, 3, 16, 17, 18
CLASSIFY, SEGMENT = 1, 2
PACKET, IMAGE = 1, 2
CLASSES, CLASS_MAP, TASK_REFUSED = 1, 2, 255
NO_BUDGET = 0xFFFFFFFF

NAME = re.compile(r"[a-z0-9._-]{1,64}", re.ASCII)


class ProtocolError(Exception):
    """The server's message breaks PROTOCOL.md."""


def require(condition: bool, field: str) -> None:
    if not condition:
        raise ProtocolError(field)


class Fields:
    """Reads the fields of a message in order."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def take(self, kind: str, field: str) -> int | float:
        """A number, by its letter of Python's struct."""
        return struct.unpack("<" + kind, self.bytes(struct.calcsize("<" + kind), field))[0]

    def bytes(self, count: int, field: str) -> bytes:
        require(self.at + count <= len(self.data), f"{field} is cut off")
        self.at += count
        return self.data[self.at - count : self.at]

    def count(self, least: int, most: int, field: str) -> int:
        number = self.take("B", field)
        require(least <= number <= most, field)
        return number

    def name(self, field: str) -> str:
        text = self.bytes(self.take("B", field), field).decode("ascii", "replace")
        require(NAME.fullmatch(text) is not None, field)
        return text

    def text(self, field: str) -> str:
        length = self.take("H", field)
        require(length <= 512, field)
        return self.bytes(length, field).decode()

    def rest(self) -> bytes:
        return self.bytes(len(self.data) - self.at, "rest")

    def end(self) -> None:
        require(self.at == len(self.data), "bytes after the last field")


@dataclass
class Bundle:
    """A bundle of the welcome with its tasks; requests use the indices."""

    identity: bytes
    tasks: list[str]


@dataclass
class Welcome:
    """The server's answer to a hello that it accepts (section 3)."""

    version: int
    max_in_flight: int
    bundles: list[Bundle]
    standing: tuple[int, int, str] | None = None
    """From version 2 on: microseconds of waiting, open connections, and the next server's address."""


@dataclass
class Refusal:
    """The server's reason not to answer, of a hello, of a frame (`id`) or of a task."""

    code: int
    retry: int
    text: str
    id: int | None = None
    versions: tuple[int, int] | None = None
    serves: list[bytes] | None = None


@dataclass
class Answer:
    """The answer of one task: its outcome is a list of (class, probability), a `ClassMap` or a `Refusal`."""

    task: int
    batch: int
    outcome: list[tuple[int, float]] | ClassMap | Refusal


@dataclass
class ClassMap:
    """A class per pixel, one byte each, row by row."""

    width: int
    height: int
    pixels: bytes


@dataclass
class Reply:
    """The answer to a frame (section 5)."""

    id: int
    path: int
    provider: int
    times: tuple[int, int, int, int]
    answers: list[Answer]


def hello(bundles: list[bytes], tasks: list[str], versions: tuple[int, int] = (1, 1)) -> bytes:
    """The client's first message."""
    out = struct.pack("<BHHB", HELLO, *versions, len(bundles)) + b"".join(bundles)
    return out + bytes([len(tasks)]) + b"".join(bytes([len(task)]) + task.encode() for task in tasks)


def classify(task: int, top_k: int = 5) -> bytes:
    """A task request: the most probable classes."""
    return struct.pack("<BBBH", task, CLASSIFY, 2, top_k)


def segment(task: int, width: int = 0, height: int = 0) -> bytes:
    """A task request: a class map. 0 and 0 are the size of the network's output."""
    return struct.pack("<BBBHH", task, SEGMENT, 4, width, height)


def packet(data: bytes) -> bytes:
    """A payload: a codec packet."""
    return struct.pack("<BI", PACKET, len(data)) + data


def image(geometry: int, format: int, framing: int, file: bytes) -> bytes:
    """A payload: an image file."""
    return struct.pack("<BIBBB", IMAGE, 3 + len(file), geometry, format, framing) + file


def request(id: int, tasks: list[bytes], payload: bytes, bundle: int = 0, budget: int = NO_BUDGET) -> bytes:
    """The request for one frame (section 4)."""
    return struct.pack("<BQBIB", REQUEST, id, bundle, budget, len(tasks)) + b"".join(tasks) + payload


def parse_hello_reply(data: bytes) -> Welcome | Refusal:
    """A welcome or a hello refusal."""
    fields = Fields(data)
    kind = fields.take("B", "type")
    if kind == HELLO_REFUSAL:
        refusal = parse_reason(fields)
        refusal.versions = fields.take("H", "oldest"), fields.take("H", "newest")
        refusal.serves = [fields.bytes(32, "bundle") for _ in range(fields.count(0, 16, "serves"))]
        fields.end()
        return refusal
    require(kind == WELCOME, "type")
    version, max_in_flight = fields.take("H", "version"), fields.take("H", "max_in_flight")
    require(1 <= max_in_flight <= 256, "max_in_flight")
    bundles = []
    for _ in range(fields.count(1, 16, "bundles")):
        identity = fields.bytes(32, "bundle")
        bundles.append(Bundle(identity, [fields.name("task") for _ in range(fields.count(0, 16, "tasks"))]))
    require(len({bundle.identity for bundle in bundles}) == len(bundles), "a bundle is listed twice")
    standing = None
    if version >= 2:
        standing = fields.take("I", "wait"), fields.take("I", "connections"), fields.text("next")
    fields.end()
    return Welcome(version, max_in_flight, bundles, standing)


def parse_reply(data: bytes) -> Reply | Refusal:
    """A reply or the refusal of a frame."""
    fields = Fields(data)
    kind, id = fields.take("B", "type"), fields.take("Q", "id")
    if kind == REFUSAL:
        refusal = parse_reason(fields)
        refusal.id = id
        fields.end()
        return refusal
    require(kind == REPLY, "type")
    path, provider = fields.take("B", "path"), fields.take("B", "provider")
    times = tuple(fields.take("I", "time") for _ in range(4))
    answers = []
    for _ in range(fields.count(1, 16, "answers")):
        task, batch, outcome = fields.take("B", "task"), fields.take("H", "batch"), fields.take("B", "outcome kind")
        answers.append(
            Answer(task, batch, parse_outcome(outcome, fields.bytes(fields.take("I", "outcome"), "outcome")))
        )
    fields.end()
    return Reply(id, path, provider, times, answers)


def parse_outcome(kind: int, data: bytes) -> list[tuple[int, float]] | ClassMap | Refusal:
    """The outcome of one task."""
    fields = Fields(data)
    if kind == CLASSES:
        count = fields.take("H", "classes")
        outcome = [(fields.take("H", "class"), fields.take("f", "probability")) for _ in range(count)]
        require(all(0 <= probability <= 1 for _, probability in outcome), "probability")
        order = [(-probability, number) for number, probability in outcome]
        require(order == sorted(order), "the order of the classes")
    elif kind == CLASS_MAP:
        width, height, encoding = fields.take("H", "width"), fields.take("H", "height"), fields.take("B", "encoding")
        require(encoding == 1, "encoding")
        pixels = zstandard.ZstdDecompressor().decompress(fields.rest(), max_output_size=width * height)
        require(len(pixels) == width * height, "pixels of the class map")
        outcome = ClassMap(width, height, pixels)
    else:
        require(kind == TASK_REFUSED, "outcome kind")
        outcome = parse_reason(fields)
    fields.end()
    return outcome


def parse_reason(fields: Fields) -> Refusal:
    return Refusal(fields.take("H", "code"), fields.take("I", "retry"), fields.text("text"))
