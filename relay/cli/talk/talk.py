"""`relay talk`: a terminal client of the device protocol, which sends an audio file or a text and prints the answer.

It behaves like a device: it sends audio in real time, then silence (VAD needs audio to detect the end of speech), and
acknowledges playback as if it had a speaker.
"""

import asyncio
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

from audio.files import AudioFileError, read_audio, write_wav
from audio.formats import AudioFormat
from audio.pcm import level_dbfs
from audio.resample import resample
from audio.transcode import decode
from relay.cli.talk.display import Display, JsonDisplay, TextDisplay
from relay.cli.talk.turn_tracker import TurnTracker, Verdict
from relay.cli.terminal import say_lines
from relay.client import (
    AudioEvent,
    ClientError,
    ClosedError,
    ConnectedEvent,
    ErrorEvent,
    GoodbyeEvent,
    InvalidURL,
    MicrophoneStream,
    RelayClient,
    RelayEvent,
    UnknownEvent,
    VirtualPlayer,
    connect,
)
from relay.client.handshake import NOT_A_URL
from relay.errors import RelayError

MAX_SAVED_BYTES = 64 * 1024 * 1024
"""The limit of audio for --save, about 23 minutes at 24 kHz. Further audio is dropped with a note."""


class TalkError(RelayError):
    """The conversation failed; the text is a sentence for the user."""


@dataclass
class TalkOptions:
    """The options of `relay talk`. `timeout_s` limits the wait for the next event of the relay."""

    file: Path | None
    url: str
    rate_hz: int
    text: str | None
    save: Path | None
    json_lines: bool
    timeout_s: float = 60


async def talk(options: TalkOptions, out: TextIO) -> int:
    """Have the conversation and print it to `out`. Returns the exit code: 0, or 1 after an error on standard error.

    The key comes from the environment variable RELAY_KEY.
    """
    display = JsonDisplay(out) if options.json_lines else TextDisplay(out)
    try:
        await _talk(options, display)
    except InvalidURL as error:
        say_lines(f"relay: --url: {error}", err=True)
        return 1
    except (TalkError, ClientError, AudioFileError) as error:
        display.close()
        say_lines(f"relay: {error}", err=True)
        return 1
    except BrokenPipeError:  # the reader of the output has exited: `relay talk … | head`
        if out is sys.stdout:  # the interpreter flushes it at exit, and would report the error
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


async def _talk(options: TalkOptions, display: Display) -> None:
    if options.file is None and options.text is None:
        raise TalkError("nothing to send: specify an audio file or --text")
    if options.text is not None and not options.text.strip():
        raise TalkError("--text is empty")
    if options.save is not None and not options.save.absolute().parent.is_dir():
        raise TalkError(f"cannot write {options.save}: its folder does not exist")
    url, rate_hz = add_rate(options.url, options.rate_hz)
    pcm = b""
    if options.file is not None:
        pcm = await asyncio.to_thread(read_audio, options.file, rate_hz)
    player = VirtualPlayer()
    async with connect(url, playback=player, open_timeout_s=options.timeout_s, ready_timeout_s=None) as client:
        run = TalkSession(options, client, display, pcm, rate_hz)
        display.connected(client.address)
        try:
            await run.run()
        finally:
            run.save()


def add_rate(url: str, rate_hz: int) -> tuple[str, int]:
    """Add `rate_hz` to the query of a URL, unless that sets a rate or G.711. Returns the URL and the rate in Hz.

    Raises InvalidURL, or TalkError for an unknown format.
    """
    try:
        parts = urlsplit(url.strip() if "://" in url else f"ws://{url.strip()}")
    except ValueError:
        raise InvalidURL(NOT_A_URL) from None
    query = parse_qs(parts.query)
    encoding, rate = query.get("format", ["pcm16"])[-1], query.get("rate", [""])[-1]
    if rate.isascii() and rate.isdigit():
        rate_hz = int(rate[:9])
    elif encoding in ("pcmu", "pcma"):
        rate_hz = 8000
    try:
        AudioFormat(encoding, rate_hz)  # type: ignore[arg-type]  # it checks the name itself
    except ValueError as error:
        raise TalkError(str(error)) from error
    if "rate" in query:
        return urlunsplit(parts), rate_hz
    with_rate = "&".join(filter(None, [parts.query, urlencode({"rate": rate_hz})]))
    return urlunsplit(parts._replace(query=with_rate)), rate_hz


class TalkSession:
    """One session of `relay talk`, until the end of the last turn."""

    def __init__(self, options: TalkOptions, client: RelayClient, display: Display, pcm: bytes, rate_hz: int) -> None:
        self._options = options
        self._client = client
        self._display = display
        self._pcm, self._pcm_hz = pcm, rate_hz
        self._loop = asyncio.get_running_loop()
        self._connected_at = self._loop.time()
        self._saved = bytearray()
        self._last_reason = ""  # of the relay's last error or goodbye

    async def run(self) -> None:
        """Send the file, then the text; returns when the last turn is over. Raises TalkError or ClientError."""
        microphone: asyncio.Task[None] | None = None
        try:
            await self._wait_connected()
            if self._options.file is not None:
                input_format = self._client.input_format
                pcm = await asyncio.to_thread(resample, self._pcm, self._pcm_hz, input_format.rate_hz)
                stream = MicrophoneStream(pcm, input_format, self._client.send_audio)
                microphone = asyncio.create_task(stream.run())
                await self._turn(spoken=True, input_ends_at=self._loop.time() + stream.duration_s)
            if self._options.text is not None:
                await self._client.send_text(self._options.text)
                await self._turn(spoken=False, input_ends_at=self._loop.time())
        finally:
            if microphone is not None:
                microphone.cancel()
                with suppress(asyncio.CancelledError, ClosedError):
                    await microphone

    def save(self) -> None:
        """Write the received audio to the file of --save, if any. Raises AudioFileError."""
        path = self._options.save
        if path is None:
            return
        output_format = self._client.output_format
        pcm = decode(bytes(self._saved), output_format)
        if not pcm:
            self._display.note(f"no audio was received; {path} was not written")
            return
        write_wav(path, pcm, output_format.rate_hz)
        seconds = len(pcm) / 2 / output_format.rate_hz
        full = " (truncated to 64 MiB)" if len(self._saved) >= MAX_SAVED_BYTES else ""
        self._display.note(f"saved {seconds:.1f} s of audio to {path}{full}")

    async def _wait_connected(self) -> None:
        until = self._connected_at + self._options.timeout_s
        while not isinstance(event := await self._recv(until), ConnectedEvent):
            if event is None:
                reason = f": {self._last_reason}" if self._last_reason else ""
                raise TalkError(f"the relay was not ready within {self._options.timeout_s:g} s{reason}")

    async def _turn(self, *, spoken: bool, input_ends_at: float) -> None:
        turn = TurnTracker(spoken=spoken, input_ends_at=input_ends_at, timeout_s=self._options.timeout_s)
        while (verdict := turn.verdict(self._loop.time())).state == "wait":
            event = await self._recv(verdict.until)
            if event is not None and event != UnknownEvent():
                turn.feed(event, self._loop.time())
        if verdict.state != "over":
            raise TalkError(self._describe_failure(verdict, turn))
        if turn.status == "failed":
            raise TalkError(f"the answer failed: {self._last_reason or 'the relay gave no reason'}")

    async def _recv(self, until: float | None) -> RelayEvent | None:
        """Receive, show and save the next event; returns None at `until` (loop time)."""
        try:
            async with asyncio.timeout_at(until):
                event = await self._client.recv()
        except TimeoutError:
            return None
        t_ms = round((self._loop.time() - self._connected_at) * 1000)
        match event:
            case AudioEvent(data=data):
                self._display.audio(len(data), t_ms)
                if self._options.save is not None:
                    self._saved += data[: MAX_SAVED_BYTES - len(self._saved)]
                return event
            case UnknownEvent(raw=raw) if not raw:
                self._display.note("ignored a text message of the relay that is not a JSON object")
                return event
            case ErrorEvent(message=reason) | GoodbyeEvent(reason=reason):
                self._last_reason = reason[:1000]
        self._display.message(event.raw, t_ms)
        return event

    def _describe_failure(self, verdict: Verdict, turn: TurnTracker) -> str:
        """Return the error message for an incomplete turn."""
        if verdict.state == "no_speech":
            seconds = len(self._pcm) / 2 / self._pcm_hz
            level = level_dbfs(self._pcm)
            return (
                f"the relay detected no speech in {self._options.file}: {seconds:.1f} s were sent, at {level:.0f} dBFS"
            )
        timeout = f"the relay sent nothing for {self._options.timeout_s:g} s"
        if turn.answer_started:
            return f"the answer is incomplete: {timeout}"
        if turn.user_text:
            return f'"{turn.user_text}" was transcribed, but there was no answer: {timeout}'
        return f"{'speech was detected, but ' if turn.speech_detected else ''}there was no answer: {timeout}"
