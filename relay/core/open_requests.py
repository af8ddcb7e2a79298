"""Which responses have been asked for and have not begun: inside the conversation, and outside it.

A response outside the conversation calls no server tools, so a response inside must never be taken for one: its hidden
calls would be shown. Most upstreams say which is which by `conversation_id`. Where none ever has, the metadata that the
request gave tells them apart, and the order of the requests; what may still be either is taken to be inside.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_OPEN = 64
"""Of each kind; the oldest is forgotten."""


@dataclass(frozen=True, slots=True)
class _Request:
    event_id: str
    metadata: Any
    number: int


class OpenRequests:
    """The open requests of one session."""

    def __init__(self) -> None:
        self._inside: deque[_Request] = deque(maxlen=MAX_OPEN)
        self._outside: deque[_Request] = deque(maxlen=MAX_OPEN)
        self._names_conversations = False
        self._count = 0

    def add(self, event_id: str, metadata: Any, *, out_of_band: bool = False) -> None:
        """A response is asked for."""
        self._count += 1
        kind = self._outside if out_of_band else self._inside
        kind.append(_Request(event_id, metadata or None, self._count))

    def refused(self, event_id: str) -> bool:
        """The upstream has refused an event. Returns whether it asked for a response outside the conversation."""
        for kind in (self._inside, self._outside):
            found = next((request for request in kind if request.event_id == event_id), None)
            if found is not None:
                kind.remove(found)
                return kind is self._outside
        return False

    def begins_out_of_band(self, response: Mapping[str, Any], upstream_creates: bool) -> bool:
        """A response begins: whether it is one that was asked for outside the conversation; it is ticked off.

        `upstream_creates`: responses may begin that nobody has asked for.
        """
        metadata = response.get("metadata") or None
        conversation_id = response.get("conversation_id")
        self._names_conversations = self._names_conversations or isinstance(conversation_id, str)
        inside, outside = _with(self._inside, metadata), _with(self._outside, metadata)
        if isinstance(conversation_id, str):
            is_outside = False
        elif self._names_conversations and "conversation_id" in response:
            is_outside = outside is not None
        else:
            # Without metadata it may be the answer to any request, or to none.
            inside = inside if metadata is not None or inside is not None else next(iter(self._inside), None)
            is_spontaneous = metadata is None and upstream_creates
            is_outside = outside is not None and inside is None and not is_spontaneous
            if not is_outside:
                self._forget_before(metadata, inside)
        if is_outside and outside is not None:
            self._outside.remove(outside)
        elif inside is not None:
            self._inside.remove(inside)
        return is_outside

    def _forget_before(self, metadata: Any, inside: _Request | None) -> None:
        """Requests outside that this response could have answered: what begins later cannot be told from it."""
        last = inside.number if inside is not None else self._count
        kept = [one for one in self._outside if one.metadata != metadata or one.number > last]
        self._outside = deque(kept, maxlen=MAX_OPEN)


def _with(requests: deque[_Request], metadata: Any) -> _Request | None:
    return next((request for request in requests if request.metadata == metadata), None)
