"""How a Realtime client is shown deltas: set by the rules, read by the downlink for each of them.

Deltas of audio and text come many times a second, and no rule looks into them: the downlink forwards them, and counts
audio in the ledger. Two things make a difference. While events of the upstream's wait, deltas wait with them, in order.
And in a response of which some output is hidden, a delta's `output_index` is rewritten.
"""

from collections.abc import Mapping, Sized
from typing import Any

from audio.formats import PCM16_24K, REALTIME_FORMATS
from relay.core.hidden import HiddenItems


class DeltaView:
    """What is rewritten around a delta's text, and how much of it is a millisecond of audio."""

    __slots__ = ("_hidden", "are_events", "bytes_per_ms", "hidden_outputs")

    def __init__(self, hidden: HiddenItems) -> None:
        self._hidden = hidden
        self.hidden_outputs: Sized = hidden.outputs
        """The responses under way whose deltas have to be rewritten: some output before them is hidden."""
        self.are_events = False
        """Whether deltas go to the rules: while events of the upstream's wait there, and after the session's end."""
        self.bytes_per_ms = PCM16_24K.bytes_per_ms

    def learn(self, output_format: Any) -> None:
        """The session's output format is in force: `{"type": "audio/pcm", …}`."""
        kind = output_format.get("type") if isinstance(output_format, Mapping) else None
        if isinstance(kind, str) and kind in REALTIME_FORMATS:
            self.bytes_per_ms = REALTIME_FORMATS[kind].bytes_per_ms

    def rewrite(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """A delta's event, given without its text, as the client sees it; the same object if nothing changes."""
        return self._hidden.renumbered(event)
