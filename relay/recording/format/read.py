"""Reads the lines of a journal, of either format, into the values of `relay.recording.format.lines`."""

from relay.json_types import JsonObject
from relay.recording.format import version1, version2
from relay.recording.format.lines import End, Gap, Line, Sent
from relay.recording.format.version2 import count, time
from relay.recording.format.write import MAX_LINE_BYTES, is_unredacted, load, redacted_later


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
    return version1.read(line, now) if format == 1 else [version2.read(line, now)]


def parse(raw: bytes) -> JsonObject:
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
