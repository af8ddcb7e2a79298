"""The login in a real browser: the link and the form, a second relay on another port, a hostile page on a third."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser, Page

from relay.recording.postprocess import finalize
from tests.support.relay_server import RunningRelay, console_link, running_relay, serve_app
from tests.support.scripted_recordings import make_recording
from tests.web.chromium import page_in

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

ADMIN_KEY = "admin-key-0123456789abcdef"
STATUS = "document.getElementById('status').textContent"


@pytest_asyncio.fixture(loop_scope="session")
async def relay(tmp_path: Path) -> AsyncIterator[RunningRelay]:
    finalize(make_recording(tmp_path))
    options = {"recording_dir": tmp_path, "access_state_dir": tmp_path / "state", "access_admin_keys": (ADMIN_KEY,)}
    async with running_relay("ws://127.0.0.1:9/", **options) as running:
        yield running


async def sign_in(page: Page) -> None:
    await page.fill("#key", ADMIN_KEY)
    await page.click("button[type=submit]")
    await page.wait_for_selector("body[data-shown]")


async def test_the_link_of_the_console_leads_to_the_recordings_once(relay: RunningRelay, browser: Browser) -> None:
    link = console_link(relay)
    async with page_in(browser, link) as page:
        await page.wait_for_selector("body[data-shown]")
        assert page.url == relay.http("/recordings")
    context = await browser.new_context()
    try:
        page = await context.new_page()
        await page.goto(link)
        await page.wait_for_function(f"{STATUS}.includes('already used')")
        assert page.url == relay.http("/login"), "the code does not stay in the history"
    finally:
        await context.close()


async def test_the_form_takes_an_admin_key_and_signing_out_ends_it(relay: RunningRelay, browser: Browser) -> None:
    context = await browser.new_context()
    try:
        page = await context.new_page()
        await page.goto(relay.http("/recordings"))
        await page.fill("#key", "wrong-key-0123456789abcdef")
        await page.click("button[type=submit]")
        await page.wait_for_function(f"{STATUS}.includes('not an admin key')")
        await sign_in(page)
        assert page.url == relay.http("/recordings")
        [cookie] = await context.cookies()
        assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == (
            f"relay_admin_{relay.port}", True, "Strict",
        )  # fmt: skip
        # Opened by hand, as from a bookmark.
        other = await context.new_page()
        await other.goto(relay.http("/recordings"))
        await other.wait_for_selector("body[data-shown]")
        await page.click("#sign-out")
        await page.wait_for_selector("#key")
        await other.reload()
        await other.wait_for_selector("#key")
    finally:
        await context.close()


async def test_two_relays_of_one_host_keep_their_logins_apart(
    relay: RunningRelay, browser: Browser, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    finalize(make_recording(tmp_path / "other"))
    context = await browser.new_context()
    try:
        async with running_relay(
            "ws://127.0.0.1:9/", recording_dir=tmp_path / "other", access_admin_keys=(ADMIN_KEY,)
        ) as second:
            page = await context.new_page()
            await page.goto(relay.http("/recordings"))
            await sign_in(page)
            await page.goto(second.http("/recordings"))
            await page.wait_for_selector("#key")
            await sign_in(page)
            await page.goto(relay.http("/recordings"))
            await page.wait_for_selector("body[data-shown]")
            await page.click("#sign-out")
            await page.wait_for_selector("#key")
            await page.goto(second.http("/recordings"))
            await page.wait_for_selector("body[data-shown]")
    finally:
        await context.close()


HOSTILE = """async (relay) => {
  const results = {};
  const attempt = async (name, url, options) => {
    try {
      const answer = await fetch(url, { credentials: "include", ...options });
      results[name] = answer.type === "opaque" ? "opaque" : `${answer.status} ${await answer.text()}`;
    } catch (error) {
      results[name] = "blocked";
    }
  };
  const json = { "Content-Type": "application/json" };
  await attempt("list", `${relay}/recordings/list`);
  await attempt("page", `${relay}/recordings`);
  await attempt("no-cors", `${relay}/recordings/list`, { mode: "no-cors" });
  await attempt("login", `${relay}/login`, { method: "POST", headers: json, body: "{}" });
  await attempt("logout", `${relay}/logout`, { method: "POST", mode: "no-cors" });
  await new Promise((done) => {
    const frame = document.createElement("iframe");
    frame.onload = frame.onerror = done;
    frame.src = `${relay}/recordings`;
    document.body.append(frame);
    setTimeout(done, 1000);
  });
  try {
    results.frame = document.querySelector("iframe").contentDocument?.body?.innerText ?? "closed";
  } catch (error) {
    results.frame = "closed";
  }
  return results;
}"""


async def test_a_hostile_page_of_another_port_gets_nothing(relay: RunningRelay, browser: Browser) -> None:
    """Same-site, and an allowed origin on loopback: the cookie would be sent with its requests."""

    async def empty(request: web.Request) -> web.Response:
        return web.Response(text="<!doctype html><title>hostile</title>", content_type="text/html")

    app = web.Application()
    app.router.add_get("/", empty)
    context = await browser.new_context()
    try:
        async with serve_app(app) as port:
            page = await context.new_page()
            await page.goto(relay.http("/recordings"))
            await sign_in(page)
            hostile = await context.new_page()
            await hostile.goto(f"http://127.0.0.1:{port}/")
            results = await hostile.evaluate(HOSTILE, relay.http(""))
            assert results == {
                "list": "blocked", "page": "blocked", "no-cors": "opaque", "login": "blocked", "logout": "opaque",
                "frame": "closed",
            }  # fmt: skip
            await page.reload()
            await page.wait_for_selector("body[data-shown]")
    finally:
        await context.close()


async def test_the_page_says_that_it_needs_https_elsewhere(relay: RunningRelay, browser: Browser) -> None:
    """A name that leads here, as another machine's would."""
    context = await browser.new_context()
    try:
        page = await context.new_page()

        async def serve_here(route) -> None:
            path = re.sub(r"^http://voice\.example\.com", "", route.request.url)
            await route.fulfill(response=await route.fetch(url=relay.http(path)))

        await page.route("http://voice.example.com/**", serve_here)
        await page.goto("http://voice.example.com/login")
        await page.wait_for_function(f"{STATUS}.includes('https')")
        assert await page.is_disabled("button[type=submit]")
    finally:
        await context.close()
