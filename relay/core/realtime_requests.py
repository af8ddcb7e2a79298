"""What a Realtime client asks for: its events on their way up, as the policy allows them and the upstream needs them.

The counterpart of `relay.core.realtime_view`. The server's share is merged into what would replace it, places behind
hidden items are translated, and what is about a hidden item is refused, as if there were no such item.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from relay.core.bounded import RecentSet
from relay.core.hidden import HiddenItems
from relay.core.parting import Parting
from relay.core.policy import RealtimePolicy
from relay.core.policy_table import Denied, apply
from relay.core.realtime_events import Obj, RealtimeCommand, TellUpstream
from relay.core.realtime_turns import Create, RealtimeTurns
from relay.core.server_parts import ServerParts, function_names

MAX_UPDATES = 256
MAX_STAND_INS = 256


@dataclass(frozen=True, slots=True)
class _Update:
    """A `session.update` of the client's that has no answer yet, and the client's tools before it."""

    event_id: str
    tools_before: Any
    sets_tools: bool
    tools: Any


class ClientRequests:
    """The requests of one session's client; what goes up is given to `emit`. `model` is the one of its URL."""

    def __init__(
        self,
        policy: RealtimePolicy,
        parts: ServerParts,
        hidden: HiddenItems,
        turns: RealtimeTurns,
        parting: Parting,
        emit: Callable[[RealtimeCommand], None],
        next_id: Callable[[], str],
        next_call_id: Callable[[], str],
        model: str,
    ) -> None:
        self._policy = policy
        self._parts = parts
        self._hidden = hidden
        self._turns = turns
        self._parting = parting
        self._emit = emit
        self._next_id = next_id
        self._next_call_id = next_call_id
        self._model = model
        self.model_in_force: Any = None
        """The session's model as the upstream calls it."""
        self._client_tools: Any = []
        self._updates: deque[_Update] = deque(maxlen=MAX_UPDATES)
        self._stand_ins = RecentSet(MAX_STAND_INS)
        self._given_names: OrderedDict[str, frozenset[str]] = OrderedDict()

    def take(self, event: Mapping[str, Any], now: float) -> None:
        """Pass an event of the client's on, by the policy's table and the rules below. Raises Denied."""
        body = apply(self._without_repetition(event), self._policy)
        rule = _RULES.get(body["type"])
        if rule is None:
            self._emit(TellUpstream(body))
        else:
            rule(self, body, now)

    # -- what became of it --------------------------------------------------------------------------------------------

    def uses_tools(self, tools: Any) -> None:
        """These are the client's tools of the session."""
        self._parts.client_names = function_names(tools)
        self._client_tools = tools or []

    def update_taken(self) -> None:
        """The upstream has taken the oldest `session.update` that it has not answered yet."""
        if self._updates:
            self._updates.popleft()

    def update_refused(self, event_id: str) -> None:
        """The upstream has refused an event; if it was a `session.update`, the tools before it are still in force."""
        for index, update in enumerate(self._updates):
            if update.event_id == event_id:
                del self._updates[index]
                self.uses_tools(self._tools_after(index, update.tools_before))
                return

    def _tools_after(self, index: int, tools: Any) -> Any:
        """The client's tools once the updates from `index` on are taken, where `tools` are those before them."""
        for later, update in enumerate(list(self._updates)[index:], index):
            self._updates[later] = replace(update, tools_before=tools)
            tools = update.tools if update.sets_tools else tools
        return tools

    def names_given_in(self, event_id: str) -> frozenset[str]:
        """Those names of the server's tools that the client gave to tools of its own in this event."""
        return self._given_names.get(event_id, frozenset())

    def _remember_names(self, event_id: str, tools: Any) -> None:
        names = function_names(tools) & self._parts.tools.keys()
        if names:
            self._given_names[event_id] = names
            if len(self._given_names) > MAX_UPDATES:
                self._given_names.popitem(last=False)

    def is_stand_in(self, event_id: str) -> bool:
        """Whether an event id is one that the relay gave to an event of the client's which had none."""
        return event_id in self._stand_ins

    def _without_repetition(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """The event without the model that is in force anyway: SDKs repeat it, as they named it or as they were told.

        Neither need be a name that the policy lets a client choose, nor one that the upstream takes.
        """
        session = event.get("session")
        if event["type"] != "session.update" or not isinstance(session, Mapping):
            return event
        model = session.get("model")
        if not isinstance(model, str) or model not in (self._model, self.model_in_force):
            return event
        return {**event, "session": {key: value for key, value in session.items() if key != "model"}}

    # -- the rules ----------------------------------------------------------------------------------------------------

    def _session_update(self, body: Obj, now: float) -> None:
        session = body.get("session")
        if isinstance(session, dict):
            self._check_names(session, "session")
            body = self._with_id(body)
            update = _Update(body["event_id"], self._client_tools, "tools" in session, session.get("tools"))
            self._updates.append(update)
            self._remember_names(update.event_id, update.tools)
            if "tools" in session:
                self.uses_tools(session["tools"])
            self._parts.merge(session)
        self._emit(TellUpstream(body))

    def _item_create(self, body: Obj, now: float) -> None:
        item = body.get("item")
        if isinstance(item, Mapping):
            self._check_item(item, "item")
            if item.get("role") == "user":
                self._turns.user_went_on()
            if item.get("type") == "function_call":
                body["item"] = self._clients_call(item)
        previous = body.get("previous_item_id")
        if self._hidden.is_hidden(previous):
            raise _no_item(previous, "previous_item_id", "item_create_invalid_previous_item_id")
        if previous is not None:
            body["previous_item_id"] = self._hidden.real_previous(previous)
        self._emit(TellUpstream(body))

    def _check_item(self, item: Mapping[str, Any], path: str) -> None:
        kind = item.get("type")
        if kind in ("function_call", "function_call_output") and self._hidden.is_servers_call(item.get("call_id")):
            raise Denied("No function call of the client's has this call_id.", f"{path}.call_id", "invalid_value")
        if self._hidden.is_hidden(item.get("id")):
            raise _no_item(item.get("id"), f"{path}.id", "invalid_value")
        for name in ("content", "output"):
            parts = item.get(name)
            for index, part in enumerate(parts if isinstance(parts, list) else ()):
                if isinstance(part, Mapping) and self._hidden.is_hidden(part.get("id")):
                    raise _no_item(part["id"], f"{path}.{name}[{index}].id", "invalid_value")

    def _clients_call(self, item: Mapping[str, Any]) -> Obj:
        """A function call that the client puts into the conversation is the client's, also by a server tool's name.

        It never runs. Its `call_id`, ours if the client gives none, tells it from the model's when it comes back.
        """
        call_id = item.get("call_id") or self._next_call_id()
        self._hidden.expect_call(call_id)
        return {**item, "call_id": call_id}

    def remove_reserved_names(self, settings: Obj, path: str = "session") -> list[Denied]:
        """Take the names of tools that cannot be had out of a session or a response, and say why if the policy says so.

        A tool of the client's may not be called as a protected one of the server's, and one that is chosen must be the
        client's: a name that only the server's tools have is answered as one that nobody has.
        """
        refusals = []
        tools = settings.get("tools")
        members = tools if isinstance(tools, list) else []
        taken = [index for index, tool in enumerate(members) if self._parts.is_protected(tool)]
        if taken:
            param = f"{path}.tools[{taken[0]}].name"
            refusals.append(Denied("This name cannot be used here.", param, "invalid_value"))
            settings["tools"] = [tool for tool in members if not self._parts.is_protected(tool)]
        choice = settings.get("tool_choice")
        if isinstance(choice, Mapping) and choice.get("type") != "mcp" and self._parts.hides_tools:
            names = self._parts.client_names if tools is None else function_names(tools)
            if _text(choice.get("name")) not in names:
                text = "No tool of the client's has this name."
                refusals.append(Denied(text, f"{path}.tool_choice", "invalid_value"))
                del settings["tool_choice"]
        return refusals if self._policy.denied_fields == "refuse" else []

    def _check_names(self, settings: Obj, path: str) -> None:
        refusals = self.remove_reserved_names(settings, path)
        if refusals:
            raise refusals[0]

    def _about_item(self, body: Obj, now: float) -> None:
        """Delete, retrieve and truncate: a hidden item is one that is not there."""
        if self._hidden.is_hidden(body.get("item_id")):
            verb = body["type"].rpartition(".")[2]
            raise _no_item(body["item_id"], "item_id", f"item_{verb}_invalid_item_id")
        if body["type"] == "conversation.item.truncate":
            self._parting.silenced()
        self._emit(TellUpstream(body))

    def _response_create(self, body: Obj, now: float) -> None:
        body = self._with_id(body)
        response = body.get("response")
        names = None
        if isinstance(response, dict):
            inputs = response.get("input")
            for index, item in enumerate(inputs if isinstance(inputs, list) else ()):
                if isinstance(item, Mapping):
                    self._check_item(item, f"response.input[{index}]")
            self._check_names(response, "response")
            self._remember_names(body["event_id"], response.get("tools"))
            names = function_names(response["tools"]) if response.get("tools") is not None else None
            self._merge_response(response)
        self._turns.create(Create(body, body["event_id"], names), now)

    def _merge_response(self, response: Obj) -> None:
        # Null is how SDKs write that the session's are meant, which hold the server's share and the client's.
        for name, is_shared in (("instructions", self._policy.instructions), ("tools", self._parts.tools)):
            if is_shared and name in response and response[name] is None:
                del response[name]
        if response.get("conversation") != "none":
            self._parts.merge(response)
            return
        # Outside the conversation there is nowhere to put a server tool's output: none is offered.
        if "instructions" in response:
            response["instructions"] = self._policy.instructions_with(response["instructions"])
        if self._parts.tools and response.get("tools") is None:
            response["tools"] = self._client_tools

    def _response_cancel(self, body: Obj, now: float) -> None:
        self._emit(TellUpstream(body))
        self._turns.cancel(body.get("response_id"))

    def _with_id(self, body: Obj) -> Obj:
        """The event with an id to know its error by; one of ours is taken out of the error again."""
        if body.get("event_id") is not None:
            return body
        stand_in = self._next_id()
        self._stand_ins.add(stand_in)
        return {**body, "event_id": stand_in}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _no_item(item_id: Any, param: str, code: str) -> Denied:
    return Denied(f"Item with item_id '{str(item_id)[:80]}' not found.", param, code)


_R = ClientRequests
_RULES: dict[str, Callable[[ClientRequests, Obj, float], None]] = {
    "session.update": _R._session_update,
    "conversation.item.create": _R._item_create,
    "conversation.item.delete": _R._about_item,
    "conversation.item.retrieve": _R._about_item,
    "conversation.item.truncate": _R._about_item,
    "response.create": _R._response_create,
    "response.cancel": _R._response_cancel,
}
"""What is looked into on its way up, after the policy's table."""
