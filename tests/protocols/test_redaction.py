"""The codecs redact secrets in events, and forward deltas unchanged."""

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
    [decoded] = read(codec, frame(event))
    assert isinstance(decoded, RawDelta)
    assert bytes(decoded.raw) == frame(event)
    assert codec.encode_delta(bytes(decoded.raw), None) == [frame(event)]


@pytest.mark.parametrize("upstream", [None, BetaUpstreamDialect()])
def test_other_events_are_redacted_before_any_rule_sees_them(upstream: Any) -> None:
    [decoded] = ProxyCodec(upstream=upstream, secrets=KNOWN).decode_upstream(frame(ERROR))
    assert isinstance(decoded, RealtimeServerEvent)
    assert decoded.body["error"] == {"type": "x", "code": MASK, "message": f"a {MASK}", "param": MASK}
    assert KEY.encode() not in bytes(decoded.raw)


@pytest.mark.parametrize("kind", [["error"], {"a": 1}, None, 3])
def test_an_event_with_an_invalid_type_is_redacted_too(kind: Any) -> None:
    [decoded] = ProxyCodec(secrets=KNOWN).decode_upstream(frame({"type": kind, "x": KEY}))
    assert isinstance(decoded, tuple)
    assert KEY.encode() not in bytes(decoded.raw)


@pytest.mark.parametrize("codec", [OpenAIUpstreamCodec(KNOWN), OpenAIUpstreamCodec(KNOWN, BetaUpstreamDialect())])
def test_a_device_sessions_events_are_redacted(codec: OpenAIUpstreamCodec) -> None:
    event = codec.decode(frame(ERROR))
    assert isinstance(event, ev.UpstreamErrorEvent)
    assert (event.code, event.message, event.param) == (MASK, f"a {MASK}", MASK)


def test_complete_texts_to_a_device_are_redacted() -> None:
    codec = DeviceCodec(KNOWN)
    for message in (
        cmd.SendResponseEnd(f"say {KEY}", "completed", more=False),
        cmd.SendTranscript("assistant", "i1", 1, f"say {KEY}", final=True),
        cmd.SendError("x", f"say {KEY}"),
    ):
        message_text = codec.encode(message).decode()
        assert f"say {MASK}" in message_text
        assert KEY not in message_text


def test_a_tts_error_is_redacted_wherever_it_is_truncated() -> None:
    for n in range(280, 301):
        message = json.dumps({"error": KEY, "message": "x" * n + KEY})
        [failed] = ElevenLabsCodec(secrets=KNOWN).decode(message)
        assert isinstance(failed, ev.TtsFailed)
        assert failed.code == MASK
        assert "sk-" not in failed.message
