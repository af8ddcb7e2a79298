"""A real Chromium with a file for a microphone."""

import contextlib
import math
import random
import shutil
from array import array
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page, async_playwright

MICROPHONE_RATE_HZ = 48_000

BASE_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=user-gesture-required",
]

OpenPage = Callable[..., AbstractAsyncContextManager[Page]]
"""`open_page(url, microphone=<wav> | "blocked" | "absent", **context options)`: a page in a browser of its own."""


def microphone_flags(microphone: Path | str) -> list[str]:
    """Chromium's flags for a file as microphone, for a user who says no, or for a machine without one."""
    if microphone == "absent":
        return ["--use-fake-ui-for-media-stream"]
    fake = "--use-fake-device-for-media-stream"
    if microphone == "blocked":
        return [fake, "--use-fake-ui-for-media-stream=deny"]
    return [fake, "--use-fake-ui-for-media-stream", f"--use-file-for-fake-audio-capture={microphone}"]


@contextlib.asynccontextmanager
async def chromium(microphone: Path | str) -> AsyncIterator[Browser]:
    """A browser with this microphone."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=[*BASE_FLAGS, *microphone_flags(microphone)]
        )
        try:
            yield browser
        finally:
            await browser.close()


@contextlib.asynccontextmanager
async def page_in(browser: Browser, url: str, **context_options: Any) -> AsyncIterator[Page]:
    """Open `url`; on leaving, any complaint of the browser (script error, policy violation) fails the test."""
    complaints: list[str] = []
    context = await browser.new_context(**context_options)
    try:
        page = await context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        await page.goto(url)
        yield page
    finally:
        await context.close()
    # A failed WebSocket handshake is logged by the browser itself, whatever the page does about it.
    # And that a canvas is read back is what the tests do, not the page.
    serious = [text for text in complaints if not text.startswith(("WebSocket connection to", "Canvas2D:"))]
    assert serious == [], serious


@contextlib.asynccontextmanager
async def chromium_page(url: str, microphone: Path | str, **context_options: Any) -> AsyncIterator[Page]:
    """A page in a browser of its own."""
    async with chromium(microphone) as browser, page_in(browser, url, **context_options) as page:
        yield page


def voice_like(seconds: float, rate_hz: int) -> bytes:
    """PCM16 of a gliding buzz in syllables: harmonics that fall off, four bursts a second."""
    chance = random.Random(7)
    samples = array("h")
    phase = 0.0
    for i in range(round(seconds * rate_hz)):
        t = i / rate_hz
        phase += 2 * math.pi * (140 + 25 * math.sin(2 * math.pi * 0.7 * t)) / rate_hz
        syllable = max(0.0, math.sin(2 * math.pi * 4 * t)) ** 0.5
        buzz = sum(math.sin(n * phase) / n for n in range(1, 13))
        samples.append(round(9000 * syllable * (buzz + 0.02 * chance.uniform(-1, 1))))
    return samples.tobytes()
