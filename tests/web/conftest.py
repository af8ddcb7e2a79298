"""A page in a real browser, and a relay by script for it to talk to."""

import shutil
import wave
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from tests.web.chromium import MICROPHONE_RATE_HZ, OpenPage, chromium, chromium_page, page_in, voice_like
from tests.web.scripted_device import ScriptedRelay


@pytest.fixture
def open_page() -> OpenPage:
    """For tests that need a microphone of their own; runs in any event loop."""
    if shutil.which("chromium") is None:
        pytest.skip("no chromium on this machine")
    return chromium_page


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(speech_wav: Path) -> AsyncIterator[Browser]:
    """One browser for all tests that are content with the synthetic voice; they run in the session's loop."""
    if shutil.which("chromium") is None:
        pytest.skip("no chromium on this machine")
    async with chromium(speech_wav) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def relay() -> AsyncIterator[ScriptedRelay]:
    async with ScriptedRelay().running() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def page(relay: ScriptedRelay, browser: Browser) -> AsyncIterator[Page]:
    """The console page of the scripted relay, with the synthetic voice as microphone."""
    async with page_in(browser, relay.url) as opened:
        yield opened


@pytest.fixture(scope="session")
def speech_wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One second of silence, then three seconds that noise suppression takes for a voice."""
    path = tmp_path_factory.mktemp("microphone") / "speech.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(MICROPHONE_RATE_HZ)
        file.writeframes(bytes(2 * MICROPHONE_RATE_HZ) + voice_like(3.0, MICROPHONE_RATE_HZ))
    return path
