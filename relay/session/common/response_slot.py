"""The response slot: the only owner of `response.create`, so that two responses are never requested at once (D3).

    FREE ──request──► REQUESTED ──created──► ACTIVE ──cancel──► CANCELLING ──done──► FREE

The upstream may create responses itself (server VAD), refuse requests, or skip steps. Each of its events moves the slot
by `TRANSITIONS`; only an illegal request by the rules raises. The rules of both kinds of sessions own a slot. They
decide which response is due, and the slot decides whether it may be requested now (`is_free`).

The relay's response is recognized by the request's id in its metadata. Some upstreams never return metadata. Until one
has, the first response after a request is presumed to answer it, and a later refusal corrects that. If a request is
cancelled before its response exists, the response is cancelled as soon as it is created (D2.5). `abandon` frees the
slot if the upstream has stalled.
"""

from enum import Enum


class SlotState(Enum):
    FREE = "free"
    REQUESTED = "requested"
    ACTIVE = "active"
    CANCELLING = "cancelling"


class SlotInput(Enum):
    REQUEST = "request"
    CREATED = "created"
    REFUSED = "refused"
    CANCEL = "cancel"
    DONE = "done"


_S, _I = SlotState, SlotInput
TRANSITIONS: dict[tuple[SlotState, SlotInput], SlotState] = {
    (_S.FREE, _I.REQUEST): _S.REQUESTED,
    (_S.FREE, _I.CREATED): _S.ACTIVE,  # created by server VAD
    (_S.FREE, _I.REFUSED): _S.FREE,
    (_S.FREE, _I.CANCEL): _S.FREE,
    (_S.FREE, _I.DONE): _S.FREE,
    (_S.REQUESTED, _I.CREATED): _S.ACTIVE,
    (_S.REQUESTED, _I.REFUSED): _S.FREE,
    (_S.REQUESTED, _I.CANCEL): _S.REQUESTED,  # there is no id yet: it is cancelled when it is created (D2.5)
    (_S.REQUESTED, _I.DONE): _S.FREE,
    (_S.ACTIVE, _I.CREATED): _S.ACTIVE,
    (_S.ACTIVE, _I.REFUSED): _S.ACTIVE,
    (_S.ACTIVE, _I.CANCEL): _S.CANCELLING,
    (_S.ACTIVE, _I.DONE): _S.FREE,
    (_S.CANCELLING, _I.CREATED): _S.ACTIVE,
    (_S.CANCELLING, _I.REFUSED): _S.CANCELLING,
    (_S.CANCELLING, _I.CANCEL): _S.CANCELLING,
    (_S.CANCELLING, _I.DONE): _S.FREE,
}
"""Every pair but a request while the slot is taken, which is a bug of the caller and raises `KeyError`."""


class ResponseSlot:
    """The active response, or the request for one. `request_id` is our request that has not been answered yet."""

    __slots__ = ("_cancel_on_create", "_presumed_id", "_upstream_echoes_metadata", "request_id", "response_id", "state")

    def __init__(self) -> None:
        self.state = SlotState.FREE
        self.response_id: str | None = None
        self.request_id: str | None = None
        self._cancel_on_create = False
        self._upstream_echoes_metadata = False
        self._presumed_id: str | None = None

    @property
    def is_free(self) -> bool:
        """Whether a response may be requested now."""
        return self.state is SlotState.FREE and self.request_id is None

    def request(self, request_id: str) -> None:
        """Record that a response is requested; legal only while the slot is free."""
        if self.request_id is not None:
            raise KeyError((self.state, SlotInput.REQUEST))
        self._move(SlotInput.REQUEST)
        self.request_id = request_id
        self._cancel_on_create = False

    def on_created(self, response_id: str, request_id: str | None) -> bool:
        """Handle the start of a response. Returns whether to cancel it now: it was cancelled too early (D2.5).

        Until the upstream has echoed our metadata, the first response after a request is presumed to answer it. If it
        is not, a refusal of the request follows (`on_refused`).
        """
        self._upstream_echoes_metadata = self._upstream_echoes_metadata or request_id is not None
        is_presumed = request_id is None and not self._upstream_echoes_metadata
        is_ours = self.request_id is not None and (is_presumed or request_id == self.request_id)
        self._presumed_id = self.request_id if is_ours and is_presumed else None
        must_cancel = is_ours and self._cancel_on_create
        if is_ours:
            self.request_id = None
            self._cancel_on_create = False
        self._move(SlotInput.CREATED)
        self.response_id = response_id
        if must_cancel:
            self._move(SlotInput.CANCEL)
        return must_cancel

    def on_refused(self, request_id: str) -> bool:
        """Handle a refused request. Returns whether this slot made it."""
        if request_id == self._presumed_id:
            self._presumed_id = None
            return True
        if request_id != self.request_id:
            return False
        self.request_id = None
        self._cancel_on_create = False
        self._move(SlotInput.REFUSED)
        return True

    def cancel(self) -> str | None:
        """Cancel the request or response. Returns the response id to cancel, None if there is none (yet)."""
        if self.request_id is not None:
            self._cancel_on_create = True
        old_state = self.state
        self._move(SlotInput.CANCEL)
        return self.response_id if old_state is SlotState.ACTIVE else None

    def on_done(self, response_id: str, request_id: str | None) -> bool:
        """Handle the end of a response. Returns whether it occupied this slot."""
        never_began = self.request_id is not None and request_id == self.request_id
        if never_began:
            self.request_id = None
            self._cancel_on_create = False
        if response_id == self.response_id:
            self._presumed_id = None
            self._move(SlotInput.DONE)
            self.response_id = None
            return True
        if never_began and self.state is SlotState.REQUESTED:  # else another response is still active
            self._move(SlotInput.DONE)
        return never_began

    def abandon(self) -> str | None:
        """Free the slot from a stalled response. Returns its id, if it had one."""
        response_id = self.response_id
        self.state, self.response_id, self.request_id, self._cancel_on_create = SlotState.FREE, None, None, False
        return response_id

    def _move(self, slot_input: SlotInput) -> None:
        self.state = TRANSITIONS[self.state, slot_input]
