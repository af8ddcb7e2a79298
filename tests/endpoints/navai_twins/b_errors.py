"""Functions that fail, and results that JSON does not know."""

import datetime


def throws_error():
    raise Exception("boom")


def throws_string():
    raise Exception("plain string")


def throws_undefined():
    raise Exception


def throws_route():
    raise Exception("route")


def throws_status():
    raise OSError(418, "teapot")


async def rejects():
    raise TypeError("async boom")


def returns_undefined() -> None:
    pass


def returns_null():
    return None


def returns_bigint():
    return 10**30


def returns_circular():
    it = {}
    it["self"] = it
    return it


def returns_odd():
    return {"nan": float("nan"), "inf": float("inf"), "date": datetime.datetime.fromtimestamp(0, datetime.UTC)}
