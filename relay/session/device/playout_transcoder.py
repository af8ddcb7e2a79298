"""Audio towards a device client, in the client's format: part by part, each with a filter of its own.

It keeps the filter's tail and knows no messages: the playout converts with it, and recordings reconstruct the playout.
"""

from collections.abc import Callable

from audio.framing import BytesLike
from audio.transcode import Transcoder
from relay.session.common.model import DeviceOptions


class PlayoutTranscoder:
    """One stream of audio, from `upstream_output` to `output` of the active options."""

    def __init__(self, options: DeviceOptions) -> None:
        self._options = options
        self._use_formats()

    def apply_options(self, options: DeviceOptions) -> None:
        """Work by `options` from here on; audio that is under way goes on unless its format is another one now."""
        old, self._options = self._options, options
        if (old.output, old.upstream_output) != (options.output, options.upstream_output):
            self._use_formats()

    def _use_formats(self) -> None:
        self._transcoder = Transcoder(self._options.upstream_output, self._options.output)
        self.convert: Callable[[BytesLike], BytesLike] = self._transcoder.direct_feed
        """Whole samples in the client's format; untouched where the formats agree (`is_identity`)."""
        self.is_identity = self._transcoder.is_identity

    def flush_part(self) -> bytes:
        """What the filter still holds of a part; the next one starts afresh."""
        return self._transcoder.flush()

    def discard_part(self) -> None:
        """Forget what the filter holds: the part was cut."""
        self._transcoder.reset()
