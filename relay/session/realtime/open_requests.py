"""A client's `response.create`, and the requests whose response has not been created yet.

An out-of-band response (`conversation: "none"`) calls no server tools. A response in the conversation must therefore
never be taken for an out-of-band one: its hidden calls would be shown.

Most upstreams report the kind by `conversation_id`. Where none has been reported, the metadata of the request and the
order of the requests decide. A response that may be either counts as in the conversation. The client chooses ids,
metadata and times, so each of them may be meant to mislead.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from relay.json_types import JsonObject
from relay.session.common.bounded_set import BoundedSet

MAX_OPEN_REQUESTS = 64
"""Open requests of each kind; the oldest is forgotten."""
MAX_OUT_OF_BAND_RESPONSES = 64
"""Out-of-band responses that are remembered; the oldest is forgotten."""


class ResponseRequest(NamedTuple):
    """A `response.create` as sent to the upstream, with its id.

    `tool_names` are the function tools that it sets for the response; None: the session's tools apply.
    """

    body: JsonObject
    event_id: str
    tool_names: frozenset[str] | None = None

    @property
    def settings(self) -> Mapping[str, Any]:
        """The response settings that the client requested."""
        response = self.body.get("response")
        return response if isinstance(response, Mapping) else {}


class _Request(NamedTuple):
    event_id: str
    metadata: Any
    number: int


class OpenRequests:
    """The requests of one session without a response, and the responses known to be out-of-band."""

    def __init__(self) -> None:
        self._in_conversation: deque[_Request] = deque(maxlen=MAX_OPEN_REQUESTS)
        self._out_of_band_requests: deque[_Request] = deque(maxlen=MAX_OPEN_REQUESTS)
        self._ambiguous: deque[_Request] = deque(maxlen=MAX_OPEN_REQUESTS)
        """Requests in the conversation that may or may not have been answered by a response without their metadata."""
        self._reports_conversation_id = False
        self._count = 0
        self._out_of_band_responses = BoundedSet(MAX_OUT_OF_BAND_RESPONSES)

    def add(self, event_id: str, metadata: Any, *, out_of_band: bool = False) -> None:
        """Add a request for a response."""
        self._count += 1
        requests = self._out_of_band_requests if out_of_band else self._in_conversation
        requests.append(_Request(event_id, _normalize_metadata(metadata), self._count))

    def remove_refused(self, event_id: str) -> bool:
        """Remove a request that the upstream refused. Returns whether it was an out-of-band one.

        A client may reuse an id. It is then unknown which request was refused, and the out-of-band ones are forgotten.
        """
        matching = _find_by_id(self._in_conversation, event_id) + _find_by_id(self._ambiguous, event_id)
        out_of_band = _find_by_id(self._out_of_band_requests, event_id)
        for request in matching[:1]:
            (self._ambiguous if request in self._ambiguous else self._in_conversation).remove(request)
        for request in out_of_band if matching else out_of_band[:1]:
            self._out_of_band_requests.remove(request)
        return bool(out_of_band) and not matching

    def match_created(self, response: Mapping[str, Any], may_be_unrequested: bool) -> bool:
        """Match a created response with its request and remove that; returns whether the response is out-of-band.

        `may_be_unrequested`: the upstream may create responses automatically.
        """
        metadata = _normalize_metadata(response.get("metadata"))
        conversation_id = response.get("conversation_id")
        self._reports_conversation_id = self._reports_conversation_id or isinstance(conversation_id, str)
        request = _find_by_metadata(self._in_conversation, metadata) or _find_by_metadata(self._ambiguous, metadata)
        out_of_band = _find_by_metadata(self._out_of_band_requests, metadata)
        if isinstance(conversation_id, str):
            is_out_of_band = False
        elif self._reports_conversation_id and "conversation_id" in response:
            is_out_of_band = out_of_band is not None
        else:
            # Without metadata, the response may answer any request, or none.
            if metadata is None and request is None:
                request = next(iter(self._in_conversation), None)
            is_spontaneous = metadata is None and may_be_unrequested
            is_out_of_band = out_of_band is not None and request is None and not is_spontaneous
            if not is_out_of_band:
                self._forget_indistinguishable(metadata, request)
        if is_out_of_band and out_of_band is not None:
            self._out_of_band_requests.remove(out_of_band)
            self._out_of_band_responses.add(str(response.get("id")))
        elif request is not None:
            self._remove_answered(request, metadata)
        return is_out_of_band

    def is_out_of_band(self, response_id: Any) -> bool:
        """Return whether this response was created out-of-band."""
        return isinstance(response_id, str) and response_id in self._out_of_band_responses

    def _remove_answered(self, request: _Request, metadata: Any) -> None:
        """Remove a request in the conversation. If the metadata differ, its own response may still come."""
        if request in self._ambiguous:
            self._ambiguous.remove(request)
            return
        self._in_conversation.remove(request)
        if request.metadata != metadata:
            self._ambiguous.append(request)

    def _forget_indistinguishable(self, metadata: Any, answered_request: _Request | None) -> None:
        """Forget out-of-band requests that this response could have answered: theirs can no longer be told apart."""
        last_number = answered_request.number if answered_request is not None else self._count
        requests = self._out_of_band_requests
        remaining = [request for request in requests if request.metadata != metadata or request.number > last_number]
        self._out_of_band_requests = deque(remaining, maxlen=MAX_OPEN_REQUESTS)


def _normalize_metadata(metadata: Any) -> Any:
    """Return metadata as the API stores them, every value as a string: a client's 1 may come back as "1"."""
    if not isinstance(metadata, Mapping):
        return metadata or None
    return {key: _normalize_value(value) for key, value in metadata.items()} or None


def _normalize_value(value: Any) -> Any:
    return value if isinstance(value, Mapping | list) else str(value).lower()


def _find_by_id(requests: deque[_Request], event_id: str) -> list[_Request]:
    return [request for request in requests if request.event_id == event_id]


def _find_by_metadata(requests: deque[_Request], metadata: Any) -> _Request | None:
    return next((request for request in requests if request.metadata == metadata), None)
