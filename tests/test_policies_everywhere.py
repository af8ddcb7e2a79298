"""A policy holds for every way in: one table of ways, wishes and answers, for a tight policy and an open one.

A new way in is one function in tests/support/policy_requests.py and one row of `WAYS`.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support import policy_requests
from tests.support.policy_requests import INSTRUCTIONS, REQUESTS, PolicyHarness, WayIn, policy_harness, write_policies

pytestmark = pytest.mark.asyncio(loop_scope="module")

LOCKED = "You are the voice of the museum."
TOML = """
[policies.kiosk]
instructions = "You are the voice of the museum."
tools = ["opening_*"]
models = ["gpt-realtime-2.1"]
voices = ["cedar"]
max_output_tokens = 100
max_effort = "low"
deny = ["client_tools"]
scopes = ["session", "tools", "speech", "provider_secret"]
keys = ["<kiosk>"]

[policies.silent]
instructions = "You are the voice of the museum."
tools = ["opening_*"]
models = ["gpt-realtime-2.1"]
voices = ["cedar"]
max_output_tokens = 100
max_effort = "low"
deny = ["client_tools", "instructions"]
denied_fields = "drop"
scopes = ["session", "tools", "speech", "provider_secret"]
keys = ["<silent>"]

[policies.open]
scopes = ["session", "tools", "speech", "provider_secret"]
keys = ["<open>"]
"""
KEYS = {name: f"{name}-key-0123456789abcdef" for name in ("kiosk", "silent", "open")}

LIMITS = {
    "voice": "cedar",
    "tokens": 100,
    "effort": "low",
    "model": "gpt-realtime-2.1",
    "models": ["gpt-realtime-2.1"],
}
"""What the two tight policies make of every session."""

HELD = ""
"""Nothing is refused, and what reaches the upstream is what the policy says."""


@dataclass(frozen=True)
class Way:
    """One way in; `kiosk` and `silent` say how each wish is answered there, `missing` what the way does not carry."""

    go: WayIn
    kiosk: Mapping[str, str]
    silent: Mapping[str, str]
    missing: frozenset[str] = frozenset()


def same(*wishes: str, **refused: str) -> dict[str, str]:
    """These wishes are held, and the named ones refused."""
    return dict.fromkeys(wishes, HELD) | {name.replace("_", " "): answer for name, answer in refused.items()}


_DEVICE_KIOSK = same(
    "nothing", "instructions", "language", "offered tool", "hidden tool", voice="error voice", own_tool="error tools"
)
_DEVICE_SILENT = same("nothing", "instructions", "language", "offered tool", "hidden tool", "voice", "own tool")
_REALTIME_KIOSK = same(
    "nothing",
    "instructions",
    "tokens",
    "offered tool",
    "hidden tool",
    voice="error voice",
    own_tool="error tools",
    model="404 model",
)
_REALTIME_SILENT = same(
    "nothing", "instructions", "tokens", "offered tool", "hidden tool", "voice", "own tool", model="404 model"
)
_RUN = same("offered tool", hidden_tool="404", no_tool="404")
_BETA = frozenset({"effort"})

WAYS: dict[str, Way] = {
    "device /": Way(policy_requests.device, _DEVICE_KIOSK, _DEVICE_SILENT),
    "device /ws": Way(partial(policy_requests.device, path="/ws"), _DEVICE_KIOSK, _DEVICE_SILENT),
    "device on Azure's preview": Way(
        partial(policy_requests.device, beta_upstream=True), _DEVICE_KIOSK, _DEVICE_SILENT, _BETA | {"model"}
    ),
    "device ?voice=": Way(policy_requests.device_query, {"voice": "400 voice"}, {"voice": "400 voice"}),
    "Realtime GA": Way(policy_requests.realtime, _REALTIME_KIOSK, _REALTIME_SILENT),
    "Realtime beta": Way(partial(policy_requests.realtime, beta=True), _REALTIME_KIOSK, _REALTIME_SILENT),
    "Realtime /openai/realtime": Way(
        partial(policy_requests.realtime, path="/openai/realtime?api-version=2025-04-01-preview"),
        _REALTIME_KIOSK,
        _REALTIME_SILENT,
    ),
    "functions": Way(policy_requests.functions_list, same("nothing"), same("nothing")),
    "functions/execute": Way(policy_requests.functions_execute, _RUN, _RUN),
    "azure tools": Way(policy_requests.azure_tools, same("nothing"), same("nothing")),
    "azure tools/exec": Way(policy_requests.azure_exec, _RUN, _RUN),
    "navai client-secret": Way(
        policy_requests.client_secret,
        same("nothing", "instructions", "language", voice="403 voice", model="403 model"),
        same("nothing", "instructions", "language", "voice", "model"),
    ),
    "azure session": Way(
        policy_requests.azure_session,
        same("nothing", "instructions", voice="403 voice"),
        same("nothing", "instructions", "voice"),
        frozenset({"model"}),
    ),
    "speech": Way(
        policy_requests.speech,
        same(nothing="403 voiceId", voice="403 voiceId", model="403 voiceId"),
        same(nothing="403 voiceId", voice="403 voiceId", model="403 voiceId"),
    ),
    "models": Way(policy_requests.models, same("nothing"), same("nothing")),
}

CASES = [(way, wish) for way, row in WAYS.items() for wish in row.kiosk]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def harness(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PolicyHarness]:
    policies = write_policies(tmp_path_factory.mktemp("policies"), TOML, KEYS)
    async with policy_harness(policies, KEYS) as running:
        yield running


@pytest.mark.parametrize("policy", ["kiosk", "silent"])
@pytest.mark.parametrize(("way", "wish"), CASES)
async def test_what_a_policy_says_holds(harness: PolicyHarness, way: str, wish: str, policy: str) -> None:
    row = WAYS[way]
    harness.ran.clear()
    outcome = await row.go(harness, KEYS[policy], REQUESTS[wish])
    assert outcome.refused == (row.kiosk if policy == "kiosk" else row.silent)[wish]
    if "Realtime" not in way:  # where the model's own call of an unknown name is the client's
        assert "staff" not in outcome.told
    assert "staff_list" not in harness.ran
    assert outcome.tools in (None, ["opening_hours"])
    for name in LIMITS.keys() & outcome.asked.keys() - row.missing:
        assert outcome.asked[name] == LIMITS[name], name
    instructions = outcome.asked.get("instructions")
    if instructions is not None:
        is_added = wish in ("instructions", "language") and policy == "kiosk" and not outcome.refused
        assert (instructions.startswith(LOCKED), INSTRUCTIONS in instructions) == (True, is_added)
        assert {"voice", "tokens", "effort"} - row.missing <= outcome.asked.keys(), "whatever its client asks for"


@pytest.mark.parametrize(("way", "wish"), CASES)
async def test_without_a_policy_wishes_come_true(harness: PolicyHarness, way: str, wish: str) -> None:
    harness.ran.clear()
    outcome = await WAYS[way].go(harness, KEYS["open"], REQUESTS[wish])
    if wish == "no tool":
        assert outcome.refused == "404"
        return
    assert outcome.refused == ""
    wanted = REQUESTS[wish]
    assert wanted.get("instructions", "") in outcome.asked.get("instructions", "")
    assert wanted.get("language", "") in outcome.asked.get("instructions", "")
    for name in ("voice", "tokens", "model"):
        if name in wanted and name not in WAYS[way].missing:
            assert outcome.asked[name] == wanted[name]
    assert not {"tokens", "effort"} & outcome.asked.keys() or "tokens" in wanted
    assert set(harness.ran) == ({wanted["run"]} if "run" in wanted else set())
    if "tools" in wanted:
        assert "lamp" in (outcome.tools or ())


PATTERNS = """
[policies.patterns]
models = ["gpt-realtime-2*"]
keys = ["<patterns>"]
[policies.voiceless]
voices = ["elevenlabs:*"]
keys = ["<voiceless>"]
[policies.starred]
voices = ["c*"]
keys = ["<starred>"]
[policies.configured]
voices = ["cedar", "al*"]
keys = ["<configured>"]
[policies.external]
voices = ["elevenlabs:a", "cedar"]
keys = ["<external>"]
"""
PATTERN_KEYS = {
    name: f"{name}-key-0123456789abcdef" for name in ("patterns", "voiceless", "starred", "configured", "external")
}


@pytest.mark.parametrize(
    ("policy", "way", "answer"),
    [
        ("patterns", policy_requests.device, "403 model"),
        ("patterns", policy_requests.realtime, "403 model"),
        ("patterns", partial(policy_requests.device, beta_upstream=True), HELD),
        ("voiceless", policy_requests.device, "403 voice"),
        ("voiceless", policy_requests.realtime, "403 voice"),
        ("starred", policy_requests.device, "403 voice"),
        ("starred", policy_requests.realtime, "403 voice"),
        ("starred", partial(policy_requests.realtime, beta=True), "403 voice"),
    ],
)
async def test_where_a_policy_allows_no_default_there_is_no_session(
    tmp_path: Path, policy: str, way: WayIn, answer: str
) -> None:
    async with policy_harness(write_policies(tmp_path, PATTERNS, PATTERN_KEYS), PATTERN_KEYS) as harness:
        assert (await way(harness, PATTERN_KEYS[policy], {})).refused == answer


@pytest.mark.parametrize(
    "way", [policy_requests.device, policy_requests.realtime, partial(policy_requests.realtime, beta=True)]
)
@pytest.mark.parametrize(("policy", "voice"), [("configured", "alloy"), ("external", "cedar")])
async def test_who_speaks_where_nobody_is_named_is_the_same_on_every_way(
    tmp_path: Path, policy: str, voice: str, way: WayIn
) -> None:
    async with policy_harness(write_policies(tmp_path, PATTERNS, PATTERN_KEYS), PATTERN_KEYS) as harness:
        assert (await way(harness, PATTERN_KEYS[policy], {})).asked["voice"] == voice


@pytest.mark.parametrize("way", ["functions/execute", "azure tools/exec"])
async def test_the_name_of_a_hidden_tool_is_answered_like_any_other(harness: PolicyHarness, way: str) -> None:
    go = WAYS[way].go
    assert await go(harness, KEYS["kiosk"], REQUESTS["hidden tool"]) == await go(
        harness, KEYS["kiosk"], REQUESTS["no tool"]
    )
