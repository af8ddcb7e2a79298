"""Dicts of functions, and what is none."""

__all__ = ["anArray", "default", "emptyObject", "noCallables", "tools"]


class Klass:
    def x(self):
        pass


tools = {"ping": lambda: "pong", "thisIsUndefined": lambda: True, "n": 1, "Klass": Klass}
default = {"sum": lambda a, b: a + b}
noCallables = {"a": 1}
emptyObject = {}
anArray = [1, 2]
