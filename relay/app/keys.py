"""The parts of one relay, each under its own key in the application; handlers take the parts that they need."""

from aiohttp import web

from relay.admission import Admission
from relay.app.session_factory import SessionFactory
from relay.app.sessions import SessionRegistry
from relay.app.toolbox import ToolBox
from relay.auth.admin_login import AdminLogins
from relay.auth.authenticator import Authenticator
from relay.auth.client_secrets import ClientSecrets
from relay.auth.refusals import RefusalLog
from relay.config import Settings
from relay.core.known_secrets import KnownSecrets
from relay.peers.client_socket import Keepalive
from relay.peers.provider import ProviderClient
from relay.recording.service import RecordingService
from relay.spending import Spending
from relay.upstreams.azure_sessions import AzureSessions
from relay.upstreams.connector import UpstreamConnector
from relay.upstreams.external_voices import ExternalVoices

SETTINGS = web.AppKey("settings", Settings)
KNOWN_SECRETS = web.AppKey("known_secrets", KnownSecrets)
"""What is redacted from everything that leaves the relay, except from the upstream's deltas."""
AUTHENTICATOR = web.AppKey("authenticator", Authenticator)
LOGINS = web.AppKey("logins", AdminLogins)
CLIENT_SECRETS = web.AppKey("client_secrets", ClientSecrets)
ADMISSION = web.AppKey("admission", Admission)
SPENDING = web.AppKey("spending", Spending)
REFUSALS = web.AppKey("refusals", RefusalLog)
TOOLS = web.AppKey("tools", ToolBox)
UPSTREAM = web.AppKey("upstream", UpstreamConnector)
PROVIDER = web.AppKey("provider", ProviderClient)
AZURE_SESSIONS = web.AppKey("azure_sessions", AzureSessions)
"""Missing where no Azure resource is configured."""
VOICES = web.AppKey("voices", ExternalVoices)
RECORDINGS = web.AppKey("recordings", RecordingService)
SESSIONS = web.AppKey("sessions", SessionRegistry)
SESSION_FACTORY = web.AppKey("session_factory", SessionFactory)
KEEPALIVE = web.AppKey("keepalive", Keepalive)
