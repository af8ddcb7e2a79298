"""The transcript of a conversation as WebVTT (https://www.w3.org/TR/webvtt1/)."""

from collections.abc import Iterator

from relay.escaping import escape_controls
from relay.recording.derive.timeline import Timeline

MIN_CUE_MS = 500.0


def render_webvtt(timeline: Timeline) -> str:
    """Render the transcript, one cue for each turn."""
    cues = sorted(_build_cues(timeline), key=lambda cue: cue[0])
    parts = ["WEBVTT", f"NOTE\nSession {_escape_text(timeline.session_id)}, {timeline.started}"]
    parts += [
        f"{number}\n{_format_time(start)} --> {_format_time(max(end, start + MIN_CUE_MS))}\n"
        f"<v {speaker}>{_escape_text(text)}"
        for number, (start, end, speaker, text) in enumerate(cues, 1)
    ]
    return "\n\n".join(parts) + "\n"


def _build_cues(timeline: Timeline) -> Iterator[tuple[float, float, str, str]]:
    for speech in timeline.speech:
        if speech.text.strip():
            end_ms = speech.start_ms if speech.end_ms is None else speech.end_ms
            yield speech.start_ms, end_ms, "User", speech.text
    for item in timeline.heard:
        text = item.text if item.heard_text is None else item.heard_text
        if text.strip():
            yield item.start_ms, item.end_ms, "Assistant", text + ("" if item.heard_text is None else " —")


def _format_time(ms: float) -> str:
    whole = round(ms)
    return f"{whole // 3_600_000:02}:{whole // 60_000 % 60:02}:{whole // 1000 % 60:02}.{whole % 1000:03}"


def _escape_text(text: str) -> str:
    # A blank line or an arrow would end the cue; control characters would reach the reader's terminal.
    text = escape_controls(" ".join(text.split()))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
