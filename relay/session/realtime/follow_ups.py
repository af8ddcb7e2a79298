"""The calls of server tools, and the responses that follow them (D4).

The relay runs the calls of server tools and sends their outputs. Once all outputs of a response are sent, one further
response is due, which speaks about them. In a mixed response the model called tools of the client as well. Then the
client requests the next response, which has to wait for the outputs of the server's calls, and none is due from here.
After too many responses in a row that only call tools, the next one must do without.
"""

from collections.abc import Collection, Sequence

from relay.core.bounded import RecentSet
from relay.core.commands import CancelTool, RunTool
from relay.core.tool_calls import ToolCalls
from relay.core.values import Item
from relay.json_types import JsonObject
from relay.session.realtime.open_requests import ResponseRequest
from relay.session.realtime.outgoing import Outgoing
from relay.session.tools.acceptance import accept

MAX_MIXED = 64
"""Mixed responses that are remembered; the client's request no longer waits for the outputs of an older one."""

_KEPT = ("instructions", "tools", "output_modalities", "audio", "max_output_tokens", "reasoning")
"""Not `tool_choice`, which would call the tool again, nor `metadata`, which tells the client's own responses apart."""


class FollowUps:
    """Calls and due responses of one session; a barge-in cancels calls of the tools named in `cancellable`."""

    def __init__(self, out: Outgoing, cancellable: Collection[str]) -> None:
        self.calls = ToolCalls()
        self.cause: ResponseRequest | None = None
        """The client's request for the response that called the tools last; None if it did not request it."""
        self._out = out
        self._cancellable = cancellable
        self._mixed = RecentSet(MAX_MIXED)
        self._client_owes = False

    @property
    def is_pending(self) -> bool:
        """Whether a response is due, or will be: from the client after a mixed response, or when a tool returns."""
        return self._client_owes or self.calls.owes_response or self.calls.running > 0

    @property
    def holds_client_back(self) -> bool:
        """Whether outputs are missing that the client's next response must speak about."""
        return any(response_id in self._mixed for response_id in self.calls.open_responses())

    def settings(self) -> JsonObject:
        """The settings of the response that is due: what is kept of the response whose tools were called."""
        settings = self.cause.settings if self.cause is not None else {}
        kept = {key: settings[key] for key in _KEPT if key in settings}
        return {**kept, "tool_choice": "none"} if self.calls.at_round_limit else kept

    def take_calls(self, response_id: str, status: str, calls: Sequence[Item], *, mixed: bool, quiet: bool) -> None:
        """A response ended that called server tools.

        `mixed`: it also called tools of the client; `quiet`: the user speaks, so no answer is forced.
        """
        self._client_owes = self._client_owes or mixed
        accepted = accept(self.calls, response_id, calls, status, quiet=mixed or quiet)
        if accepted.to_run and mixed:
            self._mixed.add(response_id)
        for call in accepted.to_run:
            self._out.add(RunTool(call.call_id or "", call.name or "", call.arguments or ""))
        for call_id, output in accepted.refused:
            self.send_output(call_id, output)

    def interrupted(self) -> None:
        """The user interrupts: outputs still to come force no answer; calls of `cancellable` tools are cancelled."""
        self.calls.user_went_on()
        for call_id, name in self.calls.open_calls():
            if name in self._cancellable:
                self._out.add(CancelTool(call_id))

    def drop(self) -> None:
        """No response is due any more: one began that speaks about all outputs so far, or the client cancelled."""
        self._client_owes = self.calls.owes_response = False

    def send_output(self, call_id: str, output: str) -> None:
        """Send the one output of a call to the upstream."""
        item = {"type": "function_call_output", "call_id": call_id, "output": output}
        self._out.request("conversation.item.create", item=item)
