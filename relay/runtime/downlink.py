"""The upstream's audio on its way to the client, the only one there is.

    decode → discard or count → recorder → playout → client

The rules start a content part when its first audio comes (`OutputStarted`), and give up a response; both are looked up
here for every delta. A Realtime client plays at its own pace: there the step of playout is empty.
"""

from collections.abc import Callable

from relay.core.device_session import DeviceSession
from relay.core.events import Event, MalformedUpstream, OutputStarted, VoiceSpoke
from relay.core.realtime_session import RealtimeSession
from relay.peers.frames import MessageListener
from relay.runtime.media_recorder import MediaRecorder
from relay.runtime.playout import PlayoutQueue
from relay.session.common.media_types import AudioDelta, AudioFrame, SpeechDelta
from relay.wire.append import decode_audio
from relay.wire.front import FrontCodec

MAX_DELTA_CHARS = 64 * 1024
"""48 KiB of audio: a longer delta is taken apart, so that little is in hand at once, and little goes at once."""


class DeviceDownlink:
    """From the deltas of the upstream and of an external voice to the playout of a device."""

    def __init__(
        self,
        session: DeviceSession,
        playout: PlayoutQueue,
        clock: Callable[[], float],
        dispatch: Callable[[Event], None],
        recorder: MediaRecorder | None,
    ) -> None:
        self._session = session
        self._ledger = session.ledger
        self._playout = playout
        self._clock = clock
        self._dispatch = dispatch
        self._recorder = recorder

    def push(self, delta: AudioDelta) -> None:
        """Take one delta of the upstream's."""
        response_id, item_id, content_index, audio = delta
        if len(audio) > MAX_DELTA_CHARS:
            for start in range(0, len(audio), MAX_DELTA_CHARS):
                self.push(delta._replace(audio=audio[start : start + MAX_DELTA_CHARS]))
            return
        try:
            samples = decode_audio(audio)
        except ValueError:
            self._dispatch(MalformedUpstream("audio that is not base64"))
            return
        if not samples:
            return
        key, session = (item_id, content_index), self._session
        is_wanted = not session.discards(response_id)
        if is_wanted and not session.plays(key):
            self._dispatch(OutputStarted(response_id, item_id, content_index))
            is_wanted = session.plays(key)
        now = self._clock()
        if self._recorder is not None:
            self._recorder.output(delta, samples, now, discarded=not is_wanted)
        if is_wanted:
            self._ledger.add_output(key, len(samples), now)
            self._playout.play(key, samples, now)

    def speak(self, delta: SpeechDelta) -> None:
        """Take audio of an external voice."""
        context_id, samples, alignment = delta
        now, key = self._clock(), self._session.spoken_part(context_id)
        if self._recorder is not None:
            self._recorder.speech(context_id, samples, now, discarded=key is None)
        if key is None:
            return
        self._ledger.add_speech(key, len(samples))
        self._dispatch(VoiceSpoke(context_id, len(samples), alignment))
        if samples:  # later than the event: a recording's times never run backwards
            self._playout.play(key, samples, self._clock())


class RealtimeDownlink:
    """From the upstream's deltas to a Realtime client, rewritten around the audio where the rules want it."""

    def __init__(
        self,
        session: RealtimeSession,
        client: MessageListener,
        codec: FrontCodec,
        clock: Callable[[], float],
        recorder: MediaRecorder | None,
    ) -> None:
        self._session = session
        self._ledger = session.ledger
        self._client = client
        self._codec = codec
        self._clock = clock
        self._recorder = recorder

    def push(self, frame: AudioFrame) -> None:
        """Take one delta."""
        session, now = self._session, self._clock()
        self._ledger.add_played_at_once(frame.n_bytes, now, session.output_bytes_per_ms)
        if self._recorder is not None:
            self._recorder.output_frame(frame, now)
        for message in self._codec.audio_to_client(frame, session.delta_view):
            self._client.send_whole_text(message)
