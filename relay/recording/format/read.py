"""Reads the lines of a journal, of either format, into the values of `relay.recording.format.lines`."""

from collections.abc import Callable, Mapping

from relay.core.commands import TellText
from relay.core.realtime_events import Obj
from relay.recording.format import version1
from relay.recording.format.lines import End, Frame, Gap, Happened, InputAudio, Line, OutputAudio, Sent, SpeechAudio
from relay.recording.format.members import alignment, count, done, happened, texts, time, words
from relay.recording.format.realtime import read_event, read_frame
from relay.recording.format.serialize import from_json, to_json
from relay.recording.format.write import MAX_LINE_BYTES, PASSED_ON, is_unredacted, load, redacted_later


def read_line(raw: bytes, format: int) -> list[Line]:
    """One line of the file; of format 1 it can be two. Raises ValueError naming what is wrong with it."""
    line = parse(raw)
    if "gap" in line:
        gap = line["gap"] if isinstance(line["gap"], dict) else {}
        return [Gap(count(gap, "records"), time(gap, "from"), time(gap, "to"))]
    now = time(line, "now")
    if "end" in line:
        return [End(now, str(line["end"]))]
    if "sent" in line:
        return [Sent(now, count(line, "sent"), count(line, "crc"), line.get("kept") is True)]
    if format == 1:
        return version1.read(line, now)
    for name, read in _READERS.items():
        if name in line:
            return [read(line, now)]
    raise ValueError(f"there is none of {', '.join(_READERS)}, sent, gap, end in it")


def parse(raw: bytes) -> Obj:
    """The JSON object of a line, redacted. Raises ValueError."""
    if len(raw) > MAX_LINE_BYTES:
        raise ValueError(f"the line has {len(raw)} bytes; {MAX_LINE_BYTES} are the most a journal's line may have")
    try:
        line = load(redacted_later(raw) if is_unredacted(raw) else raw)
    except ValueError as error:
        raise ValueError(f"that is not JSON: {error}") from None
    if not isinstance(line, dict):
        raise ValueError("a line is a JSON object")
    return line


def _read_event(line: Obj, now: float) -> Line:
    return happened(line, now, from_json(line["event"]))


def _read_realtime(line: Obj, now: float) -> Line:
    if "said" not in line:
        return happened(line, now, read_event(line), (PASSED_ON,))
    event = read_event(line)
    return happened(line, now, event, (PASSED_ON,), count(line, "in"), Frame(said=event.body))


def _read_input(line: Obj, now: float) -> Line:
    return InputAudio(now, count(line, "in"), read_frame(line))


def _read_output(line: Obj, now: float) -> Line:
    frame, discarded = read_frame(line), line.get("discarded") is True
    if frame is not None:
        return OutputAudio(now, count(line, "out"), discarded=discarded, frame=frame)
    n_bytes, (item_id, response_id) = count(line, "out"), texts(line, "item", "response")
    return OutputAudio(now, n_bytes, response_id, item_id, count(line, "part"), discarded)


def _read_speech(line: Obj, now: float) -> Line:
    n_bytes, (context_id,) = count(line, "voice"), texts(line, "context")
    return SpeechAudio(now, n_bytes, context_id, alignment(line), line.get("discarded") is True, done(line, ()))


def _read_words(line: Obj, now: float) -> Line:
    event = words(line)
    return Happened(now, event, (to_json(TellText(event.text)),))


_READERS: Mapping[str, Callable[[Obj, float], Line]] = {
    "event": _read_event,
    "said": _read_realtime,
    "up": _read_realtime,
    "down": _read_realtime,
    "in": _read_input,
    "out": _read_output,
    "voice": _read_speech,
    "words": _read_words,
}
