"""The events of running tools, for all kinds of sessions."""

from dataclasses import dataclass
from typing import Any

from relay.session.common.model import ToolStatus


@dataclass(frozen=True, slots=True)
class ToolCallFinished:
    """A tool call ended, with any status; `output` is sent to the model.

    `client_output` is a result for the client alone. The client is sent it even if it does not see other results.
    """

    call_id: str
    status: ToolStatus
    output: str
    ms: int
    arguments: Any = None
    client_output: str | None = None


@dataclass(frozen=True, slots=True)
class ToolCallProgress:
    """A running tool reports a text for the user; the call has taken `ms` so far."""

    call_id: str
    text: str
    ms: int


@dataclass(frozen=True, slots=True)
class EndSessionRequested:
    """A running tool requests the end of the session once its call is answered; `reason` is for the client."""

    call_id: str
    reason: str


ToolRunEvent = ToolCallFinished | ToolCallProgress | EndSessionRequested
