"""Tags as MLflow takes them: what people and workers wrote into them is visible, and no longer than MLflow keeps."""

from hostile_texts import ATTACKS, OBEYED

from orchestrator.tracking.tags import LONGEST, shown_tags


def test_tags_are_visible_and_short_enough() -> None:
    shown = shown_tags({name: attack.text for name, attack in ATTACKS.items()})
    assert all(len(value) <= LONGEST and not set(value) & set(OBEYED) for value in shown.values())
    assert shown["nul"] == "before\\x00after"
    assert shown["one long line"] == "x" * LONGEST


def test_plain_values_are_their_text() -> None:
    assert shown_tags({"a": 3, "b": "rejected by ann; approved by bob"}) == {
        "a": "3",
        "b": "rejected by ann; approved by bob",
    }
