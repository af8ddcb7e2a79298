"""One client's connection at run time: carries out the conversation's commands on the socket and the speech backend."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
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
from relay.local_engine.realtime.context import ConnectParams, EngineContext
from relay.local_engine.realtime.conversation import Conversation
from relay.local_engine.realtime.event_sender import EventSender
from relay.local_engine.realtime.validation import InvalidRequestError
from relay.local_engine.speech.backend import SpeechBackendLost
from relay.local_engine.speech.input_pipeline import InputPipeline, TurnPaused, TurnStarted, TurnStopped
from relay.local_engine.speech.tts_text import split_for_synthesis
from relay.protocols.openai.beta import BetaClientDialect
from relay.testing.faults import FaultScript, parse_faults

MAX_PENDING_TRANSCRIPTS = 4
"""Turns of one session under recognition. At this bound its socket is not read any further."""
_UNPACED_MS = 8_000
_MAX_CONTROL_BYTES = 4096
_BACKEND_LOST = "The recognizer ended unexpectedly: there is no transcript of this turn."
_RECOGNITION_FAILED = "The recognizer failed: there is no transcript of this turn."

_log = logging.getLogger(__name__)


class EngineConnection:
    """Run one connection from `session.created` to its close."""

    def __init__(
        self, socket: web.WebSocketResponse, context: EngineContext, params: ConnectParams, abort: Callable[[], None]
    ) -> None:
        """`abort` drops the TCP connection at once."""
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
            event = parse_json_object(message)  # None: passed on unchanged, and refused by the conversation
            message = message if event is None else orjson.dumps(self._beta.to_upstream(event)[0])
        self._execute(self._conversation.receive(message))
        if self._pending_audio:
            audio, self._pending_audio = self._pending_audio, b""
            await self._feed_audio(audio)
        await self._limit_pending_transcripts()

    async def _add_faults(self, event: JsonObject) -> None:
        """Handle the control message {"type": "relay.fault", "fault": "drop=1006"}: apply faults from now on."""
        try:
            faults = parse_faults(str(event.get("fault", "")))
        except ConfigError as error:
            event_id = event.get("event_id")
            request_error = InvalidRequestError(str(error), param="fault")
            self._execute(self._conversation.send_error(request_error, event_id if isinstance(event_id, str) else None))
            return
        await self._sender.add_faults(faults)

    def _execute(self, commands: Sequence[EngineCommand]) -> None:
        """Carry out commands in order; the commands that one of them causes follow it immediately."""
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
                case SetIdleTimer(timeout_ms):
                    self._set_idle_timer(timeout_ms)
                case CloseConnection():
                    self._sender.close_when_sent(command)
                case _:
                    assert_never(command)

    # -- input audio --------------------------------------------------------------------------------------------------

    def _open_input_pipeline(self, audio: bytes = b"") -> InputPipeline:
        """Create the pipeline on first use: a text-only session never needs one. `audio` is fed next."""
        if self._input_pipeline is None:
            sent_ms = REALTIME_FORMATS[self._input_config.input_format].duration_ms(len(audio))
            start_ms = self._conversation.input_position_ms - sent_ms
            self._input_pipeline = InputPipeline(self._context.speech_backend.new_recognizer(), start_ms)
            self._configure_input()
        return self._input_pipeline

    def _configure_input(self) -> None:
        config = self._input_config
        if self._input_pipeline is not None:
            self._input_pipeline.configure(config.input_format, config.turn_detection, config.tools)

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
            _log.exception("recognition failed item=%s", item_id)
            text, failure = None, _RECOGNITION_FAILED
        self._execute(self._conversation.on_transcript(item_id, text, failure=failure))

    async def _limit_pending_transcripts(self) -> None:
        """Wait while the client sends turns faster than they are recognized."""
        while len(self._transcript_tasks) >= MAX_PENDING_TRANSCRIPTS:
            await asyncio.wait(self._transcript_tasks, return_when=asyncio.FIRST_COMPLETED)

    # -- speech -------------------------------------------------------------------------------------------------------

    async def _synthesize(self, command: Synthesize) -> None:
        loop = asyncio.get_running_loop()
        start, synthesized_ms = loop.time(), 0.0
        try:
            for chunk in split_for_synthesis(command.sentences):
                await self._wait_for_pace(start, synthesized_ms)
                audio = await self._context.speech_backend.synthesize(
                    chunk, command.output, is_first=synthesized_ms == 0
                )
                synthesized_ms += len(audio) / REALTIME_FORMATS[command.output["format"]["type"]].bytes_per_ms
                self._execute(self._conversation.on_sentence_audio(command.response_id, chunk, audio))
            self._execute(self._conversation.on_speech_done(command.response_id))
        except Exception as error:
            # Whatever failed, the client must not wait for the rest of the response.
            _log.exception("speech synthesis failed response=%s", command.response_id)
            message = f"Speech synthesis failed: {type(error).__name__}"
            self._execute(self._conversation.on_speech_failed(command.response_id, message))
        finally:
            self._speech_tasks.pop(command.response_id, None)

    async def _wait_for_pace(self, start: float, synthesized_ms: float) -> None:
        """Wait while too much audio is unsent, or synthesis is ahead of the pace."""
        await self._sender.drain()
        if self._context.pace is not None and synthesized_ms and not self._fault_script.is_burst:
            paced_ms = max(synthesized_ms - _UNPACED_MS, 0)
            ahead_s = paced_ms / 1000 / self._context.pace - (asyncio.get_running_loop().time() - start)
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)

    def _cancel_speech(self, response_id: str) -> None:
        task = self._speech_tasks.pop(response_id, None)
        # A response that runs out of tokens cancels its speech from its own task, which then ends anyway.
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    # -- timers -------------------------------------------------------------------------------------------------------

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

    # -- output -------------------------------------------------------------------------------------------------------

    def _send(self, event: JsonObject) -> None:
        if self._beta is None:
            self._sender.enqueue(event)
            return
        for translated in self._beta.to_client(event):
            self._sender.enqueue(translated)
        if event["type"] == "session.created":  # the GA protocol has no conversation.created
            conversation = {"id": self._conversation.conversation_id, "object": "realtime.conversation"}
            self._sender.enqueue(
                {"type": "conversation.created", "event_id": _new_id("event"), "conversation": conversation}
            )


def _control_event(message: str | bytes) -> JsonObject | None:
    """Return the message as an object if it is a `relay.fault`, else None."""
    if len(message) >= _MAX_CONTROL_BYTES:
        return None
    raw = message.encode() if isinstance(message, str) else message
    event = parse_json_object(raw) if b"relay.fault" in raw else None
    return event if event is not None and event.get("type") == "relay.fault" else None


def _new_id(kind: str) -> str:
    """Return an id such as "item_1f…", of at most 32 characters: some clients require that for call ids."""
    return f"{kind}_{secrets.token_hex(10)}"
