"""`relay talk`: a terminal client of the device protocol. It speaks a sound file or a text and shows what comes back.

It behaves as a device would: sound goes out in real time, silence follows it (voice activity detection only moves
with input), and playback is acknowledged as if it were heard.
"""

import asyncio
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import orjson
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from audio.files import AudioFileError, read_audio, write_wav
from audio.formats import AudioFormat
from audio.pcm import level_dbfs
from audio.resample import resample
from audio.transcode import decode
from relay.cli.talk.display import Display, JsonDisplay, TextDisplay
from relay.cli.terminal import say_lines
from relay.client.connection import TalkError, dial, how_it_closed, receive, target_of
from relay.client.turn_tracker import Message, Turn, Verdict, item_id_of
from relay.client.virtual_player import VirtualPlayer, Voice, parse_format
from relay.json_types import parse_json_object

# Kept for --save; about 23 minutes at 24 kHz. What comes after is not written, and that is said.
MAX_SAVED_BYTES = 64 * 1024 * 1024


@dataclass
class TalkOptions:
    """What to say and where; `url` may be ws(s):// or http(s)://, `timeout_s` is how long a silent relay is awaited."""

    file: Path | None
    url: str
    rate_hz: int
    text: str | None
    save: Path | None
    json_lines: bool
    timeout_s: float = 60


async def talk(options: TalkOptions, out: TextIO) -> int:
    """Have the conversation and print it to `out`; 0 when the turns are over, else 1 and a sentence on stderr.

    The key, if one is needed, comes from the environment variable RELAY_KEY.
    """
    display = JsonDisplay(out) if options.json_lines else TextDisplay(out)
    try:
        await _talk(options, display)
    except (TalkError, AudioFileError) as error:
        display.close()
        say_lines(f"relay: {error}", err=True)
        return 1
    except BrokenPipeError:  # whoever read the output has left: `relay talk … | head`
        if out is sys.stdout:  # the interpreter flushes it once more when it ends, and would complain
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


async def _talk(options: TalkOptions, display: Display) -> None:
    if options.file is None and options.text is None:
        raise TalkError("there is nothing to say: name a sound file, or give --text")
    if options.text is not None and not options.text.strip():
        raise TalkError("--text is empty")
    if options.save is not None and not options.save.absolute().parent.is_dir():
        raise TalkError(f"cannot write {options.save}: its folder does not exist")
    target = target_of(options.url, options.rate_hz)
    pcm = b""
    if options.file is not None:
        pcm = await asyncio.to_thread(read_audio, options.file, target.rate_hz)
    async with dial(target, os.environ.get("RELAY_KEY", "").strip(), options.timeout_s) as socket:
        conversation = Conversation(options, socket, display, pcm, target.rate_hz)
        display.connected(target.shown)
        try:
            await conversation.run()
        finally:
            conversation.save()


class Conversation:
    """One connection from AIConnected to the end of the last turn."""

    def __init__(
        self, options: TalkOptions, socket: ClientConnection, display: Display, pcm: bytes, rate_hz: int
    ) -> None:
        self._options = options
        self._socket = socket
        self._display = display
        self._pcm, self._pcm_hz = pcm, rate_hz
        self._loop = asyncio.get_running_loop()
        self._connected_at = self._loop.time()
        self._output = AudioFormat("pcm16", 16000)
        self._player = VirtualPlayer(self._output.bytes_per_ms)
        self._player_news = asyncio.Event()
        self._saved = bytearray()
        self._said = ""  # the relay's last error or goodbye

    async def run(self) -> None:
        """Say everything there is to say; returns when the last turn is over. TalkError says why it could not."""
        tasks: list[asyncio.Task[None]] = []
        try:
            voice_format = await self._connected()
            tasks.append(asyncio.create_task(self._acknowledge()))
            if self._options.file is not None:
                pcm = await asyncio.to_thread(resample, self._pcm, self._pcm_hz, voice_format.rate_hz)
                voice = Voice(pcm, voice_format, self._socket.send)
                tasks.append(asyncio.create_task(voice.speak()))
                await self._turn(spoken=True, input_ends_at=self._loop.time() + voice.duration_s)
            if self._options.text is not None:
                await self._send({"type": "text", "text": self._options.text})
                await self._turn(spoken=False, input_ends_at=self._loop.time())
            await self._send({"type": "bye"})
        except ConnectionClosed as error:
            raise TalkError(how_it_closed(error, self._said)) from error
        finally:
            await _stop(tasks)

    def save(self) -> None:
        """Write what was received, if that was asked for; raises AudioFileError."""
        path = self._options.save
        if path is None:
            return
        pcm = decode(bytes(self._saved), self._output)
        if not pcm:
            self._display.note(f"no sound came: {path} is not written")
            return
        write_wav(path, pcm, self._output.rate_hz)
        seconds = len(pcm) / 2 / self._output.rate_hz
        full = ", and more came than is kept" if len(self._saved) >= MAX_SAVED_BYTES else ""
        self._display.note(f"{seconds:.1f} s of sound in {path}{full}")

    async def _connected(self) -> AudioFormat:
        """Wait for AIConnected; returns the format in which the relay wants to hear."""
        until = self._connected_at + self._options.timeout_s
        while True:
            received = await receive(self._socket, until)
            if received is None:
                said = f": {self._said}" if self._said else ""
                raise TalkError(f"the relay was not ready within {self._options.timeout_s:g} s{said}")
            message = self._take(received)
            if message is None or message.get("name") != "AIConnected":
                continue
            try:
                heard, self._output = parse_format(message.get("input")), parse_format(message.get("output"))
            except ValueError as error:
                raise TalkError(f"the relay announced a format that cannot be: {error}") from error
            self._player = VirtualPlayer(self._output.bytes_per_ms)
            return heard

    async def _turn(self, *, spoken: bool, input_ends_at: float) -> None:
        turn = Turn(spoken=spoken, input_ends_at=input_ends_at, timeout_s=self._options.timeout_s)
        while (verdict := turn.verdict(self._loop.time())).state == "wait":
            received = await receive(self._socket, verdict.until)
            if received is None:
                continue
            message = self._take(received)
            if message is not None:
                turn.take(message, self._loop.time())
            elif isinstance(received, bytes):
                turn.audio(self._loop.time())
        if verdict.state != "over":
            raise TalkError(self._what_was_missing(verdict, turn))
        if turn.status == "failed":
            raise TalkError(f"the answer failed: {self._said or 'the relay gave no reason'}")

    def _take(self, received: str | bytes) -> Message | None:
        """Show, keep and play what came; returns it if it is a JSON message."""
        now = self._loop.time()
        t_ms = round((now - self._connected_at) * 1000)
        if isinstance(received, bytes):
            self._display.audio(len(received), t_ms)
            if self._options.save is not None:
                self._saved += received[: MAX_SAVED_BYTES - len(self._saved)]
            self._player.feed(len(received), now)
            self._player_news.set()
            return None
        message = parse_json_object(received)
        if message is None:
            self._display.note("the relay sent a text that is not a message; it is passed over")
            return None
        self._display.message(message, t_ms)
        self._play(message, now)
        if message.get("type") in ("error", "goodbye"):
            self._said = str(message.get("message") or message.get("reason") or "")[:1000]
        return message

    def _play(self, message: Message, now: float) -> None:
        """What a message means to the loudspeaker."""
        item_id = item_id_of(message)
        match message.get("type"):
            case "audioStart" if item_id:
                self._player.start(item_id)
            case "audioEnd":
                self._player.end(item_id)
            case "interrupted":
                self._player.interrupt(item_id)
            case _:
                return
        self._player_news.set()

    async def _acknowledge(self) -> None:
        """Tell the relay what has been played, until cancelled."""
        while True:
            self._player_news.clear()
            for item_id, played_ms in self._player.reports(self._loop.time()):
                await self._send({"type": "playback", "itemId": item_id, "playedMs": played_ms})
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._player.next_at()):
                    await self._player_news.wait()

    async def _send(self, message: Message) -> None:
        await self._socket.send(orjson.dumps(message).decode())

    def _what_was_missing(self, verdict: Verdict, turn: Turn) -> str:
        """The sentence for a turn that did not come to its end."""
        if verdict.state == "no_speech":
            seconds = len(self._pcm) / 2 / self._pcm_hz
            level = level_dbfs(self._pcm)
            return f"no speech was found in {self._options.file}: {seconds:.1f} s were sent, at {level:.0f} dBFS"
        silent = f"nothing came from the relay for {self._options.timeout_s:g} s"
        if turn.began:
            return f"the answer did not come to its end: {silent}"
        if turn.user_text:
            return f'"{turn.user_text}" was heard, but there was no answer: {silent}'
        return f"{'speech was heard, but ' if turn.speech_found else ''}there was no answer: {silent}"


async def _stop(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel what runs beside the conversation; a fault of its own, other than the closed connection, is raised."""
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception) and not isinstance(result, ConnectionClosed):
            raise result
