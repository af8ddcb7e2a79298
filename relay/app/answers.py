"""The one middleware around every handler: errors become JSON, refusals are logged, secrets are redacted."""

from aiohttp import web
from aiohttp.typedefs import Handler

from relay.app.context import KNOWN_SECRETS
from relay.app.errors import error_response
from relay.app.refusals import log_refusal
from relay.app.secret_filter import redact_answer


@web.middleware
async def answers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Make the answer to a request of what its handler returns or raises.

    One middleware and not three, because the handler of a session stays inside of it for as long as the session lasts.
    """
    try:
        response = await handler(request)
    except Exception as error:
        response = error_response(request, error)
    log_refusal(request, response)
    redact_answer(request.app[KNOWN_SECRETS], response)
    return response
