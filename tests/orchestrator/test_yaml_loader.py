from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import ConfigError
from orchestrator.yaml_loader import MAX_BYTES, apply_overrides, load_yaml, load_yaml_text, nearest_key


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("off", "off"),
        ("yes", "yes"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("1e-5", 1e-5),
        ("3.0e-4", 3.0e-4),
        ("1E+3", 1000.0),
        (".5", 0.5),
        ("-1.", -1.0),
        ("0", 0),
        ("-12", -12),
        ("+3", 3),
        ("12:30:45", "12:30:45"),
        ("2026-01-01", "2026-01-01"),
        ("1_000", "1_000"),
        ("0x1F", "0x1F"),
        ("1.2.3", "1.2.3"),
        ("nan", "nan"),
        ("'010'", "010"),
        ('".inf"', ".inf"),
        ("'true'", "true"),
        ("=", "="),
        ("|\n  two\n  lines\n", "two\nlines\n"),
        ("[a, {b: 1}]", ["a", {"b": 1}]),
    ],
)
def test_scalars_mean_what_they_look_like(text: str, value: object) -> None:
    loaded = load_yaml_text(f"key: {text}", "t")["key"]
    assert loaded == value
    assert type(loaded) is type(value)


def test_booleans_and_merge_keys_of_yaml_1_1_are_plain_keys() -> None:
    assert load_yaml_text("on: 1\n<<: {a: 2}\n", "t") == {"on": 1, "<<": {"a": 2}}


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        ("a: &x 1\nb: *x", "1:4", "aliases"),
        ("a: 1\nb: *x", "2:4", "aliases"),
        ("a: !!python/object/apply:os.system ['true']", "1:4", "tag"),
        ("a: !!str 1", "1:4", "tag"),
        ("a: ! 1", "1:4", "tag"),
        ("%TAG ! tag:x,2000:\n---\na: !b 1", "3:4", "tag"),
        ("a: 1\nb:\n  c: 2\n  c: 3", "4:3", "twice"),
        ("a: 1\n'a': 2", "2:1", "twice"),
        ("1: 2", "1:1", "must be text"),
        ("true: 2", "1:1", "must be text"),
        ("? [a]\n: 1", "1:3", "must be text"),
        ("a: 010", "1:4", "leading zero"),
        ("a: -007", "1:4", "leading zero"),
        ("a: .nan", "1:4", "finite"),
        ("a: -.INF", "1:4", "finite"),
        ("a: 1e999", "1:4", "finite"),
        ("a: " + "9" * 5000, "1:5004", "4300 digits"),
        ('a: "\\ud800"', "1:4", "half a character"),
        ('a: "\\0"', "1:4", "NUL"),
        ('a: "\\UFFFFFFFF"', "1:7", "not YAML"),
        ("a: 1\n\0", "2:1", "not allowed"),
        ("a: b: c", "1:5", "mapping values"),
        ("a: [1, 2", "1:9", "expected"),
        ("a:\n\t- b", "2:1", "cannot start"),
        ("a: 1\n---\nb: 2", "2:1", "second document"),
        ("- a", "1:1", "found a list"),
        ("just words", "1:1", "found text"),
        ("", "1:1", "found null"),
        ("# only a comment\n", "1:1", "found null"),
        ("a: " + "[" * 50 + "]" * 50, "1:53", "deeper than 50"),
        ("a: " + "{b: " * 5000, "1:200", "deeper than 50"),
    ],
)
def test_refusals_name_their_place(text: str, place: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what) as refusal:
        load_yaml_text(text, "file.yaml")
    assert str(refusal.value).startswith(f"file.yaml:{place}: ")
    assert len(str(refusal.value).splitlines()) == 1


def test_fifty_levels_are_allowed() -> None:
    value = load_yaml_text("a: " + "[" * 49 + "]" * 49, "t")["a"]
    for _ in range(48):
        (value,) = value
    assert value == []


def test_alias_bomb_is_refused_at_once(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.yaml"
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    bomb.write_text("\n".join(lines))
    start = time.process_time()
    with pytest.raises(ConfigError, match=r"bomb\.yaml:1:5: anchors"):
        load_yaml(bomb)
    assert time.process_time() - start < 5, "ten to the tenth values would take hours"


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: quickstart\r\nseed: 0\r\n")
    assert load_yaml(path) == {"name": "quickstart", "seed": 0}
    path.write_bytes(b"a: 1\nb: x\xff\n")
    with pytest.raises(ConfigError, match=r"c\.yaml:2:5: not UTF-8"):
        load_yaml(path)
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="over 1 MB"):
        load_yaml(path)
    for missing in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigError, match="check the path"):
            load_yaml(missing)


def test_device_that_never_ends() -> None:
    with pytest.raises(ConfigError, match="over 1 MB"):
        load_yaml(Path("/dev/zero"))


@given(st.text(st.sampled_from("abk01.e-:+,[]{}'\"!&*|>%#?~_\\x \n\t\r\0\ud800é\u2028") | st.characters(), max_size=60))
@settings(max_examples=200, deadline=None)
def test_no_text_gives_anything_but_a_mapping_or_a_config_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(load_yaml_text(text, "t"), dict)


@given(st.binary(max_size=80))
@settings(max_examples=100, deadline=None)
def test_no_bytes_give_anything_but_a_mapping_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(data)
    with contextlib.suppress(ConfigError):
        assert isinstance(load_yaml(path), dict)


words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufeff\u2028\u2029"))
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(words, children, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(words, plain, max_size=5))
@settings(max_examples=60, deadline=None)
def test_json_is_read_as_json(value: dict[str, Any]) -> None:
    """JSON is YAML 1.2; json.dumps is the oracle, with quotes around every key and text."""
    assert load_yaml_text(json.dumps(value, ensure_ascii=False), "t") == value


def test_safe_loader_of_yaml_1_1_would_have_guessed() -> None:
    """Why this loader exists: what PyYAML makes of the same text."""
    text = "a: no\nb: 010\nc: 12:30:45\nd: 1e-5"
    assert yaml.safe_load(text) == {"a": False, "b": 8, "c": 45045, "d": "1e-5"}


def test_overrides() -> None:
    data = {"phase": {"steps": 40, "kl": {"coefficient": 0.02}}, "name": "x"}
    overrides = ["phase.steps=80", "phase.kl.coefficient=1e-3", "gate.alpha=0.1", "tags=[a, b]", "name=a=b", "base="]
    assert apply_overrides(data, [*overrides, "phase.steps=81"]) == {
        "phase": {"steps": 81, "kl": {"coefficient": 0.001}},
        "gate": {"alpha": 0.1},
        "tags": ["a", "b"],
        "name": "a=b",
        "base": None,
    }
    assert data == {"phase": {"steps": 40, "kl": {"coefficient": 0.02}}, "name": "x"}


def test_an_override_switches_a_null_section_on() -> None:
    assert apply_overrides({"a": None}, ["a.b.c=1"]) == {"a": {"b": {"c": 1}}}


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("phase.steps", "expected KEY=VALUE"),
        ("=1", "expected KEY=VALUE"),
        ("a..b=1", "expected KEY=VALUE"),
        (".".join("a" * 51) + "=1", "expected KEY=VALUE"),
        ("name.x=1", "name is text, not a mapping"),
        ("a=&x 1", r"--set a:1:1: anchors"),
        ("a=010", r"--set a:1:1: 010 has a leading zero"),
        ("a={b: 1, b: 2}", "twice"),
    ],
)
def test_bad_overrides_are_named(override: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        apply_overrides({"name": "x"}, [override])


def test_nearest_key() -> None:
    keys = ["learning_rate", "steps", "kl"]
    assert nearest_key("lerning_rate", keys) == "learning_rate"
    assert nearest_key("Learning-Rate", keys) == "learning_rate"
    assert nearest_key("step", keys) == "steps"
    assert nearest_key("banana", keys) is None
    assert nearest_key("", keys) is None
