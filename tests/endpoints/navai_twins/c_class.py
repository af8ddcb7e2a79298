"""Classes."""

import json

__all__ = ["EmptyClass", "Picky", "UserService"]


class Base:
    def inherited(self):
        return "base"


class UserService(Base):
    def __init__(self, prefix="none", n=0):
        self.prefix = prefix
        self.n = n

    def greet(self, name):
        return f"{self.prefix}:{json.dumps(name, separators=(',', ':')) if isinstance(name, dict) else name}"

    def counter(self):
        self.n += 1
        return self.n

    async def withContext(self, a):
        return {"a": a}

    @property
    def computed(self):
        return lambda: 1

    @staticmethod
    def makeOne():
        return 1

    def _hidden(self):
        return "hidden"


class EmptyClass:
    pass


class Picky:
    def __init__(self):
        raise Exception("ctor failed")

    def run(self):
        return 1
