from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.client.fake_server import Authority, FakeServer


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority.make()


@pytest.fixture
def server(authority: Authority) -> Iterator[FakeServer]:
    # Of the audit service it answers only what the tests ask.
    with FakeServer(authority) as running:  # type: ignore[abstract]
        yield running
