"""What `relay talk` prints: a transcript for people, or one line of JSON per message for programs."""

import json
from typing import Any, TextIO

import orjson
from rich.console import Console
from rich.text import Text

from relay.client.turn_tracker import Message
from relay.escaping import escape_json, escape_lines
from relay.session.device.turn_metrics import TOTAL_METRIC, format_latency

_LABEL_CHARS = 10
_MAX_VALUE_CHARS = 400


class Display:
    """Where `talk` shows what happens: nothing, unless a method says how."""

    def connected(self, address: str) -> None:
        """The connection is open."""

    def message(self, message: Message, t_ms: int) -> None:
        """A JSON message came, `t_ms` after the connection opened."""

    def audio(self, n_bytes: int, t_ms: int) -> None:
        """A binary frame came."""

    def note(self, text: str) -> None:
        """Something that the client itself has to say."""

    def close(self) -> None:
        """Nothing more follows."""


class JsonDisplay(Display):
    """Every message on a line of its own, as it came plus `t_ms`; binary frames as their size."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def message(self, message: Message, t_ms: int) -> None:
        self._out.write(escape_json(orjson.dumps(message | {"t_ms": t_ms}).decode()) + "\n")
        self._out.flush()

    def audio(self, n_bytes: int, t_ms: int) -> None:
        self.message({"type": "binary", "bytes": n_bytes}, t_ms)


class TextDisplay(Display):
    """A transcript: who, then what; the answer's words appear as they come."""

    def __init__(self, out: TextIO) -> None:
        self._console = _Console(file=out, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._in_answer = False
        self._address = ""

    def connected(self, address: str) -> None:
        self._address = address

    def message(self, message: Message, t_ms: int) -> None:
        match message.get("type"):
            case "event":
                self._event(message)
            case "textDelta":
                self._answer(_text(message, "text"))
            case "transcript" if message.get("role") == "user" and message.get("final") is True:
                self._line("you", _text(message, "text").strip() or "(nothing that could be understood)", "bold")
            case "tool":
                self._tool(message)
            case "interrupted":
                self._line("cut", f"after {_ms(message, 'playedMs')}; heard: {_text(message, 'heardText')!r}")
            case "latency":
                steps = format_latency(message, at_client=True)
                self._line(
                    "latency",
                    f"{_ms(message, TOTAL_METRIC.wire_name)} from end of speech to first sound ({steps})",
                    "dim",
                )
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

    def _event(self, message: Message) -> None:
        match message.get("name"):
            case "AIConnected":
                formats = [f"{_format(message.get(way))} {way[:-3]}" for way in ("input", "output")]
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
        self._console.print(Text(_shown(text), style="cyan"), end="")

    def _tool(self, message: Message) -> None:
        name, status = _text(message, "name"), _text(message, "status")
        match status:
            case "started":
                self._line("tool", f"{name} {_value(message.get('arguments', {}))}", "magenta")
            case "progress":
                self._line("tool", f"{name}: {_text(message, 'text')}", "magenta")
            case _:
                output = f" → {_value(message['output'])}" if "output" in message else ""
                self._line("tool", f"{name} {status} in {_ms(message, 'ms')}{output}", "magenta")

    def _line(self, who: str, what: str, style: str = "") -> None:
        self.close()
        self._console.print(_label(who) + Text(_shown(what), style=style))


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Rich would end the process here; the conversation ends instead."""
        raise BrokenPipeError


def _shown(text: str) -> str:
    """Words of a model or a tool, escaped so that a terminal shows them and does not interpret them.

    No line of them looks like a line of ours.
    """
    return escape_lines(text, _LABEL_CHARS)


def _label(who: str) -> Text:
    return Text(f"{who:<{_LABEL_CHARS}}", style="bold")


def _text(message: Message, field: str) -> str:
    value = message.get(field)
    return value if isinstance(value, str) else ""


def _ms(message: Message, field: str) -> str:
    value = message.get(field)
    return f"{value} ms" if isinstance(value, int) else "–"


def _value(value: Any) -> str:
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= _MAX_VALUE_CHARS else shown[:_MAX_VALUE_CHARS] + " …"


def _format(value: Any) -> str:
    if not isinstance(value, dict):
        return "pcm16 16000 Hz"
    return f"{value.get('format', 'pcm16')} {value.get('rate', 16000)} Hz"


def _usage(message: Message) -> str:
    def count(field: str) -> int:
        value = message.get(field)
        return value if isinstance(value, int) else 0

    return (
        f"{count('inputTokens')} tokens in (audio {count('inputAudioTokens')}, text {count('inputTextTokens')},"
        f" cached {count('cachedTokens')}), {count('outputTokens')} out (audio {count('outputAudioTokens')},"
        f" text {count('outputTextTokens')})"
    )
