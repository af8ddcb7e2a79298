"""Reads settings groups from an environment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from relay.config.environment import Environment
from relay.config.group import IgnoredValue, InvalidSettings, SettingsGroup

Group = TypeVar("Group", bound=SettingsGroup)


@dataclass(slots=True)
class SettingsReader:
    """Reads settings groups, and collects the problems and warnings of all of them.

    `names` maps the path of each field to the name that the user writes.
    """

    environment: Environment
    names: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def read(self, model: type[Group], overrides: Group | None = None) -> Group | None:
        """Read a group; fields that are set in `overrides` win. Returns None if a value is invalid."""
        values = {} if overrides is None else {name: getattr(overrides, name) for name in overrides.model_fields_set}
        for name, variable in model.variables().items():
            path = model.path(name)
            match = self.environment.find(variable.names)
            self.names[path] = path if name in values else match[0] if match else variable.name
            if match is None or name in values:
                continue
            try:
                values[name] = variable.parse(*match) if variable.parse else match[1]
            except IgnoredValue as ignored:
                self.warnings.append(str(ignored))
        try:
            return model.model_validate(values, context=self.names)
        except InvalidSettings as error:
            self.problems += error.problems
            return None

    def read_all(
        self, models: Mapping[str, type[SettingsGroup]], overrides: Mapping[str, SettingsGroup]
    ) -> dict[str, SettingsGroup]:
        """Read several groups by name. Raises InvalidSettings with the problems of all."""
        groups = {name: self.read(model, overrides.get(name)) for name, model in models.items()}
        valid = {name: group for name, group in groups.items() if group is not None}
        if self.problems:
            problems = [text for group in valid.values() for text in group.problems(self.names.__getitem__)]
            raise InvalidSettings(self.problems + problems)
        return valid
