"""Recordings of format 1: audio is a forwarded event, and names are those of Python classes and fields."""

from pathlib import Path
from typing import Any

import orjson

from relay.recording.format.version1 import CLASSES, FIELDS
from relay.recording.store.layout import HEADER_FILE, JOURNAL_FILE

SENT_AUDIO_FIELDS = {"item_id": "item_a", "n_bytes": 0, "response_id": "resp_1", "content_index": 0, "crc": 0}
"""The command that forwarded TTS audio; its members are not read."""


def make_format_1(folder: Path) -> Path:
    """Turn a device's recording of format 2 into one of format 1."""
    header = orjson.loads((folder / HEADER_FILE).read_bytes())
    (folder / HEADER_FILE).write_bytes(orjson.dumps(header | {"format": 1}))
    lines, started = [], None
    for line in map(orjson.loads, (folder / JOURNAL_FILE).read_bytes().splitlines()):
        if "do" in line:
            line["do"] = [
                _renamed(command) for command in line["do"] if command["t"] not in ("set_input_gate", "release_input")
            ]
        if line.get("event", {}).get("t") == "output_started":
            started = line.get("do", [])
            continue
        if "event" in line:
            line["event"] = _renamed(line["event"])
        if line.pop("discarded", False):
            line["do"] = []
        elif "voice" in line:
            line["do"] = [*line.get("do", []), {"t": "Forwarded", "kind": "output_audio", **SENT_AUDIO_FIELDS}]
        elif "out" in line and started:
            line["do"] = [*started, "="]
        started = None
        lines.append(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
    (folder / JOURNAL_FILE).write_bytes(b"".join(lines))
    return folder


def _renamed(obj: dict[str, Any]) -> dict[str, Any]:
    names = FIELDS.get(obj["t"], {})
    renamed = {names.get(name, name): member for name, member in obj.items()} | {"t": CLASSES[obj["t"]]}
    if "clips" in renamed:
        clips = FIELDS["sent_part"]
        renamed["clips"] = [{clips.get(name, name): value for name, value in clip.items()} for clip in renamed["clips"]]
    return renamed
