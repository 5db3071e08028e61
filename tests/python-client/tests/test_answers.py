"""Answers of a running tail to a client written from PROTOCOL.md alone."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest
from narrows_reference import CONTEXT, STATIC, encode

from narrows_client import messages
from narrows_client.messages import ClassMap, Refusal, Reply, classify, image, packet, segment

# Symbols of the bundle's first geometry, [channels, rows, columns].
SHAPE = (36, 28, 28)


def planes(server, name: str) -> list[list[list[int]]]:
    """The symbols of a test vector, [channel][row][column]."""
    channels, height, width = SHAPE
    flat = struct.unpack(f"<{channels * height * width}b", server.vector(f"{name}.symbols"))
    rows = [list(flat[at : at + width]) for at in range(0, len(flat), width)]
    return [rows[channel * height : (channel + 1) * height] for channel in range(channels)]


@pytest.mark.parametrize("mode", [STATIC, CONTEXT])
def test_a_packet_of_the_reference_codec_is_answered_as_the_head_s(server, run, mode):
    """NARROWS_HEAD is the JSON line of `narrows-head run` for the photo of a test vector, NARROWS_MASK its class map."""
    head = json.loads(os.environ["NARROWS_HEAD"])
    mask = Path(os.environ["NARROWS_MASK"]).read_bytes()
    made = encode(server.tables, SHAPE, 0, 1, mode, planes(server, "photo-0-level1"))
    if mode == STATIC:
        assert made == server.vector("photo-0-level1.packet")
    else:
        assert len(made) == head["bytes"]["packet"]

    async def main():
        async with server.dial("honest") as connection:
            welcome = await connection.hello(server.identity, ["classify", "segment"])
            assert welcome.bundles[0].tasks == ["classify", "segment"]
            map_size = head["segment"]["width"], head["segment"]["height"]
            for size in [map_size, (0, 0)]:
                reply = await connection.ask(7, [segment(1, *size), classify(0, 5)], packet(made))
                assert isinstance(reply, Reply), reply
                assert (reply.path, reply.provider) == (1, 1)
                answers = {answer.task: answer.outcome for answer in reply.answers}
                assert len(reply.answers) == 2 and all(answer.batch >= 1 for answer in reply.answers)
                assert [number for number, _ in answers[0]] == [each["index"] for each in head["classify"]]
                for (_, got), each in zip(answers[0], head["classify"]):
                    assert got == pytest.approx(each["probability"], abs=1e-4)
                assert isinstance(answers[1], ClassMap)
                assert (answers[1].width, answers[1].height) == map_size
                assert answers[1].pixels == mask

    run(main())


def test_an_image_is_answered_by_the_unsplit_networks(server, run):
    async def main():
        async with server.dial("honest") as connection:
            await connection.hello(server.identity, ["classify"])
            jpeg = Path(os.environ["NARROWS_JPEG"]).read_bytes()
            reply = await connection.ask(1, [classify(0, 3)], image(0, 1, 2, jpeg))
            assert isinstance(reply, Reply), reply
            assert reply.path == 2 and len(reply.answers[0].outcome) == 3
            # A fitted image has the geometry's size, and this one has not.
            reply = await connection.ask(2, [classify(0)], image(0, 1, 1, jpeg))
            assert isinstance(reply, Refusal) and reply.code == 27, reply
            reply = await connection.ask(3, [classify(0)], image(9, 1, 2, jpeg))
            assert isinstance(reply, Refusal) and reply.code == 27, reply
            reply = await connection.ask(4, [classify(0)], image(0, 1, 2, jpeg[:100]))
            assert isinstance(reply, Refusal) and reply.code == 27, reply

    run(main())


def test_every_refusal_has_its_code_and_the_connection_goes_on(server, run):
    photo = server.vector("photo-0-level1.packet")
    unknown_query = struct.pack("<BBB", 0, 9, 2) + b"??"
    unknown_payload = struct.pack("<BI", 9, 3) + b"???"
    damaged = bytearray(photo)
    damaged[len(photo) // 2] ^= 1
    cases = [
        (16, [classify(0)], packet(b"\x00"), {}),
        (16, [classify(0)], packet(bytes(damaged)), {}),
        (17, [classify(0)], packet(photo), {"budget": 0}),
        (20, [classify(0)], packet(photo), {"bundle": 1}),
        (21, [classify(2)], packet(photo), {}),
        (22, [classify(1)], packet(photo), {}),
        (22, [segment(0)], packet(photo), {}),
        (26, [unknown_query], packet(photo), {}),
        (26, [classify(0)], unknown_payload, {}),
        (26, [classify(0)], image(0, 9, 2, b"?"), {}),
        (26, [classify(0)], image(0, 1, 9, b"?"), {}),
    ]

    async def main():
        async with server.dial("honest") as connection:
            await connection.hello(server.identity, [])
            for id, (code, tasks, payload, more) in enumerate(cases):
                reply = await connection.ask(id, tasks, payload, **more)
                assert isinstance(reply, Refusal) and reply.code == code, (code, reply)
                assert reply.text, reply
            reply = await connection.ask(99, [classify(0)], packet(photo), budget=30_000_000)
            assert isinstance(reply, Reply), reply

    run(main())


def test_frames_in_flight_are_answered_in_any_order_and_more_are_refused(server, run):
    photo = server.vector("photo-0-level1.packet")

    async def main():
        async with server.dial("honest") as connection:
            welcome = await connection.hello(server.identity, ["segment"])
            streams = []
            for id in range(welcome.max_in_flight + 1):
                stream = connection.open()
                stream.send(messages.request(id, [segment(1)], packet(photo)))
                streams.append(stream)
            replies = [messages.parse_reply(await stream.answer()) for stream in streams]
            assert [reply.id for reply in replies] == list(range(welcome.max_in_flight + 1))
            codes = {reply.code for reply in replies if isinstance(reply, Refusal)}
            assert codes <= {18, 25}, codes
            assert sum(isinstance(reply, Reply) for reply in replies) >= 1

    run(main())


def test_a_frame_that_is_given_up_is_not_answered_and_its_number_is_free(server, run):
    photo = server.vector("photo-0-level1.packet")

    async def main():
        async with server.dial("honest") as connection:
            await connection.hello(server.identity, ["classify"])
            stream = connection.open()
            stream.send(messages.request(1, [classify(0)], packet(photo))[:100], end=False)
            stream.give_up()
            reply = await connection.ask(1, [classify(0)], packet(photo))
            assert isinstance(reply, Reply), reply

    run(main())
