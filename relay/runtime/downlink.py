"""The one path of upstream deltas to the client.

    decode → discard or count → recorder → playout → client

The rules start a content part at its first audio (`OutputAudioStarted`), and discard responses. Both are looked up here
for every delta. A Realtime client plays at its own pace: it has no playout, and text deltas take the same path as
audio.
"""

from collections.abc import Callable

from relay.protocols.openai.audio_events import decode_audio
from relay.protocols.openai.proxy import ProxyCodec, audio_offset
from relay.runtime.media_recorder import MediaRecorder
from relay.runtime.playout import PlayoutQueue
from relay.session.common.media_types import AudioDelta, RawDelta, TtsAudioDelta
from relay.session.device.events import Event, MalformedUpstreamMessage, OutputAudioStarted, TtsAudio
from relay.session.device.session import DeviceSession
from relay.session.realtime.session import RealtimeSession
from relay.transport.websocket import LONG_MESSAGE_BYTES, WebSocketConnection
from relay.upstreams.dialect import UpstreamCodec

MAX_DELTA_CHARS = 64 * 1024
"""48 KiB of audio. A longer delta is split, so that little is decoded and sent at once."""


class DeviceDownlink:
    """Forwards audio from the upstream and from TTS to a device's playout."""

    __slots__ = (
        "_clock", "_decode", "_discarded_responses", "_dispatch", "_ledger", "_playout", "_recorder", "_session",
        "_started_parts",
    )  # fmt: skip

    def __init__(
        self,
        session: DeviceSession,
        codec: UpstreamCodec,
        playout: PlayoutQueue,
        clock: Callable[[], float],
        dispatch: Callable[[Event], None],
        recorder: MediaRecorder | None,
    ) -> None:
        self._session = session
        self._discarded_responses, self._started_parts = session.discarded_responses, session.started_parts
        self._ledger = session.ledger
        self._decode = codec.decode
        self._playout = playout
        self._clock = clock
        self._dispatch = dispatch
        self._recorder = recorder

    def receive(self, message: bytes) -> None:
        """Handle one text message from the upstream."""
        decoded = self._decode(message)
        if type(decoded) is AudioDelta:
            self._push(decoded)
            return
        for output in decoded if isinstance(decoded, list) else (decoded,):
            if isinstance(output, AudioDelta):
                self._push(output)
            else:
                self._dispatch(output)

    def _push(self, delta: AudioDelta) -> None:
        response_id, item_id, content_index, audio = delta
        if len(audio) > MAX_DELTA_CHARS:
            for start in range(0, len(audio), MAX_DELTA_CHARS):
                self._push(delta._replace(audio=audio[start : start + MAX_DELTA_CHARS]))
            return
        try:
            samples = decode_audio(audio)
        except ValueError:
            self._dispatch(MalformedUpstreamMessage("audio that is not base64"))
            return
        if not samples:
            return
        key, is_played = (item_id, content_index), response_id not in self._discarded_responses
        if is_played and key not in self._started_parts:
            self._dispatch(OutputAudioStarted(response_id, item_id, content_index))
            is_played = key in self._started_parts
        now = self._clock()
        if self._recorder is not None:
            self._recorder.record_output(delta, samples, now, discarded=not is_played)
        if is_played:
            self._ledger.add_output(key, len(samples), now)
            self._playout.play(key, samples, now)

    def receive_tts(self, delta: TtsAudioDelta) -> None:
        """Handle audio from TTS."""
        context_id, samples, alignment = delta
        now, key = self._clock(), self._session.part_for_context(context_id)
        if self._recorder is not None:
            self._recorder.record_tts_audio(context_id, samples, now, discarded=key is None)
        if key is None:
            return
        self._ledger.add_tts_output(key, len(samples))
        self._dispatch(TtsAudio(context_id, len(samples), alignment))
        if samples:  # read the clock again: times in a recording must not decrease
            self._playout.play(key, samples, self._clock())


class RealtimeDownlink:
    """Forwards upstream deltas to a Realtime client, with `output_index` rewritten where items are hidden."""

    __slots__ = (
        "_client", "_clock", "_codec", "_delta_audio_bytes", "_dispatch", "_forwarding", "_forwards_deltas", "_ledger",
        "_record",
    )  # fmt: skip

    def __init__(
        self,
        session: RealtimeSession,
        client: WebSocketConnection,
        codec: ProxyCodec,
        clock: Callable[[], float],
        dispatch: Callable[[object], None],
        recorder: MediaRecorder | None,
    ) -> None:
        self._forwarding = session.delta_forwarding
        self._ledger = session.ledger
        self._client = client
        self._codec = codec
        self._clock = clock
        self._dispatch = dispatch
        self._record = recorder.record_raw_delta if recorder is not None else None
        self._forwards_deltas = codec.forwards_deltas
        self._delta_audio_bytes = codec.delta_audio_bytes

    def receive(self, message: bytes) -> None:
        """Handle one text message from the upstream."""
        n_bytes, is_suspended = self._delta_audio_bytes(message), self._forwarding.is_suspended
        if n_bytes >= 0 and not is_suspended:
            self._push(message, n_bytes)
            return
        for decoded in self._codec.decode_upstream(message):
            if type(decoded) is not RawDelta:
                self._dispatch(decoded)
            elif is_suspended:
                self._dispatch(self._codec.decode_delta(bytes(decoded.raw)))
            else:
                self._push(bytes(decoded.raw), decoded.n_bytes)

    def _push(self, message: bytes, n_bytes: int) -> None:
        now, forwarding = self._clock(), self._forwarding
        self._ledger.add_unpaced_output(n_bytes, now, forwarding.output_bytes_per_ms)
        if self._record is not None:
            self._record(RawDelta(message, n_bytes, audio_offset(message) if n_bytes else -1), now)
        if self._forwards_deltas and not forwarding.hidden_output_indexes and len(message) <= LONG_MESSAGE_BYTES:
            self._client.send_text(message)
            return
        rewrite = forwarding.rewrite if forwarding.hidden_output_indexes else None
        for client_message in self._codec.encode_delta(message, rewrite):
            self._client.send_text_any_size(client_message)
