"""What `relay talk` prints: a transcript for people, or one line of JSON per message for programs."""

import json
from typing import Any, TextIO

import orjson
from rich.console import Console
from rich.text import Text

from relay.escaping import escape_json, escape_lines
from relay.json_types import JsonObject
from relay.session.device.turn_metrics import TOTAL_METRIC, format_latency

_LABEL_CHARS = 10
_MAX_VALUE_CHARS = 400


class Display:
    """Output of `relay talk`; this base class prints nothing."""

    def connected(self, address: str) -> None:
        """The connection is open."""

    def message(self, message: JsonObject, t_ms: int) -> None:
        """A JSON message came, `t_ms` after the connection opened."""

    def audio(self, n_bytes: int, t_ms: int) -> None:
        """A binary message came."""

    def note(self, text: str) -> None:
        """A note of the client itself."""

    def close(self) -> None:
        """Nothing more follows."""


class JsonDisplay(Display):
    """Each message on its own line, as it came plus `t_ms`; of a binary message only its size."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def message(self, message: JsonObject, t_ms: int) -> None:
        self._out.write(escape_json(orjson.dumps(message | {"t_ms": t_ms}).decode()) + "\n")
        self._out.flush()

    def audio(self, n_bytes: int, t_ms: int) -> None:
        self.message({"type": "binary", "bytes": n_bytes}, t_ms)


class TextDisplay(Display):
    """A transcript with the speaker before each text; the text of an answer appears as it comes."""

    def __init__(self, out: TextIO) -> None:
        self._console = _Console(file=out, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._in_answer = False
        self._address = ""

    def connected(self, address: str) -> None:
        self._address = address

    def message(self, message: JsonObject, t_ms: int) -> None:
        match message.get("type"):
            case "event":
                self._event(message)
            case "textDelta":
                self._answer(_text(message, "text"))
            case "transcript" if message.get("role") == "user" and message.get("final") is True:
                self._line("you", _text(message, "text").strip() or "(no words were recognised)", "bold")
            case "tool":
                self._tool(message)
            case "interrupted":
                self._line("cut", f"after {_ms(message, 'playedMs')}; heard: {_text(message, 'heardText')!r}")
            case "latency":
                steps = format_latency(message, at_client=True)
                total = _ms(message, TOTAL_METRIC.wire_name)
                self._line("latency", f"{total} from end of user turn to first audio ({steps})", "dim")
            case "usage":
                self._line("usage", _usage(message), "dim")
            case "error":
                self._line("error", f"{_text(message, 'message')} ({_text(message, 'code')})", "red")
            case "goodbye":
                self._line("goodbye", _text(message, "reason"))

    def note(self, text: str) -> None:
        self._line("note", text, "dim")

    def close(self) -> None:
        if self._in_answer:
            self._console.print()
            self._in_answer = False

    def _event(self, message: JsonObject) -> None:
        match message.get("name"):
            case "AIConnected":
                formats = [f"{_format(message.get(direction))} {direction[:-3]}" for direction in ("input", "output")]
                session = _text(message, "sessionId")
                self._line("connected", f"{self._address} · session {session} · {', '.join(formats)}", "green")
            case "AIResponseEnd":
                self.close()
                if message.get("status") not in (None, "completed"):
                    self._line("ended", _text(message, "status"))

    def _answer(self, text: str) -> None:
        if not self._in_answer:
            self._console.print(_label("relay"), end="")
            self._in_answer = True
        self._console.print(Text(_escape(text), style="cyan"), end="")

    def _tool(self, message: JsonObject) -> None:
        name, status = _text(message, "name"), _text(message, "status")
        match status:
            case "started":
                arguments = (
                    _value(message["arguments"]) if "arguments" in message else "(the relay hides its arguments)"
                )
                self._line("tool", f"{name} {arguments}", "magenta")
            case "progress":
                self._line("tool", f"{name}: {_text(message, 'text')}", "magenta")
            case _:
                output = f" → {_value(message['output'])}" if "output" in message else ""
                self._line("tool", f"{name} {status} in {_ms(message, 'ms')}{output}", "magenta")

    def _line(self, label: str, text: str, style: str = "") -> None:
        self.close()
        self._console.print(_label(label) + Text(_escape(text), style=style))


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """End the conversation; Rich would end the process."""
        raise BrokenPipeError


def _escape(text: str) -> str:
    """Escape text of a model or a tool: a terminal does not interpret it, and no line of it looks like a label."""
    return escape_lines(text, _LABEL_CHARS)


def _label(label: str) -> Text:
    return Text(f"{label:<{_LABEL_CHARS}}", style="bold")


def _text(message: JsonObject, field: str) -> str:
    value = message.get(field)
    return value if isinstance(value, str) else ""


def _ms(message: JsonObject, field: str) -> str:
    value = message.get(field)
    return f"{value} ms" if isinstance(value, int) else "–"


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_VALUE_CHARS else text[:_MAX_VALUE_CHARS] + " …"


def _format(value: Any) -> str:
    if not isinstance(value, dict):
        return "pcm16 16000 Hz"
    return f"{value.get('format', 'pcm16')} {value.get('rate', 16000)} Hz"


def _usage(message: JsonObject) -> str:
    def count(field: str) -> int:
        value = message.get(field)
        return value if isinstance(value, int) else 0

    return (
        f"{count('inputTokens')} tokens in (audio {count('inputAudioTokens')}, text {count('inputTextTokens')},"
        f" cached {count('cachedTokens')}), {count('outputTokens')} out (audio {count('outputAudioTokens')},"
        f" text {count('outputTextTokens')})"
    )
