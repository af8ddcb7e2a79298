"""The dialogue policy: decides from the turn's context what to say and which functions to call. It has no state."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from relay.local_engine.dialogue.tool_result_text import output_sentences
from relay.local_engine.dialogue.turn_context import TurnContext
from relay.local_engine.nlu.clauses import ParsedRequest, ToolInfo
from relay.local_engine.nlu.english import ANSWERS
from relay.local_engine.nlu.grammar import Grammar
from relay.local_engine.nlu.keyword_match import match_keywords
from relay.local_engine.nlu.text_normalization import name_to_words


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """A function call to make."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ResponsePlan:
    """Sentences to say first, then calls to make."""

    sentences: tuple[str, ...] = ()
    calls: tuple[PlannedCall, ...] = ()


def plan_response(grammar: Grammar, context: TurnContext) -> ResponsePlan:
    """Decide what a response says and calls; an empty context is answered with a greeting."""
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
    """Complete a follow-up ("and in tokyo") with the arguments of the last call, if that was to the same tool."""
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
    """Say so, and give an example of a sentence that is understood."""
    tools = list(grammar.tools.values())
    hint = f"Try: {tools[0].example_sentence()}." if tools else "Try: tell me a story."
    return ("I am sorry, I did not understand that.", f"{hint} Or ask: what can you do?")


def _missing_arguments(tool: ToolInfo, arguments: dict[str, Any]) -> list[str]:
    return [name for name, slot in tool.slots.items() if slot.required and name not in arguments]


def _forced_call(grammar: Grammar, context: TurnContext) -> PlannedCall | None:
    """Return the call that `tool_choice` demands, with the user's values and defaults for the rest."""
    choice = context.tool_choice
    tool = grammar.tools.get(choice.get("name", "")) if isinstance(choice, dict) else None
    if tool is None and (choice != "required" or not grammar.tools):
        return None
    requests = [
        r for r in _parse_requests(grammar, context) or [] if r.is_tool and (tool is None or r.name == tool.name)
    ]
    if requests and tool is None:
        return None  # the user's request leads to a call anyway
    if tool is None:
        tool = next(iter(grammar.tools.values()))
    arguments = dict(requests[0].arguments) if requests else {}
    for name in _missing_arguments(tool, arguments):
        arguments[name] = tool.slots[name].fallback_value()
    return PlannedCall(tool.name, arguments)


def _join_names(names: Sequence[str]) -> str:
    """Return "one", "one and two" or "one, two and three"."""
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part) if names else ""
