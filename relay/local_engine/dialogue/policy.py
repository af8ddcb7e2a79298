"""Understanding: from what was said and what tools returned to what happens next, without memory or side effects.

Typed text that no sentence of the grammar fits gets a second try: which tool's words are in it, and which values.
Spoken text never comes there: the recogniser hears nothing but sentences of the grammar.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from relay.json_types import parse_json_object
from relay.local_engine.dialogue.tool_result_text import output_sentences
from relay.local_engine.nlu.clauses import Request, ToolInfo
from relay.local_engine.nlu.english import ANSWERS, COMMON
from relay.local_engine.nlu.grammar import Grammar
from relay.local_engine.nlu.slots import Slot
from relay.local_engine.nlu.text_normalization import Word, name_to_words, spoken, stem, words_of
from relay.local_engine.realtime.item_records import Record

_NAME_WEIGHT, _EXAMPLE_WEIGHT, _DESCRIPTION_WEIGHT = 2.0, 1.0, 0.5
_ENOUGH = 1.0


@dataclass(frozen=True, slots=True)
class Call:
    """A function call to make."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Situation:
    """What a response has to go by.

    `said` is what the user said since the last response: None nothing, "" something not understood. `outputs` are
    (function name, output) pairs since then; `waiting` names functions whose output is still to come; `silent` means
    that the user let the pause grow too long. `last_call` is the last function call of the conversation: its name and
    arguments.
    """

    said: str | None = None
    outputs: Sequence[tuple[str, str]] = ()
    waiting: Sequence[str] = ()
    tool_choice: Any = "auto"
    silent: bool = False
    last_call: tuple[str, dict[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Sentences to say first, then calls to make."""

    sentences: tuple[str, ...] = ()
    calls: tuple[Call, ...] = ()


def situation_of(records: Sequence[Record], tool_choice: Any) -> Situation:
    """What is new since the assistant last spoke: the user's last words, and outputs of calls."""
    names = {r.item["call_id"]: r.item["name"] for r in records if r.item["type"] == "function_call"}
    said: str | None = None
    silent = False
    outputs: list[tuple[str, str]] = []
    returned: set[str] = set()
    for record in records:
        item = record.item
        if item["type"] == "function_call_output":
            returned.add(item["call_id"])
            if not record.answered:
                outputs.append((names.get(item["call_id"], "tool"), item["output"]))
        elif item.get("role") == "user" and not record.answered:
            silent = record.is_silence
            said = None if silent else record.text
        elif item.get("role") == "assistant":
            said, outputs, silent = None, [], False
    waiting = [name for call_id, name in names.items() if call_id not in returned]
    call = next((record.item for record in reversed(records) if record.item["type"] == "function_call"), None)
    arguments = parse_json_object(call["arguments"]) if call else None  # None also where a client made the item
    last_call = (call["name"], arguments) if call and arguments is not None else None
    return Situation(said, outputs, waiting, tool_choice, silent, last_call)


def plan(grammar: Grammar, situation: Situation) -> Plan:
    """What to do in a response; an empty situation is answered with a greeting."""
    sentences = [text for name, output in situation.outputs for text in output_sentences(name, output)]
    forced = _forced(grammar, situation)
    if forced is not None:
        return Plan(tuple(sentences), (forced,))
    if situation.said is not None:
        requests = _understood(grammar, situation)
        asked = _answer(grammar, requests, situation.tool_choice) if requests else Plan(_not_understood(grammar))
        return Plan((*sentences, *asked.sentences), asked.calls)
    if sentences:
        return Plan(tuple(sentences))
    if situation.waiting:
        names = _listing([" ".join(name_to_words(name)) for name in situation.waiting])
        return Plan((f"I am still waiting for {names}.",))
    return Plan(ANSWERS["still_there" if situation.silent else "greeting"])


def _understood(grammar: Grammar, situation: Situation) -> list[Request] | None:
    said, last_call = situation.said, situation.last_call
    if not said:
        return None
    requests = grammar.parse(said, after=last_call[0] if last_call else None)
    if requests is not None:
        return [_completed(request, last_call) for request in requests]
    guessed = guess(said, list(grammar.tools.values()))
    return [guessed] if guessed else None


def _completed(request: Request, last_call: tuple[str, dict[str, Any]] | None) -> Request:
    """ "and in tokyo" with what was asked before; without such a call it is a request as any other."""
    if not request.follows or last_call is None or last_call[0] != request.name:
        return request
    return Request(request.name, True, {**last_call[1], **request.arguments})


def _answer(grammar: Grammar, requests: list[Request], tool_choice: Any) -> Plan:
    sentences: list[str] = []
    calls: list[Call] = []
    for request in requests:
        if not request.tool:
            sentences.extend(_help(grammar) if request.name == "help" else ANSWERS[request.name])
            continue
        tool = grammar.tools[request.name]
        if tool_choice == "none":
            sentences.append(f"I understood {tool.title}, but I may not use tools now.")
        elif missing := _missing(tool, request.arguments):
            names = _listing([" ".join(name_to_words(name)) for name in missing])
            sentences.append(f"For {tool.title} I need the {names}. Say for example: {tool.example()}.")
        else:
            calls.append(Call(request.name, request.arguments))
    return Plan(tuple(sentences), tuple(calls))


def _help(grammar: Grammar) -> tuple[str, ...]:
    tools = list(grammar.tools.values())
    if not tools:
        return ("I have no tools in this session.", "I can chat a little, or tell you a story.")
    examples = " Or: ".join(f"{tool.example()}." for tool in tools[:3])
    return (
        f"I can use these tools: {_listing([tool.title for tool in tools[:12]])}.",
        f"Say for example: {examples}",
        "I can also tell you a story.",
    )


def _not_understood(grammar: Grammar) -> tuple[str, ...]:
    """Says so, and what would be understood."""
    tools = list(grammar.tools.values())
    hint = f"Try: {tools[0].example()}." if tools else "Try: tell me a story."
    return ("I am sorry, I did not understand that.", f"{hint} Or ask: what can you do?")


def _missing(tool: ToolInfo, arguments: dict[str, Any]) -> list[str]:
    return [name for name, slot in tool.slots.items() if slot.required and name not in arguments]


def _forced(grammar: Grammar, situation: Situation) -> Call | None:
    """The call that `tool_choice` demands, with what was said filled in and defaults for the rest."""
    choice = situation.tool_choice
    wanted = grammar.tools.get(choice.get("name", "")) if isinstance(choice, dict) else None
    if wanted is None and (choice != "required" or not grammar.tools):
        return None
    fitting = [r for r in _understood(grammar, situation) or [] if r.tool and (wanted is None or r.name == wanted.name)]
    if fitting and wanted is None:
        return None  # what was said leads to a call anyway
    if wanted is None:
        wanted = next(iter(grammar.tools.values()))
    arguments = dict(fitting[0].arguments) if fitting else {}
    for name in _missing(wanted, arguments):
        arguments[name] = wanted.slots[name].fallback()
    return Call(wanted.name, arguments)


def _listing(names: Sequence[str]) -> str:
    """ "one", "one and two", "one, two and three"."""
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part) if names else ""


def guess(text: str, tools: Sequence[ToolInfo]) -> Request | None:
    """The one tool that the text is most likely about, with the values found in it; None if none or two fit."""
    words = words_of(text[:4000])[:200]
    vocabularies = [_vocabulary(tool) for tool in tools]
    shared = Counter(word for vocabulary in vocabularies for word in vocabulary)
    present = {stem(word.text) for word in words}
    scored = []
    for tool, vocabulary in zip(tools, vocabularies, strict=True):
        score = sum(weight / shared[word] for word, weight in vocabulary.items() if word in present)
        if score >= _ENOUGH:
            scored.append((score, tool))
    scored.sort(key=lambda entry: -entry[0])
    if not scored or (len(scored) > 1 and scored[0][0] == scored[1][0]):
        return None
    tool = scored[0][1]
    return Request(tool.name, True, _values(tool, words, text))


def _vocabulary(tool: ToolInfo) -> dict[str, float]:
    weights: dict[str, float] = {}
    sources = (
        (spoken(tool.description), _DESCRIPTION_WEIGHT),
        ([word for example in tool.examples for word in spoken(example)], _EXAMPLE_WEIGHT),
        (name_to_words(tool.name), _NAME_WEIGHT),
    )
    for words, weight in sources:
        weights.update({stem(word): weight for word in words if word not in COMMON and len(word) > 2})
    return weights


def _values(tool: ToolInfo, words: list[Word], text: str) -> dict[str, Any]:
    """Known values and numbers in the text, handed to the tool's slots from left to right."""
    open_slots = [slot for slot in tool.slots.values() if slot.kind != "unfillable"]
    found: dict[str, Any] = {}
    at = 0
    while at < len(words) and open_slots:
        slot, end, value = _first(open_slots, words, at, text)
        if slot is None:
            at += 1
            continue
        found[slot.name] = value
        open_slots.remove(slot)
        at = end
    return found


def _first(slots: list[Slot], words: list[Word], at: int, text: str) -> tuple[Slot | None, int, Any]:
    for slot in slots:
        for end, value, cost in slot.read(words, at, text):
            if cost == 0:
                return slot, end, value
    return None, at, None
