"""The base class of settings groups: fields with their variables, and one report of all problems.

A problem names the setting as the user wrote it: a variable, an option, or the path of a keyword argument.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar, Self, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from relay.errors import ConfigError
from relay.session.common.redact import redact

NameOf = Callable[[str], str]
"""Returns the name that the user writes for the setting at a path such as `server.port`."""


class InvalidSettings(ConfigError):
    """One or more settings are invalid; `problems` has a sentence for each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = list(dict.fromkeys(problems))
        super().__init__("\n  ".join(["invalid settings:", *self.problems]))


class IgnoredValue(Exception):
    """Raised for a value that is ignored; its text is the warning."""


@dataclass(frozen=True, slots=True)
class Variable:
    """The environment variable of a setting.

    `example` is the value in `.env.example`, if it is not the default. `default` describes the default in the
    documentation, if the field's own does not. `parse` converts the text of the variable and gets its name as well; it
    raises IgnoredValue for a value to ignore.
    """

    name: str
    aliases: tuple[str, ...] = ()
    example: str | None = None
    default: str | None = None
    parse: Callable[[str, str], Any] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The name, then the names that other systems use for the same setting."""
        return self.name, *self.aliases


def setting(variable: str | Variable, default: Any, description: str, **constraints: Any) -> Any:
    """Define a field of a group: a pydantic `Field` with the variable that sets it."""
    if isinstance(variable, str):
        variable = Variable(variable)
    return Field(default, description=description, json_schema_extra=cast(Any, {"variable": variable}), **constraints)


class SettingsGroup(BaseModel, frozen=True):
    """Settings that belong together. Raises InvalidSettings for invalid values and unknown keywords."""

    model_config = ConfigDict(extra="forbid", validate_default=True, hide_input_in_errors=True)

    GROUP: ClassVar[str] = ""
    """The keyword of the group in `Settings`."""
    TITLE: ClassVar[str] = ""

    @classmethod
    def variables(cls) -> dict[str, Variable]:
        """Return the environment variable of each field."""
        extras = {name: cast(Any, info.json_schema_extra) for name, info in cls.model_fields.items()}
        return {name: extra["variable"] for name, extra in extras.items() if extra}

    def problems(self, name_of: NameOf) -> Iterator[str]:
        """Yield contradictions between values that are valid by themselves, each with its fix."""
        yield from ()

    @classmethod
    def unknown_keyword_problem(cls, keyword: str) -> str:
        """Return the problem of an unknown keyword, with the nearest known one."""
        nearest = get_close_matches(keyword, cls.model_fields, 1)
        hint = f"did you mean {cls.path(nearest[0])}?" if nearest else f"known are {', '.join(cls.model_fields)}"
        return f"{cls.path(keyword)}: is not a setting; {hint}"

    @classmethod
    def path(cls, field: str) -> str:
        """Return the path of a field in `Settings`, such as `server.port`."""
        return f"{cls.GROUP}.{field}" if cls.GROUP else field

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """The fields of a repr: no keys, not even those in URLs, and of a callable its name alone."""
        for name, value in super().__repr_args__():
            if isinstance(value, str):
                yield name, redact(value, len(value))
            else:
                yield name, getattr(value, "__qualname__", type(value).__name__) if callable(value) else value

    @model_validator(mode="wrap")
    @classmethod
    def _validate(cls, values: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        names: Mapping[str, str] = info.context or {}

        def name_of(path: str) -> str:
            return names.get(path, path)

        unknown = [key for key in values if key not in cls.model_fields] if isinstance(values, dict) else []
        problems = [cls.unknown_keyword_problem(str(key)) for key in unknown]
        try:
            group = handler({key: values[key] for key in values if key not in unknown} if unknown else values)
        except ValidationError as error:
            for problem in error.errors(include_url=False, include_input=False):
                text = problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be", 1)
                path = cls.path(str(problem["loc"][0])) if problem["loc"] else cls.GROUP or cls.__name__
                problems.append(f"{name_of(path)}: {text.partition(', unable')[0]}")
            raise InvalidSettings(problems) from None
        if not cls.GROUP:  # alone, a group may be completed by the environment
            problems += group.problems(name_of)
        if problems:
            raise InvalidSettings(problems)
        return group
