"""Names that become the same, or nothing."""


def add(a, b):
    return f"dupe:{a}{b}"


def ADD(a, b):
    return f"upper:{a}{b}"


def ñandú():
    return "bird"


globals()["$"] = lambda: "dollar"
