"""ElevenLabs' messages, as its reference describes them."""

import json

import pytest

from audio.formats import PCM16_16K, PCMA, PCMU
from relay.protocols.elevenlabs import ElevenLabsCodec, stream_url
from relay.session.common.media_types import TtsAudioDelta
from relay.session.common.model import Alignment
from relay.session.device import commands as cmd
from relay.session.device import events as ev


def sent(codec: ElevenLabsCodec, *commands: cmd.TtsCommand) -> list[dict[str, object]]:
    return [json.loads(message) for command in commands for message in codec.encode(command)]


def test_a_context_from_its_first_word_to_its_end() -> None:
    codec = ElevenLabsCodec({"stability": 0.5})
    assert sent(
        codec, cmd.SynthesizeSentence("c1", "One. "), cmd.SynthesizeSentence("c1", "Two. "), cmd.FinishTtsContext("c1")
    ) == [
        {"text": " ", "voice_settings": {"stability": 0.5}, "context_id": "c1"},
        {"text": "One. ", "flush": True, "context_id": "c1"},
        {"text": "Two. ", "flush": True, "context_id": "c1"},
        {"flush": True, "context_id": "c1"},
        {"close_context": True, "context_id": "c1"},
    ]


def test_a_context_that_was_never_opened_is_neither_closed_nor_kept_open() -> None:
    assert (
        sent(ElevenLabsCodec(), cmd.CancelTtsContext("c1"), cmd.FinishTtsContext("c1"), cmd.KeepTtsContextAlive("c1"))
        == []
    )


def test_silence_and_keeping() -> None:
    codec = ElevenLabsCodec()
    codec.encode(cmd.SynthesizeSentence("c1", "One. "))
    assert sent(codec, cmd.KeepTtsContextAlive("c1"), cmd.CancelTtsContext("c1")) == [
        {"text": "", "context_id": "c1"},
        {"close_context": True, "context_id": "c1"},
    ]


def test_audio_with_its_times_and_the_end() -> None:
    alignment = {"chars": ["H", "i"], "charStartTimesMs": [0, 3.0], "charDurationsMs": [3, 4]}
    message = {"audio": "AAAA", "contextId": "c1", "alignment": alignment, "normalizedAlignment": None}
    [spoke] = ElevenLabsCodec().decode(json.dumps(message))
    assert spoke == TtsAudioDelta("c1", b"\0\0\0", Alignment(("H", "i"), (0, 3), (3, 4)))
    assert ElevenLabsCodec().decode('{"isFinal": true, "contextId": "c1"}') == [ev.TtsContextDone("c1")]


@pytest.mark.parametrize(
    "alignment",
    [None, 1, [], {}, {"chars": "Hi", "charStartTimesMs": [0], "charDurationsMs": [1]},
     {"chars": ["H"], "charStartTimesMs": [0, 1], "charDurationsMs": [1]},
     {"chars": ["H"], "charStartTimesMs": ["0"], "charDurationsMs": [1]},
     {"chars": ["H"], "charStartTimesMs": [-1], "charDurationsMs": [1]}],
)  # fmt: skip
def test_times_of_another_shape_are_left_out(alignment: object) -> None:
    [spoke] = ElevenLabsCodec().decode(json.dumps({"audio": "AAAA", "contextId": "c1", "alignment": alignment}))
    assert spoke == TtsAudioDelta("c1", b"\0\0\0", None)


@pytest.mark.parametrize("audio", ["AAA", "A===", "AA AA", "n*pe", "ÄÄÄÄ"])
def test_invalid_base64_is_reported_and_the_rest_is_decoded(audio: str) -> None:
    message = {"audio": audio, "contextId": "c1", "isFinal": True}
    outputs = ElevenLabsCodec().decode(json.dumps(message))
    assert outputs == [ev.MalformedUpstreamMessage("audio that is not base64"), ev.TtsContextDone("c1")]


@pytest.mark.parametrize("frame", ["", "no", "[]", "1", '{"audio": 1}', '{"contextId": "c1"}'])
def test_an_invalid_message_decodes_to_nothing(frame: str) -> None:
    assert ElevenLabsCodec().decode(frame) == []


@pytest.mark.parametrize(
    ("code", "retryable"), [("quota_exceeded", False), ("voice_id_does_not_exist", False), ("server_busy", True)]
)
def test_errors_keep_their_name_and_no_secret(code: str, retryable: bool) -> None:
    message = {"message": "No. xi-api-key: abcdef123456", "error": code, "code": 1008}
    [failed] = ElevenLabsCodec().decode(json.dumps(message))
    assert isinstance(failed, ev.TtsFailed)
    assert (failed.code, failed.retryable, "abcdef" in failed.message) == (code, retryable, False)


def test_the_url_of_the_voice() -> None:
    url = stream_url("https://api.elevenlabs.io/", "a/b", PCM16_16K, "eleven_flash_v2_5")
    assert url.startswith("wss://api.elevenlabs.io/v1/text-to-speech/a%2Fb/multi-stream-input?output_format=pcm_16000&")
    assert "model_id=eleven_flash_v2_5" in url
    assert "output_format=ulaw_8000" in stream_url("http://x", "v", PCMU, None)
    assert "output_format=alaw_8000" in stream_url("http://x", "v", PCMA, None)
