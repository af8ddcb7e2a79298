"""Takes the server's paths out of text that goes to a model or over HTTP."""

import re

_PATH = re.compile(r"(?<![\w/:.…])(?:[A-Za-z]:)?(?:[/\\][\w.@+~-]+){2,}[/\\]?")
_SLASH = re.compile(r"[/\\]")


def without_paths(text: str) -> str:
    """`text` with each absolute path of two or more parts cut to its last one: `/srv/app/x.py` becomes `…/x.py`."""
    return _PATH.sub(lambda found: f"…/{[part for part in _SLASH.split(found[0]) if part][-1]}", text)
