"""Understanding: from what was said and what tools returned to what happens next, without memory or side effects."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from relay.local_engine.clauses import Request
from relay.local_engine.english import ANSWERS
from relay.local_engine.grammar import Grammar, ToolInfo
from relay.local_engine.guess import guess
from relay.local_engine.phrases import name_to_words
from relay.local_engine.replies import output_sentences


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


def plan(grammar: Grammar, situation: Situation) -> Plan:
    """What to do in a response; an empty situation is answered with a greeting."""
    sentences = [text for name, output in situation.outputs for text in output_sentences(name, output)]
    forced = _forced(grammar, situation)
    if forced is not None:
        return Plan(tuple(sentences), (forced,))
    if situation.said is not None:
        requests = _understood(grammar, situation.said, situation.last_call)
        asked = _answer(grammar, requests, situation.tool_choice) if requests else Plan(_not_understood(grammar))
        return Plan((*sentences, *asked.sentences), asked.calls)
    if sentences:
        return Plan(tuple(sentences))
    if situation.waiting:
        names = _listing([" ".join(name_to_words(name)) for name in situation.waiting])
        return Plan((f"I am still waiting for {names}.",))
    return Plan(ANSWERS["still_there" if situation.silent else "greeting"])


def _understood(grammar: Grammar, said: str, last_call: tuple[str, dict[str, Any]] | None) -> list[Request] | None:
    requests = grammar.parse(said, after=last_call[0] if last_call else None) if said else None
    if requests is not None:
        return [_completed(request, last_call) for request in requests]
    if said:
        guessed = guess(said, list(grammar.tools.values()))
        requests = [guessed] if guessed else None
    return requests


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
        elif tool_choice == "none":
            sentences.append(f"I understood {grammar.tools[request.name].title}, but I may not use tools now.")
        elif missing := _missing(grammar.tools[request.name], request.arguments):
            sentences.append(_question(grammar.tools[request.name], missing))
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


def _question(tool: ToolInfo, missing: list[str]) -> str:
    names = _listing([" ".join(name_to_words(name)) for name in missing])
    return f"For {tool.title} I need the {names}. Say for example: {tool.example()}."


def _forced(grammar: Grammar, situation: Situation) -> Call | None:
    """The call that `tool_choice` demands, with what was said filled in and defaults for the rest."""
    choice = situation.tool_choice
    wanted = grammar.tools.get(choice.get("name", "")) if isinstance(choice, dict) else None
    if wanted is None and (choice != "required" or not grammar.tools):
        return None
    requests = (_understood(grammar, situation.said, situation.last_call) if situation.said else None) or []
    fitting = [r for r in requests if r.tool and (wanted is None or r.name == wanted.name)]
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
