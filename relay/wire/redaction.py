"""Redacts the relay's own secrets from events of the upstream, before any rule or client sees them."""

from typing import Any

import orjson

from relay.core.known_secrets import KnownSecrets
from relay.session.common.media_types import UNTOUCHED
from relay.wire.beta import BETA_NAMES

DELTAS = UNTOUCHED | {BETA_NAMES[kind] for kind in UNTOUCHED if kind in BETA_NAMES}
"""Not searched: a secret that is split over two deltas cannot be found in either."""


def redact_event(raw: bytes, body: dict[str, Any], secrets: KnownSecrets) -> tuple[bytes, dict[str, Any]]:
    """An event, as text and as object, without secrets. Raises JSONDecodeError where it is no JSON without them."""
    kind = body.get("type")
    if not secrets or (isinstance(kind, str) and kind in DELTAS):
        return raw, body
    cleaned = secrets.redact_json(raw)
    return (raw, body) if cleaned is raw else (cleaned, orjson.loads(cleaned))
