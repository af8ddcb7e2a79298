"""The console page in a real browser, against a relay that follows a script."""

import asyncio
from array import array
from itertools import pairwise
from statistics import median

import pytest
from playwright.async_api import Page, expect

from tests.web.chromium import OpenPage
from tests.web.scripted_device import PCM, RATE_HZ, DeviceSession, ScriptedRelay, tone

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


async def talk(page: Page, relay: ScriptedRelay, **ready: object) -> DeviceSession:
    """Press the button and open the session on the other side."""
    await page.click("#talk")
    session = await relay.session()
    await session.begin(**ready)
    await expect(page.locator("#status")).to_have_text("Listening")
    return session


async def entries(page: Page) -> list[str]:
    """The transcript as lines: who, and what."""
    script = """nodes => nodes.map(n => n.dataset.kind === 'tool'
        ? `tool: ${n.querySelector('.name').textContent}`
        : `${n.dataset.role}: ${n.querySelector('.words').textContent}`)"""
    lines: list[str] = await page.eval_on_selector_all("#transcript > li", script)
    return lines


def peak(pcm: bytes) -> int:
    return max(map(abs, array("h", pcm)), default=0)


def keeps_pace(frames: list[tuple[float, bytes]]) -> bool:
    """Whether the last second of audio took a second to come, and evenly."""
    times = [at for at, _ in frames[-51:]]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    return len(gaps) == 50 and 0.9 < sum(gaps) < 1.1 and 0.012 < median(gaps) < 0.028


async def test_the_microphone_arrives_as_frames_of_20_ms_at_the_pace_of_time(page: Page, relay: ScriptedRelay) -> None:
    session = await talk(page, relay)
    assert session.query == {"rate": str(RATE_HZ)}
    hello = await session.expect("hello")
    assert hello["v"] == 1
    assert hello["input"] == hello["output"] == {"format": "pcm16", "rate": RATE_HZ}

    # A machine under load may stumble; a page that sends at another pace never has such a second.
    await session.until(lambda: keeps_pace(session.frames), "second of frames in a second")

    assert {len(pcm) for _, pcm in session.frames} == {960}
    await session.until(lambda: max(peak(pcm) for _, pcm in session.frames[-50:]) > 3000, "voice")


async def test_muted_the_frames_go_on_as_silence(page: Page, relay: ScriptedRelay) -> None:
    session = await talk(page, relay)
    await session.until(lambda: any(peak(pcm) > 3000 for _, pcm in session.frames[-5:]), "voice")
    await page.click("#mute")
    await expect(page.locator("#status")).to_have_text("Muted")

    # The microphone itself is never silent for longer than one second.
    def silent() -> bool:
        return len(session.frames) > 100 and all(peak(pcm) == 0 for _, pcm in session.frames[-75:])

    await session.until(silent, "silence")
    await page.click("#mute")
    await session.until(lambda: peak(session.frames[-1][1]) > 3000, "voice")


async def test_a_turn_is_shown_in_order_though_the_users_words_come_late(page: Page, relay: ScriptedRelay) -> None:
    session = await talk(page, relay)
    await session.event("AISpeechDetected")
    await expect(page.locator("#status")).to_have_text("You are speaking")
    await session.event("AISpeechEnded")
    await expect(page.locator("#status")).to_have_text("Thinking…")
    call = {"callId": "call_1", "name": "get_weather", "arguments": {"city": "Lisbon"}}
    await session.send("tool", status="started", ms=0, **call)
    await expect(page.locator("[data-kind=tool] .status")).to_have_text("running")
    await session.send("tool", status="done", ms=41, output={"celsius": 19}, **call)
    await expect(page.locator("[data-kind=tool] .status")).to_have_text("done · 41 ms")
    await expect(page.locator("[data-kind=tool] .arguments")).to_have_text('city: "Lisbon"')

    await session.event("AIResponseStart")
    await session.send("textDelta", text="It is nineteen ")
    await expect(page.locator("[data-role=assistant] .words")).to_have_text("It is nineteen ")
    await session.send("textDelta", text="degrees in Lisbon.")
    await session.audio("item_4", tone(300))
    await session.send(
        "transcript", role="assistant", itemId="item_4", order=4, text="It is nineteen degrees in Lisbon.", final=True
    )
    await session.event("AIResponseEnd", finalText="It is nineteen degrees in Lisbon.", status="completed", more=False)
    steps = {"speechStoppedMs": 520, "firstDeltaMs": 98, "firstByteMs": 4, "firstPlayedMs": 31}
    await session.send("latency", itemId="item_4", totalMs=622, **steps)
    # Only now the words that caused it, as deltas and then whole.
    said = {"role": "user", "itemId": "item_1", "order": 1}
    await session.send("transcript", text="what is the wether", final=False, **said)
    await session.send("transcript", text="What is the weather in Lisbon?", final=True, **said)

    await expect(page.locator("[data-role=user] .words")).to_have_text("What is the weather in Lisbon?")
    assert await entries(page) == [
        "user: What is the weather in Lisbon?",
        "tool: get_weather",
        "assistant: It is nineteen degrees in Lisbon.",
    ]
    await expect(page.locator(".latency summary")).to_have_text("answered after 622 ms")
    await page.click(".latency summary")
    await expect(page.locator(".latency .steps")).to_contain_text("first audio from the model +98 ms")


async def test_it_shows_whose_voice_speaks_and_what_of_the_delay_was_whose(page: Page, relay: ScriptedRelay) -> None:
    session = await talk(page, relay, voice="elevenlabs:JBFqnCBsd6RMkjVDRZzb")
    await expect(page.locator("#facts")).to_contain_text("voice JBFqnCBsd6RMkjVDRZzb of ElevenLabs")
    await session.event("AIResponseStart")
    await session.send("textDelta", text="Hello there. ")
    await session.audio("item_4", tone(300))
    said = {"role": "assistant", "itemId": "item_4", "order": 4, "text": "Hello there.", "final": True}
    await session.send("transcript", **said)
    await session.event("AIResponseEnd", finalText="Hello there.", status="completed", more=False)
    split = {"firstDeltaMs": 441, "firstTextMs": 148, "voiceMs": 293}
    await session.send(
        "latency", itemId="item_4", speechStoppedMs=512, firstByteMs=1, firstPlayedMs=None, totalMs=954, **split
    )
    await page.click(".latency summary")
    await expect(page.locator(".latency .steps")).to_contain_text("first text from the model +148 ms")
    await expect(page.locator(".latency .steps")).to_contain_text("first audio from the voice +293 ms")
    await expect(page.locator(".latency .steps")).not_to_contain_text("441")

    failed = "The voice failed (quota_exceeded): This request exceeds your quota. The answer continues as text."
    await session.send("error", code="voice_failed", message=failed, retryable=False)
    await expect(page.locator("body")).to_contain_text(failed)
    fields = {"turn": "server_vad", "maxAheadMs": 1000, "duplex": "full", "language": None, "tools": []}
    await session.send("ready", input=PCM, output=PCM, voice="marin", **fields)
    await expect(page.locator("#facts")).to_contain_text("voice marin")


async def test_an_answer_is_played_and_its_position_told(page: Page, relay: ScriptedRelay) -> None:
    session = await talk(page, relay)
    await session.event("AIResponseStart")
    await session.audio("item_2", tone(1000))

    await session.expect("playback", lambda m: m["playedMs"] > 0)
    await expect(page.locator("#status")).to_have_text("Relay is speaking")
    await session.expect("playback", lambda m: m["playedMs"] == 1000)

    reports = session.playback("item_2")
    assert reports == sorted(set(reports))
    assert reports == pytest.approx([200, 400, 600, 800, 1000], abs=8)
    await session.event("AIResponseEnd", finalText="", status="completed", more=False)
    await expect(page.locator("#status")).to_have_text("Listening")


SILENCE_AFTER_MS = """async () => {
    const { conversation } = await import('/static/page.js');
    const peak = () => {
        const samples = new Float32Array(conversation.player.analyser.fftSize);
        conversation.player.analyser.getFloatTimeDomainData(samples);
        return Math.max(...samples.map(Math.abs));
    };
    const before = peak();
    window.silence = new Promise(resolve => conversation.addEventListener('interrupted', () => {
        const start = performance.now();
        const look = () => peak() === 0 ? resolve(performance.now() - start) : requestAnimationFrame(look);
        look();
    }));
    return before;
}"""


async def test_an_interruption_silences_the_page_at_once_and_drops_what_was_queued(
    page: Page, relay: ScriptedRelay
) -> None:
    session = await talk(page, relay)
    await session.event("AIResponseStart")
    await session.send("textDelta", text="One two three four five six.")
    await session.audio("item_2", tone(8000), end=False)
    await session.expect("playback", lambda m: m["playedMs"] >= 390)
    assert await page.evaluate(SILENCE_AFTER_MS) > 0.3

    await session.event("AISpeechDetected")
    await session.send("interrupted", itemId="item_2", playedMs=400, heardText="One two", estimated=False)

    # The analyser looks back 43 ms; the rest is for a machine under load. Seven seconds were still queued.
    assert await page.evaluate("() => window.silence") < 500
    # What still comes of the item is not played, not even as a new start; the next item is.
    await session.socket.send_bytes(tone(400))
    await session.audio("item_2", tone(400))
    await session.audio("item_5", tone(700))
    await session.expect("playback", lambda m: m["itemId"] == "item_5" and m["playedMs"] == 700)
    reports = session.playback("item_2")
    assert reports[-1] < 4000
    assert len(reports) == len([ms for ms in range(200, reports[-1], 200) if ms <= reports[-1]]) + 1
    assert session.messages[-1]["itemId"] == "item_5"
    last_of_cut = max(i for i, m in enumerate(session.messages) if m.get("itemId") == "item_2")
    first_of_next = min(i for i, m in enumerate(session.messages) if m.get("itemId") == "item_5")
    assert last_of_cut < first_of_next

    cut = page.locator("[data-role=assistant][data-state=interrupted]")
    await expect(cut.locator(".unheard")).to_have_text("three four five six.")
    await expect(cut.locator(".note.cut")).to_have_text("interrupted after 400 ms")


async def test_the_stop_button_tells_the_final_position_before_it_interrupts(page: Page, relay: ScriptedRelay) -> None:
    session = await talk(page, relay)
    await session.event("AIResponseStart")
    await session.audio("item_2", tone(8000), end=False)
    await session.expect("playback", lambda m: m["playedMs"] >= 190)
    await expect(page.locator("#status")).to_have_text("Relay is speaking")

    await page.keyboard.press("Escape")

    await session.expect("interrupt")
    assert [m["type"] for m in session.messages[-2:]] == ["playback", "interrupt"]
    assert 190 <= session.playback("item_2")[-1] < 4000
    count = len(session.messages)
    await session.socket.send_bytes(tone(600))  # was on its way
    await session.send("interrupted", itemId="item_2", playedMs=250, heardText="", estimated=False)
    await session.audio("item_3", tone(300))
    await session.expect("playback", lambda m: m["itemId"] == "item_3")
    assert {m["itemId"] for m in session.messages[count:]} == {"item_3"}


async def test_a_typed_turn_needs_no_microphone(page: Page, relay: ScriptedRelay) -> None:
    await page.fill("#composer-text", "What can you do?")
    await page.press("#composer-text", "Enter")
    session = await relay.session()
    await session.begin()
    assert (await session.expect("text"))["text"] == "What can you do?"
    await expect(page.locator("#composer-text")).to_have_value("")
    await session.send("transcript", role="user", itemId="item_1", order=0, text="What can you do?", final=True)
    await session.send("textDelta", text="Quite a lot.")
    await expect(page.locator("[data-role=assistant] .words")).to_have_text("Quite a lot.")
    assert await entries(page) == ["user: What can you do?", "assistant: Quite a lot."]
    assert session.frames == []

    await page.click("#talk")  # the same session goes on by voice
    await session.expect_frames(10)


async def test_a_close_is_explained_and_reconnect_begins_a_new_session(page: Page, relay: ScriptedRelay) -> None:
    first = await talk(page, relay)
    await first.send("transcript", role="user", itemId="item_1", order=0, text="Good morning.", final=True)
    await first.send("error", code="upstream_closed", message="The model went away", retryable=True)
    await expect(page.locator("#notice-text")).to_have_text("The model went away. Try again. (upstream_closed)")
    await expect(page.locator("#notice-action")).to_be_hidden()
    await first.close(1011, "upstream")

    await expect(page.locator("#notice-title")).to_have_text("The voice model cannot be reached")
    await expect(page.locator("#notice-text")).to_contain_text("(close code 1011, upstream_closed)")
    await expect(page.locator("#status")).to_have_text("Press and talk")
    await page.click("text=Reconnect")

    second = await relay.session()
    await second.begin()
    await expect(page.locator("#notice")).to_be_hidden()
    await second.expect_frames(20)
    # Item ids and orders begin anew; what was said before stays above.
    await second.send("transcript", role="user", itemId="item_1", order=0, text="Hello again.", final=True)
    await expect(page.locator("[data-role=user] .words")).to_have_text(["Good morning.", "Hello again."])
    await expect(page.locator(".divider")).to_have_text("New session")


async def test_goodbye_and_refusal_have_sentences_of_their_own(page: Page, relay: ScriptedRelay) -> None:
    session = await talk(page, relay)
    await session.send("goodbye", reason="draining")
    await session.close(1001, "draining")
    await expect(page.locator("#notice-title")).to_have_text("The relay is shutting down")
    await page.click("#notice-action")
    refused = await relay.session()
    of_a_later_relay = {
        "type": "error",
        "code": "too_many_sessions",
        "message": "Too many sessions.",
        "retryable": True,
    }
    await refused.socket.send_json(of_a_later_relay)
    await refused.close(1013, "full")
    await expect(page.locator("#notice-title")).to_have_text("The relay is full")
    await expect(page.locator("#notice-text")).to_contain_text("Too many sessions.")


async def test_a_relay_out_of_reach_gives_the_typed_text_back(page: Page, relay: ScriptedRelay) -> None:
    relay.refuse_upgrades = True
    await page.fill("#composer-text", "Anybody there?")
    await page.press("#composer-text", "Enter")
    await expect(page.locator("#notice-title")).to_have_text("The relay cannot be reached")
    await expect(page.locator("#composer-text")).to_have_value("Anybody there?")
    relay.refuse_upgrades = False
    await page.click("#notice-action")
    await (await relay.session()).begin()
    await expect(page.locator("#status")).to_have_text("Connected without microphone")


async def test_a_relay_that_has_gone_since_the_page_was_opened_is_told_and_tried_again(
    page: Page, relay: ScriptedRelay
) -> None:
    await page.evaluate(
        """() => {
            const native = AudioWorklet.prototype.addModule;
            AudioWorklet.prototype.addModule = function () {
                AudioWorklet.prototype.addModule = native;
                return Promise.reject(new DOMException("Failed to load worklet module script", "AbortError"));
            };
        }"""
    )
    await page.fill("#composer-text", "Anybody there?")
    await page.press("#composer-text", "Enter")
    await expect(page.locator("#notice-title")).to_have_text("The relay cannot be reached")
    await expect(page.locator("#composer-text")).to_have_value("Anybody there?")
    await page.press("#composer-text", "Enter")
    session = await relay.session()
    await session.begin()
    await session.expect("text")
    await session.audio("item_2", tone(300))
    await session.expect("playback", lambda m: m["playedMs"] == 300)


async def test_a_page_that_is_not_secure_is_for_typing(page: Page, relay: ScriptedRelay) -> None:
    await page.add_init_script(
        "Object.defineProperty(BaseAudioContext.prototype, 'audioWorklet', { value: undefined });"
        "Object.defineProperty(navigator, 'mediaDevices', { value: undefined });"
    )
    await page.reload()
    await page.click("#talk")
    await expect(page.locator("#notice-title")).to_have_text("The microphone needs a secure page")
    await page.fill("#composer-text", "Good morning.")
    await page.press("#composer-text", "Enter")
    session = await relay.session()
    await session.begin()
    assert (await session.expect("text"))["text"] == "Good morning."
    await session.audio("item_2", tone(300))
    await session.send("textDelta", text="Good morning to you.")
    await expect(page.locator("[data-role=assistant] .words")).to_have_text("Good morning to you.")


async def test_what_was_not_understood_is_a_remark_and_no_quotation(page: Page, relay: ScriptedRelay) -> None:
    session = await talk(page, relay)
    said = {"role": "user", "final": True}
    await session.send("transcript", itemId="item_1", order=0, text="[not understood]", **said)
    await expect(page.locator("[data-role=user] .remark")).to_have_text("Not understood")
    await session.send("transcript", itemId="item_1", order=0, text="What [and] why", **said)
    await expect(page.locator("[data-role=user] .words")).to_have_text("What [and] why")
    await expect(page.locator("[data-role=user] .remark")).to_have_count(0)


async def test_escape_stops_an_answer_that_is_still_being_thought_of(page: Page, relay: ScriptedRelay) -> None:
    session = await talk(page, relay)
    await session.event("AIResponseStart")
    await expect(page.locator("#status")).to_have_text("Thinking…")
    await page.keyboard.press("Escape")
    await session.expect("interrupt")
    await expect(page.locator("#status")).to_have_text("Listening")
    await expect(page.locator("#stop")).to_be_disabled()


async def test_a_browser_with_another_sample_rate_hears_and_speaks_the_same(relay: ScriptedRelay, page: Page) -> None:
    await page.add_init_script(
        "const Native = AudioContext;"
        "window.AudioContext = class extends Native { constructor() { super({ sampleRate: 44100 }); } };"
    )
    await page.reload()
    session = await talk(page, relay)
    await session.until(lambda: keeps_pace(session.frames), "second of frames in a second")
    assert {len(pcm) for _, pcm in session.frames} == {960}
    await session.until(lambda: peak(session.frames[-1][1]) > 3000, "voice")
    await session.audio("item_2", tone(500))
    await session.expect("playback", lambda m: m["playedMs"] == 500)
    assert session.playback("item_2") == pytest.approx([200, 400, 500], abs=8)


async def test_a_relay_that_ignores_the_pace_cannot_fill_the_memory(page: Page, relay: ScriptedRelay) -> None:
    session = await talk(page, relay)
    await session.audio("item_2", bytes(RATE_HZ * 2 * 90), chunk_ms=1000)
    await expect(page.locator("#notice-title")).to_have_text("Parts of the answer were dropped")


async def test_the_keyboard_is_enough(page: Page, relay: ScriptedRelay) -> None:
    reached = []
    for _ in range(5):
        await page.keyboard.press("Tab")
        reached.append(await page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert reached == ["skip", "talk", "scroller", "composer-text", "send"]  # what is disabled is passed over
    await page.focus("#talk")
    await page.keyboard.press("Space")
    session = await relay.session()
    await session.begin(turn="manual")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(page.locator("#mute")).to_have_attribute("aria-pressed", "true")
    await page.click("text=Done speaking")
    await session.expect("commit")


@pytest.mark.parametrize(
    ("microphone", "title"),
    [("blocked", "The microphone is blocked"), ("absent", "No microphone was found")],
)
async def test_a_missing_microphone_is_explained(
    relay: ScriptedRelay, open_page: OpenPage, microphone: str, title: str
) -> None:
    async with open_page(relay.url, microphone=microphone) as page:
        await page.click("#talk")
        await expect(page.locator("#notice-title")).to_have_text(title)
        await expect(page.locator("#notice-action")).to_have_text("Try again")
        await expect(page.locator("#status")).to_have_text("Press and talk")


async def test_ending_says_bye_and_closes_the_microphone(page: Page, relay: ScriptedRelay) -> None:
    session = await talk(page, relay)
    await session.expect_frames(5)
    await page.click("#talk")
    await session.expect("bye")
    await asyncio.wait_for(session.closed.wait(), 10)
    assert session.socket.close_code == 1000
    await expect(page.locator("#status")).to_have_text("Press and talk")
    await expect(page.locator("#notice")).to_be_hidden()


async def test_what_the_relay_should_never_send_does_no_harm(page: Page, relay: ScriptedRelay) -> None:
    session = await talk(page, relay)
    for text in ("{", "null", "[]", '"x"', '{"type":"event"}', '{"type":"toString"}', '{"type":"textDelta"}'):
        await session.socket.send_str(text)
    await session.socket.send_bytes(b"\x01")  # audio of no item
    await session.send("audioStart", itemId="item_9")
    await session.socket.send_bytes(b"\x01")
    await session.socket.send_json({"type": "ready", "input": {"format": "pcm16", "rate": 0}, "output": None})
    await session.socket.send_json({"type": "interrupted", "itemId": "never", "playedMs": -1, "heardText": "x"})
    await session.send("transcript", role="user", itemId="i", order=0, text="<b>Still here</b>", final=True)
    await expect(page.locator("[data-role=user] .words")).to_have_text("<b>Still here</b>")
    await expect(page.locator("#status")).to_have_text("Listening")
