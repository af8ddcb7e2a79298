"""The commands that run the relay's own tools, for all kinds of sessions. `relay.runtime.tools` carries them out."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunTool:
    """Run a tool; exactly one `ToolCallFinished` follows."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class CancelTool:
    """Cancel one running call; it finishes with the status "cancelled"."""

    call_id: str


@dataclass(frozen=True, slots=True)
class CancelAllTools:
    """Cancel all running calls and discard their outputs."""


ToolCommand = RunTool | CancelTool | CancelAllTools
