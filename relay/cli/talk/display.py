"""The output of `relay talk`: a transcript for people, or a line of JSON per message for programs."""

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
    """Base class of the outputs; prints nothing."""

    def connected(self, address: str) -> None:
        """Show that the connection is open."""

    def message(self, message: JsonObject, t_ms: int) -> None:
        """Show a JSON message, received `t_ms` after the connection opened."""

    def audio(self, n_bytes: int, t_ms: int) -> None:
        """Show a binary message."""

    def note(self, text: str) -> None:
        """Show a note of the client itself."""

    def close(self) -> None:
        """End the output."""


class JsonDisplay(Display):
    """Prints each message with `t_ms` as a line of JSON; of a binary message only the size."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def message(self, message: JsonObject, t_ms: int) -> None:
        self._out.write(escape_json(orjson.dumps(message | {"t_ms": t_ms}).decode()) + "\n")
        self._out.flush()

    def audio(self, n_bytes: int, t_ms: int) -> None:
        self.message({"type": "binary", "bytes": n_bytes}, t_ms)


class TextDisplay(Display):
    """Prints a transcript with the speaker before each text; an answer is printed as its deltas arrive."""

    def __init__(self, out: TextIO) -> None:
        self._console = _Console(file=out, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._in_answer = False
        self._address = ""

    def connected(self, address: str) -> None:
        self._address = address

    def message(self, message: JsonObject, t_ms: int) -> None:
        match message.get("type"):
            case "event":
                self._show_event(message)
            case "textDelta":
                self._print_delta(_text_field(message, "text"))
            case "transcript" if message.get("role") == "user" and message.get("final") is True:
                self._print_line("you", _text_field(message, "text").strip() or "(no words were recognised)", "bold")
            case "tool":
                self._print_tool(message)
            case "interrupted":
                self._print_line(
                    "cut", f"after {_ms_field(message, 'playedMs')}; heard: {_text_field(message, 'heardText')!r}"
                )
            case "latency":
                steps = format_latency(message, at_client=True)
                total = _ms_field(message, TOTAL_METRIC.wire_name)
                self._print_line("latency", f"{total} from end of user turn to first audio ({steps})", "dim")
            case "usage":
                self._print_line("usage", _describe_usage(message), "dim")
            case "error":
                self._print_line("error", f"{_text_field(message, 'message')} ({_text_field(message, 'code')})", "red")
            case "goodbye":
                self._print_line("goodbye", _text_field(message, "reason"))

    def note(self, text: str) -> None:
        self._print_line("note", text, "dim")

    def close(self) -> None:
        if self._in_answer:
            self._console.print()
            self._in_answer = False

    def _show_event(self, message: JsonObject) -> None:
        match message.get("name"):
            case "AIConnected":
                formats = [
                    f"{_describe_format(message.get(direction))} {label}"
                    for direction, label in (("input", "in"), ("output", "out"))
                ]
                session = _text_field(message, "sessionId")
                self._print_line("connected", f"{self._address} · session {session} · {', '.join(formats)}", "green")
            case "AIResponseEnd":
                self.close()
                if message.get("status") not in (None, "completed"):
                    self._print_line("ended", _text_field(message, "status"))

    def _print_delta(self, text: str) -> None:
        if not self._in_answer:
            self._console.print(_label("relay"), end="")
            self._in_answer = True
        self._console.print(Text(_escape(text), style="cyan"), end="")

    def _print_tool(self, message: JsonObject) -> None:
        name, status = _text_field(message, "name"), _text_field(message, "status")
        match status:
            case "started":
                arguments = (
                    _format_value(message["arguments"]) if "arguments" in message else "(the relay hides its arguments)"
                )
                self._print_line("tool", f"{name} {arguments}", "magenta")
            case "progress":
                self._print_line("tool", f"{name}: {_text_field(message, 'text')}", "magenta")
            case _:
                output = f" → {_format_value(message['output'])}" if "output" in message else ""
                self._print_line("tool", f"{name} {status} in {_ms_field(message, 'ms')}{output}", "magenta")

    def _print_line(self, label: str, text: str, style: str = "") -> None:
        self.close()
        self._console.print(_label(label) + Text(_escape(text), style=style))


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Raise, so that the conversation ends; Rich would end the process."""
        raise BrokenPipeError


def _escape(text: str) -> str:
    """Escape text of a model or a tool, so that it cannot control the terminal or forge a label."""
    return escape_lines(text, _LABEL_CHARS)


def _label(label: str) -> Text:
    return Text(f"{label:<{_LABEL_CHARS}}", style="bold")


def _text_field(message: JsonObject, field: str) -> str:
    value = message.get(field)
    return value if isinstance(value, str) else ""


def _ms_field(message: JsonObject, field: str) -> str:
    value = message.get(field)
    return f"{value} ms" if isinstance(value, int) else "–"


def _format_value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_VALUE_CHARS else text[:_MAX_VALUE_CHARS] + " …"


def _describe_format(value: Any) -> str:
    if not isinstance(value, dict):
        return "pcm16 16000 Hz"
    return f"{value.get('format', 'pcm16')} {value.get('rate', 16000)} Hz"


def _describe_usage(message: JsonObject) -> str:
    def count(field: str) -> int:
        value = message.get(field)
        return value if isinstance(value, int) else 0

    return (
        f"{count('inputTokens')} tokens in (audio {count('inputAudioTokens')}, text {count('inputTextTokens')},"
        f" cached {count('cachedTokens')}), {count('outputTokens')} out (audio {count('outputAudioTokens')},"
        f" text {count('outputTextTokens')})"
    )
