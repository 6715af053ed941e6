"""Plug-ins that are not what they should be: the message names the file, its line, and what is missing."""

from pathlib import Path

import pytest

from policies.errors import TaskError
from policies.tasks.base import RaterSettings
from policies.tasks.registry import load_task, make

BROKEN = [
    ("def oops(:\n    pass\n", "Plugin", ("plugin.py, line 1: invalid syntax",)),
    ("import nowhere_at_all\n", "Plugin", ("plugin.py, line 1: the module nowhere_at_all is not installed",)),
    ("x = 1\ny = x / 0\n", "Plugin", ("plugin.py, line 2: ZeroDivisionError: division by zero",)),
    ("import sys\nsys.exit(3)\n", "Plugin", ("plugin.py, line 2: SystemExit: 3",)),
    ("class Other: ...\n", "Plugin", ("plugin.py has no class Plugin",)),
    ("Plugin = 3\n", "Plugin", ("Plugin is no class, but 3",)),
    ("class Plugin:\n  def __init__(self):\n    raise KeyError('colour')\n", "Plugin",
     ("cannot be made: plugin.py, line 3: KeyError: 'colour'",)),
    ("class Plugin:\n  def __init__(self, colour): ...\n", "Plugin", ("missing", "'colour'", "it takes (colour)")),
    ("class Plugin:\n  name = 'ann'\n", "Plugin", ("lacks label; see policies/tasks/base.py",)),
]  # fmt: skip


@pytest.mark.parametrize(("text", "name", "words"), BROKEN, ids=[words[0] for _, _, words in BROKEN])
def test_a_broken_plug_in_is_told_by_its_line(tmp_path: Path, text: str, name: str, words: tuple[str, ...]) -> None:
    file = tmp_path / "plugin.py"
    file.write_text(text)
    with pytest.raises(TaskError) as raised:
        make(f"{file}:{name}", {}, what="rater", members=("name", "label"))
    for word in (str(file), *words):
        assert word in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_module_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TaskError, match="there is no module nowhere_at_all; install it, or name a file"):
        load_task("nowhere_at_all.deep:Task")
    (tmp_path / "needs_more.py").write_text("import nowhere_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        TaskError, match=r"needs_more cannot be imported: needs_more.py, line 1: the module nowhere_at_all"
    ):
        load_task("needs_more:Task")


def test_a_task_that_lacks_members_is_told_all_of_them(tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text("class Plugin:\n  kind = 'mine'\n  def corpus(self, seed): ...\n")
    with pytest.raises(TaskError, match="lacks prompts, prompt_capacity, gold, raters; see"):
        load_task(f"{tmp_path / 'plugin.py'}:Plugin")


def test_what_is_whole_is_made_with_its_options(tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text("class Plugin:\n  name = 'x'\n  def __init__(self, say): self.label = say\n")
    assert make(f"{tmp_path / 'plugin.py'}:Plugin", {"say": 7}, what="rater", members=("label",)).label == 7
    assert load_task("memo", {"keys": 5, "asked": 2}).raters(RaterSettings())
