"""Records one session without end and prints the time of each thing that was recorded, until somebody kills it."""

import asyncio
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


async def main(root: Path) -> None:
    from relay.protocols.openai.audio_events import decode_audio
    from relay.recording.replay.replayer import ReplayedSession
    from relay.recording.service import RecordingService
    from relay.recording.store.header import SessionSetup
    from relay.session.common.model import DeviceOptions, SessionConfig
    from relay.session.common.policy import Principal
    from relay.session.device import events as ev
    from tests.support.scripted_recordings import microphone_audio, model_audio

    loop = asyncio.get_running_loop()
    beginning = SessionSetup("rs_endless", SessionConfig(), DeviceOptions(), Principal(), loop.time())
    session = ReplayedSession(beginning)
    recorder = RecordingService(root, "on").open(beginning, loop.time)
    assert recorder is not None
    frame, delta = microphone_audio(20), model_audio(40, "item_1")
    samples, part = decode_audio(delta.audio), (delta.item_id, delta.content_index)

    def feed(event: ev.Event) -> None:
        now = loop.time()
        recorder.record_event(event, now, session.handle(event, now))
        print(now, flush=True)

    def feed_audio() -> None:
        now = loop.time()
        session.receive_input(len(frame))
        recorder.record_input(frame, now)
        session.accept_output(part, len(samples), now)
        recorder.record_output(delta, samples, now, discarded=False)
        print(now, flush=True)

    print("recording", flush=True)
    for event in (ev.UpstreamOpened(), ev.SessionCreated(), ev.SessionUpdated(), ev.ResponseCreated(delta.response_id)):
        feed(event)
    feed(ev.OutputAudioStarted(delta.response_id, *part))
    while True:
        feed_audio()
        await asyncio.sleep(0.02)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    asyncio.run(main(Path(sys.argv[1])))
