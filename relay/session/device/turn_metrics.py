"""How long the steps of a turn took, from the end of the user's speech to the first audio that was played.

A turn begins when the user's speech ends, or a typed turn is sent. Its figures are reported once: when the client
acknowledges playback, or `ACK_WAIT_S` after the first audio went to the client. A turn without audio is not reported.
"""

from dataclasses import dataclass

from relay.core.commands import TellLatency

ACK_WAIT_S = 0.7
"""How long the first acknowledgement of playback is awaited before the turn is reported without it."""


@dataclass(slots=True)
class _Marks:
    """The moments of one turn, in seconds of the session's clock; None until they come."""

    speech_end: float
    speech_stopped: float | None = None
    first_delta: float | None = None
    first_byte: float | None = None
    first_played: float | None = None
    first_text: float | None = None
    item_id: str = ""


class TurnTimer:
    """The moments of the turn that is being answered."""

    def __init__(self) -> None:
        self._marks: _Marks | None = None

    @property
    def deadline(self) -> float | None:
        """When `tick` is wanted next."""
        marks = self._marks
        return None if marks is None or marks.first_byte is None else marks.first_byte + ACK_WAIT_S

    def tick(self, now: float) -> TellLatency | None:
        """The report, if it is due."""
        deadline = self.deadline
        return self._report() if deadline is not None and now >= deadline else None

    def turn_ended(self, speech_end: float, speech_stopped: float | None = None) -> None:
        """The user's turn is over: a new turn is measured. `speech_stopped` is when the upstream reported it."""
        self._marks = _Marks(speech_end, speech_stopped)

    def text_came(self, now: float) -> None:
        """Text came that an external voice is to speak."""
        if self._marks is not None and self._marks.first_text is None:
            self._marks.first_text = now

    def audio_came(self, item_id: str, now: float) -> None:
        """Audio of an item came, from the model or an external voice."""
        marks = self._marks
        if marks is not None and marks.first_delta is None:
            marks.first_delta, marks.item_id = now, item_id

    def audio_sent(self, item_id: str, now: float) -> None:
        """The first audio of an item went to the client."""
        marks = self._marks
        if marks is not None and marks.item_id == item_id and marks.first_byte is None:
            marks.first_byte = now

    def played(self, item_id: str, played_ms: int, now: float) -> TellLatency | None:
        """The client has played so much of an item; the report, if this turn's was awaited."""
        marks = self._marks
        if marks is None or marks.item_id != item_id or played_ms <= 0:
            return None
        marks.first_played = max(now - played_ms / 1000, marks.first_byte or now)
        return self._report()

    def _report(self) -> TellLatency | None:
        marks, self._marks = self._marks, None
        if marks is None or marks.first_delta is None or marks.first_byte is None:
            return None
        start = marks.speech_end if marks.speech_stopped is None else marks.speech_stopped
        return TellLatency(
            item_id=marks.item_id,
            speech_stopped_ms=_ms(marks.speech_end, marks.speech_stopped),
            first_delta_ms=_ms(start, marks.first_delta) or 0,
            first_byte_ms=_ms(marks.first_delta, marks.first_byte) or 0,
            first_played_ms=_ms(marks.first_byte, marks.first_played),
            total_ms=_ms(marks.speech_end, marks.first_byte) or 0,
            first_text_ms=_ms(start, marks.first_text),
            voice_ms=None if marks.first_text is None else _ms(marks.first_text, marks.first_delta),
        )


def _ms(start: float, end: float | None) -> int | None:
    return None if end is None else max(0, round((end - start) * 1000))
