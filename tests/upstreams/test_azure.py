"""An Azure resource and its addresses."""

import pytest

from relay.upstreams.azure import AzureResource, is_azure_preview, normalize_azure_endpoint

ENDPOINT = "https://res.openai.azure.com"


def test_ga_addresses_have_no_version() -> None:
    resource = AzureResource(ENDPOINT, "my deployment/1")
    assert resource.websocket_url == "wss://res.openai.azure.com/openai/v1/realtime?model=my%20deployment%2F1"
    assert resource.client_secrets_url == f"{ENDPOINT}/openai/v1/realtime/client_secrets"
    assert resource.webrtc_url == f"{ENDPOINT}/openai/v1/realtime/calls"


def test_preview_addresses_have_one() -> None:
    resource = AzureResource(ENDPOINT, "dep", "2025-04-01-preview")
    assert resource.is_preview
    assert resource.client_secrets_url == f"{ENDPOINT}/openai/realtimeapi/sessions?api-version=2025-04-01-preview"
    assert resource.webrtc_url == f"{ENDPOINT}/openai/realtime?api-version=2025-04-01-preview&deployment=dep"


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [
        (ENDPOINT, ENDPOINT),
        (f" {ENDPOINT}/ ", ENDPOINT),
        (f"{ENDPOINT}/openai/v1/", ENDPOINT),
        (f"{ENDPOINT}/openai", ENDPOINT),
        ("https://gateway.example.com/azure", "https://gateway.example.com/azure"),
        ("http://127.0.0.1:8091", "http://127.0.0.1:8091"),
    ],
)
def test_endpoints_as_people_write_them(given: str, endpoint: str) -> None:
    assert normalize_azure_endpoint(given) == endpoint


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("res.openai.azure.com", "write it like https://"),
        ("wss://res.openai.azure.com", "write it like https://"),
        ("https://res:0", "write it like https://"),
        ("https://[", "write it like https://"),
        ("https://user:pass@res.openai.azure.com", "write it like https://"),
        (f"{ENDPOINT}/openai/realtime?api-version=1&deployment=x", "the resource alone"),
        (f"{ENDPOINT}/openai/v1/realtime", "the resource alone"),
        ("http://res.openai.azure.com", "https://"),
    ],
)
def test_what_is_no_endpoint_is_told_with_the_fix(given: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        normalize_azure_endpoint(given)


def test_preview_websocket_urls_are_known() -> None:
    assert is_azure_preview("wss://res.openai.azure.com/openai/realtime?api-version=1&deployment=x")
    assert not is_azure_preview("wss://res.openai.azure.com/openai/v1/realtime?model=x")
    assert not is_azure_preview("wss://example.com/v1/realtime")
