"""How soon the first sound of an answer is heard: both modes in turn, with the local engine in ElevenLabs' place.

The model is a script that writes at an even pace; from the typed turn to the first byte of sound at the client.
"""

import argparse
import asyncio
from statistics import median

from relay.local_engine.supervisor import EngineSupervisor
from relay.testing import ScriptedSession, ScriptedUpstream
from tests.support.relay_server import DeviceClient
from tests.support.scripted_elevenlabs import end, more, speaking_relay, write

MODES = ("streaming", "final")
ANSWER = (
    "The lighthouse was built in eighteen eighty one. Its lamp burned whale oil for thirty years. "
    "Then a storm took the roof, and the keeper with it. Nobody rebuilt it until the railway came. "
    "Today it is a museum, and the lamp is lit every Sunday."
)


async def one_answer(client: DeviceClient, session: ScriptedSession, number: int, words_per_s: float) -> float:
    """Type a turn, let the model write its answer; the ms until its first sound."""
    loop = asyncio.get_running_loop()
    ids = {"response": f"resp_{number}", "item": f"item_{number}"}
    begin, heard = loop.time(), len(client.audio)
    first = asyncio.create_task(client.expect_audio(heard + 1, timeout_s=60))
    first_at = loop.create_future()
    first.add_done_callback(lambda _: first_at.set_result(loop.time()))
    await client.send(type="text", text="tell me of the lighthouse")
    await session.expect("response.create")
    await write(session, **ids)
    for word in ANSWER.split():
        await more(session, word + " ", **ids)
        await asyncio.sleep(1 / words_per_s)
    await end(session, **ids)
    await first
    await client.expect("audioEnd", timeout_s=60)
    return float((await first_at - begin) * 1000)


async def measure(answers: int, words_per_s: float) -> dict[str, list[float]]:
    """The delays of each mode; the modes take turns, answer by answer, for the machine's mood to be shared."""
    delays: dict[str, list[float]] = {mode: [] for mode in MODES}
    engine = EngineSupervisor()
    await engine.start()
    assert engine.url is not None
    voices = engine.url.replace("ws://", "http://").partition("/v1")[0]
    try:
        for number in range(answers + 1):  # the first one of each warms up
            for mode in MODES:
                async with (
                    ScriptedUpstream() as model,
                    speaking_relay(model.url, voices, tts_mode=mode) as relay,
                    await DeviceClient.connect(relay.ws("/?rate=24000")) as client,
                ):
                    await client.send(type="hello", v=1, maxAheadMs=None)
                    session = await model.accept()
                    await session.configure()
                    await client.expect("ready")
                    ms = await one_answer(client, session, number, words_per_s)
                    if number:
                        delays[mode].append(ms)
    finally:
        await engine.stop()
    return delays


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="scripts/measure-voice", description=__doc__)
    parser.add_argument("--answers", type=int, default=8, help="of each mode")
    parser.add_argument("--words", type=float, default=40.0, help="that the model writes in a second")
    asked = parser.parse_args()
    delays = asyncio.run(measure(asked.answers, asked.words))
    print(f"first sound of {asked.answers} answers of {len(ANSWER.split())} words, {asked.words:g} words a second, ms")
    print("mode        median   least    most")
    for mode, all_ms in delays.items():
        print(f"{mode:<10} {median(all_ms):7.0f} {min(all_ms):7.0f} {max(all_ms):7.0f}")


if __name__ == "__main__":
    main()
