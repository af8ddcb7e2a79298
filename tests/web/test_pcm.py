"""Samples and sample rates in the page: what goes in comes out, at the other rate, and nothing else."""

import pytest
from playwright.async_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

CONVERT = """async ([from, to, hz, chunks]) => {
    const { Resampler } = await import('/static/pcm.js');
    const resampler = new Resampler(from, to);
    const out = [];
    let at = 0;
    for (let turn = 0; at < from; turn++) {
        const size = chunks[turn % chunks.length];
        const sine = (_, i) => Math.sin(2 * Math.PI * hz * (at + i) / from);
        out.push(...resampler.feed(Float32Array.from({ length: size }, sine)));
        at += size;
    }
    // How much of the output is a sine of that frequency, and how much is anything else.
    const middle = out.slice(2000, -2000);
    const turnOf = i => 2 * Math.PI * hz * i / to;
    const part = wave => 2 / middle.length * middle.reduce((sum, v, i) => sum + v * wave(turnOf(i)), 0);
    const [a, b] = [part(Math.sin), part(Math.cos)];
    const rest = middle.map((v, i) => v - a * Math.sin(turnOf(i)) - b * Math.cos(turnOf(i)));
    const rms = values => Math.sqrt(values.reduce((sum, v) => sum + v * v, 0) / values.length);
    return { seconds: out.length / to * from / at, wanted: Math.hypot(a, b), other: rms(rest), total: rms(middle) };
}"""


async def test_rates_are_converted_cleanly(page: Page) -> None:
    for source, target in [(48000, 24000), (44100, 24000), (24000, 48000), (24000, 44100), (16000, 24000)]:
        # 1000 Hz makes a whole number of periods of what is measured only nearly; the bounds allow for it.
        result = await page.evaluate(CONVERT, [source, target, 1000, [960, 441, 1]])
        assert result["seconds"] == pytest.approx(1.0, abs=0.003), (source, target)
        assert result["wanted"] == pytest.approx(1.0, abs=0.005), (source, target)
        assert result["other"] < 0.003, (source, target)


async def test_what_the_lower_rate_cannot_hold_is_taken_out(page: Page) -> None:
    for source, target, hz in [(48000, 24000, 14_000), (44100, 24000, 16_000), (48000, 16000, 10_000)]:
        assert (await page.evaluate(CONVERT, [source, target, hz, [960]]))["total"] < 0.001


async def test_samples_survive_the_way_there_and_back(page: Page) -> None:
    script = """async () => {
        const { toInt16, toFloat } = await import('/static/pcm.js');
        const there = toInt16(Float32Array.of(-2, -1, -0.5, 0, 1 / 32768, 0.5, 1, 2));
        return [[...there], [...toInt16(toFloat(there.buffer))], toFloat(new ArrayBuffer(3)).length];
    }"""
    there, back, odd = await page.evaluate(script)
    assert there == [-32768, -32768, -16384, 0, 1, 16384, 32767, 32767]
    assert back == there
    assert odd == 1
