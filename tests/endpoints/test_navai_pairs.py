"""What NAVAI's own backend answered, recorded, against ours over Python twins of the same functions.

`DIFFERENCES` are the answers that were decided otherwise, each with its reason; there are no others. In all of them
`.py` stands for `.js`, and what follows "Failed to load <file>:" is the language's own text.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from relay.config.navai_options import NavaiOptions, NavaiPaths
from relay.endpoints.navai import add_routes
from tests.support.navai_project import make_project

PAIRS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "navai_pairs.json").read_text())
MODULES = "src/ai/functions-modules"

Answer = tuple[int, dict[str, Any]]


def renamed(names: list[str]) -> list[str]:
    """Private methods are no tools, inherited ones are; there are no default exports and no CommonJS modules."""
    other = {"e_object_sum": "default_sum", "get_user_by_id": "default_by_id", "user_service_hidden": None}
    other["g_cjs_legacy"] = None
    kept = [new for name in names if (new := other.get(name, name))]
    kept.insert(kept.index("user_service_with_context") + 1, "user_service_inherited")
    return kept


def list_of_main(status: int, body: dict[str, Any]) -> Answer:
    by_name = {item["name"]: item for item in body["items"]}
    by_name["default_sum"] = by_name["e_object_sum"] | {"name": "default_sum"}
    by_name["default_by_id"] = by_name["get_user_by_id"] | {"name": "default_by_id"}
    by_name["user_service_inherited"] = {
        "name": "user_service_inherited",
        "description": "Call class method UserService.inherited().",
        "source": f"{MODULES}/c_class.py#UserService.inherited",
    }
    by_name["legacy"]["source"] = f"{MODULES}/g_cjs.py#legacy"
    by_name["secret_password"] |= {
        "description": "Call exported function secret_password.",
        "source": f"{MODULES}/named_default.py#secret_password",
    }
    return status, body | {"items": [by_name[name] for name in renamed(list(by_name)[:-3])]}


def names_of_main(status: int, body: dict[str, Any]) -> Answer:
    return status, body | {"available_functions": renamed(body["available_functions"])}


def default_is_the_name(status: int, body: dict[str, Any]) -> Answer:
    return status, body


def named_export(status: int, body: dict[str, Any]) -> Answer:
    return status, json.loads(json.dumps(body).replace("#default", "#agent"))


def no_arguments(status: int, body: dict[str, Any]) -> Answer:
    return 400, {"error": '"a" is missing.', "field": "payload"}


DIFFERENCES: dict[str, tuple[Callable[[int, dict[str, Any]], Answer], str]] = {
    "functions list (all shapes, all warnings)": (list_of_main, "Python mapping: exports, methods (decision 5)"),
    "exec unknown function": (names_of_main, "Python mapping: exports, methods (decision 5)"),
    "exec default object named by file stem": (default_is_the_name, "no default export; asked by its own name (5)"),
    "exec args [] counts as absent: whole payload passed": (no_arguments, "args: [] means no arguments (decision 4)"),
    "agents: filter main,food": (named_export, "no default export: the twin is called agent (decision 5)"),
}

ASKED_OTHERWISE = {"e_object_sum": "default_sum"}


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair["name"])
async def test_the_recorded_pairs(pair: dict[str, Any], tmp_path: Path) -> None:
    status, body = await answer_of(pair, make_project(tmp_path, pair["project"]))
    expected = json.loads(in_python(json.dumps(pair["response"]["json"])))
    decided = DIFFERENCES.get(pair["name"], (default_is_the_name, ""))[0]
    wanted_status, wanted = decided(pair["response"]["status"], expected)
    assert (status, comparable(body)) == (wanted_status, comparable(wanted))


def in_python(text: str) -> str:
    text = re.sub(r"\.(js|mjs|cjs)\b", ".py", text).replace("UPPER.JS", "UPPER.PY").replace("h_typed.ts", "h_typed.PY")
    for old, new in ASKED_OTHERWISE.items():
        text = text.replace(f'"function_name": "{old}"', f'"function_name": "{new}"')
    return text


def comparable(body: dict[str, Any]) -> dict[str, Any]:
    """Without the schemas that ours adds to the list, and the engine's words in warnings."""
    if "items" in body:
        items = [{key: value for key, value in item.items() if key != "parameters"} for item in body["items"]]
        warnings = [re.sub(r"(Failed to load [^:]+:).*", r"\1", text) for text in body["warnings"]]
        return {"items": items, "warnings": warnings}
    return body


async def answer_of(pair: dict[str, Any], base: Path) -> Answer:
    paths = {
        "client_secret": pair["paths"].get("clientSecretPath"),
        "speech_synthesize": pair["paths"].get("speechSynthesizePath"),
        "functions_list": pair["paths"].get("functionsListPath"),
        "functions_execute": pair["paths"].get("functionsExecutePath"),
    }
    env = {key: in_python(value) for key, value in pair["env"].items()} | {"NAVAI_FUNCTIONS_BASE_DIR": str(base)}
    options = NavaiOptions.from_env(env, paths=NavaiPaths(**{key: path for key, path in paths.items() if path}))
    app = web.Application()
    add_routes(app, options)
    request = json.loads(in_python(json.dumps(pair["request"])))
    async with TestClient(TestServer(app)) as client:
        extra = {"json": request["body"]} if request["body"] is not None else {}
        response = await client.request(request["method"], request["path"], headers=request.get("headers", {}), **extra)
        assert response.content_type == "application/json"
        body = await response.json()
        assert all(item["parameters"]["type"] == "object" for item in body.get("items", []))
        return response.status, body


def test_each_difference_belongs_to_a_pair() -> None:
    assert DIFFERENCES.keys() <= {pair["name"] for pair in PAIRS}
