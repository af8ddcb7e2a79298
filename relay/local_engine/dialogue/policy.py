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
from relay.local_engine.nlu.clauses import ParsedRequest, ToolInfo
from relay.local_engine.nlu.english import ANSWERS, COMMON
from relay.local_engine.nlu.grammar import Grammar
from relay.local_engine.nlu.slots import Slot
from relay.local_engine.nlu.text_normalization import Word, name_to_words, spoken_words, stem, tokenize
from relay.local_engine.realtime.item_records import ItemRecord

_NAME_WEIGHT, _EXAMPLE_WEIGHT, _DESCRIPTION_WEIGHT = 2.0, 1.0, 0.5
_MIN_SCORE = 1.0


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """A function call to make."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TurnContext:
    """What a response has to go by.

    `user_text` is what the user said since the last response: None nothing, "" something not understood.
    `tool_outputs` are (function name, output) pairs since then; `pending_tools` names functions whose output is still
    to come; `is_idle_timeout` means that the user let the pause grow too long. `last_call` is the last function call
    of the conversation: its name and arguments.
    """

    user_text: str | None = None
    tool_outputs: Sequence[tuple[str, str]] = ()
    pending_tools: Sequence[str] = ()
    tool_choice: Any = "auto"
    is_idle_timeout: bool = False
    last_call: tuple[str, dict[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class ResponsePlan:
    """Sentences to say first, then calls to make."""

    sentences: tuple[str, ...] = ()
    calls: tuple[PlannedCall, ...] = ()


def build_turn_context(records: Sequence[ItemRecord], tool_choice: Any) -> TurnContext:
    """What is new since the assistant last spoke: the user's last words, and outputs of calls."""
    names = {r.item["call_id"]: r.item["name"] for r in records if r.item["type"] == "function_call"}
    user_text: str | None = None
    is_idle_timeout = False
    outputs: list[tuple[str, str]] = []
    returned: set[str] = set()
    for record in records:
        item = record.item
        if item["type"] == "function_call_output":
            returned.add(item["call_id"])
            if not record.is_answered:
                outputs.append((names.get(item["call_id"], "tool"), item["output"]))
        elif item.get("role") == "user" and not record.is_answered:
            is_idle_timeout = record.is_silence
            user_text = None if is_idle_timeout else record.text
        elif item.get("role") == "assistant":
            user_text, outputs, is_idle_timeout = None, [], False
    waiting = [name for call_id, name in names.items() if call_id not in returned]
    call = next((record.item for record in reversed(records) if record.item["type"] == "function_call"), None)
    arguments = parse_json_object(call["arguments"]) if call else None  # None also where a client made the item
    last_call = (call["name"], arguments) if call and arguments is not None else None
    return TurnContext(user_text, outputs, waiting, tool_choice, is_idle_timeout, last_call)


def plan_response(grammar: Grammar, context: TurnContext) -> ResponsePlan:
    """What to do in a response; an empty situation is answered with a greeting."""
    sentences = [text for name, output in context.tool_outputs for text in output_sentences(name, output)]
    call = _forced_call(grammar, context)
    if call is not None:
        return ResponsePlan(tuple(sentences), (call,))
    if context.user_text is not None:
        requests = _parse_requests(grammar, context)
        reply = (
            _answer_requests(grammar, requests, context.tool_choice)
            if requests
            else ResponsePlan(_not_understood_sentences(grammar))
        )
        return ResponsePlan((*sentences, *reply.sentences), reply.calls)
    if sentences:
        return ResponsePlan(tuple(sentences))
    if context.pending_tools:
        names = _join_names([" ".join(name_to_words(name)) for name in context.pending_tools])
        return ResponsePlan((f"I am still waiting for {names}.",))
    return ResponsePlan(ANSWERS["still_there" if context.is_idle_timeout else "greeting"])


def _parse_requests(grammar: Grammar, context: TurnContext) -> list[ParsedRequest] | None:
    user_text, last_call = context.user_text, context.last_call
    if not user_text:
        return None
    requests = grammar.parse(user_text, last_tool=last_call[0] if last_call else None)
    if requests is not None:
        return [_with_previous_arguments(request, last_call) for request in requests]
    request = match_keywords(user_text, list(grammar.tools.values()))
    return [request] if request else None


def _with_previous_arguments(request: ParsedRequest, last_call: tuple[str, dict[str, Any]] | None) -> ParsedRequest:
    """ "and in tokyo" with what was asked before; without such a call it is a request as any other."""
    if not request.is_follow_up or last_call is None or last_call[0] != request.name:
        return request
    return ParsedRequest(request.name, True, {**last_call[1], **request.arguments})


def _answer_requests(grammar: Grammar, requests: list[ParsedRequest], tool_choice: Any) -> ResponsePlan:
    sentences: list[str] = []
    calls: list[PlannedCall] = []
    for request in requests:
        if not request.is_tool:
            sentences.extend(_help_sentences(grammar) if request.name == "help" else ANSWERS[request.name])
            continue
        tool = grammar.tools[request.name]
        if tool_choice == "none":
            sentences.append(f"I understood {tool.title}, but I may not use tools now.")
        elif missing := _missing_arguments(tool, request.arguments):
            names = _join_names([" ".join(name_to_words(name)) for name in missing])
            sentences.append(f"For {tool.title} I need the {names}. Say for example: {tool.example_sentence()}.")
        else:
            calls.append(PlannedCall(request.name, request.arguments))
    return ResponsePlan(tuple(sentences), tuple(calls))


def _help_sentences(grammar: Grammar) -> tuple[str, ...]:
    tools = list(grammar.tools.values())
    if not tools:
        return ("I have no tools in this session.", "I can chat a little, or tell you a story.")
    examples = " Or: ".join(f"{tool.example_sentence()}." for tool in tools[:3])
    return (
        f"I can use these tools: {_join_names([tool.title for tool in tools[:12]])}.",
        f"Say for example: {examples}",
        "I can also tell you a story.",
    )


def _not_understood_sentences(grammar: Grammar) -> tuple[str, ...]:
    """Says so, and what would be understood."""
    tools = list(grammar.tools.values())
    hint = f"Try: {tools[0].example_sentence()}." if tools else "Try: tell me a story."
    return ("I am sorry, I did not understand that.", f"{hint} Or ask: what can you do?")


def _missing_arguments(tool: ToolInfo, arguments: dict[str, Any]) -> list[str]:
    return [name for name, slot in tool.slots.items() if slot.required and name not in arguments]


def _forced_call(grammar: Grammar, context: TurnContext) -> PlannedCall | None:
    """The call that `tool_choice` demands, with what was said filled in and defaults for the rest."""
    choice = context.tool_choice
    tool = grammar.tools.get(choice.get("name", "")) if isinstance(choice, dict) else None
    if tool is None and (choice != "required" or not grammar.tools):
        return None
    requests = [
        r for r in _parse_requests(grammar, context) or [] if r.is_tool and (tool is None or r.name == tool.name)
    ]
    if requests and tool is None:
        return None  # what was said leads to a call anyway
    if tool is None:
        tool = next(iter(grammar.tools.values()))
    arguments = dict(requests[0].arguments) if requests else {}
    for name in _missing_arguments(tool, arguments):
        arguments[name] = tool.slots[name].fallback_value()
    return PlannedCall(tool.name, arguments)


def _join_names(names: Sequence[str]) -> str:
    """ "one", "one and two", "one, two and three"."""
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part) if names else ""


def match_keywords(text: str, tools: Sequence[ToolInfo]) -> ParsedRequest | None:
    """The one tool that the text is most likely about, with the values found in it; None if none or two fit."""
    words = tokenize(text[:4000])[:200]
    vocabularies = [_vocabulary(tool) for tool in tools]
    shared = Counter(word for vocabulary in vocabularies for word in vocabulary)
    present = {stem(word.text) for word in words}
    scored = []
    for tool, vocabulary in zip(tools, vocabularies, strict=True):
        score = sum(weight / shared[word] for word, weight in vocabulary.items() if word in present)
        if score >= _MIN_SCORE:
            scored.append((score, tool))
    scored.sort(key=lambda entry: -entry[0])
    if not scored or (len(scored) > 1 and scored[0][0] == scored[1][0]):
        return None
    tool = scored[0][1]
    return ParsedRequest(tool.name, True, _extract_values(tool, words, text))


def _vocabulary(tool: ToolInfo) -> dict[str, float]:
    weights: dict[str, float] = {}
    sources = (
        (spoken_words(tool.description), _DESCRIPTION_WEIGHT),
        ([word for example in tool.examples for word in spoken_words(example)], _EXAMPLE_WEIGHT),
        (name_to_words(tool.name), _NAME_WEIGHT),
    )
    for words, weight in sources:
        weights.update({stem(word): weight for word in words if word not in COMMON and len(word) > 2})
    return weights


def _extract_values(tool: ToolInfo, words: list[Word], text: str) -> dict[str, Any]:
    """Known values and numbers in the text, handed to the tool's slots from left to right."""
    open_slots = [slot for slot in tool.slots.values() if slot.kind != "unfillable"]
    values: dict[str, Any] = {}
    at = 0
    while at < len(words) and open_slots:
        slot, end, value = _first_match(open_slots, words, at, text)
        if slot is None:
            at += 1
            continue
        values[slot.name] = value
        open_slots.remove(slot)
        at = end
    return values


def _first_match(slots: list[Slot], words: list[Word], at: int, text: str) -> tuple[Slot | None, int, Any]:
    for slot in slots:
        for end, value, cost in slot.read(words, at, text):
            if cost == 0:
                return slot, end, value
    return None, at, None
