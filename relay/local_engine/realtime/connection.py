"""One client's session at run time: the socket, the ears and the voice around the pure conversation."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import assert_never

import orjson
from aiohttp import WSMsgType, web

from audio.formats import REALTIME_FORMATS
from relay.errors import ConfigError
from relay.json_types import JsonObject, parse_json_object
from relay.local_engine.realtime.commands import (
    AwaitSpeech,
    Configure,
    Effect,
    Forget,
    HangUp,
    Hush,
    Listen,
    Recognise,
    Send,
    Speak,
)
from relay.local_engine.realtime.conversation import Conversation
from relay.local_engine.realtime.outgoing import Outgoing
from relay.local_engine.realtime.validation import Fault
from relay.local_engine.speech.backend import Senses, SensesLost
from relay.local_engine.speech.input_pipeline import Ears, Paused, Started, Stopped
from relay.local_engine.speech.tts import pieces
from relay.protocols.openai.beta import BetaClientDialect
from relay.testing.faults import FaultSpec, Misbehaviour, parse_faults

MOST_UTTERANCES = 4
"""Of one session, on their way to words; further audio waits in the client's socket."""
_UNPACED_MS = 8_000
_LONGEST_CONTROL = 4096
_LOST = "The recogniser ended unexpectedly; what was said in this turn is lost."
_FAILED = "The recogniser failed; what was said in this turn is lost."

log = logging.getLogger(__name__)


@dataclass
class Shared:
    """What all sessions of a server use.

    `pace` is how many times faster than real time speech is generated after its first seconds; None is as fast as
    possible. A real model is not infinitely fast either, and only so can a response still be active when the user
    interrupts it. `faults` are what every connection suffers from, `longest_s` is how long one may last.
    """

    senses: Senses
    pace: float | None = 4.0
    faults: tuple[FaultSpec, ...] = ()
    longest_s: float = 3600.0
    sockets: set[web.WebSocketResponse] = field(default_factory=set)
    connections: int = 0


@dataclass(frozen=True)
class Terms:
    """What one client asked for when it connected."""

    model: str
    kind: str = "realtime"
    is_beta: bool = False
    faults: tuple[FaultSpec, ...] = ()


class Session:
    """Runs one connection from `session.created` to its close."""

    def __init__(self, socket: web.WebSocketResponse, shared: Shared, terms: Terms, abort: Callable[[], None]) -> None:
        """`abort` drops the connection at once."""
        self._socket = socket
        self._shared = shared
        expires_at = int(time.time() + shared.longest_s)
        self._conversation = Conversation(terms.model, _new_id, kind=terms.kind, expires_at=expires_at)
        self._beta = BetaClientDialect() if terms.is_beta else None
        self._misbehaviour = Misbehaviour(terms.faults)
        self._outgoing = Outgoing(socket, abort, self._misbehaviour, is_faulty=bool(terms.faults))
        self._ears: Ears | None = None
        self._to_hear = b""
        self._recognising: set[asyncio.Task[None]] = set()
        self._settings = Configure("audio/pcm", None, b"[]")
        self._speaking: dict[str, asyncio.Task[None]] = {}
        self._silence: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serve until either side closes."""
        loop = asyncio.get_running_loop()
        sender = loop.create_task(self._outgoing.run())
        expiry = loop.create_task(self._expire())
        try:
            self._do(self._conversation.start())
            async for message in self._socket:
                if message.type is WSMsgType.TEXT or message.type is WSMsgType.BINARY:
                    await self._receive(message.data)
        finally:
            tasks = [sender, expiry, *self._speaking.values(), *self._recognising]
            tasks += [] if self._silence is None else [self._silence]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._outgoing.stop()
            if self._ears is not None:
                self._ears.close()

    async def _receive(self, message: str | bytes) -> None:
        control = _control(message)
        if control is not None:
            await self._add_faults(control)
            return
        if self._beta is not None:
            event = parse_json_object(message)  # what is no event goes on as it is, and is refused
            message = message if event is None else orjson.dumps(self._beta.to_upstream(event)[0])
        self._do(self._conversation.receive(message))
        if self._to_hear:
            audio, self._to_hear = self._to_hear, b""
            await self._listen(audio)
        await self._keep_up()

    async def _add_faults(self, event: JsonObject) -> None:
        """The control message {"type": "relay.fault", "fault": "drop=1006"}: misbehave from now on."""
        try:
            faults = parse_faults(str(event.get("fault", "")))
        except ConfigError as error:
            event_id = event.get("event_id")
            fault = Fault(str(error), param="fault")
            self._do(self._conversation.complain(fault, event_id if isinstance(event_id, str) else None))
            return
        await self._outgoing.add_faults(faults)

    def _do(self, effects: Sequence[Effect]) -> None:
        """Carry out effects in order; those that they lead to come right behind them."""
        for effect in effects:
            match effect:
                case Send(event):
                    self._tell(event)
                case Configure():
                    self._settings = effect
                    self._configure()
                case Listen(audio):
                    self._to_hear = audio
                case Forget():
                    if self._ears is not None:
                        self._ears.forget()
                case Recognise():
                    self._recognise(effect)
                case Speak():
                    self._speaking[effect.response_id] = asyncio.create_task(self._speak(effect))
                case Hush(response_id):
                    self._hush(response_id)
                case AwaitSpeech(ms):
                    self._await_speech(ms)
                case HangUp():
                    self._outgoing.hang_up(effect)
                case _:
                    assert_never(effect)

    # -- ears ---------------------------------------------------------------------------------------------------------

    def _hearing(self, audio: bytes = b"") -> Ears:
        """The ears, made when they are first needed (a session that only types never has any); `audio` comes next."""
        if self._ears is None:
            sent_ms = REALTIME_FORMATS[self._settings.input_format].duration_ms(len(audio))
            start_ms = self._conversation.position_ms - sent_ms
            self._ears = Ears(self._shared.senses.listener(), start_ms)
            self._configure()
        return self._ears

    def _configure(self) -> None:
        settings = self._settings
        if self._ears is not None:
            self._ears.configure(settings.input_format, settings.turn_detection, settings.tools)

    async def _listen(self, audio: bytes) -> None:
        ears = self._hearing(audio)
        for event in ears.hear(audio):
            match event:
                case Started(start_ms):
                    self._do(self._conversation.speech_started(start_ms))
                case Paused():
                    await ears.consider()
                case Stopped(end_ms):
                    self._do(self._conversation.speech_stopped(end_ms))
                    await self._keep_up()
                case None:
                    await asyncio.sleep(0)

    def _recognise(self, task: Recognise) -> None:
        ears = self._hearing()
        words = ears.finish() if task.audio is None else ears.clip(task.audio)
        waiting = asyncio.create_task(self._await_words(task.item_id, words))
        self._recognising.add(waiting)
        waiting.add_done_callback(self._recognising.discard)

    async def _await_words(self, item_id: str, words: "asyncio.Future[str | None]") -> None:
        try:
            text, failure = await words, None
        except SensesLost:
            text, failure = None, _LOST
        except Exception:
            log.exception("a turn could not be recognised")
            text, failure = None, _FAILED
        self._do(self._conversation.recognised(item_id, text, failure=failure))

    async def _keep_up(self) -> None:
        """A client that sends turns faster than they are understood waits here."""
        while len(self._recognising) >= MOST_UTTERANCES:
            await asyncio.wait(self._recognising, return_when=asyncio.FIRST_COMPLETED)

    # -- voice --------------------------------------------------------------------------------------------------------

    async def _speak(self, task: Speak) -> None:
        loop = asyncio.get_running_loop()
        start, made_ms = loop.time(), 0.0
        try:
            for piece in pieces(task.sentences):
                await self._keep_pace(start, made_ms)
                audio = await self._shared.senses.speak(piece, task.output, is_first=made_ms == 0)
                made_ms += len(audio) / REALTIME_FORMATS[task.output["format"]["type"]].bytes_per_ms
                self._do(self._conversation.sound(task.response_id, piece, audio))
            self._do(self._conversation.spoken(task.response_id))
        except Exception as error:
            # The voice broke, or we did: the client must not wait for the rest.
            log.exception("a response could not be spoken")
            self._do(self._conversation.failed(task.response_id, f"the voice failed: {type(error).__name__}"))
        finally:
            self._speaking.pop(task.response_id, None)

    async def _keep_pace(self, start: float, made_ms: float) -> None:
        """Wait while too much is made or unsent already."""
        await self._outgoing.wait_for_room()
        if self._shared.pace is not None and made_ms and not self._misbehaviour.is_hasty:
            paced_ms = max(made_ms - _UNPACED_MS, 0)
            ahead_s = paced_ms / 1000 / self._shared.pace - (asyncio.get_running_loop().time() - start)
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)

    def _hush(self, response_id: str) -> None:
        task = self._speaking.pop(response_id, None)
        # A response that runs out of tokens hushes itself, from within its own task, which then ends anyway.
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    # -- time ---------------------------------------------------------------------------------------------------------

    def _await_speech(self, ms: int | None) -> None:
        if self._silence is not None and self._silence is not asyncio.current_task():
            self._silence.cancel()
        self._silence = None if ms is None else asyncio.create_task(self._break_silence(ms))

    async def _break_silence(self, ms: int) -> None:
        await asyncio.sleep(ms / 1000)
        self._do(self._conversation.still_silent())

    async def _expire(self) -> None:
        await asyncio.sleep(self._shared.longest_s)
        self._do(self._conversation.expired(max(round(self._shared.longest_s / 60), 1)))

    # -- what goes out ------------------------------------------------------------------------------------------------

    def _tell(self, event: JsonObject) -> None:
        if self._beta is None:
            self._outgoing.post(event)
            return
        for translated in self._beta.to_client(event):
            self._outgoing.post(translated)
        if event["type"] == "session.created":  # GA does not tell of the conversation
            conversation = {"id": self._conversation.conversation_id, "object": "realtime.conversation"}
            self._outgoing.post(
                {"type": "conversation.created", "event_id": _new_id("event"), "conversation": conversation}
            )


def _control(message: str | bytes) -> JsonObject | None:
    """The message, if it is a control message of ours."""
    if len(message) >= _LONGEST_CONTROL:
        return None
    raw = message.encode() if isinstance(message, str) else message
    event = parse_json_object(raw) if b"relay.fault" in raw else None
    return event if event is not None and event.get("type") == "relay.fault" else None


def _new_id(kind: str) -> str:
    """ "item_1f…": at most 32 characters, as some clients insist for call ids."""
    return f"{kind}_{secrets.token_hex(10)}"
