"""A device client of Relay in Python: device.py URL MICROPHONE.pcm SPEAKER.pcm

Both files are raw PCM16, mono, 16 kHz; the microphone's may grow while it is read (arecord > MICROPHONE.pcm). One turn,
in real time. The key, if any, is in RELAY_KEY.
Exit codes: 0 turn completed · 1 usage error · 2 refused permanently · 3 connection lost or relay busy · 4 no answer
"""

import asyncio
import json
import os
import sys
from collections import deque
from pathlib import Path

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

FRAME_S, FRAME_BYTES, BYTES_PER_MS = 0.02, 640, 32
HELLO = {"type": "hello", "v": 1, "input": {"rate": 16000}, "output": {"rate": 16000}, "maxAheadMs": 500}
SETTLE_S, GIVE_UP_S = 1, 30  # text overtakes audio: after the end of a response one more item may follow
FINAL_CODES = (1002, 1007, 1008, 1009)  # this client violated the protocol: do not retry


async def talk(relay, microphone, speaker):
    """Send and play audio in steps of 20 ms until the turn is over; returns the exit code."""
    queue = deque()  # what is to be played, in order: audio, the id of an item that started_item, None where it ends
    item, played_bytes, step, ended, retryable = None, 0, 0, False, True
    now = asyncio.get_running_loop().time
    start = last_activity = now()
    try:
        await relay.send(json.dumps(HELLO))
        while now() - last_activity < (SETTLE_S if ended else GIVE_UP_S):
            while (wait_s := start + step * FRAME_S - now()) > 0:
                try:
                    message = await asyncio.wait_for(relay.recv(), wait_s)
                except TimeoutError:
                    break
                last_activity = now()
                match message if isinstance(message, bytes) else json.loads(message):
                    case bytes():
                        queue.append(message)
                    case {"type": "audioStart", "itemId": started_item}:
                        queue.append(started_item)
                    case {"type": "audioEnd"}:
                        queue.append(None)
                    case {"type": "interrupted"}:  # the user spoke: the rest must be neither played nor acknowledged
                        queue.clear()
                        item = None
                    case {"name": "AISpeechDetected" | "AIResponseStart"}:
                        ended = False
                    case {"name": "AIResponseEnd", "more": more, "status": status}:
                        ended = not more and status != "cancelled"  # cancelled by a barge-in: the user's turn follows
                    case {"type": "transcript", "final": True, "role": role, "text": text}:
                        print(f"{role}: {text}")
                    case {"type": "error", "code": code, "message": text, "retryable": retryable}:
                        print(f"{code}: {text}", file=sys.stderr)  # the session continues unless the connection closes
            # After the file comes silence: speech detection follows the audio, not the clock.
            frame = microphone.read(FRAME_BYTES)
            await relay.send(frame.ljust(FRAME_BYTES, b"\0"))
            room_bytes = FRAME_BYTES
            while queue and room_bytes:
                head = queue.popleft()
                if isinstance(head, bytes):
                    speaker.write(head[:room_bytes])
                    played_bytes += len(head[:room_bytes])
                    if len(head) > room_bytes:
                        queue.appendleft(head[room_bytes:])
                    room_bytes -= len(head[:room_bytes])
                elif head is not None:
                    item, played_bytes = head, 0
                elif item is not None:
                    await relay.send(playback(item, played_bytes))
                    item = None
            if item is not None and step % 10 == 0:  # every 200 ms, so that a barge-in truncates exactly
                await relay.send(playback(item, played_bytes))
            if frame or queue or item is not None:
                last_activity = now()
            step += 1
        await relay.send('{"type": "bye"}')
        return 0 if ended else 4
    except ConnectionClosed as closed:
        code = closed.rcvd.code if closed.rcvd else 1006
        print(f"closed with {code}", file=sys.stderr)
        return 2 if code in FINAL_CODES or (code == 1011 and not retryable) else 3


def playback(item, played_bytes):
    return json.dumps({"type": "playback", "itemId": item, "playedMs": played_bytes // BYTES_PER_MS})


async def main(url, microphone, speaker):
    key = os.environ.get("RELAY_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else None
    try:
        async with connect(url, additional_headers=headers, compression=None) as relay:
            return await talk(relay, microphone, speaker)
    except InvalidStatus as refused:
        status = refused.response.status_code
        print(f"refused with HTTP {status}", file=sys.stderr)
        return 3 if status == 429 or status >= 500 else 2
    except OSError as error:
        print(error, file=sys.stderr)
        return 3


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    with Path(sys.argv[2]).open("rb") as source, Path(sys.argv[3]).open("wb") as target:
        sys.exit(asyncio.run(main(sys.argv[1], source, target)))
