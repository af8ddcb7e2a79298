"""The events of an external TTS voice. Its audio is not an event: the downlink counts it, and reports its length."""

from dataclasses import dataclass
from typing import NamedTuple, get_args

from relay.session.common.model import Alignment


@dataclass(frozen=True, slots=True)
class TtsConnected:
    """The connection to the voice is open."""


class TtsAudio(NamedTuple):
    """`n_bytes` of a context's audio go to the client; `alignment` says when its characters are spoken."""

    context_id: str
    n_bytes: int
    alignment: Alignment | None = None


@dataclass(frozen=True, slots=True)
class TtsContextDone:
    """A context is closed: no more audio comes for it."""

    context_id: str


@dataclass(frozen=True, slots=True)
class TtsFailed:
    """The voice sent an error or closed the connection; `code` is the provider's.

    `context_id` is empty if the failure concerns all contexts. If it is not `retryable`, another attempt would fail in
    the same way.
    """

    message: str
    code: str | None = None
    retryable: bool = True
    context_id: str = ""


TtsEvent = TtsConnected | TtsAudio | TtsContextDone | TtsFailed

TTS_EVENTS = frozenset(get_args(TtsEvent))
