"""A client's `response.create`, and which responses were requested and have not begun.

A response outside the conversation calls no server tools. So a response inside must never be taken for one outside: its
hidden calls would be shown. Most upstreams report which is which by `conversation_id`. Where none ever has, the
metadata of the request decides, and the order of the requests. A response that may still be either counts as inside.
A client chooses ids, metadata and times itself, so each of them may be there to mislead.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from relay.json_types import JsonObject
from relay.session.common.bounded_set import BoundedSet

MAX_OPEN = 64
"""Of each kind; the oldest is forgotten."""
MAX_OUT_OF_BAND = 64
"""Responses outside the conversation that are recognised later; the oldest is forgotten."""


class ResponseRequest(NamedTuple):
    """A `response.create` as it goes to the upstream, with its id.

    `tool_names` are the function tools that the client gives for it, None if those of the session are meant.
    """

    body: JsonObject
    event_id: str
    tool_names: frozenset[str] | None = None

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the client wants of this response."""
        response = self.body.get("response")
        return response if isinstance(response, Mapping) else {}


class _Request(NamedTuple):
    event_id: str
    metadata: Any
    number: int


class OpenRequests:
    def __init__(self) -> None:
        self._inside: deque[_Request] = deque(maxlen=MAX_OPEN)
        self._outside: deque[_Request] = deque(maxlen=MAX_OPEN)
        self._doubtful: deque[_Request] = deque(maxlen=MAX_OPEN)
        """Those inside that a response without their metadata may have answered, or not."""
        self._names_conversations = False
        self._count = 0
        self._out_of_band = BoundedSet(MAX_OUT_OF_BAND)

    def add(self, event_id: str, metadata: Any, *, out_of_band: bool = False) -> None:
        """A response is requested."""
        self._count += 1
        kind = self._outside if out_of_band else self._inside
        kind.append(_Request(event_id, _as_text(metadata), self._count))

    def refused(self, event_id: str) -> bool:
        """The upstream has refused an event. Returns whether it requested a response outside the conversation.

        A client may give several requests one id: then it is open which is meant, and those outside are forgotten.
        """
        inside, outside = _by(self._inside, event_id), _by(self._outside, event_id)
        inside += _by(self._doubtful, event_id)
        for request in inside[:1]:
            (self._doubtful if request in self._doubtful else self._inside).remove(request)
        for request in outside if inside else outside[:1]:
            self._outside.remove(request)
        return bool(outside) and not inside

    def begins_out_of_band(self, response: Mapping[str, Any], upstream_creates: bool) -> bool:
        """A response begins: whether it was requested outside the conversation. Its request is no longer open.

        `upstream_creates`: responses may begin that were not requested.
        """
        metadata = _as_text(response.get("metadata"))
        conversation_id = response.get("conversation_id")
        self._names_conversations = self._names_conversations or isinstance(conversation_id, str)
        inside = _with(self._inside, metadata) or _with(self._doubtful, metadata)
        outside = _with(self._outside, metadata)
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
            self._out_of_band.add(str(response.get("id")))
        elif inside is not None:
            self._answered(inside, metadata)
        return is_outside

    def is_out_of_band(self, response_id: Any) -> bool:
        """Whether a response began that is outside the conversation."""
        return isinstance(response_id, str) and response_id in self._out_of_band

    def _answered(self, inside: _Request, metadata: Any) -> None:
        """A response inside has begun; where its metadata are not the request's, that one's own may still come."""
        if inside in self._doubtful:
            self._doubtful.remove(inside)
            return
        self._inside.remove(inside)
        if inside.metadata != metadata:
            self._doubtful.append(inside)

    def _forget_before(self, metadata: Any, inside: _Request | None) -> None:
        """Forget requests outside that this response could have answered: it cannot be distinguished from theirs."""
        last = inside.number if inside is not None else self._count
        kept = [one for one in self._outside if one.metadata != metadata or one.number > last]
        self._outside = deque(kept, maxlen=MAX_OPEN)


def _as_text(metadata: Any) -> Any:
    """Metadata as the API keeps them, each value a text: what a client writes as 1 may come back as "1"."""
    if not isinstance(metadata, Mapping):
        return metadata or None
    return {key: _plain(value) for key, value in metadata.items()} or None


def _plain(value: Any) -> Any:
    return value if isinstance(value, Mapping | list) else str(value).lower()


def _by(requests: deque[_Request], event_id: str) -> list[_Request]:
    return [request for request in requests if request.event_id == event_id]


def _with(requests: deque[_Request], metadata: Any) -> _Request | None:
    return next((request for request in requests if request.metadata == metadata), None)
