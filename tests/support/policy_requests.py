"""Every entry point of a relay as a function, for clients of any policy.

`PolicyHarness` runs three relays with a scripted upstream and providers. An entry point takes the harness, a key and a
request (`REQUESTS`), and returns what its client and the upstream received.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
from websockets.exceptions import InvalidStatus

from relay.app.server import create_app
from relay.auth.keyring import key_identity
from relay.config.navai_options import NavaiOptions
from relay.testing import ScriptedSession, ScriptedUpstream
from relay.toolkit.registry import Tool, ToolRegistry, tool
from tests.support.contract_client import AZURE_KEY, elevenlabs_env, navai_env
from tests.support.realtime_client import RealtimeClient, realtime_client
from tests.support.relay_server import DeviceClient, RunningRelay, serve_app, settings_for
from tests.support.scripted_provider import ScriptedProvider, scripted_provider

Obj = dict[str, Any]

LAMP: Obj = {"name": "lamp", "description": "Switches the lamp.", "parameters": {"type": "object", "properties": {}}}
INSTRUCTIONS = "Speak of cats."
REQUESTS: dict[str, Obj] = {
    "nothing": {},
    "instructions": {"instructions": INSTRUCTIONS},
    "language": {"language": f"English. {INSTRUCTIONS}"},
    "voice": {"voice": "marin"},
    "tokens": {"tokens": 4000},
    "model": {"model": "gpt-realtime-mini"},
    "own tool": {"tools": [LAMP]},
    "offered tool": {"run": "opening_hours"},
    "hidden tool": {"run": "staff_list"},
    "no tool": {"run": "no_such_tool"},
}


@dataclass
class Outcome:
    """The result of a request: statuses and fields of refusals, and the session that the upstream received."""

    refused: str = ""
    told: str = ""
    asked: Obj = field(default_factory=dict)
    tools: list[str] | None = None
    ran: list[str] = field(default_factory=list)


def requested_session(sessions: list[Obj], model: str | None = None) -> Obj:
    """Return the merged updates of a session, in either dialect, by the names of `REQUESTS`."""
    found: Obj = {} if model is None else {"model": model}
    for session in sessions:
        output = session.get("audio", {}).get("output", {})
        for name, value in (
            ("instructions", session.get("instructions")),
            ("voice", output.get("voice", session.get("voice"))),
            ("tokens", session.get("max_output_tokens", session.get("max_response_output_tokens"))),
            ("effort", session.get("reasoning", {}).get("effort")),
            ("tools", session.get("tools")),
            ("model", session.get("model")),
        ):
            if value is not None:
                found[name] = value
    return found


@dataclass
class PolicyHarness:
    """A relay with a scripted upstream, one with ElevenLabs, and one on Azure's preview protocol."""

    plain: RunningRelay
    speaking: RunningRelay
    preview: RunningRelay
    upstream: ScriptedUpstream
    provider: ScriptedProvider
    http: aiohttp.ClientSession
    ran: list[str]

    async def call(self, key: str, method: str, path: str, body: Obj | None = None, *, speaking: bool = False) -> Any:
        """Send one request; returns status and body."""
        relay = self.speaking if speaking else self.plain
        async with self.http.request(method, relay.http(path), json=body, headers=bearer(key)) as response:
            return response.status, json.loads(await response.read())


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def write_policies(folder: Path, toml: str, keys: Mapping[str, str]) -> Path:
    """Write a policy file; `<name>` is replaced by the identity of that key."""
    for name, key in keys.items():
        toml = toml.replace(f"<{name}>", key_identity(key))
    path = folder / "policies.toml"
    path.write_text(toml)
    return path


@asynccontextmanager
async def policy_harness(policies: Path, keys: Mapping[str, str]) -> AsyncIterator[PolicyHarness]:
    """Run a harness with a policy file and these API keys."""
    ran: list[str] = []
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(ScriptedUpstream())
        provider = await stack.enter_async_context(scripted_provider())
        http = await stack.enter_async_context(aiohttp.ClientSession())

        async def relay(url: str, env: dict[str, str]) -> RunningRelay:
            settings = settings_for(
                url,
                access_policies=policies,
                access_api_keys=tuple(keys.values()),
                session_model="gpt-realtime",
                session_voice="alloy",
                session_instructions="Be helpful.",
                limits_provider_secrets_per_minute=0,
                limits_speech_per_minute=0,
                azure_endpoint=provider.url,
                azure_api_key=AZURE_KEY,
                azure_deployment="the-deployment",
            )
            app = create_app(settings, _registry(ran), NavaiOptions.from_env(env))
            return RunningRelay(app, await stack.enter_async_context(serve_app(app)))

        preview = upstream.url.replace("/v1/realtime", "/openai/realtime?api-version=v&deployment=d")
        plain = await relay(upstream.url, navai_env(provider) | {"OPENAI_REALTIME_VOICE": "alloy"})
        speaking = await relay(upstream.url, elevenlabs_env(provider))
        beta = await relay(preview, navai_env(provider))
        yield PolicyHarness(plain, speaking, beta, upstream, provider, http, ran)


def _registry(ran: list[str]) -> ToolRegistry:
    @tool(expose={"model", "http"})
    def opening_hours() -> str:
        """When the museum is open."""
        ran.append("opening_hours")
        return "nine to five"

    @tool(expose={"model", "http"})
    def staff_list() -> str:
        """Who works here."""
        ran.append("staff_list")
        return "Ada, Grace"

    return ToolRegistry([Tool.from_function(one) for one in (opening_hours, staff_list)])


# -- sessions ---------------------------------------------------------------------------------------------------------


async def device(
    harness: PolicyHarness, key: str, wish: Obj, *, path: str = "/", beta_upstream: bool = False
) -> Outcome:
    """A device asks in its hello."""
    relay = harness.preview if beta_upstream else harness.plain
    try:
        client = await DeviceClient.connect(relay.ws(path), additional_headers=bearer(key))
    except InvalidStatus as refused:
        return Outcome(_status(refused))
    async with client, _model(harness) as session:
        await client.expect("AIConnected")
        hello = {name: wish[name] for name in ("instructions", "language", "voice", "tools") if name in wish}
        if hello:
            await client.send(type="hello", v=1, **hello)
            await client.expect("ready")
        if "run" in wish:
            await session.call(("call_1", wish["run"], {}))
            await session.expect("conversation.item.create")
        errors = [f"error {one.get('field')}" for one in client.messages if one["type"] == "error"]
        return _of_session(harness, session, errors, client.messages)


async def device_query(harness: PolicyHarness, key: str, wish: Obj) -> Outcome:
    """A device names its voice in the URL."""
    return await device(harness, key, {}, path=f"/?voice={wish['voice']}")


async def realtime(
    harness: PolicyHarness, key: str, wish: Obj, *, path: str = "/v1/realtime", beta: bool = False
) -> Outcome:
    """A client of the Realtime protocol asks in a `session.update`."""
    if "model" in wish:
        path += f"{'&' if '?' in path else '?'}model={wish['model']}"
    headers = bearer(key) | ({"OpenAI-Beta": "realtime=v1"} if beta else {})
    is_beta = beta or "api-version" in path
    try:
        async with (
            realtime_client(harness.plain, path, additional_headers=headers) as client,
            _model(harness) as session,
        ):
            await client.expect("session.created")
            errors = await _ask_in_update(client, wish, is_beta)
            if "run" in wish:
                await session.call(("call_1", wish["run"], {}))
                await client.expect("response.done")
            return _of_session(harness, session, errors, client.seen)
    except InvalidStatus as refused:
        return Outcome(_status(refused))


async def _ask_in_update(client: RealtimeClient, wish: Obj, is_beta: bool) -> list[str]:
    asked: Obj = {name: wish[name] for name in ("instructions",) if name in wish}
    if "tools" in wish:
        asked["tools"] = [{"type": "function", **one} for one in wish["tools"]]
    if "tokens" in wish:
        asked["max_response_output_tokens" if is_beta else "max_output_tokens"] = wish["tokens"]
    if "voice" in wish:
        asked |= {"voice": wish["voice"]} if is_beta else {"audio": {"output": {"voice": wish["voice"]}}}
    if not asked:
        return []
    await client.send(type="session.update", session=asked if is_beta else {"type": "realtime", **asked})
    answer = await client.next()
    while answer["type"] not in ("session.updated", "error"):
        answer = await client.next()
    if answer["type"] == "session.updated":
        return []
    param = str(answer["error"]["param"])
    return [f"error {next(name for name in ('voice', 'tools', 'instructions', param) if name in param)}"]


@asynccontextmanager
async def _model(harness: PolicyHarness) -> AsyncIterator[ScriptedSession]:
    """Accept the upstream connection of a session, and confirm every configuration."""
    session = await harness.upstream.accept()
    created = {"type": "realtime", "model": "scripted"}
    await session.emit({"type": "session.created", "session": created})

    async def confirm() -> None:
        seen = 0
        while not session.closed.is_set():
            updates = [one for one in session.seen if one["type"] == "session.update"]
            for update in updates[seen:]:
                await session.emit({"type": "session.updated", "session": created | update["session"]})
            seen = len(updates)
            await asyncio.sleep(0.002)

    confirming = asyncio.create_task(confirm())
    try:
        yield session
    finally:
        confirming.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await confirming


def _of_session(harness: PolicyHarness, session: ScriptedSession, errors: list[str], told: list[Obj]) -> Outcome:
    request = session.connection.request
    assert request is not None
    model = parse_qs(urlsplit(request.path).query).get("model", [None])[0]
    asked = requested_session([one["session"] for one in session.seen if one["type"] == "session.update"], model)
    tools = [one["name"] for one in asked.pop("tools", [])]
    return Outcome(", ".join(errors), json.dumps(told), asked, tools, list(harness.ran))


def _status(refused: InvalidStatus) -> str:
    body = json.loads(refused.response.body or b"{}")
    param = body["error"].get("param") if isinstance(body["error"], dict) else body.get("field")
    return f"{refused.response.status_code} {param}"


# -- HTTP -------------------------------------------------------------------------------------------------------------


async def functions_list(harness: PolicyHarness, key: str, wish: Obj) -> Outcome:
    """NAVAI's list of functions."""
    status, answer = await harness.call(key, "GET", "/navai/functions")
    return _of_http(harness, status, answer, tools=[one["name"] for one in answer.get("items", [])])


async def functions_execute(harness: PolicyHarness, key: str, wish: Obj) -> Outcome:
    """NAVAI's way to run a function."""
    status, answer = await harness.call(key, "POST", "/navai/functions/execute", {"function_name": wish["run"]})
    return _of_http(harness, status, answer, tools=answer.get("available_functions"))


async def azure_tools(harness: PolicyHarness, key: str, wish: Obj) -> Outcome:
    """The tools of Azure's pages."""
    status, answer = await harness.call(key, "GET", "/api/ai-assistant/realtime/tools")
    return _of_http(harness, status, answer, tools=[one["name"] for one in answer.get("tools", [])])


async def azure_exec(harness: PolicyHarness, key: str, wish: Obj) -> Outcome:
    """Azure's way to run a tool."""
    status, answer = await harness.call(key, "POST", "/api/ai-assistant/realtime/tools/exec", {"name": wish["run"]})
    return _of_http(harness, status, json.loads(json.dumps(answer).replace(wish["run"], "<name>")))


async def client_secret(harness: PolicyHarness, key: str, wish: Obj) -> Outcome:
    """A secret of the provider, for a NAVAI page."""
    status, answer = await harness.call(key, "POST", "/navai/realtime/client-secret", wish)
    return _of_http(harness, status, answer, bought=True)


async def azure_session(harness: PolicyHarness, key: str, wish: Obj) -> Outcome:
    """A session of Azure, for one of its pages."""
    status, answer = await harness.call(key, "POST", "/api/ai-assistant/realtime/session", wish)
    return _of_http(harness, status, answer, bought=True)


async def speech(harness: PolicyHarness, key: str, wish: Obj) -> Outcome:
    """A text to be spoken by ElevenLabs."""
    body = {"text": "Hello."} | ({"voiceId": wish["voice"]} if "voice" in wish else {})
    body |= {"modelId": wish["model"]} if "model" in wish else {}
    status, answer = await harness.call(key, "POST", "/navai/speech/synthesize", body, speaking=True)
    outcome = _of_http(harness, status, answer)
    if status == 200:
        sent = harness.provider.last
        outcome.asked = {"voice": urlsplit(sent.path).path.rpartition("/")[2], "model": sent.body.get("model_id")}
    return outcome


async def models(harness: PolicyHarness, key: str, wish: Obj) -> Outcome:
    """The list of models."""
    status, answer = await harness.call(key, "GET", "/v1/models")
    return Outcome("" if status == 200 else str(status), json.dumps(answer), {"models": _ids(answer)})


def _ids(answer: Obj) -> list[str]:
    return [one["id"] for one in answer.get("data", [])]


def _of_http(
    harness: PolicyHarness, status: int, answer: Obj, *, tools: list[str] | None = None, bought: bool = False
) -> Outcome:
    refused = "" if status == 200 else f"{status} {answer['field']}" if "field" in answer else str(status)
    asked = requested_session([harness.provider.last.body["session"]]) if bought and status == 200 else {}
    return Outcome(refused, json.dumps(answer), asked, tools, list(harness.ran))


WayIn = Callable[[PolicyHarness, str, Obj], Awaitable[Outcome]]
