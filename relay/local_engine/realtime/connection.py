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
    CancelSpeech,
    ClearInputBuffer,
    CloseConnection,
    ConfigureInput,
    EngineCommand,
    FeedAudio,
    SendEvent,
    SetIdleTimer,
    Synthesize,
    TranscribeTurn,
)
from relay.local_engine.realtime.conversation import Conversation
from relay.local_engine.realtime.outgoing import EventSender
from relay.local_engine.realtime.validation import InvalidRequestError
from relay.local_engine.speech.backend import SpeechBackend, SpeechBackendLost
from relay.local_engine.speech.input_pipeline import InputPipeline, TurnPaused, TurnStarted, TurnStopped
from relay.local_engine.speech.tts import split_for_synthesis
from relay.protocols.openai.beta import BetaClientDialect
from relay.testing.faults import FaultScript, FaultSpec, parse_faults

MAX_PENDING_TRANSCRIPTS = 4
"""Of one session, on their way to words; further audio waits in the client's socket."""
_UNPACED_MS = 8_000
_MAX_CONTROL_BYTES = 4096
_BACKEND_LOST = "The recogniser ended unexpectedly; what was said in this turn is lost."
_RECOGNITION_FAILED = "The recogniser failed; what was said in this turn is lost."

_log = logging.getLogger(__name__)


@dataclass
class EngineContext:
    """What all sessions of a server use.

    `pace` is how many times faster than real time speech is generated after its first seconds; None is as fast as
    possible. A real model is not infinitely fast either, and only so can a response still be active when the user
    interrupts it. `faults` are what every connection suffers from, `max_session_s` is how long one may last.
    """

    senses: SpeechBackend
    pace: float | None = 4.0
    faults: tuple[FaultSpec, ...] = ()
    max_session_s: float = 3600.0
    sockets: set[web.WebSocketResponse] = field(default_factory=set)
    n_connections: int = 0


@dataclass(frozen=True)
class ConnectParams:
    """What one client asked for when it connected."""

    model: str
    session_type: str = "realtime"
    is_beta: bool = False
    faults: tuple[FaultSpec, ...] = ()


class EngineConnection:
    """Runs one connection from `session.created` to its close."""

    def __init__(
        self, socket: web.WebSocketResponse, context: EngineContext, params: ConnectParams, abort: Callable[[], None]
    ) -> None:
        """`abort` drops the connection at once."""
        self._socket = socket
        self._context = context
        expires_at = int(time.time() + context.max_session_s)
        self._conversation = Conversation(
            params.model, _new_id, session_type=params.session_type, expires_at=expires_at
        )
        self._beta = BetaClientDialect() if params.is_beta else None
        self._fault_script = FaultScript(params.faults)
        self._sender = EventSender(socket, abort, self._fault_script, is_faulty=bool(params.faults))
        self._input_pipeline: InputPipeline | None = None
        self._pending_audio = b""
        self._transcript_tasks: set[asyncio.Task[None]] = set()
        self._input_config = ConfigureInput("audio/pcm", None, b"[]")
        self._speech_tasks: dict[str, asyncio.Task[None]] = {}
        self._idle_timer: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serve until either side closes."""
        loop = asyncio.get_running_loop()
        sender = loop.create_task(self._sender.run())
        expiry = loop.create_task(self._run_expiry_timer())
        try:
            self._execute(self._conversation.start())
            async for message in self._socket:
                if message.type is WSMsgType.TEXT or message.type is WSMsgType.BINARY:
                    await self._receive(message.data)
        finally:
            tasks = [sender, expiry, *self._speech_tasks.values(), *self._transcript_tasks]
            tasks += [] if self._idle_timer is None else [self._idle_timer]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._sender.stop()
            if self._input_pipeline is not None:
                self._input_pipeline.close()

    async def _receive(self, message: str | bytes) -> None:
        control = _control_event(message)
        if control is not None:
            await self._add_faults(control)
            return
        if self._beta is not None:
            event = parse_json_object(message)  # what is no event goes on as it is, and is refused
            message = message if event is None else orjson.dumps(self._beta.to_upstream(event)[0])
        self._execute(self._conversation.receive(message))
        if self._pending_audio:
            audio, self._pending_audio = self._pending_audio, b""
            await self._feed_audio(audio)
        await self._limit_pending_transcripts()

    async def _add_faults(self, event: JsonObject) -> None:
        """The control message {"type": "relay.fault", "fault": "drop=1006"}: misbehave from now on."""
        try:
            faults = parse_faults(str(event.get("fault", "")))
        except ConfigError as error:
            event_id = event.get("event_id")
            fault = InvalidRequestError(str(error), param="fault")
            self._execute(self._conversation.send_error(fault, event_id if isinstance(event_id, str) else None))
            return
        await self._sender.add_faults(faults)

    def _execute(self, commands: Sequence[EngineCommand]) -> None:
        """Carry out effects in order; those that they lead to come right behind them."""
        for command in commands:
            match command:
                case SendEvent(event):
                    self._send(event)
                case ConfigureInput():
                    self._input_config = command
                    self._configure_input()
                case FeedAudio(audio):
                    self._pending_audio = audio
                case ClearInputBuffer():
                    if self._input_pipeline is not None:
                        self._input_pipeline.clear()
                case TranscribeTurn():
                    self._start_transcription(command)
                case Synthesize():
                    self._speech_tasks[command.response_id] = asyncio.create_task(self._synthesize(command))
                case CancelSpeech(response_id):
                    self._cancel_speech(response_id)
                case SetIdleTimer(ms):
                    self._set_idle_timer(ms)
                case CloseConnection():
                    self._sender.close_when_sent(command)
                case _:
                    assert_never(command)

    # -- ears ---------------------------------------------------------------------------------------------------------

    def _open_input_pipeline(self, audio: bytes = b"") -> InputPipeline:
        """The ears, made when they are first needed (a session that only types never has any); `audio` comes next."""
        if self._input_pipeline is None:
            sent_ms = REALTIME_FORMATS[self._input_config.input_format].duration_ms(len(audio))
            start_ms = self._conversation.input_position_ms - sent_ms
            self._input_pipeline = InputPipeline(self._context.senses.new_recognizer(), start_ms)
            self._configure_input()
        return self._input_pipeline

    def _configure_input(self) -> None:
        settings = self._input_config
        if self._input_pipeline is not None:
            self._input_pipeline.configure(settings.input_format, settings.turn_detection, settings.tools)

    async def _feed_audio(self, audio: bytes) -> None:
        pipeline = self._open_input_pipeline(audio)
        for event in pipeline.feed(audio):
            match event:
                case TurnStarted(start_ms):
                    self._execute(self._conversation.on_speech_started(start_ms))
                case TurnPaused():
                    await pipeline.query_endpoint()
                case TurnStopped(end_ms):
                    self._execute(self._conversation.on_speech_stopped(end_ms))
                    await self._limit_pending_transcripts()
                case None:
                    await asyncio.sleep(0)

    def _start_transcription(self, command: TranscribeTurn) -> None:
        pipeline = self._open_input_pipeline()
        transcript = pipeline.end_turn() if command.audio is None else pipeline.transcribe_clip(command.audio)
        task = asyncio.create_task(self._report_transcript(command.item_id, transcript))
        self._transcript_tasks.add(task)
        task.add_done_callback(self._transcript_tasks.discard)

    async def _report_transcript(self, item_id: str, transcript: "asyncio.Future[str | None]") -> None:
        try:
            text, failure = await transcript, None
        except SpeechBackendLost:
            text, failure = None, _BACKEND_LOST
        except Exception:
            _log.exception("a turn could not be recognised")
            text, failure = None, _RECOGNITION_FAILED
        self._execute(self._conversation.on_transcript(item_id, text, failure=failure))

    async def _limit_pending_transcripts(self) -> None:
        """A client that sends turns faster than they are understood waits here."""
        while len(self._transcript_tasks) >= MAX_PENDING_TRANSCRIPTS:
            await asyncio.wait(self._transcript_tasks, return_when=asyncio.FIRST_COMPLETED)

    # -- voice --------------------------------------------------------------------------------------------------------

    async def _synthesize(self, command: Synthesize) -> None:
        loop = asyncio.get_running_loop()
        start, synthesized_ms = loop.time(), 0.0
        try:
            for chunk in split_for_synthesis(command.sentences):
                await self._wait_for_pace(start, synthesized_ms)
                audio = await self._context.senses.synthesize(chunk, command.output, is_first=synthesized_ms == 0)
                synthesized_ms += len(audio) / REALTIME_FORMATS[command.output["format"]["type"]].bytes_per_ms
                self._execute(self._conversation.on_sentence_audio(command.response_id, chunk, audio))
            self._execute(self._conversation.on_speech_done(command.response_id))
        except Exception as error:
            # The voice broke, or we did: the client must not wait for the rest.
            _log.exception("a response could not be spoken")
            self._execute(
                self._conversation.on_speech_failed(
                    command.response_id, f"the voice on_speech_failed: {type(error).__name__}"
                )
            )
        finally:
            self._speech_tasks.pop(command.response_id, None)

    async def _wait_for_pace(self, start: float, synthesized_ms: float) -> None:
        """Wait while too much is made or unsent already."""
        await self._sender.drain()
        if self._context.pace is not None and synthesized_ms and not self._fault_script.is_burst:
            paced_ms = max(synthesized_ms - _UNPACED_MS, 0)
            ahead_s = paced_ms / 1000 / self._context.pace - (asyncio.get_running_loop().time() - start)
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)

    def _cancel_speech(self, response_id: str) -> None:
        task = self._speech_tasks.pop(response_id, None)
        # A response that runs out of tokens hushes itself, from within its own task, which then ends anyway.
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    # -- time ---------------------------------------------------------------------------------------------------------

    def _set_idle_timer(self, timeout_ms: int | None) -> None:
        if self._idle_timer is not None and self._idle_timer is not asyncio.current_task():
            self._idle_timer.cancel()
        self._idle_timer = None if timeout_ms is None else asyncio.create_task(self._run_idle_timer(timeout_ms))

    async def _run_idle_timer(self, timeout_ms: int) -> None:
        await asyncio.sleep(timeout_ms / 1000)
        self._execute(self._conversation.on_idle_timeout())

    async def _run_expiry_timer(self) -> None:
        await asyncio.sleep(self._context.max_session_s)
        self._execute(self._conversation.on_session_expired(max(round(self._context.max_session_s / 60), 1)))

    # -- what goes out ------------------------------------------------------------------------------------------------

    def _send(self, event: JsonObject) -> None:
        if self._beta is None:
            self._sender.enqueue(event)
            return
        for translated in self._beta.to_client(event):
            self._sender.enqueue(translated)
        if event["type"] == "session.created":  # GA does not tell of the conversation
            conversation = {"id": self._conversation.conversation_id, "object": "realtime.conversation"}
            self._sender.enqueue(
                {"type": "conversation.created", "event_id": _new_id("event"), "conversation": conversation}
            )


def _control_event(message: str | bytes) -> JsonObject | None:
    """The message, if it is a control message of ours."""
    if len(message) >= _MAX_CONTROL_BYTES:
        return None
    raw = message.encode() if isinstance(message, str) else message
    event = parse_json_object(raw) if b"relay.fault" in raw else None
    return event if event is not None and event.get("type") == "relay.fault" else None


def _new_id(kind: str) -> str:
    """ "item_1f…": at most 32 characters, as some clients insist for call ids."""
    return f"{kind}_{secrets.token_hex(10)}"
