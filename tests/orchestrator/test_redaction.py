"""What counts as a secret, and what only looks like one."""

from orchestrator.redaction import redacted, redacted_text


def test_counts_are_no_secrets() -> None:
    settings = {"max_response_tokens": 24, "tokens": ["a"], "hfToken": "x", "monkey": 1, "keyboard": "q", "token": None}
    assert redacted(settings) == {**settings, "tokens": "[redacted]", "hfToken": "[redacted]"}
    assert settings["hfToken"] == "x"


def test_secrets_are_found_at_any_depth() -> None:
    settings = {"rater": [{"API_KEY": "sk-1"}, {"password": 7}], "secret": {"inner": 1}}
    assert redacted(settings) == {
        "rater": [{"API_KEY": "[redacted]"}, {"password": "[redacted]"}],
        "secret": "[redacted]",
    }


def test_addresses_lose_their_credentials() -> None:
    assert redacted_text("see http://u:p@host:80/x@y") == "see http://[redacted]@host:80/x@y"
    assert redacted_text("http://h/p?api_key=abc&x=1") == "http://h/p?api_key=[redacted]&x=1"
    assert redacted_text("mail anna@example.org") == "mail anna@example.org"
