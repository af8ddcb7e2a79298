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

MAX_OPEN_REQUESTS = 64
"""Of each kind; the oldest is forgotten."""
MAX_OUT_OF_BAND_RESPONSES = 64
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
        self._in_conversation: deque[_Request] = deque(maxlen=MAX_OPEN_REQUESTS)
        self._outside_conversation: deque[_Request] = deque(maxlen=MAX_OPEN_REQUESTS)
        self._ambiguous: deque[_Request] = deque(maxlen=MAX_OPEN_REQUESTS)
        """Those inside that a response without their metadata may have answered, or not."""
        self._reports_conversation_id = False
        self._count = 0
        self._out_of_band = BoundedSet(MAX_OUT_OF_BAND_RESPONSES)

    def add(self, event_id: str, metadata: Any, *, out_of_band: bool = False) -> None:
        """A response is requested."""
        self._count += 1
        kind = self._outside_conversation if out_of_band else self._in_conversation
        kind.append(_Request(event_id, _normalize_metadata(metadata), self._count))

    def remove_refused(self, event_id: str) -> bool:
        """The upstream has refused an event. Returns whether it requested a response outside the conversation.

        A client may give several requests one id: then it is open which is meant, and those outside are forgotten.
        """
        inside, outside = (
            _requests_with_id(self._in_conversation, event_id),
            _requests_with_id(self._outside_conversation, event_id),
        )
        inside += _requests_with_id(self._ambiguous, event_id)
        for request in inside[:1]:
            (self._ambiguous if request in self._ambiguous else self._in_conversation).remove(request)
        for request in outside if inside else outside[:1]:
            self._outside_conversation.remove(request)
        return bool(outside) and not inside

    def match_created(self, response: Mapping[str, Any], may_be_unrequested: bool) -> bool:
        """A response begins: whether it was requested outside the conversation. Its request is no longer open.

        `may_be_unrequested`: responses may begin that were not requested.
        """
        metadata = _normalize_metadata(response.get("metadata"))
        conversation_id = response.get("conversation_id")
        self._reports_conversation_id = self._reports_conversation_id or isinstance(conversation_id, str)
        inside = _first_with_metadata(self._in_conversation, metadata) or _first_with_metadata(
            self._ambiguous, metadata
        )
        outside = _first_with_metadata(self._outside_conversation, metadata)
        if isinstance(conversation_id, str):
            is_outside = False
        elif self._reports_conversation_id and "conversation_id" in response:
            is_outside = outside is not None
        else:
            # Without metadata it may be the answer to any request, or to none.
            inside = inside if metadata is not None or inside is not None else next(iter(self._in_conversation), None)
            is_spontaneous = metadata is None and may_be_unrequested
            is_outside = outside is not None and inside is None and not is_spontaneous
            if not is_outside:
                self._forget_indistinguishable(metadata, inside)
        if is_outside and outside is not None:
            self._outside_conversation.remove(outside)
            self._out_of_band.add(str(response.get("id")))
        elif inside is not None:
            self._remove_answered(inside, metadata)
        return is_outside

    def is_out_of_band(self, response_id: Any) -> bool:
        """Whether a response began that is outside the conversation."""
        return isinstance(response_id, str) and response_id in self._out_of_band

    def _remove_answered(self, inside: _Request, metadata: Any) -> None:
        """A response inside has begun; where its metadata are not the request's, that one's own may still come."""
        if inside in self._ambiguous:
            self._ambiguous.remove(inside)
            return
        self._in_conversation.remove(inside)
        if inside.metadata != metadata:
            self._ambiguous.append(inside)

    def _forget_indistinguishable(self, metadata: Any, inside: _Request | None) -> None:
        """Forget requests outside that this response could have answered: it cannot be distinguished from theirs."""
        last = inside.number if inside is not None else self._count
        kept = [one for one in self._outside_conversation if one.metadata != metadata or one.number > last]
        self._outside_conversation = deque(kept, maxlen=MAX_OPEN_REQUESTS)


def _normalize_metadata(metadata: Any) -> Any:
    """Metadata as the API keeps them, each value a text: what a client writes as 1 may come back as "1"."""
    if not isinstance(metadata, Mapping):
        return metadata or None
    return {key: _normalize_value(value) for key, value in metadata.items()} or None


def _normalize_value(value: Any) -> Any:
    return value if isinstance(value, Mapping | list) else str(value).lower()


def _requests_with_id(requests: deque[_Request], event_id: str) -> list[_Request]:
    return [request for request in requests if request.event_id == event_id]


def _first_with_metadata(requests: deque[_Request], metadata: Any) -> _Request | None:
    return next((request for request in requests if request.metadata == metadata), None)
