"""The texts of a recording's items, which come in pieces."""

MAX_TEXT_CHARS = 65_536
"""What is beyond is not kept."""


class ItemTexts:
    """Texts by item. A piece costs as much as it is long, however long the text is already."""

    def __init__(self) -> None:
        self._pieces: dict[str, list[str]] = {}
        self._n_chars: dict[str, int] = {}

    def add(self, item_id: str, text: str) -> None:
        """More of an item's text."""
        n_chars = self._n_chars.get(item_id, 0)
        kept = text[: MAX_TEXT_CHARS - n_chars]
        if kept or item_id not in self._pieces:
            self._pieces.setdefault(item_id, []).append(kept)
            self._n_chars[item_id] = n_chars + len(kept)

    def replace(self, item_id: str, text: str) -> None:
        """The whole text of an item, in place of what came before."""
        self._pieces[item_id], self._n_chars[item_id] = [text], len(text)

    def get(self, item_id: str) -> str:
        """The text of an item so far; empty where there is none."""
        pieces = self._pieces.get(item_id)
        if pieces is None:
            return ""
        pieces[:] = ["".join(pieces)]
        return pieces[0]
