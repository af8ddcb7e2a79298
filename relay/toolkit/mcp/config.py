"""Reads the MCP servers from a JSON file in the format that MCP clients share.

    {"mcpServers": {
        "files":   {"command": "uvx", "args": ["some-server"], "env": {"ROOT": "/data"}, "tools": ["read_file"]},
        "tickets": {"url": "https://mcp.example.com/mcp", "headers": {"Authorization": "Bearer ${TICKETS_TOKEN}"}}}}

`${NAME}` in `env` and `headers` is a variable of the relay's environment. Servers receive no other variables of it.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from relay.child_environment import is_allowed
from relay.errors import ConfigError

MAX_SERVERS = 32

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_SECRET_NAME = re.compile(r"(?i)auth|cookie|credential|key|passw|secret|token")


class McpServerConfig(BaseModel):
    """One MCP server: a command with the stdio transport, or the URL of a streamable HTTP endpoint.

    The names of its tools begin with `prefix` (default: the server's name and "_"). `tools` lists the tools to offer,
    by the server's own names; None means all. `timeout_s` limits each call.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")
    command: str | None = None
    args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict, repr=False)
    cwd: Path | None = None
    url: Annotated[str, Field(pattern=r"^https?://")] | None = None
    headers: dict[str, str] = Field(default_factory=dict, repr=False)
    prefix: str | None = Field(None, pattern=r"^[A-Za-z0-9_-]{0,32}$")
    tools: tuple[str, ...] | None = None
    timeout_s: float = Field(30.0, gt=0, le=600, alias="timeoutS")
    type: str | None = None  # ignored; some clients write "stdio" or "http"
    _variables: tuple[str, ...] = PrivateAttr(())

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secret values: substituted variables, and values whose names suggest a secret.

        Each word of such a value is a secret too, as in `Bearer …`.
        """
        named = [value for name, value in (*self.env.items(), *self.headers.items()) if _SECRET_NAME.search(name)]
        return (*self._variables, *named, *(word for value in named for word in value.split()))

    @model_validator(mode="after")
    def _check_transport(self) -> "McpServerConfig":
        if (self.command is None) == (self.url is None):
            raise ValueError('set either "command" or "url"')
        return self


def read_mcp_config(path: Path, environment: Mapping[str, str]) -> tuple[McpServerConfig, ...]:
    """Read the servers of a file. Raises ConfigError with all mistakes, but no value of `env` or `headers`."""
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"RELAY_MCP_SERVERS: {path} cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise ConfigError(f"RELAY_MCP_SERVERS: {path} is not valid JSON ({error}).") from None
    servers = content.get("mcpServers") if isinstance(content, dict) else None
    if not isinstance(servers, dict) or len(servers) > MAX_SERVERS:
        raise ConfigError(
            f'RELAY_MCP_SERVERS: {path} must contain {{"mcpServers": {{name: …}}}} with at most {MAX_SERVERS} servers.'
        )
    mistakes: list[str] = []
    configs = [_parse_server(name, entry, environment, mistakes) for name, entry in servers.items()]
    if mistakes:
        raise ConfigError(
            f"RELAY_MCP_SERVERS: {path} is not valid:\n" + "\n".join(f"  {mistake}" for mistake in mistakes)
        )
    return tuple(config for config in configs if config is not None)


def _parse_server(name: str, entry: Any, environment: Mapping[str, str], mistakes: list[str]) -> McpServerConfig | None:
    if not isinstance(entry, dict):
        mistakes.append(f"{name}: must be an object")
        return None
    fields, variables = dict(entry), list[str]()
    for part in ("env", "headers"):
        if isinstance(entry.get(part), dict):
            fields[part] = {
                key: _substitute_variables(value, environment, f"{name}.{part}.{key}", mistakes, variables)
                for key, value in entry[part].items()
            }
    try:
        server = McpServerConfig(**{**fields, "name": name})
        server._variables = tuple(variables)
        return server
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_input=False, include_context=False):
            where = ".".join(str(part) for part in (name, *problem["loc"]))
            mistakes.append(f"{where}: {problem['msg'].removeprefix('Value error, ')}")
        return None


def _substitute_variables(
    value: Any, environment: Mapping[str, str], where: str, mistakes: list[str], variables: list[str]
) -> Any:
    """Substitute the variables of `value`; adds those that may be secret to `variables`."""

    def substitute(match: re.Match[str]) -> str:
        if match[1] not in environment:
            mistakes.append(f"{where}: the environment variable {match[1]} is not set")
        elif not is_allowed(match[1]):
            variables.append(environment[match[1]])
        return environment.get(match[1], "")

    return _VARIABLE.sub(substitute, value) if isinstance(value, str) else value
