"""The latency of one turn, from the end of the user's speech to the first played sound."""

from dataclasses import dataclass

from relay.core.commands import TellLatency


@dataclass(slots=True)
class TurnClock:
    """The moments of one turn, in seconds of the session's clock; None until they come."""

    speech_end: float
    speech_stopped: float | None = None
    first_delta: float | None = None
    first_byte: float | None = None
    first_played: float | None = None
    first_text: float | None = None
    """Only kept where an external voice speaks it."""
    item_id: str = ""

    def report(self) -> TellLatency | None:
        """The turn in ms a step; None before any sound of it went to the client."""
        if self.first_delta is None or self.first_byte is None:
            return None
        start = self.speech_end if self.speech_stopped is None else self.speech_stopped
        return TellLatency(
            item_id=self.item_id,
            speech_stopped_ms=_ms(self.speech_end, self.speech_stopped),
            first_delta_ms=_ms(start, self.first_delta) or 0,
            first_byte_ms=_ms(self.first_delta, self.first_byte) or 0,
            first_played_ms=_ms(self.first_byte, self.first_played),
            total_ms=_ms(self.speech_end, self.first_byte) or 0,
            first_text_ms=_ms(start, self.first_text),
            voice_ms=None if self.first_text is None else _ms(self.first_text, self.first_delta),
        )


def _ms(start: float, end: float | None) -> int | None:
    return None if end is None else max(0, round((end - start) * 1000))
