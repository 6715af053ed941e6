"""The text task: reading files strictly, cutting texts into prompt and response, plug-ins, the tokenizer."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from policies.errors import PromptsExhaustedError, TaskError
from policies.seedling import SeedlingSettings, bpe_tokenizer, grow
from policies.tasks.base import Example, RaterSettings, Split, bpe_vocabulary, has_gold, split_of
from policies.tasks.memo import Memo
from policies.tasks.registry import load_task
from policies.tasks.text import CORPUS_SPLITS, Text
from policies.tasks.text_files import MAX_LINE_BYTES, read_texts

LINES = ["One two  three", "", "   ", "vier fünf\tsechs", "seven"]


def written(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def numbered_corpus(folder: Path, count: int = 400) -> dict[str, str]:
    """Texts that differ in their first three words; every tenth shares its prompt with the one before."""
    number = [n - 1 if n % 10 == 9 else n for n in range(count)]
    texts = "".join(f"film {n // 20} number{n} shows us {at} things and then ends\n" for at, n in enumerate(number))
    return {"corpus": str(written(folder / "corpus.txt", texts))}


class TestFiles:
    @pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
    def test_a_txt_line_is_a_text_and_blank_ones_are_none(self, tmp_path: Path, name: str) -> None:
        path = written(tmp_path / name, "\r\n".join(LINES))
        assert list(read_texts(path)) == ["One two three", "vier fünf sechs", "seven"]

    @pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
    def test_a_jsonl_field_is_a_text(self, tmp_path: Path, name: str) -> None:
        rows = "\n".join(json.dumps({"id": at, "body": text}) for at, text in enumerate(LINES))
        assert list(read_texts(written(tmp_path / name, rows), field="body")) == [
            "One two three",
            "vier fünf sechs",
            "seven",
        ]

    @pytest.mark.parametrize("name", ["a.tsv", "a.txt", "a.tsv.gz"])
    def test_a_column_is_a_text(self, tmp_path: Path, name: str) -> None:
        assert list(read_texts(written(tmp_path / name, "1\t.5\tgood film\n2\t.6\tbad  one\n"), column=3)) == [
            "good film",
            "bad one",
        ]

    def test_a_byte_order_mark_is_no_text(self, tmp_path: Path) -> None:
        assert list(read_texts(written(tmp_path / "a.txt", b"\xef\xbb\xbfhello you"))) == ["hello you"]

    @pytest.mark.parametrize(
        ("name", "content", "options", "message"),
        [
            ("a.txt", b"fine\nbroken \xff\n", {}, r"a\.txt, row 2: not UTF-8"),
            ("a.txt", "fine\n\n" + "x" * (MAX_LINE_BYTES + 1), {}, r"row 3: over 100,000 bytes"),
            ("a.jsonl", '{"text": "fine"}\n{"text": ', {}, r"row 2: not JSON"),
            (
                "a.jsonl",
                '{"text": "fine"}\n{"body": "x", "id": 1}\n',
                {},
                r"row 2: no field 'text' \(found: body, id\)",
            ),
            ("a.jsonl", '["text"]\n', {}, r"row 1: no field 'text' \(found: a list, not an object\)"),
            ("a.jsonl", '{"text": 3}\n', {}, r"row 1: field 'text' holds a int, not a text"),
            ("a.jsonl", '{"text": "\\ud83d"}\n', {}, r"row 1: .* half a character"),
            ("a.jsonl", "[" * 50_000 + "\n", {}, r"row 1: not JSON"),
            ("a.tsv", "1\ttwo\n3\n", {"column": 2}, r"row 2: 1 tab-separated columns, .* number 2"),
            ("a.tsv", "1\ttwo\n", {}, r"which column"),
            ("a.csv", "x", {}, r"name it \.txt, \.tsv, \.jsonl"),
            ("a.gz", "x", {}, r"name it \.txt"),
        ],
    )
    def test_what_is_odd_is_refused_with_its_row(
        self, tmp_path: Path, name: str, content: str | bytes, options: dict, message: str
    ) -> None:
        with pytest.raises(TaskError, match=message):
            list(read_texts(written(tmp_path / name, content), **options))

    def test_a_truncated_gzip_file_is_refused(self, tmp_path: Path) -> None:
        path = written(tmp_path / "a.txt.gz", "".join(f"line {n}\n" for n in range(5_000)))
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(TaskError, match=r"a\.txt\.gz, after row \d+: cannot be read"):
            list(read_texts(path))

    def test_what_is_not_gzip_or_not_there_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt.gz").write_text("plain")
        for name in ("a.txt.gz", "absent.txt"):
            with pytest.raises(TaskError, match=f"{name}, after row 0: cannot be read"):
                list(read_texts(tmp_path / name))

    def test_a_file_is_read_no_further_than_asked(self, tmp_path: Path) -> None:
        texts = read_texts(written(tmp_path / "a.txt", b"first\nsecond\n" + b"x" * 100_000 + b"\xff\n"))
        assert [next(texts), next(texts)] == ["first", "second"]


class TestPrompts:
    def test_first_words_are_the_prompt_and_the_rest_the_response(self, tmp_path: Path) -> None:
        files = {"corpus": str(written(tmp_path / "c.txt", "A B C d E f g\nToo short\n"))}
        text = Text(files=files, prompt_words=3, min_words=5)
        (example,) = text._examples
        assert (example.prompt, example.response) == ("A B C", "d E f g")
        assert Text(files=files, prompt_words=3, min_words=5, lowercase=True)._examples == [Example("a b c", "d e f g")]

    def test_splits_are_disjoint_by_hash_and_prompts_unique(self, tmp_path: Path) -> None:
        text = Text(files=numbered_corpus(tmp_path), prompt_words=3)
        pools = {split: text.prompts(split, text.prompt_capacity(split), seed=0) for split in Split}
        drawn = [prompt for pool in pools.values() for prompt in pool]
        assert len(drawn) == len(set(drawn)) == 360  # 400 texts, 40 of which share a prompt
        assert all(split_of(prompt) is split for split, pool in pools.items() for prompt in pool)

    def test_a_shorter_list_is_a_prefix_and_seeds_differ(self, tmp_path: Path) -> None:
        text = Text(files=numbered_corpus(tmp_path), prompt_words=3)
        assert text.prompts("gate", 60, seed=1)[:20] == text.prompts("gate", 20, seed=1)
        assert text.prompts("gate", 60, seed=1) != text.prompts("gate", 60, seed=2)

    def test_asking_for_too_many_is_refused(self, tmp_path: Path) -> None:
        text = Text(files=numbered_corpus(tmp_path), prompt_words=3)
        with pytest.raises(PromptsExhaustedError, match=r"the corpus has \d+ prompts for 'gate', 1000 were asked for"):
            text.prompts("gate", 1000, seed=0)

    def test_the_base_reads_no_text_behind_a_gate_or_evaluation_prompt(self, tmp_path: Path) -> None:
        splits = {split_of(item.prompt) for item in Text(files=numbered_corpus(tmp_path), prompt_words=3).corpus(0)}
        assert splits == CORPUS_SPLITS
        assert not splits & {Split.GATE, Split.EVALUATE}

    def test_long_texts_give_prompts_but_no_examples(self, tmp_path: Path) -> None:
        text = Text(files=numbered_corpus(tmp_path), prompt_words=3, max_words=9)
        assert text.prompt_capacity("train") > 0
        assert text.corpus(0) == []  # every text has 10 words

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"files": {"lexicon": "x"}}, "needs a corpus"),
            ({"prompt_words": 0}, "1 <= prompt_words"),
            ({"prompt_words": 8}, "prompt_words < min_words"),
            ({"max_words": 7}, "min_words <= max_words"),
            ({"column": 0}, "column counts from 1"),
            ({"gold": "no.such:Thing"}, "there is no module no;"),
            ({"gold": "Thing"}, r"task\.options\.gold 'Thing' is unknown"),
            ({"raters": "policies.tasks.text_files:Path"}, "files"),
        ],
    )
    def test_impossible_options_are_refused(self, tmp_path: Path, options: dict, message: str) -> None:
        with pytest.raises(TaskError, match=message):
            Text(**{"files": numbered_corpus(tmp_path), **options})

    def test_a_corpus_without_texts_is_refused(self, tmp_path: Path) -> None:
        text = Text(files={"corpus": str(written(tmp_path / "c.txt", "too short\n"))})
        with pytest.raises(TaskError, match="no text of at least 8 words"):
            text.prompt_capacity("train")


class TestPlugins:
    PLUGIN = (
        "class Length:\n"
        "    def __init__(self, *, files):\n"
        "        self.unit = float(open(files['unit']).read())\n"
        "    def gold(self, prompt, response):\n"
        "        return self.unit * len(response)\n"
    )

    def test_gold_comes_from_a_file_of_ones_own(self, tmp_path: Path) -> None:
        plugin = written(tmp_path / "length_gold.py", self.PLUGIN)
        files = {**numbered_corpus(tmp_path), "unit": str(written(tmp_path / "unit.txt", "0.5"))}
        task = load_task("text", {"files": files, "gold": f"{plugin}:Length"})
        assert has_gold(task)
        assert task.gold("a", "four") == 2.0
        with pytest.raises(TaskError, match="lacks raters"):
            load_task("text", {"files": files, "raters": f"{plugin}:Length"})

    def test_without_plugins_there_is_neither_gold_nor_rater(self, tmp_path: Path) -> None:
        task = load_task("text", {"files": numbered_corpus(tmp_path)})
        assert not has_gold(task)
        with pytest.raises(TaskError, match=r"no gold scorer; name one as task\.options\.gold"):
            task.gold("a", "b")
        with pytest.raises(TaskError, match=r"no simulated raters; .* feedback\.rater: people"):
            task.raters(RaterSettings())

    def test_tasks_have_gold_and_whole_words_unless_they_say_otherwise(self) -> None:
        assert has_gold(Memo())
        assert bpe_vocabulary(Memo()) is None


class TestTokenizer:
    EXAMPLES = (
        Example("the film is", "a funny, funny film — naïve but don't miss it."),
        Example("the film was", "no  fun at all 😀"),
    )

    def test_any_text_comes_back_as_it_was(self) -> None:
        tokenizer = bpe_tokenizer(self.EXAMPLES, 300)
        for text in [*(item.response for item in self.EXAMPLES), "日本 ûnseen (words)!", ""]:
            assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text

    def test_prompts_are_closed_and_responses_are_not(self) -> None:
        tokenizer = bpe_tokenizer(self.EXAMPLES, 300)
        assert tokenizer.convert_ids_to_tokens(tokenizer("the film")["input_ids"])[-1] == "<reply>"
        assert "<reply>" not in tokenizer.tokenize("the film")
        assert tokenizer.convert_tokens_to_ids(["<pad>", "<end>", "<unk>", "<reply>"]) == [0, 1, 2, 3]

    def test_the_vocabulary_is_as_large_as_asked(self) -> None:
        assert len(bpe_tokenizer(self.EXAMPLES * 2, 280)) == 280
        with pytest.raises(TaskError, match="has 260 tokens or more, 259 were asked for"):
            bpe_tokenizer(self.EXAMPLES, 259)

    def test_same_corpus_same_bytes_in_any_process(self, tmp_path: Path) -> None:
        program = (
            "import sys\n"
            "from policies.seedling import bpe_tokenizer\n"
            "from policies.tasks.text import Text\n"
            "corpus = Text(files={'corpus': sys.argv[1]}, prompt_words=3).corpus(0)\n"
            "bpe_tokenizer(corpus, 400).save_pretrained(sys.argv[2])\n"
        )
        corpus = numbered_corpus(tmp_path)["corpus"]
        for run in ("1", "2"):
            command = [sys.executable, "-c", program, corpus, str(tmp_path / run)]
            subprocess.run(command, check=True, env={"PYTHONHASHSEED": run, "PYTHONPATH": ":".join(sys.path)})
        for file in sorted((tmp_path / "1").iterdir()):
            assert file.read_bytes() == (tmp_path / "2" / file.name).read_bytes(), file.name

    def test_a_seedling_grows_on_text(self, tmp_path: Path) -> None:
        text = Text(files=numbered_corpus(tmp_path), prompt_words=3, bpe_vocabulary=300)
        settings = SeedlingSettings(width=16, layers=1, heads=2, steps=3, batch_size=4)
        report = grow(text, settings, seed=0, out_dir=tmp_path / "seedling")
        assert report.vocabulary == 300

    def test_a_seedling_refuses_texts_that_it_cannot_read(self, tmp_path: Path) -> None:
        text = Text(files=numbered_corpus(tmp_path), prompt_words=3, bpe_vocabulary=300)
        settings = SeedlingSettings(width=16, layers=1, heads=2, steps=3, batch_size=4, max_tokens=10)
        with pytest.raises(
            TaskError, match=r"an example of \d+ tokens, a seedling reads 10; .*task\.options\.max_words"
        ):
            grow(text, settings, seed=0, out_dir=tmp_path / "seedling")
