"""docs/QUIZ.md: 40 questions, each with an answer and a link to the section of its chapter that teaches it."""

import contextlib
import io
import re
from collections import Counter

import pytest
import test_coverage_page as coverage

PAGE = coverage.ROOT / "docs" / "QUIZ.md"
TEXT = PAGE.read_text(encoding="utf-8")
KINDS = ("Calculate", "Choose", "Find the fault", "Explain", "Predict the output")
QUESTION = re.compile(rf"^\*\*(\d+)\. ({'|'.join(KINDS)})\.\*\*\s", re.MULTILINE)
ANSWER = re.compile(r"<details><summary>Answer</summary>\n\n(.+?)\n\n</details>", re.DOTALL)
CHAPTERS = [f"{number:02}" for number in range(9)]


def questions(page: str) -> list[tuple[str, str, str, str]]:
    """(chapter, number, kind, question with its answer), in the order of the page."""
    found = []
    for section in page.split("\n## ")[1:]:
        parts = QUESTION.split(section)[1:]
        found += [(section[:2], *part) for part in zip(parts[::3], parts[1::3], parts[2::3], strict=True)]
    return found


def faults(page: str) -> list[str]:
    """What is wrong with the page, one line each."""
    found = coverage.faults(page)  # every link leads to a heading that exists and is quoted correctly
    asked = questions(page)
    if [number for _, number, _, _ in asked] != [str(number) for number in range(1, 41)]:
        found.append(f"the questions are not numbered 1 to 40, but {len(asked)} are there")
    of_chapter = Counter(chapter for chapter, *_ in asked)
    found += [f"chapter {name} has fewer than four questions" for name in CHAPTERS if of_chapter[name] < 4]
    for chapter, number, kind, body in asked:
        answers = ANSWER.findall(body)
        if len(answers) != 1:
            found.append(f"question {number} has {len(answers)} answers")
            continue
        links = [(target, anchor) for _, target, anchor, _ in coverage.LINK.findall(answers[0])]
        if not any(target.startswith(f"../notebooks/{chapter}_") and anchor for target, anchor in links):
            found.append(f"the answer to question {number} has no link to a heading of chapter {chapter}")
        if kind == "Choose":
            letter = re.match(r"\*\*([a-d])\.\*\* ", answers[0])
            if not letter or re.findall(r"^- ([a-z])\) ", body, re.MULTILINE) != list("abcd"):
                found.append(f"question {number} does not have four choices and an answer among them")
    return found


def test_forty_questions_with_answers_and_links() -> None:
    assert faults(TEXT) == []
    assert len(ANSWER.findall(TEXT)) == TEXT.count("<details>") == 40
    assert {kind for _, _, kind, _ in questions(TEXT)} == set(KINDS)


@pytest.mark.parametrize(
    "body", [pytest.param(body, id=number) for _, number, kind, body in questions(TEXT) if kind == KINDS[-1]]
)
def test_code_prints_what_the_answer_shows(body: str) -> None:
    code = re.findall(r"```python\n(.+?)```", body, re.DOTALL)
    shown = re.findall(r"```text\n(.+?)```", body, re.DOTALL)
    assert len(code) == len(shown) == 1
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code[0], {})
    assert printed.getvalue() == shown[0]


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("02_verification.ipynb#the-rule)", "02_verification.ipynb#the-ruler)", "no heading #the-ruler"),
        ("[02 · The rule]", "[02 · The old rule]", "no heading"),
        ("04_ngram.ipynb#one-trie-for-all-requests", "04_ngram.ipynb", "question 21 has no link"),
        ("[08 · Load test](../notebooks/08_production.ipynb#load-test)", "chapter 08", "question 37 has no link"),
        ("**40. Choose.**", "**Choose.**", "not numbered 1 to 40"),
        ("**18. Predict the output.**", "**18. Predict.**", "chapter 04 has fewer than four"),
        ("<details><summary>Answer</summary>\n\n19 pairs", "19 pairs", "question 14 has 0 answers"),
        ("- d) 30\n", "", "question 24 does not have four choices"),
    ],
)
def test_planted_mistakes_are_found(old: str, new: str, word: str) -> None:
    assert TEXT.count(old) == 1
    assert any(word in fault for fault in faults(TEXT.replace(old, new)))
    assert not any(word in fault for fault in faults(TEXT))
