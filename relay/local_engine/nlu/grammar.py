"""The grammar of a session: every sentence that the engine understands, from the session's tools and the small talk.

Its clauses define both the recognizer's word lattice and the parser of recognized and typed text. So the engine
understands the same sentences either way.
"""

from collections.abc import Iterable
from functools import cached_property, lru_cache
from typing import Any

import orjson

from relay.local_engine.nlu.clauses import (
    Clause,
    ParsedRequest,
    ToolInfo,
    expand_contractions,
    plain_words,
    tool_clauses,
)
from relay.local_engine.nlu.english import SMALL_TALK
from relay.local_engine.nlu.parser import RequestParser, clauses_by_first_word
from relay.local_engine.nlu.spoken_grammar import build_word_lattice
from relay.local_engine.nlu.word_lattice import WordLattice

_MAX_CLAUSES = 600
_MAX_CHOICES, _MAX_TOOL_CHOICES = 6_000, 400
_MAX_WORDS = 60


class Grammar:
    """All clauses of a session; immutable, so that sessions with the same tools can share it."""

    def __init__(self, tools: Iterable[dict[str, Any]]) -> None:
        self.tools: dict[str, ToolInfo] = {}
        room = _MAX_CHOICES
        for tool in tools:
            info = ToolInfo.from_tool(tool, min(room, _MAX_TOOL_CHOICES))
            if info.name and tool.get("type", "function") == "function":
                self.tools[info.name] = info
                room = max(room - sum(len(slot.choices) for slot in info.slots.values()), 0)
        clauses = [clause for info in self.tools.values() for clause in tool_clauses(info)]
        clauses += [
            Clause(topic, False, tuple(plain_words(text))) for topic, texts in SMALL_TALK.items() for text in texts
        ]
        self._clauses = list(dict.fromkeys(clauses))[:_MAX_CLAUSES]
        self._by_first = clauses_by_first_word(self._clauses)
        self._follow_ups = {
            name: clauses_by_first_word(
                clause for clause in self._clauses if clause.is_follow_up and clause.name == name
            )
            for name in self.tools
        }

    def parse(self, text: str, *, strict: bool = False, last_tool: str | None = None) -> list[ParsedRequest] | None:
        """Return the requests in a text ("roll two dice and tell me the time": two); None if it is not understood.

        `strict` is for recognized speech: every word must match, and only known values are accepted. `last_tool` is
        the tool that was called last: a follow-up ("and in tokyo") is read as a request to it.
        """
        words = expand_contractions(text[:4000])
        if not 0 < len(words) <= _MAX_WORDS:
            return None
        clauses = self._follow_ups.get(last_tool) if last_tool is not None else None
        follow_up = RequestParser(clauses, words, text, strict=True).requests() if clauses else None
        return follow_up or RequestParser(self._by_first, words, text, strict=strict).requests()

    @cached_property
    def word_lattice(self) -> WordLattice:
        """The sentences that the recognizer accepts. Compiled once per grammar: it takes longer than a decoder."""
        return build_word_lattice(self._clauses)


@lru_cache(maxsize=64)
def grammar_for_tools(tools_json: bytes) -> Grammar:
    """Return the grammar of a JSON list of tools; sessions with the same tools share it, and thereby decoders."""
    return Grammar(orjson.loads(tools_json))
