"""Render a timeline for the terminal: speech, tools, barge-ins and latencies."""

import math
from collections.abc import Iterator, Sequence

from relay.escaping import escape_controls
from relay.recording.derive.percentiles import p50_and_p95
from relay.recording.derive.timeline import Timeline
from relay.session.device.turn_metrics import TurnMetrics, format_latency, latency_steps

MIN_STEP_S = 0.1
MAX_ROWS = 24
LABEL_CHARS = 8
MAX_CHARS = 120


def external_voices(timeline: Timeline) -> list[str]:
    """Return the external TTS voices of a conversation."""
    return sorted({item.voice for item in timeline.heard if item.voice})


def render(timeline: Timeline, width: int = 100) -> Iterator[str]:
    """Render the lines, `width` columns wide, without control characters."""
    return map(escape_controls, _render_lines(timeline, width))


def _render_lines(timeline: Timeline, width: int) -> Iterator[str]:
    yield f"{timeline.name}"
    yield (
        f"  {timeline.started} · {_format_clock(timeline.duration_ms)} · {timeline.identity} · {timeline.input} in, "
        f"{timeline.output} out · {timeline.upstream} {timeline.model}".rstrip()
        + "".join(f" · {voice}" for voice in external_voices(timeline))
    )
    yield ""
    yield from _render_chart(timeline, max(width - LABEL_CHARS, 20))
    yield ""
    yield from _render_transcript(timeline)
    yield ""
    yield from _render_latency(timeline.latencies)
    if timeline.usage.total_tokens:
        yield f"tokens    {timeline.usage.input_tokens} in, {timeline.usage.output_tokens} out"
    if timeline.end not in ("", "closed"):
        yield f"end       {timeline.end}"


# -- the chart --------------------------------------------------------------------------------------------------------


def _render_chart(timeline: Timeline, columns: int) -> Iterator[str]:
    total_s = max(timeline.duration_ms / 1000, MIN_STEP_S)
    step_s = max(MIN_STEP_S, total_s / columns / MAX_ROWS)
    step_s = next(step for step in (0.1, 0.2, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 600, 1e9) if step >= step_s - 1e-9)
    cells = math.ceil(total_s / step_s)
    you, relay, tools = [" "] * cells, [" "] * cells, [" "] * cells
    for speech in timeline.speech:
        _fill(you, speech.start_ms, speech.end_ms or speech.start_ms, step_s, "⌨" if speech.typed else "█")
    for item in timeline.heard:
        _fill(relay, item.start_ms, item.end_ms, step_s, "█")
    for run in timeline.tools:
        _fill(tools, run.start_ms, run.end_ms or timeline.duration_ms, step_s, "▪")
    for cut in timeline.barge_ins:
        _fill(relay, cut.at_ms, cut.at_ms, step_s, "✂")
    for start in range(0, cells, columns):
        part = slice(start, start + columns)
        ruler = "".join("┬" if (start + cell) % 10 == 0 else "─" for cell in range(len(you[part])))
        yield f"{_format_clock(start * step_s * 1000):<{LABEL_CHARS}}{ruler} {step_s:g} s a column"
        for label, row in (("you", you), ("relay", relay), ("tools", tools)):
            text = "".join(row[part]).rstrip()
            if text or label != "tools":
                yield f"{label:<{LABEL_CHARS}}{text}".rstrip()


def _fill(row: list[str], start_ms: float, end_ms: float, step_s: float, sign: str) -> None:
    first = min(int(start_ms / 1000 / step_s + 1e-6), len(row) - 1)
    last = min(int(end_ms / 1000 / step_s + 1e-6), len(row) - 1)
    for cell in range(max(first, 0), max(last, first) + 1):
        row[cell] = sign


# -- the transcript ---------------------------------------------------------------------------------------------------


def _render_transcript(timeline: Timeline) -> Iterator[str]:
    rows = [
        (speech.start_ms, "typed" if speech.typed else "you", speech.text or "(no transcript)")
        for speech in timeline.speech
    ]
    for item in timeline.heard:
        text = item.text or "(no text)"
        if item.cut_ms is not None:
            heard_text = item.heard_text or ""
            unheard = _shorten(
                item.text.removeprefix(heard_text).strip() if item.text.startswith(heard_text) else item.text
            )
            text = f"{heard_text} ✂ after {item.cut_ms / 1000:.1f} s; unheard: {unheard}"
        rows.append((item.start_ms, "relay", text))
    for run in timeline.tools:
        duration = "still running" if run.end_ms is None else f"{run.status} in {run.end_ms - run.start_ms:.0f} ms"
        rows.append((run.start_ms, "tool", f"{run.name} {run.arguments} {duration} → {_shorten(run.output)}"))
    rows += [
        (turn.at_ms, "latency", f"{turn.total_ms} ms ({format_latency(turn.to_wire())})") for turn in timeline.latencies
    ]
    rows += [(note.at_ms, note.kind, note.text) for note in timeline.marks]
    for at_ms, label, text in sorted(rows, key=lambda row: row[0]):
        yield f"{_format_clock(at_ms):>9}  {label:<8} {' '.join(text.split())}"


def _render_latency(latencies: Sequence[TurnMetrics]) -> Iterator[str]:
    totals = [turn.total_ms for turn in latencies]
    if not totals:
        yield "latency   no turn was measured"
        return
    shares: dict[str, list[int]] = {}
    for metric, ms in (step for turn in latencies for step in latency_steps(turn.to_wire())):
        if metric.party:
            shares.setdefault(metric.party, []).append(ms)
    parts = "; ".join(f"{party}: {p50_and_p95(ms)}" for party, ms in shares.items())
    turns = f"{len(totals)} turn{'s' if len(totals) > 1 else ''}"
    yield f"latency   {p50_and_p95(totals)} from the end of speech to the first audio, over {turns} ({parts})"


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 1] + "…"


def _format_clock(ms: float) -> str:
    seconds = ms / 1000
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"
