"""Sound that is kept for `conversation.item.retrieve`: the last seconds of the input, and items with their audio."""

from collections import OrderedDict

MOST_SHELF_BYTES = 6 * 1024 * 1024
"""Of all items of a session together; over it the oldest items lose their sound, not their words."""
LONGEST_TURN_MS = 60_000
"""Of a turn that goes on for longer the last minute is kept."""
_PREFIX_MS = 6_000  # the longest prefix_padding_ms, and a little


class AudioShelf:
    """Audio by item id, in the format that the item had on the wire."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, bytearray] = OrderedDict()
        self._bytes = 0

    def add(self, item_id: str, audio: bytes) -> None:
        """Keep more of an item's audio."""
        if not audio:
            return
        self._kept.setdefault(item_id, bytearray()).extend(audio)
        self._bytes += len(audio)
        while self._bytes > MOST_SHELF_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= len(oldest)

    def get(self, item_id: str) -> bytes:
        """An item's audio, empty if there is none (any more)."""
        return bytes(self._kept.get(item_id, b""))

    def cut(self, item_id: str, n_bytes: int) -> None:
        """Keep only the first `n_bytes` of an item."""
        kept = self._kept.get(item_id)
        if kept is not None and len(kept) > n_bytes:
            self._bytes -= len(kept) - n_bytes
            del kept[n_bytes:]

    def drop(self, item_id: str) -> None:
        """Forget an item's audio."""
        self._bytes -= len(self._kept.pop(item_id, b""))


class InputTape:
    """The most recent input audio, found again by its place in the stream (ms since the session began)."""

    def __init__(self) -> None:
        self.position_ms = 0.0
        self._audio = bytearray()
        self._bytes_per_ms = 48

    def feed(self, audio: bytes, bytes_per_ms: int, *, keep: bool) -> None:
        """Take in audio; `keep` is for a turn under way, else only what a prefix may need stays."""
        if bytes_per_ms != self._bytes_per_ms:
            self._audio.clear()
            self._bytes_per_ms = bytes_per_ms
        self._audio += audio
        self.position_ms += len(audio) / bytes_per_ms
        surplus = len(self._audio) - (LONGEST_TURN_MS if keep else _PREFIX_MS) * bytes_per_ms
        if surplus > 0:
            del self._audio[:surplus]

    def between(self, start_ms: float, end_ms: float) -> bytes:
        """What is still there of a stretch, in whole samples."""
        behind = [max(round(self.position_ms - at), 0) * self._bytes_per_ms for at in (start_ms, end_ms)]
        length = len(self._audio)
        return bytes(self._audio[max(length - behind[0], 0) : max(length - behind[1], 0)])
