"""Secrets are taken out of events at the codecs, and deltas pass as they came."""

import base64
import json
from typing import Any

import pytest

from relay.protocols.device.codec import DeviceCodec
from relay.protocols.elevenlabs import ElevenLabsCodec
from relay.protocols.openai.beta import BetaUpstreamDialect
from relay.protocols.openai.proxy import ProxyCodec
from relay.protocols.openai.upstream_codec import OpenAIUpstreamCodec
from relay.session.common.known_secrets import KnownSecrets
from relay.session.common.media_types import RawDelta
from relay.session.common.redact import MASK
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.session.realtime.events import RealtimeServerEvent
from tests.support.media import decode_deltas_and_events

KEY = "sk-known-0123456789"
KNOWN = KnownSecrets([KEY])
ABOUT = {"event_id": "e1", "response_id": "r1", "item_id": "i1", "output_index": 0, "content_index": 0}
ERROR = {"type": "error", "event_id": "e1", "error": {"type": "x", "code": KEY, "message": f"a {KEY}", "param": KEY}}
AUDIO = base64.b64encode(bytes(4800)).decode()
DELTAS = [
    {"type": "response.output_audio.delta", **ABOUT, "delta": AUDIO},
    {"type": "response.output_audio_transcript.delta", **ABOUT, "delta": f"say {KEY}"},
    {"type": "response.output_text.delta", **ABOUT, "delta": f"say {KEY}"},
    {"type": "conversation.item.input_audio_transcription.delta", "item_id": "i1", "delta": f"say {KEY}"},
]


def frame(event: Any) -> bytes:
    return json.dumps(event).encode()


@pytest.mark.parametrize("read", [decode_deltas_and_events, ProxyCodec.decode_upstream], ids=["found", "read in full"])
@pytest.mark.parametrize("event", DELTAS)
def test_deltas_go_to_a_realtime_client_byte_for_byte(event: Any, read: Any) -> None:
    codec = ProxyCodec(secrets=KNOWN)
    [said] = read(codec, frame(event))
    assert isinstance(said, RawDelta)
    assert bytes(said.raw) == frame(event)
    assert codec.encode_delta(bytes(said.raw), None) == [frame(event)]


@pytest.mark.parametrize("upstream", [None, BetaUpstreamDialect()])
def test_all_else_loses_the_secret_before_any_rule_sees_it(upstream: Any) -> None:
    [said] = ProxyCodec(upstream=upstream, secrets=KNOWN).decode_upstream(frame(ERROR))
    assert isinstance(said, RealtimeServerEvent)
    assert said.body["error"] == {"type": "x", "code": MASK, "message": f"a {MASK}", "param": MASK}
    assert KEY.encode() not in bytes(said.raw)


@pytest.mark.parametrize("kind", [["error"], {"a": 1}, None, 3])
def test_a_type_that_is_no_text_is_searched_as_well(kind: Any) -> None:
    [said] = ProxyCodec(secrets=KNOWN).decode_upstream(frame({"type": kind, "x": KEY}))
    assert isinstance(said, tuple)
    assert KEY.encode() not in bytes(said.raw)


@pytest.mark.parametrize("codec", [OpenAIUpstreamCodec(KNOWN), OpenAIUpstreamCodec(KNOWN, BetaUpstreamDialect())])
def test_a_device_session_s_events_lose_it(codec: OpenAIUpstreamCodec) -> None:
    event = codec.decode(frame(ERROR))
    assert isinstance(event, ev.UpstreamErrorEvent)
    assert (event.code, event.message, event.param) == (MASK, f"a {MASK}", MASK)


def test_what_deltas_are_joined_to_loses_it_on_its_way_to_a_device() -> None:
    codec = DeviceCodec(KNOWN)
    for message in (
        cmd.SendResponseEnd(f"say {KEY}", "completed", more=False),
        cmd.SendTranscript("assistant", "i1", 1, f"say {KEY}", final=True),
        cmd.SendError("x", f"say {KEY}"),
    ):
        told = codec.encode(message).decode()
        assert f"say {MASK}" in told
        assert KEY not in told


def test_an_error_of_a_voice_loses_it_wherever_the_message_is_cut() -> None:
    for n in range(280, 301):
        message = json.dumps({"error": KEY, "message": "x" * n + KEY})
        [failed] = ElevenLabsCodec(secrets=KNOWN).decode(message)
        assert isinstance(failed, ev.TtsFailed)
        assert failed.code == MASK
        assert "sk-" not in failed.message
