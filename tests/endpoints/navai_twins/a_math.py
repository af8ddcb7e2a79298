"""Functions of all shapes."""

import asyncio

from relay import ToolContext

default = lambda a, b: a + b  # noqa: E731
version = "1.0.0"


def add(a, b):
    return a + b


camelCaseName = lambda x: x  # noqa: E731


def getHTTPData2(x):
    return x


def no_args():
    return "pong"


def kind_of_first(a):
    kinds = {list: "array", type(None): "null", dict: "object", int: "number", str: "string"}
    return {"kind": kinds[type(a)], "value": a}


def two_with_context(a, ctx: ToolContext):
    req = ctx.metadata["req"]
    return {"a": a, "ctx_keys": list(ctx.metadata), "path": req["path"], "header": req["headers"].get("x-tenant")}


def three(a, b, c):
    return [a, b, c]


def rest_args(*all):
    return {"count": len(all), "all": all}


def default_param(a, b=10):
    return {"a": a, "b": b}


async def async_upper(text):
    await asyncio.sleep(0)
    return str(text).upper()
