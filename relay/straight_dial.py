"""A WebSocket dial that follows no redirect: it would carry the key to another address."""

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus


class StraightConnect(connect):
    """`websockets.connect`, for which a redirect is a refusal like any other (`InvalidStatus`)."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Take a redirect as the error that it came as."""
        return exc


def is_redirect(error: InvalidStatus) -> bool:
    """Whether a refusal wanted to send us somewhere else."""
    return 300 <= error.response.status_code < 400
