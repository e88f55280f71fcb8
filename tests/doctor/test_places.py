from __future__ import annotations

import pytest

from toolkit.doctor.places import look_at_network, without_password


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://proxy:3128", "http://proxy:3128"),
        ("http://ann:pa55@proxy:3128", "http://***@proxy:3128"),
        ("ann:pa55@proxy:3128", "***@proxy:3128"),
        ("http://ann:p@55/w://rd@proxy:3128/", "http://***@proxy:3128/"),
        ("localhost,.example.org", "localhost,.example.org"),
    ],
)
def test_passwords_of_proxies_are_hidden(url: str, shown: str) -> None:
    assert without_password(url) == shown


def test_tokens_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://ann:pa55@proxy:3128")
    monkeypatch.setenv("SEG_TUNE_TOKEN", "s3cret")
    monkeypatch.setenv("SEG_TUNE_MIRROR", "https://a:pa55@one/ https://two/")
    checks, facts = look_at_network()
    said = f"{checks} {facts}"
    assert "pa55" not in said
    assert "s3cret" not in said
    assert facts["settings"]["SEG_TUNE_MIRROR"] == "https://***@one/ https://two/"
