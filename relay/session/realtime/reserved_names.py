"""Names of the server's tools that a Realtime client may not use.

A client's tool may not have the name of a protected tool of the server's. A tool that the client chooses must be its
own: a name that only a server's tool has is answered like one that no tool has, so that nothing is disclosed.
"""

from collections.abc import Mapping
from typing import Any

from relay.core.policy_rules import Denied
from relay.core.realtime_events import Obj
from relay.core.server_parts import ServerParts, function_names


def remove_reserved_names(settings: Obj, parts: ServerParts, path: str) -> list[Denied]:
    """Remove what the client may not name from a session or a response; returns the refusals that the policy wants."""
    refusals = []
    tools = settings.get("tools")
    members = tools if isinstance(tools, list) else []
    taken = [index for index, tool in enumerate(members) if parts.is_protected(tool)]
    if taken:
        param = f"{path}.tools[{taken[0]}].name"
        refusals.append(Denied("This name cannot be used here.", param, "invalid_value"))
        settings["tools"] = [tool for tool in members if not parts.is_protected(tool)]
    choice = settings.get("tool_choice")
    if isinstance(choice, Mapping) and choice.get("type") != "mcp" and parts.hides_tools:
        names = parts.client_names if tools is None else function_names(tools)
        if _text(choice.get("name")) not in names:
            refusals.append(Denied("No tool of the client's has this name.", f"{path}.tool_choice", "invalid_value"))
            del settings["tool_choice"]
    return refusals if parts.policy.denied_fields == "refuse" else []


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
