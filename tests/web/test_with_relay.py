"""The page in a real browser against a whole relay: local engine, shipped tools, a spoken sentence as microphone."""

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, WebSocket, expect

from audio.files import read_audio, write_wav
from relay.toolkit.registry import ToolRegistry
from tests.support.relay_server import RunningRelay, running_relay
from tests.support.tool_folders import load_folder
from tests.web.chromium import MICROPHONE_RATE_HZ, chromium, page_in

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

ROOT = Path(__file__).resolve().parents[2]
SENTENCE = "roll two dice and tell me the time in paris"
TIMEOUT_S = 20.0
SILENT_WITHIN_MS = 500
DONE = re.compile(r"^done · [\d.]+ m?s$")

Obj = dict[str, Any]
Where = Callable[[Obj], bool]


class Wire:
    """What page and relay say to each other, as the browser sees it, in one order."""

    def __init__(self, page: Page) -> None:
        self.messages: list[Obj] = []
        self._news = asyncio.Event()
        page.on("websocket", self._listen)

    async def expect(self, kind: str, where: Where = lambda _: True) -> Obj:
        """The first message whose `type` or `name` is `kind` and that fits, among those that came and those to come."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                while not (found := self.all(kind, where)):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"no {kind} in {TIMEOUT_S} s; came: {self.messages}") from None
        return found[0]

    def all(self, kind: str, where: Where = lambda _: True) -> list[Obj]:
        """Every such message so far."""
        return [m for m in self.messages if kind in (m["type"], m.get("name")) and where(m)]

    def played(self, item_id: str) -> list[int]:
        """What the page has reported of an item."""
        return [m["playedMs"] for m in self.all("playback", of(item_id))]

    def _listen(self, socket: WebSocket) -> None:
        socket.on("framereceived", self._keep)
        socket.on("framesent", self._keep)

    def _keep(self, frame: str | bytes) -> None:
        if isinstance(frame, str):
            self.messages.append(json.loads(frame))
            self._news.set()


def of(item_id: str) -> Where:
    return lambda message: message["itemId"] == item_id


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def whole_relay() -> AsyncIterator[RunningRelay]:
    async with running_relay(registry=ToolRegistry(load_folder(ROOT / "tools").tools)) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def sentence_browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    """Its microphone says SENTENCE once, a second after it is opened; then it is silent."""
    if shutil.which("chromium") is None:
        pytest.skip("no chromium on this machine")
    second = bytes(2 * MICROPHONE_RATE_HZ)
    speech = read_audio(ROOT / "recordings/samples/dice-and-time.flac", MICROPHONE_RATE_HZ)
    path = tmp_path_factory.mktemp("microphone") / "sentence.wav"
    write_wav(path, second + speech + 2 * second, MICROPHONE_RATE_HZ)
    async with chromium(f"{path}%noloop") as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def page(whole_relay: RunningRelay, sentence_browser: Browser) -> AsyncIterator[Page]:
    async with page_in(sentence_browser, whole_relay.http("/")) as opened:
        yield opened


@pytest.fixture
def wire(page: Page) -> Wire:
    return Wire(page)


async def type_in(page: Page, text: str) -> None:
    await page.fill("#composer-text", text)
    await page.press("#composer-text", "Enter")


async def hear_a_story(page: Page, wire: Wire) -> str:
    """Ask for the story and wait until it is under way; returns its item."""
    await type_in(page, "tell me a story")
    story: str = (await wire.expect("audioStart"))["itemId"]
    await wire.expect("playback", lambda m: m["itemId"] == story and m["playedMs"] >= 390)
    await expect(page.locator("#status")).to_have_text("Relay is speaking")
    return story


PEAK = """const peak = async () => {
    const { conversation } = await import('/static/page.js');
    const samples = new Float32Array(conversation.player.analyser.fftSize);
    conversation.player.analyser.getFloatTimeDomainData(samples);
    return Math.max(...samples.map(Math.abs));
};"""
SOUND = f"async () => {{ {PEAK} while (await peak() < 0.05) await new Promise(requestAnimationFrame); }}"
"""Resolves when the loudspeaker gives sound."""

SILENCE_AFTER_MS = f"""async (event) => {{
    {PEAK}
    const {{ conversation }} = await import('/static/page.js');
    window.silence = new Promise(resolve => {{
        const look = async () => {{
            const start = performance.now();
            while (await peak() > 0) await new Promise(requestAnimationFrame);
            resolve(performance.now() - start);
        }};
        if (event === 'click') document.getElementById('stop').addEventListener('click', look, {{ once: true }});
        else conversation.addEventListener(event, look, {{ once: true }});
    }});
}}"""
"""From the event on: `window.silence` resolves with the ms until the loudspeaker gives nothing at all."""


async def test_a_spoken_sentence_is_written_down_answered_with_tools_and_heard(
    page: Page, wire: Wire, whole_relay: RunningRelay
) -> None:
    await page.click("#talk")
    await expect(page.locator("#connection-text")).to_have_text("Connected")

    await expect(page.locator("[data-role=user] .words")).to_have_text(SENTENCE, timeout=TIMEOUT_S * 1000)
    tools = page.locator("[data-kind=tool]")
    await expect(tools.locator(".name")).to_have_text(["roll_dice", "current_time"])
    await expect(tools.locator(".status")).to_have_text([DONE, DONE])
    await expect(tools.locator(".arguments")).to_have_text(["count: 2", 'city: "Paris"'])
    answer = page.locator("[data-role=assistant] .words")
    await expect(answer).to_contain_text("I rolled")
    await expect(answer).to_contain_text("In Paris it is")
    await asyncio.wait_for(page.evaluate(SOUND), TIMEOUT_S)
    await expect(page.locator("#status")).to_have_text("Relay is speaking")

    ended = await wire.expect("audioEnd")
    await wire.expect("playback", lambda m: m["playedMs"] == ended["totalMs"])
    played = wire.played(ended["itemId"])
    assert played == sorted(set(played))
    assert len(played) >= ended["totalMs"] // 200
    await expect(page.locator("#status")).to_have_text("Listening")
    await expect(page.locator(".latency summary")).to_contain_text("answered after")
    await expect(page.locator("#facts")).to_contain_text("3 tools")

    await page.click("#talk")
    await asyncio.wait_for(whole_relay.sessions.all_ended.wait(), TIMEOUT_S)
    await expect(page.locator("#notice")).to_be_hidden()


async def test_a_story_that_is_stopped_falls_silent_and_the_conversation_goes_on(page: Page, wire: Wire) -> None:
    story = await hear_a_story(page, wire)
    await page.evaluate(SILENCE_AFTER_MS, "click")

    await page.click("#stop")

    assert await page.evaluate("() => window.silence") < SILENT_WITHIN_MS
    cut = await wire.expect("interrupted")
    assert cut["itemId"] == story
    assert cut["playedMs"] == wire.played(story)[-1]
    assert not cut["estimated"]
    entry = page.locator("[data-role=assistant][data-state=interrupted]")
    await expect(entry.locator(".note.cut")).to_contain_text("interrupted after")
    await expect(entry.locator(".unheard")).not_to_be_empty()  # as far as the model had got

    reports = len(wire.played(story))
    await type_in(page, "thank you")
    await expect(page.locator("[data-role=assistant] .words").last).to_have_text("You are welcome.")
    ended = await wire.expect("audioEnd", lambda m: m["itemId"] != story)
    await wire.expect("playback", lambda m: m["itemId"] == ended["itemId"] and m["playedMs"] == ended["totalMs"])
    assert len(wire.played(story)) == reports
    await expect(page.locator("#status")).to_have_text("Connected without microphone")


async def test_who_talks_into_a_story_is_heard_and_answered(page: Page, wire: Wire) -> None:
    story = await hear_a_story(page, wire)
    await page.evaluate(SILENCE_AFTER_MS, "interrupted")

    await page.click("#talk")  # the microphone's sentence begins now

    cut = await wire.expect("interrupted")
    assert cut["itemId"] == story
    assert await page.evaluate("() => window.silence") < SILENT_WITHIN_MS
    await expect(page.locator("[data-role=assistant][data-state=interrupted]")).to_have_count(1)
    await expect(page.locator("[data-role=user] .words").last).to_have_text(SENTENCE, timeout=TIMEOUT_S * 1000)
    await expect(page.locator("[data-kind=tool][data-status=done]")).to_have_count(2)
    await expect(page.locator("[data-role=assistant] .words").last).to_contain_text("In Paris it is")
    answer = await wire.expect("audioStart", lambda m: m["itemId"] != story)
    await wire.expect("playback", of(answer["itemId"]))
