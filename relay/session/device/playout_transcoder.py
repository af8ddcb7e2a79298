"""Transcodes the audio for a device client to the client's format, part by part.

It keeps the filter's state and knows no messages. The playout uses it, and recordings reconstruct the playout with it.
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
        """Use `options` from here on; the filter's state is kept if the formats are the same."""
        old, self._options = self._options, options
        if (old.output, old.upstream_output) != (options.output, options.upstream_output):
            self._use_formats()

    def _use_formats(self) -> None:
        self._transcoder = Transcoder(self._options.upstream_output, self._options.output)
        self.convert: Callable[[BytesLike], BytesLike] = self._transcoder.direct_feed
        """Return whole samples in the client's format; unchanged if the formats are equal (`is_identity`)."""
        self.is_identity = self._transcoder.is_identity

    def flush_part(self) -> bytes:
        """Return the rest of a part from the filter, and reset it for the next part."""
        return self._transcoder.flush()

    def discard_part(self) -> None:
        """Reset the filter: the part was interrupted."""
        self._transcoder.reset()
