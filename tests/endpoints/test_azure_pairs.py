"""The recorded pairs of the Backstage module for Azure, replayed against a relay; each difference has a reason."""

import json
from pathlib import Path
from typing import Any

import pytest

from relay import ToolError, tool
from relay.toolkit.registry import Tool, ToolRegistry
from tests.support.contract_client import AZURE_KEY, contract_client
from tests.support.scripted_provider import ScriptedResponse

Obj = dict[str, Any]

PAIRS: list[Obj] = json.loads((Path(__file__).parent / "azure_pairs.json").read_text())
USER_KEY = "relay-key-0123456789abcdef"
PREVIEW = "2025-04-01-preview"

_FAILED = "Failed to create realtime session"
_NO_BODY = "an upstream's refusal is a 502 with its code, never its body"

DIFFERENT: dict[str, tuple[str, Obj]] = {
    "azure voice echo; instructions and temperature ignored": (
        "instructions and temperature are honoured",
        {"sent": {"instructions": "x", "temperature": 0.7}},
    ),
    "azure voice array": (
        "a wrong type is a 400 with its field",
        {"body": {"error": "voice must be a string.", "field": "voice"}},
    ),
    "azure upstream 401": (
        _NO_BODY,
        {"status": 502, "body": {"error": _FAILED, "details": "Azure OpenAI Realtime API failed (401): 401"}},
    ),
    "azure upstream no client_secret": (
        "an answer that makes no sense is a 502",
        {
            "status": 502,
            "body": {
                "error": _FAILED,
                "details": "Azure OpenAI Realtime API failed: the response has no client secret.",
            },
        },
    ),
    "azure upstream connection lost": (
        "a lost answer is a 502 in words of our own",
        {
            "status": 502,
            "body": {"error": _FAILED, "details": "Azure OpenAI Realtime API failed: the connection was lost."},
        },
    ),
    "azure exec no arguments -> {} -> validation error": (
        "arguments that do not fit are a 400 with a sentence",
        {"status": 400, "body": {"error": "Tool execution failed", "details": ...}},
    ),
    "azure exec missing name": (
        "a missing field is named",
        {"body": {"error": "Tool name is required", "field": "name"}},
    ),
    "azure user with entity": (
        "the relay knows the identity of a key, and no address",
        {"body": {"userEntityRef": ..., "displayName": ..., "email": None}},
    ),
    "azure user, credentials fail": (
        "who shows no credential gets a 401",
        {
            "status": 401,
            "body": {"error": "No user is signed in: send Authorization: Bearer <one of RELAY_API_KEYS>."},
        },
    ),
}
"""Pair -> the reason why ours differs, and what is expected in the place of what was recorded; ... is any text."""


@tool(description="Adds")
def add(a: float, b: float = 1) -> float:
    return a + b


@tool(description="Throws")
def bad() -> None:
    raise ToolError("kaput")


@tool(description="Throws not found")
def nf() -> None:
    raise ToolError("Tool not found: inner")


@tool(description="obj")
def obj() -> dict[str, int]:
    return {"k": 1}


def registry() -> ToolRegistry:
    return ToolRegistry(Tool.from_function(one) for one in (add, bad, nf, obj))


def test_every_difference_names_a_pair() -> None:
    assert {pair["name"] for pair in PAIRS} >= DIFFERENT.keys()
    assert len(PAIRS) == 15


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair["name"])
async def test_exchanges(pair: Obj) -> None:
    _, difference = DIFFERENT.get(pair["name"], ("", {}))
    request, config = pair["request"], pair["config"]
    deployment, version = config["deploymentName"], config.get("apiVersion", PREVIEW)
    settings: Obj = {"azure_deployment": deployment, "azure_api_version": version, "access_api_keys": (USER_KEY,)}
    headers = {} if "credentials fail" in pair["name"] else {"Authorization": f"Bearer {USER_KEY}"}
    async with contract_client(registry=registry(), **settings) as harness:
        harness.provider.script = ScriptedResponse.from_pair(pair.get("upstream_reply", {}))
        status, body, _ = await harness.call(request["method"], request["path"], request["body"], headers=headers)
        assert len(harness.provider.seen) == len(pair["upstream_seen"])
        for ours, theirs in zip(harness.provider.seen, pair["upstream_seen"], strict=True):
            assert (ours.method, ours.path) == (theirs["method"], theirs["url"])
            assert ours.headers["api-key"] == AZURE_KEY
            assert ours.headers["content-type"] == "application/json"
            assert "authorization" not in ours.headers
            assert ours.body == theirs["json"] | difference.get("sent", {})
        assert status == difference.get("status", pair["response"]["status"])
        recorded = json.loads(json.dumps(pair["response"]["json"]).replace("<ENDPOINT>", harness.provider.url))
        expected = difference.get("body", recorded)
        for key, value in expected.items():
            assert isinstance(body[key], str) if value is ... else body[key] == value, key
        assert body.keys() == expected.keys()
