"""The type of a JSON object after parsing."""

from typing import Any

JsonObject = dict[str, Any]
