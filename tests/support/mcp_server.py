"""An MCP server with the SDK: `python mcp_server.py [port]`, over stdio without a port."""

import os
import sys
import time

from mcp.server.mcpserver import MCPServer

server = MCPServer("warehouse")


@server.tool()
def stock_of(fruit: str, shelf: int = 1) -> dict[str, int | str]:
    """How many pieces of a fruit are on a shelf."""
    return {"fruit": fruit, "left": 12 * shelf}


@server.tool()
def greet(name: str) -> str:
    """Greet somebody."""
    return f"Hello {name}!"


@server.tool()
def environment() -> list[str]:
    """The names of the environment's variables."""
    return sorted(os.environ)


@server.tool()
def fail() -> str:
    """Fail."""
    raise ValueError("the shelf is broken")


@server.tool()
def die() -> str:
    """End the server in the middle of a call."""
    os._exit(3)


@server.tool()
def hang() -> str:
    """Never answer."""
    time.sleep(3600)
    return ""


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run()
