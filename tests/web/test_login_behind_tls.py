"""The admin's login in a real browser, behind the nginx of docs/access.md with TLS, and on the relay's own TLS."""

from pathlib import Path

import pytest
from playwright.async_api import Browser

from relay.recording.postprocess import finalize
from tests.proxies.reverse_proxies import ADDRESS, CERTIFICATE, documented_proxy, require_proxies
from tests.support.relay_server import running_relay
from tests.support.scripted_recordings import make_recording

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

ADMIN_KEY = "admin-key-0123456789abcdef"
PASSING_HOST = "proxy_set_header Host $http_host;"


async def sign_in_and_out(browser: Browser, base: str, cookie_name: str) -> None:
    """What an admin does, from the first look to the sign-out."""
    context = await browser.new_context(ignore_https_errors=True)
    try:
        page = await context.new_page()
        await page.goto(f"{base}/recordings")
        await page.fill("#key", ADMIN_KEY)
        await page.click("button[type=submit]")
        await page.wait_for_selector("body[data-shown]")
        [cookie] = await context.cookies()
        assert (cookie["name"], cookie["secure"], cookie["httpOnly"]) == (cookie_name, True, True)
        await page.reload()
        await page.wait_for_selector("body[data-shown]")
        await page.click("#sign-out")
        await page.wait_for_selector("#key")
    finally:
        await context.close()


@pytest.mark.parametrize("passes_host", [True, False])
async def test_behind_nginx_with_tls(browser: Browser, tmp_path: Path, passes_host: bool) -> None:
    require_proxies()
    finalize(make_recording(tmp_path / "recordings"))
    without = "" if passes_host else PASSING_HOST
    options = {
        "access_admin_keys": (ADMIN_KEY,),
        "access_proxies": ("127.0.0.1",),
        "recording_dir": tmp_path / "recordings",
    }
    async with (
        running_relay("ws://127.0.0.1:9/", **options) as relay,
        documented_proxy(tmp_path, "nginx", relay.port, without=without) as proxy,
    ):
        await sign_in_and_out(browser, f"https://{ADDRESS}:{proxy.port}", f"relay_admin_{relay.port}")


async def test_on_the_relays_own_tls(browser: Browser, tmp_path: Path) -> None:
    finalize(make_recording(tmp_path))
    options = {"server_tls_cert": CERTIFICATE, "server_tls_key": CERTIFICATE, "recording_dir": tmp_path}
    async with running_relay("ws://127.0.0.1:9/", access_admin_keys=(ADMIN_KEY,), **options) as relay:
        await sign_in_and_out(browser, f"https://127.0.0.1:{relay.port}", f"relay_admin_{relay.port}")
