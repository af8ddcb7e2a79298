"""The tools as a session sees them: its registry as `ToolSpec`s, and each call run in the name of its session."""

import time
from collections.abc import Callable

from relay.core.commands import RunTool
from relay.core.events import ToolProgressed, ToolReturned
from relay.core.values import ToolSpec
from relay.toolkit.context import ToolContext
from relay.toolkit.registry import ToolRegistry
from relay.toolkit.runner import ToolCall, ToolRunner


def tool_specs(registry: ToolRegistry) -> tuple[ToolSpec, ...]:
    """What the model is told of the tools that are exposed to it."""
    return tuple(
        ToolSpec(
            tool.name,
            tool.description,
            tool.parameters,
            tool.examples,
            shown="client" in tool.expose,
            protected=tool.protected,
        )
        for tool in registry
        if "model" in tool.expose
    )


class SessionTools:
    """Runs the tool calls of one session."""

    def __init__(self, runner: ToolRunner, session_id: str, identity: str, language: str | None) -> None:
        self._runner = runner
        self._session_id = session_id
        self._identity = identity
        self._language = language

    async def run(self, command: RunTool, progress: Callable[[ToolProgressed], None]) -> ToolReturned:
        """Run one call to its end; every failure is a return as well."""
        started = time.monotonic()

        def tell(text: str) -> None:
            progress(ToolProgressed(command.call_id, text, round((time.monotonic() - started) * 1000)))

        context = ToolContext(
            session_id=self._session_id,
            call_id=command.call_id,
            identity=self._identity,
            language=self._language,
            on_progress=tell,
        )
        result = await self._runner.run(ToolCall(command.call_id, command.name, command.arguments), context)
        return ToolReturned(command.call_id, result.status, result.output, result.ms, result.arguments)
