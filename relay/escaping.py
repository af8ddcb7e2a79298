"""Foreign text in log lines: what clients, upstreams and MCP servers wrote must not break a line or a terminal."""


def escape_controls(text: str) -> str:
    """`text` with every character that cannot be printed written as its Python escape."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
