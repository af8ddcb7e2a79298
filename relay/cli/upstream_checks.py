"""The checks of `relay check`: connect to each configured upstream, and name the setting behind each failure.

Nothing is generated, so nothing is billed.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Literal
from urllib.parse import quote, urlsplit

from relay.config.navai_options import NavaiOptions
from relay.config.policy_file import Policies
from relay.config.settings import Settings
from relay.errors import UpstreamError
from relay.session.common.known_secrets import NO_SECRETS
from relay.session.common.media_types import AudioDelta
from relay.session.common.model import DeviceOptions
from relay.session.device import events as ev
from relay.session.device.commands import ConfigureSession
from relay.transport.elevenlabs import ElevenLabsOptions
from relay.transport.http_client import HttpRequest, ProviderHttpClient
from relay.transport.upstream import UpstreamConnectError, UpstreamConnection
from relay.upstreams.clients.browser_secrets import AzureSessionClient, AzureSessionRequest, rest_base_url
from relay.upstreams.clients.connector import UpstreamConnector, azure_credential
from relay.upstreams.clients.elevenlabs import ExternalVoices

TIMEOUT_S = 10.0
PREVIEW_TO_TRY = "2025-04-01-preview"

Status = Literal["ok", "warn", "fail"]

_SETTING_BY_PARAM = {
    "voice": "OPENAI_REALTIME_VOICE",
    "transcription": "RELAY_TRANSCRIPTION_MODEL",
    "turn_detection": "RELAY_TURN and the RELAY_VAD_ numbers",
    "noise_reduction": "RELAY_NOISE_REDUCTION",
    "model": "OPENAI_REALTIME_MODEL",
    "instructions": "OPENAI_REALTIME_INSTRUCTIONS",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check; unless it is "ok", `text` names the setting to change."""

    status: Status
    subject: str
    text: str


async def check_upstreams(settings: Settings, navai: NavaiOptions, *, today: date) -> AsyncIterator[Finding]:
    """Check each configured upstream in turn. Raises ConfigError for an invalid RELAY_AZURE_TOKEN."""
    async with ProviderHttpClient() as provider:
        kind = settings.resolve_upstream().kind
        is_model_usable = True
        if kind == "openai":
            async for finding in _check_model(settings, provider, today):
                is_model_usable = is_model_usable and finding.status != "fail"
                yield finding
        if is_model_usable:
            yield await _check_session(settings)
        if settings.azure.resource is not None:
            credential = azure_credential(settings)
            assert credential is not None
            yield await _check_azure_pages(AzureSessionClient(settings.azure.resource, credential, provider))
        policies = Policies.load(settings.access.policies, settings.name_of("access.policies"))
        by_policy = policies.external_voices()
        voices = ExternalVoices.from_settings(navai, settings, by_policy)
        if voices.options is not None and voices.configured_ids:
            async for finding in _check_elevenlabs(voices.options, voices, provider):
                yield finding


# -- OpenAI -----------------------------------------------------------------------------------------------------------


async def _check_model(settings: Settings, provider: ProviderHttpClient, today: date) -> AsyncIterator[Finding]:
    """Check the key and the model by `GET /models/{model}`, which also returns the model's shutdown date."""
    key = settings.openai.api_key
    call = HttpRequest(
        name="GET /models",
        url=f"{rest_base_url(settings.openai.base_url)}/models/{quote(settings.session.model, safe='')}",
        headers={"Authorization": f"Bearer {key}"} if key is not None else {},
        method="GET",
        timeout_s=TIMEOUT_S,
    )
    try:
        model = (await provider.fetch(call)).json_object()
    except UpstreamError as error:
        yield Finding("fail", "key and model", f"{_openai_hint(error, settings)} ({error})")
        return
    yield Finding("ok", "key", f"{urlsplit(call.url).hostname} accepts OPENAI_API_KEY")
    yield _shutdown_finding(settings.session.model, model.get("shutdown_date"), today)


def _openai_hint(error: UpstreamError, settings: Settings) -> str:
    hints = {
        401: "OPENAI_API_KEY is not accepted; set a valid key",
        403: f"OPENAI_API_KEY may not use {settings.session.model}; change the key's rights or OPENAI_REALTIME_MODEL",
        404: f"the key has no access to model {settings.session.model}; change OPENAI_REALTIME_MODEL",
        429: "too many requests, or no quota left for OPENAI_API_KEY; check the billing of the account",
        None: "no valid response from OPENAI_BASE_URL; change it, or check the network",
    }
    return hints.get(error.upstream_status, "OPENAI_BASE_URL answers with an error")


def _shutdown_finding(model: str, shutdown_date: object, today: date) -> Finding:
    try:
        shut_down = date.fromisoformat(shutdown_date) if isinstance(shutdown_date, str) else None
    except ValueError:
        shut_down = None
    if shut_down is None:
        return Finding("ok", "model", f"{model}; no shutdown is announced")
    if shut_down <= today:
        return Finding("fail", "model", f"{model} was shut down on {shut_down}; change OPENAI_REALTIME_MODEL")
    days = (shut_down - today).days
    text = f"{model} will be shut down on {shut_down}, in {days} days; set OPENAI_REALTIME_MODEL to a newer model"
    return Finding("warn", "model", text)


# -- a session --------------------------------------------------------------------------------------------------------


async def _check_session(settings: Settings) -> Finding:
    """Connect to the upstream and configure it as a session does."""
    upstream = UpstreamConnector(settings)
    try:
        await upstream.start()
        return await _dial_and_configure(settings, upstream)
    except RuntimeError as error:
        return Finding("fail", "session", str(error))
    finally:
        await upstream.stop()


async def _dial_and_configure(settings: Settings, upstream: UpstreamConnector) -> Finding:
    label, dialect = upstream.endpoint.label, upstream.endpoint.dialect
    socket = UpstreamConnection()
    events: asyncio.Queue[ev.UpstreamEvent | AudioDelta] = asyncio.Queue()
    codec = dialect.codec(NO_SECRETS, settings.session.model)

    def receive(message: bytes) -> None:
        decoded = codec.decode(message)
        for event in decoded if isinstance(decoded, list) else (decoded,):
            events.put_nowait(event)

    socket.on_text = socket.on_binary = receive
    socket.on_closed = lambda code, reason: events.put_nowait(ev.UpstreamClosed(code, reason))
    options = DeviceOptions(upstream=dialect.capabilities)
    config = replace(
        settings.session_config(), input_format=options.upstream_input, output_format=options.upstream_output
    )
    try:
        await upstream.connect(socket)
        setup = codec.encode(ConfigureSession(config, "relay_check"))
        if isinstance(setup, bytes):
            socket.send_text(setup)
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                finding = _finding_from_event(await events.get(), label, settings)
                if finding is not None:
                    return finding
    except UpstreamConnectError as refusal:
        return Finding("fail", "session", f"{_dial_hint(refusal.status, settings)} ({refusal})")
    except TimeoutError:
        return Finding("fail", "session", f"{label} accepted the connection and sent nothing for {TIMEOUT_S:.0f} s")
    finally:
        socket.close(1000)


def _finding_from_event(event: ev.UpstreamEvent | AudioDelta, label: str, settings: Settings) -> Finding | None:
    match event:
        case ev.SessionUpdated():
            return Finding("ok", "session", f"{label} accepts the settings, voice {settings.session.voice}")
        case ev.UpstreamErrorEvent(message=message, param=param):
            setting = next((name for part, name in _SETTING_BY_PARAM.items() if part in (param or "")), "the settings")
            return Finding("fail", "session", f"change {setting}: {message}")
        case ev.UpstreamClosed(code, reason):
            return Finding("fail", "session", f"{label} closed the connection with {code} {reason}".rstrip())
    return None


def _dial_hint(status: int | None, settings: Settings) -> str:
    kind = settings.resolve_upstream().kind
    if kind == "local":
        return "the local engine refused the session"
    names: Mapping[str, tuple[str, str, str]] = {
        "openai": ("OPENAI_API_KEY", "OPENAI_REALTIME_MODEL", "OPENAI_BASE_URL"),
        "azure": ("AZURE_OPENAI_API_KEY or RELAY_AZURE_TOKEN", "AZURE_OPENAI_DEPLOYMENT", "AZURE_OPENAI_ENDPOINT"),
        "url": ("RELAY_UPSTREAM_KEY", "the model in RELAY_UPSTREAM", "RELAY_UPSTREAM"),
    }
    key, model, address = names[kind]
    hints = {
        401: f"the key is not accepted; change {key}",
        403: f"the key may not do this; change its rights ({key}), or {model}",
        404: f"there is no such model or address; change {model} or {address}",
        429: f"too many requests, or no quota left for {key}",
    }
    return hints.get(status or 0, f"change {address}, or check the network")


# -- Azure's browser sessions and ElevenLabs --------------------------------------------------------------------------


async def _check_azure_pages(sessions: AzureSessionClient) -> Finding:
    """Create a session as for a browser client. On failure, test whether the other protocol works."""
    resource = sessions.resource
    subject = "azure pages, " + ("preview" if resource.is_preview else "GA")
    try:
        await sessions.create(AzureSessionRequest())
    except UpstreamError as error:
        hint = _azure_hint(error.upstream_status)
        if error.upstream_status in (400, 404) and await _other_protocol_works(sessions):
            hint = (
                "the GA protocol works here and the preview one does not; unset AZURE_OPENAI_API_VERSION"
                if resource.is_preview
                else "the preview protocol works here and the GA one does not; set "
                f"AZURE_OPENAI_API_VERSION={PREVIEW_TO_TRY} for pages"
            )
        return Finding("fail", subject, f"{hint} ({error})")
    return Finding("ok", subject, f"{urlsplit(resource.endpoint).hostname} made a session with {resource.deployment}")


async def _other_protocol_works(sessions: AzureSessionClient) -> bool:
    other = replace(sessions.resource, api_version=None if sessions.resource.is_preview else PREVIEW_TO_TRY)
    with contextlib.suppress(UpstreamError):
        await replace(sessions, resource=other).create(AzureSessionRequest())
        return True
    return False


def _azure_hint(status: int | None) -> str:
    hints = {
        401: "change AZURE_OPENAI_API_KEY, or the token of RELAY_AZURE_TOKEN",
        403: "the resource refuses this key or this network; check its roles and its firewall",
        429: "the deployment has no quota left",
        None: "change AZURE_OPENAI_ENDPOINT, or check the network",
    }
    no_deployment = "there is no such deployment; change AZURE_OPENAI_DEPLOYMENT or AZURE_OPENAI_ENDPOINT"
    return hints.get(status, no_deployment if status in (400, 404) else "AZURE_OPENAI_ENDPOINT answers with an error")


async def _check_elevenlabs(
    options: ElevenLabsOptions, voices: ExternalVoices, provider: ProviderHttpClient
) -> AsyncIterator[Finding]:
    """Check the key and the voices by `GET /v1/voices/{voice}`, then the model by `GET /v1/models`."""
    for voice, setting in voices.configured_ids.items():
        path = f"voices/{quote(voice, safe='')}"
        try:
            answer = (await provider.fetch(_elevenlabs_request(options, path))).json_object()
        except UpstreamError as error:
            yield _elevenlabs_failure(error, "voices", setting, f"no voice {voice}")
            if error.upstream_status in (None, 401) and error.code != "missing_permissions":
                return  # the further requests would fail in the same way
        else:
            yield Finding("ok", "elevenlabs", f"the voice is {answer.get('name') or voice!s:.60}")
    yield await _check_elevenlabs_model(options, provider)


async def _check_elevenlabs_model(options: ElevenLabsOptions, provider: ProviderHttpClient) -> Finding:
    model_id = options.model_id
    try:
        models = (await provider.fetch(_elevenlabs_request(options, "models"))).json_list()
    except UpstreamError as error:
        return _elevenlabs_failure(error, "models", "ELEVENLABS_MODEL_ID", "no list of models")
    by_id = {model.get("model_id"): model for model in models if isinstance(model, dict)}
    if model_id not in by_id:
        return Finding("fail", "elevenlabs", f"the key has no access to model {model_id}; change ELEVENLABS_MODEL_ID")
    if by_id[model_id].get("can_do_text_to_speech") is False:
        return Finding("fail", "elevenlabs", f"{model_id} is not a text-to-speech model; change ELEVENLABS_MODEL_ID")
    return Finding("ok", "elevenlabs", f"the model is {model_id}")


def _elevenlabs_request(options: ElevenLabsOptions, path: str) -> HttpRequest:
    return HttpRequest(
        name=f"GET /v1/{path.partition('/')[0]}",
        url=f"{options.base_url.rstrip('/')}/v1/{path}",
        headers=options.headers,
        method="GET",
        timeout_s=TIMEOUT_S,
    )


def _elevenlabs_failure(error: UpstreamError, resource: str, setting: str, missing: str) -> Finding:
    """Explain a failed request. Only warns about a key without permission to read the resource."""
    if error.code == "missing_permissions":
        text = f"ELEVENLABS_API_KEY is valid but may not read {resource}, so {setting} was not checked"
        return Finding("warn", "elevenlabs", text)
    hints = {
        401: "ELEVENLABS_API_KEY is not accepted; set a valid key",
        400: f"there is {missing}; change {setting}",
        404: f"there is {missing}; change {setting}",
        None: "change ELEVENLABS_BASE_URL, or check the network",
    }
    hint = hints.get(error.upstream_status, "ELEVENLABS_BASE_URL answers with an error")
    code = f" {error.code}" if error.code and error.code not in str(error) else ""
    return Finding("fail", "elevenlabs", f"{hint} ({error}{code})")
