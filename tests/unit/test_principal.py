"""Who calls: one name from a certificate, or none."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmsigner.domain.principal import APPLIANCE, principal_from_certificate
from hsmsigner.errors import Reason, SignerError

SPIFFE = "spiffe://bank.example/settlement/engine-1"


@pytest.mark.parametrize(
    ("uris", "dns_names", "common_name", "principal"),
    [
        ([SPIFFE], ["engine.bank.example"], "engine", SPIFFE),
        ([SPIFFE], ["a.example", "b.example"], "engine", SPIFFE),
        ([SPIFFE, "https://bank.example"], [], None, SPIFFE),
        ([], ["engine.bank.example"], "engine", "dns:engine.bank.example"),
        (["https://bank.example"], ["engine.bank.example"], None, "dns:engine.bank.example"),
        ([], [], "engine", "cn:engine"),
        (["urn:x"], [], "engine", "cn:engine"),
        ([], [], SPIFFE, "cn:" + SPIFFE),
        ([], [], "dns:engine", "cn:dns:engine"),
        ([], [], "appliance", "cn:appliance"),
        (["spiffe://b/" + "a" * 501], [], None, "spiffe://b/" + "a" * 501),
    ],
)
def test_the_strongest_name_wins(
    uris: list[str], dns_names: list[str], common_name: str | None, principal: str
) -> None:
    assert principal_from_certificate(uris, dns_names, common_name).text == principal


@pytest.mark.parametrize(
    ("uris", "dns_names", "common_name"),
    [
        ([], [], None),
        ([], [], ""),
        (["https://bank.example"], [], None),
        ([SPIFFE, SPIFFE + "2"], ["engine.bank.example"], "engine"),
        ([SPIFFE, SPIFFE], [], None),
        ([], ["a.example", "b.example"], "engine"),
        (["spiffe://bank.example/*"], [], None),
        ([], ["*.bank.example"], "engine"),
        ([], [], "engine|2"),
        ([], [], "engine 2"),
        ([], [], "engine\x00"),
        ([], [], "engine\n"),
        ([], [], "\x1b[2Jengine"),
        ([], [], "\x7f"),
        ([], [], "éngine"),
        ([], [], "engine\u202e"),
        ([], [], "\uff41"),
        (["spiffe://b/" + "a" * 502], ["engine.bank.example"], "engine"),
        ([], ["a" * 509], None),
    ],
)
def test_what_is_ambiguous_or_unprintable_is_no_principal(
    uris: list[str], dns_names: list[str], common_name: str | None
) -> None:
    with pytest.raises(SignerError) as caught:
        principal_from_certificate(uris, dns_names, common_name)
    assert caught.value.reason is Reason.UNAUTHENTICATED


@given(common_name=st.text(max_size=600))
def test_whatever_a_certificate_says_a_principal_is_plain_and_bounded(common_name: str) -> None:
    with suppress(SignerError):
        text = principal_from_certificate([], [], common_name).text
        assert text.isascii()
        assert text.isprintable()
        assert not set(" *|") & set(text)
        assert len(text) <= 512
        assert text != APPLIANCE.text
