"""Tracks whether the user is speaking, and when a refused response is requested again (D4).

No response is requested while the user is in the middle of a turn. The upstream reports start and end of speech. After
the end the relay waits `AUTO_RESPONSE_TIMEOUT_S` for the upstream's own response. If the end is never reported, speech
counts as over after `MAX_SPEECH_S`.
"""

from relay.session.common.limits import AUTO_RESPONSE_TIMEOUT_S, MAX_SPEECH_S, RETRY_DELAY_S


class TurnTimers:
    """The reasons to delay a response, besides another active one."""

    __slots__ = ("_retry_at", "_speech_ends_by", "is_user_speaking")

    def __init__(self) -> None:
        self.is_user_speaking = False
        """Also True after the speech, while the upstream's own response is awaited."""
        self._speech_ends_by = 0.0
        self._retry_at: float | None = None

    @property
    def deadline(self) -> float | None:
        """The time for the next call of `tick`; None if no timer is running."""
        speech = self._speech_ends_by if self.is_user_speaking else None
        return min((time for time in (speech, self._retry_at) if time is not None), default=None)

    @property
    def is_retry_pending(self) -> bool:
        """Whether a refused response waits to be requested again."""
        return self._retry_at is not None

    def tick(self, now: float) -> None:
        """Clear what has timed out."""
        if self.is_user_speaking and now >= self._speech_ends_by:
            self.is_user_speaking = False
        if self._retry_at is not None and now >= self._retry_at:
            self._retry_at = None

    def on_speech_started(self, now: float) -> None:
        """The user started to speak."""
        self.is_user_speaking = True
        self._speech_ends_by = now + MAX_SPEECH_S

    def on_speech_stopped(self, now: float, *, awaits_response: bool) -> None:
        """The user stopped speaking; `awaits_response`: the upstream creates a response automatically."""
        self._speech_ends_by = now + AUTO_RESPONSE_TIMEOUT_S
        self.is_user_speaking = awaits_response

    def clear_speech(self) -> None:
        """End the user's turn: it was answered, or its audio was cleared."""
        self.is_user_speaking = False

    def schedule_retry(self, now: float) -> None:
        """Request a response later that was refused because another one was active."""
        self._retry_at = now + RETRY_DELAY_S

    def clear_retry(self) -> None:
        """Stop waiting for the retry: a response began or ended."""
        self._retry_at = None
