"""The messages against the golden bytes of the Rust crate, which were written down by hand."""

from pathlib import Path

import pytest

from narrows_client import messages

GOLDEN = Path(__file__).resolve().parents[3] / "wire/tests/golden"


def golden(name: str) -> bytes:
    """The bytes of a golden message: hexadecimal digits with comments."""
    lines = (GOLDEN / f"{name}.hex").read_text().splitlines()
    return bytes.fromhex("".join(line.split("#")[0] for line in lines))


def test_what_the_client_sends():
    sent = messages.hello([b"\x11" * 32, b"\x22" * 32], ["classify", "segment"], (1, 2))
    assert sent == golden("hello")
    tasks = [messages.classify(0, 5), messages.segment(1, 480, 360)]
    payload = messages.packet(b"\xaa\xbb\xcc")
    assert messages.request(0x0102030405060708, tasks, payload, budget=250_000) == golden("request")
    payload = messages.image(1, 1, 2, b"\xff\xd8\xff\xd9")
    assert messages.request(9, [messages.classify(0, 5)], payload) == golden("image")


def test_what_the_server_sends():
    welcome = messages.Welcome(1, 16, [messages.Bundle(b"\x11" * 32, ["classify", "segment"])])
    assert messages.parse_hello_reply(golden("welcome")) == welcome
    refusal = messages.Refusal(2, 0, "none in common", versions=(1, 1), serves=[b"\x33" * 32])
    assert messages.parse_hello_reply(golden("hello-refusal")) == refusal
    answers = [
        messages.Answer(0, 2, [(281, 0.5), (282, 0.25)]),
        messages.Answer(1, 0, messages.Refusal(17, 0, "late")),
    ]
    assert messages.parse_reply(golden("reply")) == messages.Reply(7, 1, 1, (300, 40, 21_000, 500), answers)
    assert messages.parse_reply(golden("refusal")) == messages.Refusal(18, 20, "64 wait", id=7)
    outcome = messages.parse_reply(golden("map")).answers[0].outcome
    assert outcome == messages.ClassMap(4, 2, bytes([0, 0, 1, 1, 2, 2, 3, 3]))


@pytest.mark.parametrize("name", ["welcome", "hello-refusal", "reply", "refusal", "map"])
def test_messages_that_are_cut_or_too_long_are_errors(name):
    parse = messages.parse_hello_reply if "hello" in name or name == "welcome" else messages.parse_reply
    data = golden(name)
    for length in range(len(data)):
        with pytest.raises(messages.ProtocolError):
            parse(data[:length])
    with pytest.raises(messages.ProtocolError):
        parse(data + b"\0")
