"""The MCP client: tools of MCP servers."""
