"""The texts of conversation items, collected from deltas."""

MAX_TEXT_CHARS = 65_536
"""The limit of a stored text; the rest is dropped."""


class ItemTexts:
    """Texts by item. Appending takes time proportional to the appended text."""

    def __init__(self) -> None:
        self._pieces: dict[str, list[str]] = {}
        self._n_chars: dict[str, int] = {}

    def add(self, item_id: str, text: str) -> None:
        """Append to the text of an item."""
        n_chars = self._n_chars.get(item_id, 0)
        appended_text = text[: MAX_TEXT_CHARS - n_chars]
        if appended_text or item_id not in self._pieces:
            self._pieces.setdefault(item_id, []).append(appended_text)
            self._n_chars[item_id] = n_chars + len(appended_text)

    def replace(self, item_id: str, text: str) -> None:
        """Replace the text of an item."""
        self._pieces[item_id], self._n_chars[item_id] = [text], len(text)

    def get(self, item_id: str) -> str:
        """Return the text of an item so far; empty if there is none."""
        pieces = self._pieces.get(item_id)
        if pieces is None:
            return ""
        pieces[:] = ["".join(pieces)]
        return pieces[0]
