"""Which MCP servers there are: a JSON file in the shape that MCP clients share.

    {"mcpServers": {
        "files":   {"command": "uvx", "args": ["some-server"], "env": {"ROOT": "/data"}, "tools": ["read_file"]},
        "tickets": {"url": "https://mcp.example.com/mcp", "headers": {"Authorization": "Bearer ${TICKETS_TOKEN}"}}}}

`${NAME}` in `env` and `headers` is a variable of the relay's environment: nothing else of it reaches a server.
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
    """One server: a command that speaks over its standard streams, or the URL of a streamable HTTP endpoint.

    Its tools are called `prefix` + their name (default: the server's name and "_"). `tools` lists those that are
    mounted, by the server's own names; all if it is None. `timeout_s` is how long a call may take.
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
    type: str | None = None  # what some clients write into the file: "stdio", "http"
    _variables: tuple[str, ...] = PrivateAttr(())

    @property
    def secrets(self) -> tuple[str, ...]:
        """What nobody may read: variables that were filled in, and what stands under a name that says so.

        Of a header, such as `Bearer …`, each word.
        """
        named = [value for name, value in (*self.env.items(), *self.headers.items()) if _SECRET_NAME.search(name)]
        return (*self._variables, *named, *(word for value in named for word in value.split()))

    @model_validator(mode="after")
    def _check_transport(self) -> "McpServerConfig":
        if (self.command is None) == (self.url is None):
            raise ValueError('give either "command" or "url"')
        return self


def read_mcp_config(path: Path, environment: Mapping[str, str]) -> tuple[McpServerConfig, ...]:
    """The servers of a file. Raises ConfigError with every mistake, and never a value of `env` or `headers`."""
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"RELAY_MCP_SERVERS: {path} cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise ConfigError(f"RELAY_MCP_SERVERS: {path} is not valid JSON ({error}).") from None
    servers = content.get("mcpServers") if isinstance(content, dict) else None
    if not isinstance(servers, dict) or len(servers) > MAX_SERVERS:
        raise ConfigError(f'RELAY_MCP_SERVERS: {path} must hold {{"mcpServers": {{name: …}}}}, {MAX_SERVERS} at most.')
    mistakes: list[str] = []
    found = [_parse_server(name, entry, environment, mistakes) for name, entry in servers.items()]
    if mistakes:
        raise ConfigError(f"RELAY_MCP_SERVERS: {path} is wrong:\n" + "\n".join(f"  {one}" for one in mistakes))
    return tuple(one for one in found if one is not None)


def _parse_server(name: str, entry: Any, environment: Mapping[str, str], mistakes: list[str]) -> McpServerConfig | None:
    if not isinstance(entry, dict):
        mistakes.append(f"{name}: must be an object")
        return None
    filled, variables = dict(entry), list[str]()
    for part in ("env", "headers"):
        if isinstance(entry.get(part), dict):
            filled[part] = {
                key: _substitute_variables(value, environment, f"{name}.{part}.{key}", mistakes, variables)
                for key, value in entry[part].items()
            }
    try:
        server = McpServerConfig(**{**filled, "name": name})
        server._variables = tuple(variables)
        return server
    except ValidationError as error:
        for one in error.errors(include_url=False, include_input=False, include_context=False):
            where = ".".join(str(part) for part in (name, *one["loc"]))
            mistakes.append(f"{where}: {one['msg'].removeprefix('Value error, ')}")
        return None


def _substitute_variables(
    value: Any, environment: Mapping[str, str], where: str, mistakes: list[str], variables: list[str]
) -> Any:
    """`value` with its variables filled in; those that not every child may see are added to `variables`."""

    def variable(found: re.Match[str]) -> str:
        if found[1] not in environment:
            mistakes.append(f"{where}: the environment has no {found[1]}")
        elif not is_allowed(found[1]):
            variables.append(environment[found[1]])
        return environment.get(found[1], "")

    return _VARIABLE.sub(variable, value) if isinstance(value, str) else value
