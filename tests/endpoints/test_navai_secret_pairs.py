"""The recorded pairs of NAVAI's backend for secrets and speech, replayed against a relay; each difference has a reason.

`navai_secret_pairs.json` holds what a frontend sent, what the provider was then sent, and what came back.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from relay.config.navai_options import NavaiOptions
from relay.errors import ConfigError
from tests.support.contract_client import BACKEND_KEY, ELEVENLABS_KEY, contract_client
from tests.support.scripted_provider import ScriptedResponse

Obj = dict[str, Any]

PAIRS: list[Obj] = json.loads((Path(__file__).parent / "navai_secret_pairs.json").read_text())
REFUSALS = [pair for pair in PAIRS if "startup_error" in pair]
EXCHANGES = [pair for pair in PAIRS if "request" in pair]

DIFFERENT: dict[str, tuple[str, Obj]] = {
    "cs empty-string model and voice are sent as is": (
        "an empty string is unset",
        {"sent": {"model": "gpt-realtime", "audio": {"output": {"voice": "marin"}}}},
    ),
    "cs request overrides env; empty string suppresses env line": (
        "an empty string is unset",
        {
            "sent": {
                "instructions": "Env base.\nAlways reply in French.\nUse a Parisian accent while speaking.\n"
                "Use a lively tone while speaking."
            }
        },
    ),
    "cs request apiKey is silently ignored when backend key exists": (
        "a key from a request is refused unless it is allowed",
        {
            "status": 403,
            "body": {"error": "Passing apiKey from request is disabled. Set allowApiKeyFromRequest=true to enable it."},
            "asked": 0,
        },
    ),
    "cs upstream 401 json": (
        "an upstream's refusal is a 502 with its code, never its body",
        {"status": 502, "body": {"error": "OpenAI client_secrets failed (401): invalid_request_error"}},
    ),
    "cs upstream 429 text": (
        "an upstream's refusal is a 502 with its code, never its body",
        {"status": 502, "body": {"error": "OpenAI client_secrets failed (429)"}},
    ),
    "cs upstream connection lost": (
        "a lost answer is a 502 in words of our own",
        {"status": 502, "body": {"error": "OpenAI client_secrets failed: the connection was lost."}},
    ),
    "cs malformed json": ("a bad body is a 400", {"status": 400, "body": None}),
    "cs no backend key, no request key": ("nothing is wrong with the request: 503", {"status": 503}),
    "cs no backend key, blank request key": ("nothing is wrong with the request: 503", {"status": 503}),
    "cs no backend key, non-string request key": (
        "a wrong type is a 400 with its field",
        {"status": 400, "body": {"error": "apiKey must be a string.", "field": "apiKey"}},
    ),
    "speech while provider is openai": ("nothing is wrong with the request: 503", {"status": 503}),
    "speech missing text": (
        "a missing field is a 400 with its name",
        {"status": 400, "body": {"error": "text is required.", "field": "text"}},
    ),
    "speech upstream 401": (
        "an upstream's refusal is a 502 with its code, never its body",
        {"status": 502, "body": {"error": "ElevenLabs synthesize failed (401): invalid_api_key"}},
    ),
    "speech env settings; base url path is lost; bad number dropped": (
        "a base URL keeps its path",
        {"path": "/eleven/api/v1/text-to-speech/voice%2F1?output_format=ulaw_8000&optimize_streaming_latency=3"},
    ),
    "speech request voiceSettings replace env settings as a whole": (
        "a base URL keeps its path",
        {"path": "/eleven/api/v1/text-to-speech/voice%2F1?output_format=ulaw_8000&optimize_streaming_latency=3"},
    ),
}
"""Pair -> the reason why ours differs, and what is expected in the place of what was recorded."""


def test_every_difference_names_a_pair() -> None:
    assert {pair["name"] for pair in PAIRS} >= DIFFERENT.keys()
    assert (len(EXCHANGES), len(REFUSALS)) == (31, 5)


@pytest.mark.parametrize("pair", REFUSALS, ids=lambda pair: pair["name"])
def test_start_ups_that_are_refused(pair: Obj) -> None:
    start = NavaiOptions if "register_options" in pair else partial(NavaiOptions.from_env, pair["env"])
    with pytest.raises(ConfigError) as error:
        start()
    assert str(error.value) == pair["startup_error"]


@pytest.mark.parametrize("pair", EXCHANGES, ids=lambda pair: pair["name"])
async def test_exchanges(pair: Obj) -> None:
    _, difference = DIFFERENT.get(pair["name"], ("", {}))
    env = {"OPENAI_API_KEY": ""} | pair["env"]
    env["ELEVENLABS_BASE_URL"] = "{provider}" + urlsplit(env.get("ELEVENLABS_BASE_URL", "")).path
    async with contract_client(env) as harness:
        harness.provider.script = ScriptedResponse.from_pair(pair.get("upstream_reply", _USUAL))
        request = pair["request"]
        if "raw_body" in request:
            sent: Obj = {"data": request["raw_body"], "headers": {"Content-Type": "application/json"}}
        else:
            sent = {"json": request["body"]}
        status, body, headers = await harness.call("POST", request["path"], **sent)

        _check_sent(harness.provider.seen, pair["upstream_seen"], difference)
        expected = pair["response"] | {"json": difference.get("body", pair["response"]["json"])}
        assert status == difference.get("status", expected["status"])
        assert headers["Content-Type"] == "application/json; charset=utf-8"
        if expected["json"] is None:
            assert isinstance(body["error"], str)
        else:
            assert body == expected["json"]


_USUAL = {"status": 200, "json": {"value": "ek_test_123", "expires_at": 1730000000, "session": {"type": "realtime"}}}


def _check_sent(seen: list[Any], recorded: list[Obj], difference: Obj) -> None:
    if "asked" in difference:
        assert len(seen) == difference["asked"]
        return
    assert len(seen) == len(recorded)
    for ours, theirs in zip(seen, recorded, strict=True):
        url = urlsplit(theirs["url"])
        assert ours.method == theirs["method"]
        assert ours.path == difference.get("path", f"{url.path}?{url.query}" if url.query else url.path)
        for name, value in theirs["headers"].items():
            assert ours.headers[name].partition(";")[0] == _filled_in(value), name
        expected = theirs["json"]
        if "sent" in difference:
            expected = expected | {"session": expected["session"] | difference["sent"]}
        assert ours.body == expected


def _filled_in(value: str) -> str:
    return (
        value.replace("<backend OPENAI_API_KEY>", BACKEND_KEY)
        .replace("<request apiKey>", "sk-request-0002")
        .replace("<ELEVENLABS_API_KEY>", ELEVENLABS_KEY)
    )
