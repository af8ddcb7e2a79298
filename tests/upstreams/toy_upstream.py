"""Another vendor's realtime model, as an upstream dialect: 16 kHz input, 24 kHz output, event names of its own.

It detects turns and stops by itself when the user speaks, and shortens its own history then: nothing is truncated. One
message may say several things at once. The model is named in `setup`, the key in the URL.

It sends `ready`, `ok`, `speech`, `turn`, `audio`, `end` and `error`; it is sent `setup`, `audio`, `result`, `text`,
`answer` and `stop`.
"""

from typing import Any
from urllib.parse import urlsplit

import orjson

from audio.formats import PCM16_16K, PCM16_24K
from relay.session.common.known_secrets import KnownSecrets
from relay.session.common.media_types import AudioDelta
from relay.session.common.model import Item, UpstreamCapabilities
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.upstreams.dialect import UpstreamDialect

Decoded = ev.UpstreamEvent | AudioDelta


class ToyUpstreamCodec:
    """One connection. A turn has one item, which is called like it."""

    append_template = b'{"do":"audio","pcm":"%b"}'
    opened = ev.UpstreamOpened()

    def __init__(self, secrets: KnownSecrets, model: str) -> None:
        self._secrets = secrets
        self._model = model

    def decode(self, message: bytes) -> Decoded | list[Decoded]:
        """A message of the model's; several events where it says several things."""
        try:
            return self._decode(orjson.loads(message))
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            return ev.MalformedUpstreamMessage(f"{type(error).__name__}: {error}"[:200])

    def _decode(self, body: Any) -> Decoded | list[Decoded]:
        match body["say"]:
            case "ready":
                return ev.SessionCreated(str(body["model"]))
            case "ok":
                return ev.SessionUpdated()
            case "speech" if body["on"]:
                return ev.SpeechStarted("user", int(body["ms"]))
            case "speech":
                return ev.SpeechStopped("user", int(body["ms"]))
            case "turn":
                return ev.ResponseCreated(str(body["turn"]))
            case "audio":
                return self._audio(str(body["turn"]), body)
            case "end":
                return self._end(str(body["turn"]), body)
            case "error":
                return ev.UpstreamErrorEvent(None, self._secrets.redact(str(body["why"])))
            case kind:
                return ev.IgnoredUpstreamEvent(str(kind)[:80])

    def _audio(self, turn: str, body: Any) -> list[Decoded]:
        audio = AudioDelta(turn, turn, 0, str(body["pcm"]).encode())
        return [ev.TextDelta(turn, turn, 0, str(body["words"]), True), audio] if body.get("words") else [audio]

    def _end(self, turn: str, body: Any) -> list[Decoded]:
        calls = tuple(
            Item(
                "",
                "function_call",
                call_id=call["id"],
                name=call["name"],
                arguments=orjson.dumps(call["with"]).decode(),
            )
            for call in body.get("calls", ())
        )
        done = ev.ResponseDone(turn, "cancelled" if body.get("cut") else "completed", output=calls)
        return [done] if calls else [ev.OutputAudioDone(turn, turn, 0), done]

    def encode(self, command: cmd.UpstreamCommand) -> bytes | None:
        """A command as a message; the model has none to truncate, delete, commit or clear."""
        body = _encode(command, self._model)
        return None if body is None else orjson.dumps(body)


def _encode(command: cmd.UpstreamCommand, model: str) -> dict[str, Any] | None:
    match command:
        case cmd.ConfigureSession(config):
            tools = [{"name": tool.name, "about": tool.description, "takes": tool.parameters} for tool in config.tools]
            rates = {"in": config.input_format.rate_hz, "out": config.output_format.rate_hz}
            said = {"model": model, "prompt": config.full_instructions, "voice": config.voice}
            return {"do": "setup", "tools": tools, **said, **rates}
        case cmd.CreateItem(item) if item.kind == "function_call_output":
            return {"do": "result", "id": item.call_id, "is": item.text}
        case cmd.CreateItem(item):
            return {"do": "text", "text": item.text}
        case cmd.CreateResponse():
            return {"do": "answer"}
        case cmd.CancelResponse(response_id):
            return {"do": "stop", "turn": response_id}
    return None


TOY_UPSTREAM = UpstreamDialect(
    "toy-upstream",
    codec=ToyUpstreamCodec,
    realtime=None,
    recognizes=lambda url: urlsplit(url).path == "/toy",
    capabilities=UpstreamCapabilities(PCM16_16K, PCM16_24K, supports_g711=False, supports_truncation=False),
    url_for=lambda url, _model: url,
    key_query_parameter="key",
    headers={"X-Toy-Version": "1"},
)
