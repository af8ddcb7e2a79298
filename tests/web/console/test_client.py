"""The JavaScript client alone, on a transport made of two lists."""

from typing import Any

import pytest
from playwright.async_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

SESSION = """async (script) => {
    const { RelayClient } = await import('/static/client.js');
    const { TransportError } = await import('/static/transport.js');
    const log = [];
    const transport = {
        open: () => script.refuse ? Promise.reject(new TransportError(script.refuse)) : Promise.resolve(),
        sendAudio: pcm => { log.push(`sent audio ${new Int16Array(pcm)[0]}`); return !script.congested; },
        sendMessage: message => { log.push(`sent ${message.type}`); return true; },
        close: () => log.push('closed'),
    };
    const client = new RelayClient(transport, script.options);
    const tell = {
        state: ({ state }) => `→ ${state}`,
        closed: e => `ended ${e.code} connected=${e.connected} byUser=${e.byUser} error=${e.error?.code}`,
    };
    const plain = ({ itemId }, name) => itemId === undefined ? name : `${name} ${itemId}`;
    for (const name of script.events) {
        client.addEventListener(name, ({ detail }) => log.push((tell[name] ?? plain)(detail, name)));
    }
    const outcome = client.open().then(s => `opened ${s.sessionId}`, error => `${error.name}: ${error.message}`);
    await new Promise(resolve => setTimeout(resolve));  // the transport is open, and the hello sent
    for (const [step, ...args] of script.steps) {
        if (step === 'get') transport.onMessage(args[0]);
        else if (step === 'getAudio') transport.onAudio(new ArrayBuffer(2));
        else if (step === 'microphone') client.sendAudio(Int16Array.from({ length: 480 }, () => args[0]).buffer);
        else if (step === 'lost') transport.onClose(args[0]);
        else client[step](...args);
    }
    return { log, outcome: await outcome, state: client.state };
}"""

EVENTS = [
    "state", "connected", "textDelta", "audioStart", "audio", "audioEnd", "interrupted", "error", "closed",
    "congested", "fault",
]  # fmt: skip
FORMAT = {"format": "pcm16", "rate": 24000}
CONNECTED = ["get", {"type": "event", "name": "AIConnected", "sessionId": "s1", "input": FORMAT, "output": FORMAT}]


async def run(page: Page, *steps: list[Any], **script: Any) -> dict[str, Any]:
    outcome: dict[str, Any] = await page.evaluate(SESSION, {"events": EVENTS, "steps": list(steps), **script})
    return outcome


def audio_start(item: str) -> list[Any]:
    return ["get", {"type": "audioStart", "itemId": item}]


def audio_end(item: str) -> list[Any]:
    return ["get", {"type": "audioEnd", "itemId": item, "totalMs": 1}]


async def test_what_is_said_while_connecting_is_kept_up_to_a_bound(page: Page) -> None:
    spoken = [["microphone", i] for i in range(5)]
    result = await run(page, *spoken, CONNECTED, ["microphone", 5], options={"maxHeldMs": 60})
    assert result["outcome"] == "opened s1"
    assert result["log"] == [
        "→ connecting", "sent hello", "→ ready", "connected",
        "→ talking", "sent audio 2", "sent audio 3", "sent audio 4", "sent audio 5",
    ]  # fmt: skip


async def test_audio_is_passed_on_only_within_its_item(page: Page) -> None:
    result = await run(
        page, CONNECTED, ["getAudio"], audio_start("a"), ["getAudio"], audio_end("a"), ["getAudio"], audio_end("b")
    )
    assert result["log"][4:] == ["audioStart a", "audio a", "audioEnd a"]


async def test_nothing_of_an_item_follows_its_interruption(page: Page) -> None:
    cut = ["get", {"type": "interrupted", "itemId": "a", "playedMs": 1, "heardText": ""}]
    result = await run(
        page, CONNECTED, audio_start("a"), cut, ["getAudio"], audio_end("a"), audio_start("a"), ["getAudio"],
        audio_start("b"), ["getAudio"],
    )  # fmt: skip
    assert result["log"][4:] == ["audioStart a", "interrupted a", "audioStart b", "audio b"]


async def test_stopping_here_drops_what_is_on_its_way(page: Page) -> None:
    result = await run(page, CONNECTED, audio_start("a"), ["interrupt"], ["getAudio"], audio_end("a"))
    assert result["log"][4:] == ["audioStart a", "sent interrupt"]


async def test_a_refusal_is_told_with_its_error(page: Page) -> None:
    error = ["get", {"type": "error", "code": "denied", "message": "Not from here.", "retryable": False}]
    result = await run(page, error, ["lost", {"code": 1008, "reason": "policy", "opened": True}], CONNECTED)
    assert result["outcome"] == "SessionEnded: Not from here."
    assert result["log"][2:] == ["error", "→ closed", "ended 1008 connected=false byUser=false error=denied"]
    assert result["state"] == "closed"


async def test_a_relay_that_cannot_be_reached_ends_the_session(page: Page) -> None:
    result = await run(page, refuse={"code": 1006, "reason": "", "opened": False})
    assert result["outcome"] == "SessionEnded: The session ended before it began (1006)."
    assert result["log"] == ["→ connecting", "→ closed", "ended 1006 connected=false byUser=false error=undefined"]


async def test_a_relay_that_never_answers_is_given_up(page: Page) -> None:
    result = await run(page, options={"connectTimeoutMs": 1})
    assert result["outcome"] == "SessionEnded: The relay did not answer in time."


async def test_closing_here_says_bye_once(page: Page) -> None:
    result = await run(page, CONNECTED, ["close"], ["close"], ["microphone", 1], CONNECTED)
    assert result["log"][4:] == [
        "sent bye",
        "closed",
        "→ closed",
        "ended 1000 connected=true byUser=true error=undefined",
    ]


async def test_a_congested_line_is_told(page: Page) -> None:
    result = await run(page, CONNECTED, ["microphone", 1], congested=True)
    assert result["log"][5:] == ["sent audio 1", "congested"]


async def test_malformed_messages_are_faults_and_unknown_ones_are_not(page: Page) -> None:
    odd = [None, 3, {}, {"type": 3}, {"type": "textDelta", "text": 3}, {"type": "ready", "input": {}, "output": {}}]
    unknown = [{"type": "tomorrow"}, {"type": "event", "name": "AITomorrow"}, {"type": "constructor"}]
    result = await run(page, CONNECTED, *[["get", message] for message in odd + unknown])
    assert result["log"][4:] == ["fault"] * len(odd)
