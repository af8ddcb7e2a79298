"""The registry of client protocols, and the choice of a Realtime client's dialect."""

from collections.abc import Mapping

import pytest

from relay.protocols.client_protocol import OpeningHandshake
from relay.protocols.registry import CLIENT_PROTOCOLS, select_client_dialect


def test_no_path_has_two_protocols() -> None:
    paths = [path for protocol in CLIENT_PROTOCOLS.values() for path in protocol.paths]
    assert len(paths) == len(set(paths))


@pytest.mark.parametrize(
    ("path", "query", "headers", "subprotocols", "is_beta"),
    [
        ("/v1/realtime", {}, {}, ("realtime",), False),
        ("/v1/realtime", {"api-version": "v"}, {}, (), False),
        ("/v1/realtime", {}, {"OpenAI-Beta": "assistants=v2, realtime=v1"}, (), True),
        ("/v1/realtime", {}, {"OpenAI-Beta": "assistants=v2"}, (), False),
        ("/v1/realtime", {}, {}, ("realtime", "openai-beta.realtime-v1"), True),
        ("/openai/realtime", {"api-version": "v"}, {}, (), True),
        ("/openai/realtime/", {"api-version": "v"}, {}, (), True),
        ("/openai/realtime", {}, {}, (), False),
        ("/openai/v1/realtime", {"api-version": "v"}, {}, (), False),
    ],
)
def test_beta_is_selected_by_header_subprotocol_or_azures_path(
    path: str, query: Mapping[str, str], headers: Mapping[str, str], subprotocols: tuple[str, ...], is_beta: bool
) -> None:
    assert (select_client_dialect(OpeningHandshake(path, query, headers, subprotocols)) is not None) is is_beta
