"""The tools as a session sees them: its registry as `ToolSpec`s, and each call run in the name of its session."""

import asyncio
import contextlib
import time
from collections.abc import Callable

from relay.core.bounded import RecentSet
from relay.core.commands import RunTool
from relay.core.events import EndAsked, ToolProgressed, ToolReturned
from relay.core.known_secrets import NO_SECRETS, KnownSecrets
from relay.core.tool_calls import CANCELLED_CALL
from relay.core.values import SessionConfig, ToolSpec
from relay.toolkit.context import ToolContext
from relay.toolkit.registry import Tool, ToolRegistry
from relay.toolkit.runner import ToolCall, ToolRunner

MAX_CANCELLED_EARLY = 32
"""Calls that were cancelled before they began; beyond it the oldest one runs after all, and returns as ever."""


def tool_spec(tool: Tool) -> ToolSpec:
    """A tool of the registry as a session knows it."""
    return ToolSpec(
        tool.name,
        tool.description,
        tool.parameters,
        tool.examples,
        shown="client" in tool.expose,
        protected=tool.protected,
        cancel_on_interrupt=tool.cancel_on_interrupt,
    )


def tool_specs(registry: ToolRegistry) -> tuple[ToolSpec, ...]:
    """The tools that are exposed to the model."""
    return tuple(tool_spec(tool) for tool in registry if "model" in tool.expose)


class SessionTools:
    """Runs the tool calls of one session; tools that its policy does not offer do not exist for it."""

    def __init__(
        self,
        runner: ToolRunner,
        session_id: str,
        identity: str,
        config: Callable[[], SessionConfig] | None = None,
        offers: Callable[[str], bool] | None = None,
        secrets: KnownSecrets = NO_SECRETS,
    ) -> None:
        """`config` gives the configuration in force, whose language tools get; a client may change it."""
        self._runner = runner
        self._secrets = secrets
        self._session_id = session_id
        self._identity = identity
        self._config = config
        self._offers = offers
        self._cancelled_early = RecentSet(MAX_CANCELLED_EARLY)

    async def run(self, command: RunTool, report: Callable[[ToolProgressed | EndAsked], None]) -> ToolReturned:
        """Run one call to its end; every failure is a return as well."""
        if self._cancelled_early.pop(command.call_id, "") is None:
            return ToolReturned(command.call_id, "cancelled", CANCELLED_CALL, 0)
        started = time.monotonic()
        loop = asyncio.get_running_loop()

        def progress(text: str) -> None:
            report(
                ToolProgressed(command.call_id, self._secrets.redact(text), round((time.monotonic() - started) * 1000))
            )

        def end(reason: str) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nothing is left to end
                loop.call_soon_threadsafe(report, EndAsked(command.call_id, self._secrets.redact(str(reason))))

        context = ToolContext(
            session_id=self._session_id,
            call_id=command.call_id,
            identity=self._identity,
            language=self._config().language if self._config is not None else None,
            on_progress=progress,
            on_end=end,
        )
        call = ToolCall(command.call_id, command.name, command.arguments)
        result = await self._runner.run(call, context, offers=self._offers)
        return ToolReturned(
            command.call_id, result.status, result.output, result.ms, result.arguments, result.for_client
        )

    def cancel(self, call_id: str) -> None:
        """End one running call: it returns as "cancelled", also if its task has not begun yet."""
        if not self._runner.cancel(self._session_id, call_id):
            self._cancelled_early.add(call_id)
