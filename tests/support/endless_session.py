"""Records one session without end and prints the time of each event that was fed, until somebody kills it."""

import asyncio
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


async def main(root: Path) -> None:
    from relay.core import events as ev
    from relay.core.device_session import DeviceSession
    from relay.core.policy import Principal
    from relay.core.values import DeviceOptions, SessionConfig
    from relay.recorder import Recorder
    from tests.support.tapes import microphone, voice

    loop = asyncio.get_running_loop()
    recorder = Recorder(root, "on")
    config, options = SessionConfig(), DeviceOptions()
    numbers = iter(range(1, 1 << 30))
    started_at = loop.time()
    core = DeviceSession("rs_endless", config, options, lambda: f"relay_{next(numbers)}", started_at=started_at)
    tape = recorder.tape("rs_endless", config, options, Principal(), started_at, loop.time)
    assert tape is not None

    def feed(event: ev.Event) -> None:
        now = loop.time()
        tape.tap(event, now, core.handle(event, now))
        print(now, flush=True)

    print("recording", flush=True)
    for event in (ev.UpstreamOpened(), ev.SessionCreated(), ev.SessionUpdated(), ev.ResponseCreated("resp_1")):
        feed(event)
    while True:
        feed(microphone(20))
        feed(voice(40, "item_1"))
        await asyncio.sleep(0.02)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    asyncio.run(main(Path(sys.argv[1])))
