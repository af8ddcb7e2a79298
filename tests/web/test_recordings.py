"""The viewer in a real browser: both sides drawn, a click heard, and an hour-long call as quick as a short one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from audio.formats import AudioFormat
from relay.recording.postprocess import finalize
from relay.session.common.model import DeviceOptions
from relay.session.device import events as ev
from tests.support.relay_server import console_link, running_relay
from tests.support.scripted_recordings import TimedInput, make_recording, tts_conversation
from tests.web.chromium import page_in

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser, tmp_path: Path) -> AsyncIterator[Page]:
    finalize(make_recording(tmp_path))
    async with (
        running_relay("ws://127.0.0.1:9/", recording_dir=tmp_path, access_state_dir=tmp_path / "state") as relay,
        page_in(browser, console_link(relay)) as opened,
    ):
        await opened.wait_for_selector("body[data-shown]")
        yield opened


COLOURS = """(names) => {
  const canvas = document.getElementById("lanes");
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const found = {};
  for (const name of names) {
    probe.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`);
    probe.fillRect(0, 0, 1, 1);
    const [r, g, b] = probe.getImageData(0, 0, 1, 1).data;
    let columns = [];
    for (let i = 0; i < pixels.length; i += 4) {
      const same = pixels[i] === r && pixels[i + 1] === g && pixels[i + 2] === b && pixels[i + 3] === 255;
      if (same) columns.push((i / 4) % canvas.width);
    }
    columns = columns.map((x) => x / canvas.width);
    found[name] = [Math.min(...columns), Math.max(...columns), columns.length];
  }
  return found;
}"""


async def test_what_is_drawn_stands_where_it_happened(page: Page) -> None:
    await page.wait_for_selector("#lanes[data-drawn]")
    drawn = await page.evaluate(COLOURS, ["you", "relay", "tool", "bad", "wait", "answer"])
    total_s = 4.0
    assert drawn["you"][0] * total_s == pytest.approx(0.2, abs=0.05)  # the first sound
    assert drawn["you"][1] * total_s == pytest.approx(3.6, abs=0.05)  # the second turn
    assert drawn["relay"][0] * total_s == pytest.approx(2.1, abs=0.05)
    assert drawn["relay"][1] * total_s == pytest.approx(2.9, abs=0.05)
    assert drawn["tool"][0] * total_s == pytest.approx(1.6, abs=0.05)
    assert drawn["bad"][0] * total_s == pytest.approx(3.0, abs=0.05)
    assert drawn["wait"][1] * total_s == pytest.approx(2.1, abs=0.05)
    assert all(pixels > 5 for _, _, pixels in drawn.values())


async def test_the_words_the_ledger_and_a_click_that_is_heard(page: Page) -> None:
    script = await page.locator("#script").inner_text()
    for told in ("what time is it in Rome?", "It is", "✂", 'clock {"city":"Rome"} done', "interrupted after 800 ms"):
        assert told in script
    assert await page.locator("#ledger tbody tr").count() == 1
    heads = ["at", "total", "speech end noticed", "first audio from the model", "to the client", "played"]
    assert await page.locator("#ledger th").all_inner_texts() == [*heads, "barge-in to silence"]
    assert "p50" in await page.locator("#facts").inner_text()
    box = await page.locator("#lanes").bounding_box()
    assert box is not None
    await page.mouse.click(box["x"] + box["width"] * 0.55, box["y"] + 100)
    assert (await page.locator("#clock").inner_text()) == "0:02.2"
    await page.get_by_role("button", name="Play").click()
    await page.get_by_role("button", name="Pause").wait_for()
    await page.wait_for_function("() => parseFloat(document.getElementById('clock').textContent.split(':')[1]) > 2.4")
    await page.get_by_role("button", name="Zoom in").click()


async def test_another_voice_is_named_and_has_its_share_of_the_delay(browser: Browser, tmp_path: Path) -> None:
    finalize(make_recording(tmp_path, tts_conversation(), voice_id="voice-1"))
    async with (
        running_relay("ws://127.0.0.1:9/", recording_dir=tmp_path, access_state_dir=tmp_path / "state") as relay,
        page_in(browser, console_link(relay)) as page,
    ):
        await page.wait_for_selector("body[data-shown]")
        assert "elevenlabs:voice-1" in await page.locator("#facts").inner_text()
        assert "300 + 100 ms" in await page.locator("#ledger tbody").inner_text()
        assert "One two — ✂" in await page.locator("#script").inner_text()


async def test_an_hour_is_drawn_in_a_moment(browser: Browser, tmp_path: Path) -> None:
    chunk = bytes(range(256)) * 313  # ten seconds of G.711: half the work of 16 kHz
    hour: list[TimedInput] = [
        (0.0, ev.UpstreamOpened()), (0.1, ev.SessionCreated()), (0.2, ev.SessionUpdated(500)),
        *((10.1 + 10 * n, chunk) for n in range(360)),
    ]  # fmt: skip
    for n in range(360):
        turn = f"item_{n}"
        hour += [(10.2 + 10 * n, ev.SpeechStarted(turn)), (14.0 + 10 * n, ev.SpeechStopped(turn))]
    hour.sort(key=lambda one: one[0])
    telephone = AudioFormat("pcmu", 8000)
    options = DeviceOptions(telephone, telephone)
    finalize(make_recording(tmp_path, [*hour, (3661.0, ev.ClientClosed(1000))], options=options))
    async with (
        running_relay("ws://127.0.0.1:9/", recording_dir=tmp_path, access_state_dir=tmp_path / "state") as relay,
        page_in(browser, console_link(relay)) as page,
    ):
        await page.wait_for_selector("body[data-shown]")
        took_ms = await page.evaluate(
            """async () => {
              const began = performance.now();
              for (let n = 0; n < 10; n++) {
                document.getElementById(n % 2 ? "all" : "in").click();
                await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
              }
              return (performance.now() - began) / 10;
            }"""
        )
        print(f"an hour-long call: {took_ms:.0f} ms for each drawing")
        assert took_ms < 400
        assert "61:01" in await page.locator("#facts").inner_text()
