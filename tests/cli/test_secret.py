"""`relay secret` and `relay check` as their user runs them, over processes."""

import asyncio
import json
import os
import re
import sys
from pathlib import Path

import pytest

from relay.cli.secret import curl_call
from tests.support.contracts import AZURE_KEY, BACKEND_KEY, navai_env
from tests.support.scripted_provider import ScriptedProvider, ScriptedResponse, scripted_provider

RELAY = Path(sys.executable).with_name("relay")
TIMEOUT_S = 30.0


async def run(tmp_path: Path, *arguments: str, **env: str) -> tuple[int | None, str, str]:
    """Exit code, standard output and standard error of a `relay` command."""
    ours = re.compile(r"RELAY_|OPENAI_|NAVAI_|AZURE_|ELEVENLABS_")
    kept = {name: value for name, value in os.environ.items() if not ours.match(name)}
    process = await asyncio.create_subprocess_exec(
        str(RELAY),
        *arguments,
        cwd=tmp_path,
        env=kept | {"HOME": str(tmp_path)} | env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(TIMEOUT_S):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


def azure_env(provider: ScriptedProvider) -> dict[str, str]:
    return {
        "AZURE_OPENAI_ENDPOINT": provider.url,
        "AZURE_OPENAI_DEPLOYMENT": "dep",
        "AZURE_OPENAI_API_KEY": AZURE_KEY,
    }


async def test_the_secret_alone_is_printed(tmp_path: Path) -> None:
    async with scripted_provider() as provider:
        code, out, err = await run(tmp_path, "secret", "--voice", "cedar", **navai_env(provider))
        assert (code, out, err) == (0, "ek_test_123\n", "")
        assert provider.last.body["session"]["audio"]["output"]["voice"] == "cedar"


async def test_the_call_to_make_with_it(tmp_path: Path) -> None:
    async with scripted_provider() as provider:
        _, out, _ = await run(tmp_path, "secret", "--curl", **navai_env(provider))
        assert out.startswith(f"curl --fail-with-body {provider.url}/v1/realtime/calls")
        assert "-H 'Authorization: Bearer ek_test_123'" in out
        assert BACKEND_KEY not in out


async def test_from_azure(tmp_path: Path) -> None:
    async with scripted_provider() as provider:
        code, out, _ = await run(tmp_path, "secret", "--azure", "--json", **azure_env(provider))
        assert (code, json.loads(out)["ephemeralKey"]) == (0, "ek_test_123")


@pytest.mark.parametrize(
    ("arguments", "env", "code", "said"),
    [
        ((), {}, 2, "set OPENAI_API_KEY"),
        (("--azure",), {}, 2, "AZURE_OPENAI_ENDPOINT"),
        (("--azure", "--model", "x"), {}, 2, "--model"),
        ((), {"OPENAI_API_KEY": "sk-a", "OPENAI_REALTIME_CLIENT_SECRET_TTL": "5"}, 2, "between 10 and 7200"),
    ],
)
async def test_what_is_missing_is_a_sentence(tmp_path: Path, arguments, env, code, said) -> None:
    found, out, err = await run(tmp_path, "secret", *arguments, **env)
    assert (found, out) == (code, "")
    assert said in err
    assert "Traceback" not in err


async def test_a_refusal_points_at_the_check_which_names_the_setting(tmp_path: Path) -> None:
    async with scripted_provider() as provider:
        provider.script = ScriptedResponse(status=401, json={"error": {"code": "invalid_api_key"}})
        code, out, err = await run(tmp_path, "secret", **navai_env(provider))
        assert (code, out) == (1, "")
        assert "relay check" in err
        code, out, err = await run(tmp_path, "check", **navai_env(provider))
        assert (code, "OPENAI_API_KEY is not accepted" in out) == (1, True)
        assert BACKEND_KEY not in out + err


async def test_a_check_that_finds_nothing(tmp_path: Path) -> None:
    async with scripted_provider() as provider:
        env = navai_env(provider) | {"OPENAI_REALTIME_MODEL": "gpt-realtime-2.1"}
        code, out, err = await run(tmp_path, "check", **env)
        assert (code, err) == (0, "")
        assert [line.split()[:2] for line in out.splitlines()] == [["ok", "key"], ["ok", "model"], ["ok", "session"]]


def test_what_a_shell_would_read_is_quoted() -> None:
    assert "'Authorization: Bearer a$(b)'" in curl_call("https://x/y?a=1&b=2", "a$(b)")
    assert "'https://x/y?a=1&b=2'" in curl_call("https://x/y?a=1&b=2", "a$(b)")
