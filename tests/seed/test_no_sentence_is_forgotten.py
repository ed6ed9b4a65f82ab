"""The seed, sentence by sentence: each has a test that quotes it, or a written reason."""

import ast
import re
import tomllib
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent


def sentences():
    """Section 17.4 in sentences: a heading is one of its own, and so is the example's program."""
    text = (HERE / "17.4-signal.txt").read_text(encoding="utf-8").replace("\u00a0", " ")
    prose, first_line, rest = text.partition("import signal, os\n")
    found = []
    for line in (raw.strip().removeprefix("•").strip() for raw in prose.splitlines()):
        if re.match(r"17\.4\.", line):
            found.append(line)
        elif line:
            found += re.split(r"(?<=\.)\s+|(?<=\.\))\s+", line)
    return [*found, (first_line + rest).strip()]


def quoted():
    """What the tests of this folder quote, read from their source: a selected run knows all too."""
    found = []
    for path in sorted(HERE.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for mark in node.decorator_list:
                    if isinstance(mark, ast.Call) and getattr(mark.func, "id", "") == "sentence":
                        found += [ast.literal_eval(argument) for argument in mark.args]
    return found


def reasons():
    text = (HERE / "reasons.toml").read_text(encoding="utf-8")
    return {entry["sentence"]: entry["reason"] for entry in tomllib.loads(text)["untested"]}


def test_each_sentence_has_a_test_or_a_reason():
    # A sentence that stands twice (once for each of two functions) needs two tests.
    wanted = Counter(sentences())
    untested = wanted - Counter(quoted())
    assert [text for text in untested if text not in reasons()] == []


def test_each_quotation_is_a_sentence_of_the_seed():
    assert set(quoted()) - set(sentences()) == set()


def test_each_reason_is_needed_and_says_something():
    given = reasons()
    assert set(given) - set(sentences()) == set()
    assert set(given) & set(quoted()) == set(), "tested after all: drop the reason"
    assert [text for text, reason in given.items() if not reason.strip()] == []
