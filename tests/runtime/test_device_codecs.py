"""A device session with unusual codecs: audio in text messages, messages that a protocol does not have."""

import base64
import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from picows import WSMsgType

from audio.framing import BytesLike
from relay.protocols.device.codec import DeviceCodec
from relay.protocols.openai.upstream_codec import OpenAIUpstreamCodec
from relay.session.common.media_types import AudioDelta, PartKey
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from tests.runtime.test_device import appended, delta
from tests.support.runtime_harness import DeviceRuntimeHarness, running_device
from tests.support.virtual_time import advance_time, in_virtual_time

MS_BYTES = 48


class TextCodec(DeviceCodec):
    """The device protocol with audio as text; messages that begin with "?" are ignored."""

    accepts_binary_audio = False

    def decode_text(self, message: BytesLike) -> ev.ClientEvent | bytes | None:
        raw = bytes(message)
        if raw.startswith(b"?"):
            return None
        return base64.b64decode(raw[1:]) if raw.startswith(b"+") else super().decode_text(raw)

    def encode_audio(self, part: PartKey, samples: BytesLike) -> list[bytes]:
        return [json.dumps({"of": part[0], "audio": base64.b64encode(samples).decode()}).encode(), b'{"mark":1}']

    def encode(self, message: cmd.ClientMessage | cmd.SendAudioStart | cmd.SendAudioEnd) -> bytes | None:
        return None if isinstance(message, cmd.SendAudioStart | cmd.SendResponseStart) else super().encode(message)


def spoken(samples: bytes) -> bytes:
    return b"+" + base64.b64encode(samples)


@in_virtual_time
async def test_audio_in_text_messages_is_charged_as_audio() -> None:
    async with running_device(client_codec=TextCodec()) as harness:
        harness.ready()
        frames = [bytes([number % 256]) * 10 * MS_BYTES for number in range(400)]
        harness.send_from_client(*map(spoken, frames))
        assert appended(harness) == b"".join(frames)
        assert harness.messages() == []
        harness.send_from_client(*[spoken(bytes(100 * MS_BYTES))] * 100)
        assert [message["code"] for message in harness.messages()] == ["too_fast"]


@in_virtual_time
async def test_a_long_text_with_little_audio_is_charged_as_a_message_too() -> None:
    async with running_device(client_codec=TextCodec()) as harness:
        harness.ready()
        harness.send_from_client(*[spoken(bytes(2 * MS_BYTES)) + b" " * 2000] * 400)
        assert [message["code"] for message in harness.messages()] == ["too_fast"]
        assert appended(harness) == bytes(400 * 2 * MS_BYTES)


@in_virtual_time
async def test_a_short_frame_is_sent_before_the_next_message() -> None:
    async with running_device(client_codec=TextCodec()) as harness:
        harness.ready()
        harness.send_from_client(spoken(bytes(200 * MS_BYTES)), spoken(b"\1\2" * 20), '{"type":"commit"}')
        assert [event["type"].rpartition(".")[2] for event in harness.upstream_requests()] == [
            "append",
            "append",
            "commit",
        ]
        assert appended(harness).endswith(b"\1\2" * 20)


@in_virtual_time
async def test_an_ignored_text_is_charged_as_a_message() -> None:
    async with running_device(client_codec=TextCodec()) as harness:
        harness.ready()
        harness.send_from_client(*["?"] * 400)
        assert [message["code"] for message in harness.messages()] == ["too_fast"]


@in_virtual_time
async def test_binary_messages_are_errors_where_they_are_not_audio() -> None:
    async with running_device(client_codec=TextCodec()) as harness:
        harness.ready()
        harness.send_audio(bytes(960))
        [fault] = harness.messages()
        assert (fault["code"], appended(harness)) == ("bad_message", b"")


@in_virtual_time
async def test_audio_for_the_client_as_text_at_once_and_from_the_queue() -> None:
    async with running_device(client_codec=TextCodec()) as harness:
        harness.ready()
        pcm = bytes(range(240)) * 400  # 2 s, of which one may be ahead
        harness.send_from_upstream({"type": "response.created", "response": {"id": "resp_1"}})
        harness.send_from_upstream(*(delta(1, 1, pcm[start : start + 4800]) for start in range(0, len(pcm), 4800)))
        await advance_time(3)
        kinds = [next(iter(message)) for message in harness.messages()]
        assert kinds == ["of", "mark"] * (len(kinds) // 2)
        sent = [base64.b64decode(message["audio"]) for message in harness.messages() if "audio" in message]
        assert b"".join(sent) == pcm
        assert [samples for _, samples in harness.recorder.all("sent")] == sent
        assert harness.sent_audio() == b""


class SparseCodec(OpenAIUpstreamCodec):
    """An upstream without commit, with another message for audio, that may send everything twice."""

    append_template = b'{"type":"sparse.append","audio":"%b"}'

    def decode(self, frame: BytesLike) -> list[ev.UpstreamEvent | AudioDelta]:
        return [*itertools.repeat(super().decode(frame), 2)]

    def encode(self, command: cmd.UpstreamCommand) -> bytes | None:
        return None if isinstance(command, cmd.CommitInput) else super().encode(command)


@in_virtual_time
async def test_commands_without_a_message_are_not_sent() -> None:
    async with running_device(upstream_codec=SparseCodec()) as harness:
        harness.ready()
        harness.send_audio(bytes(200 * MS_BYTES))
        harness.send_from_client('{"type":"commit"}', '{"type":"clear"}')
        assert [event["type"] for event in harness.upstream_requests()] == ["sparse.append", "input_audio_buffer.clear"]


@in_virtual_time
async def test_a_message_of_the_upstreams_may_be_several_events() -> None:
    async with running_device(upstream_codec=SparseCodec()) as harness:
        harness.ready()
        harness.send_from_upstream(
            {"type": "response.created", "response": {"id": "resp_1"}}, delta(1, 1, b"\1\2" * 480)
        )
        assert harness.sent_audio() == b"\1\2" * 960


class SilentCodec(OpenAIUpstreamCodec):
    """An upstream that sends nothing before its settings, which it accepts once."""

    opened = ev.SessionCreated("silent-1")
    is_configured = False

    def encode(self, command: cmd.UpstreamCommand) -> bytes | ev.UpstreamEvent | None:
        if isinstance(command, cmd.ConfigureSession):
            if self.is_configured:
                return ev.UpstreamErrorEvent(None, "Too late.", event_id=command.event_id)
            self.is_configured = True
        return ev.InputCleared() if isinstance(command, cmd.ClearInput) else super().encode(command)


@in_virtual_time
async def test_an_upstream_that_accepts_its_settings_once() -> None:
    async with running_device(upstream_codec=SilentCodec()) as harness:
        assert [event["type"] for event in harness.upstream_requests()] == ["session.update"]
        harness.send_from_upstream({"type": "session.updated", "session": {}})
        harness.send_from_client('{"type":"hello","instructions":"Be brief."}', '{"type":"clear"}')
        connected, refused, ready = harness.messages()
        assert (connected["name"], ready["type"]) == ("AIConnected", "ready")
        assert (refused["code"], refused["message"]) == ("hello_refused", "Too late.")
        assert len(harness.upstream_requests()) == 1
        assert ("event", "InputCleared") in [entry[:2] for entry in harness.recorder.entries]
        harness.send_audio(bytes(200 * MS_BYTES))
        assert appended(harness)


@in_virtual_time
async def test_an_upstream_may_send_its_messages_as_binary() -> None:
    async with running_device() as harness:
        harness.ready()
        created = {"type": "response.created", "response": {"id": "resp_1"}}
        harness.send_from_upstream(created, delta(1, 1, b"\1\2" * 480), kind=WSMsgType.BINARY)
        assert harness.sent_audio() == b"\1\2" * 480


def speak(harness: DeviceRuntimeHarness) -> None:
    harness.send_from_upstream(
        {"type": "response.created", "response": {"id": "resp_1"}}, delta(1, 1, bytes(2000 * MS_BYTES))
    )


def nothing(_: DeviceRuntimeHarness) -> None:
    """Fails without an event."""


@pytest.mark.parametrize(
    ("broken", "before", "when"),
    [
        (("decode_text",), nothing, lambda harness: harness.send_from_client("{}", "{}", "{}")),
        (("encode",), nothing, lambda harness: harness.send_from_client("{}")),
        (("decode_text", "encode"), nothing, lambda harness: harness.send_from_client("{}", "{}")),
        (("encode_audio",), nothing, speak),
        (("encode_audio",), speak, nothing),  # what waits is sent by a timer
        (("decode_upstream",), nothing, lambda harness: harness.send_from_upstream({"type": "x"}, {"type": "x"})),
        (("encode_upstream",), nothing, lambda harness: harness.send_from_client('{"type":"text","text":"Hi."}')),
    ],
)
@in_virtual_time
async def test_a_codec_that_raises_ends_its_session_with_one_line_in_the_log(
    broken: tuple[str, ...],
    before: Callable[[DeviceRuntimeHarness], None],
    when: Callable[[DeviceRuntimeHarness], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    is_broken = False
    client_codec, upstream_codec = TextCodec(), OpenAIUpstreamCodec()

    def breakable(method: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: 1 // 0 if is_broken else method(*args)

    for name in broken:
        codec, method = (upstream_codec, name.partition("_")[0]) if "upstream" in name else (client_codec, name)
        setattr(codec, method, breakable(getattr(codec, method)))
    async with running_device(client_codec=client_codec, upstream_codec=upstream_codec) as harness:
        harness.ready()
        before(harness)
        is_broken = True
        when(harness)
        await advance_time(3)
        assert {"client close", "client cut"} & {kind for kind, _ in harness.sent}
    assert "upstream close" in {kind for kind, _ in harness.sent}
    assert [record.exc_info is not None for record in caplog.records] == [True]
