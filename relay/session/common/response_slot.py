"""The response slot: one owner of `response.create`, so that two responses are never asked for at once (D3).

    FREE ──request──► REQUESTED ──created──► ACTIVE ──cancel──► CANCELLING ──done──► FREE

The upstream may create responses by itself (server VAD), refuse ours, or skip steps. Whatever it does moves the slot by
`TRANSITIONS`; only our own impossible request raises. The rules of both kinds of sessions own a slot: they decide which
response they want, and the slot whether it may be requested now (`is_free`).

A response is recognized as ours by the request's id in its metadata. An upstream that has never returned metadata may
never do so; then the first response after our request counts as ours, and a refusal that follows corrects that. A
request that is cancelled before its response exists is doomed: the response is cancelled as soon as it is created
(D2.5). `abandon` frees the slot from an upstream that has fallen silent.
"""

from enum import Enum


class SlotState(Enum):
    """Where the one response of the conversation stands."""

    FREE = "free"
    REQUESTED = "requested"
    ACTIVE = "active"
    CANCELLING = "cancelling"


class SlotInput(Enum):
    """What can move the slot."""

    REQUEST = "request"
    CREATED = "created"
    REFUSED = "refused"
    CANCEL = "cancel"
    DONE = "done"


_S, _I = SlotState, SlotInput
TRANSITIONS: dict[tuple[SlotState, SlotInput], SlotState] = {
    (_S.FREE, _I.REQUEST): _S.REQUESTED,
    (_S.FREE, _I.CREATED): _S.ACTIVE,  # made by server VAD
    (_S.FREE, _I.REFUSED): _S.FREE,
    (_S.FREE, _I.CANCEL): _S.FREE,
    (_S.FREE, _I.DONE): _S.FREE,
    (_S.REQUESTED, _I.CREATED): _S.ACTIVE,
    (_S.REQUESTED, _I.REFUSED): _S.FREE,
    (_S.REQUESTED, _I.CANCEL): _S.REQUESTED,  # no id to cancel yet: doomed, cancelled when it shows (D2.5)
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
"""Every pair but a request while the slot is taken, which is a fault of ours and raises `KeyError`."""


class ResponseSlot:
    """Which response is under way. `request_id` is our request that has had no answer yet."""

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
        """Whether a response may be asked for now."""
        return self.state is SlotState.FREE and self.request_id is None

    def request(self, request_id: str) -> None:
        """We ask for a response now; legal only while the slot is free."""
        if self.request_id is not None:
            raise KeyError((self.state, SlotInput.REQUEST))
        self._move(SlotInput.REQUEST)
        self.request_id = request_id
        self._cancel_on_create = False

    def created(self, response_id: str, request_id: str | None) -> bool:
        """A response began. Returns whether it was given up before it was born and must be cancelled (D2.5).

        An upstream that has never echoed our metadata may not do so at all: then the first response after our request
        is taken for ours. If it was not, the refusal that follows says so (`refused`).
        """
        self._upstream_echoes_metadata = self._upstream_echoes_metadata or request_id is not None
        claimed = request_id is None and not self._upstream_echoes_metadata
        ours = self.request_id is not None and (claimed or request_id == self.request_id)
        self._presumed_id = self.request_id if ours and claimed else None
        doomed = ours and self._cancel_on_create
        if ours:
            self.request_id = None
            self._cancel_on_create = False
        self._move(SlotInput.CREATED)
        self.response_id = response_id
        if doomed:
            self._move(SlotInput.CANCEL)
        return doomed

    def refused(self, request_id: str) -> bool:
        """Our request was refused. Returns whether it was the one outstanding, or one taken for answered."""
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
        """Give up what is under way. Returns the id to cancel, None if there is none (yet)."""
        if self.request_id is not None:
            self._cancel_on_create = True
        before = self.state
        self._move(SlotInput.CANCEL)
        return self.response_id if before is SlotState.ACTIVE else None

    def done(self, response_id: str, request_id: str | None) -> bool:
        """A response ended. Returns whether it was the one of this slot."""
        ours_unborn = self.request_id is not None and request_id == self.request_id
        if ours_unborn:
            self.request_id = None
            self._cancel_on_create = False
        if response_id == self.response_id:
            self._presumed_id = None
            self._move(SlotInput.DONE)
            self.response_id = None
            return True
        if ours_unborn and self.state is SlotState.REQUESTED:  # else somebody else's is still under way
            self._move(SlotInput.DONE)
        return ours_unborn

    def abandon(self) -> str | None:
        """Forget a response that the upstream has fallen silent on. Returns its id, if it had one."""
        response_id = self.response_id
        self.state, self.response_id, self.request_id, self._cancel_on_create = SlotState.FREE, None, None, False
        return response_id

    def _move(self, slot_input: SlotInput) -> None:
        self.state = TRANSITIONS[self.state, slot_input]
