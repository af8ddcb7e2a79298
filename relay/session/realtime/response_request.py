"""A client's `response.create`, and what of it outlives the request."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from relay.core.realtime_events import Obj

_KEPT = ("instructions", "tools", "output_modalities", "audio", "max_output_tokens", "reasoning")
"""Not `tool_choice`, which would call the tool again, nor `metadata`, which tells the client's own responses apart."""


@dataclass(frozen=True, slots=True)
class ResponseRequest:
    """A `response.create` as it goes to the upstream; `tool_names`: the function tools that the client gives for it.

    `tool_names` is None if the tools of the session are meant.
    """

    body: Obj
    tool_names: frozenset[str] | None = None

    @property
    def event_id(self) -> str:
        """The id by which its error is known."""
        return str(self.body["event_id"])

    @property
    def metadata(self) -> Any:
        """What the client knows its response by."""
        return self._response.get("metadata")

    @property
    def is_out_of_band(self) -> bool:
        """Whether it asks for a response outside the conversation."""
        return bool(self._response.get("conversation") == "none")

    @property
    def overrides(self) -> Obj:
        """What a follow-up to this response keeps of its settings."""
        return {key: self._response[key] for key in _KEPT if key in self._response}

    @property
    def _response(self) -> Mapping[str, Any]:
        response = self.body.get("response")
        return response if isinstance(response, Mapping) else {}
