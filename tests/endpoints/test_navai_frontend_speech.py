"""The published npm client against a relay: secrets and speech, and what it shows when they fail."""

import base64
import json

from tests.support.contract_client import contract_client
from tests.support.npm import navai_frontend
from tests.support.scripted_provider import MP3, ScriptedResponse


async def test_the_published_client_mints_and_speaks() -> None:
    async with contract_client(elevenlabs=True) as harness, navai_frontend(harness.relay.http("/")) as frontend:
        assert await frontend.call("createClientSecret") == {
            "ok": {"value": "ek_test_123", "expires_at": 1730000000, "speech": {"provider": "elevenlabs"}}
        }
        assert harness.provider.last.body["session"]["output_modalities"] == ["text"]
        wanted = {"model": "gpt-realtime-2.1", "language": "Spanish"}
        assert "ok" in await frontend.call("createClientSecret", wanted)
        assert harness.provider.last.body["session"]["model"] == "gpt-realtime-2.1"

        assert await frontend.call("synthesizeSpeech", {"text": "Hola."}) == {
            "ok": {"provider": "elevenlabs", "mimeType": "audio/mpeg", "audioBase64": base64.b64encode(MP3).decode()}
        }
        refused = await frontend.call("synthesizeSpeech", {"text": " "})
        assert json.loads(refused["error"]) == {"error": "text is required.", "field": "text"}

        harness.provider.script = ScriptedResponse(json={})
        assert await frontend.call("createClientSecret") == {"error": "Invalid client-secret response."}
        harness.provider.script = ScriptedResponse(status=401, json={"error": {"code": "invalid_api_key"}})
        refused = await frontend.call("createClientSecret")
        assert json.loads(refused["error"]) == {"error": "OpenAI client_secrets failed (401): invalid_api_key"}


async def test_the_published_client_without_elevenlabs() -> None:
    async with contract_client() as harness, navai_frontend(harness.relay.http("")) as frontend:
        answer = await frontend.call("createClientSecret")
        assert answer["ok"]["speech"] == {"provider": "openai"}
        refused = await frontend.call("synthesizeSpeech", {"text": "Hola."})
        assert "NAVAI_TTS_PROVIDER" in refused["error"]
