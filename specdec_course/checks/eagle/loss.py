"""Self-check of exercise 03's loss: which rows get a gradient, and how much; and the wrong answers that people give."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from specdec_course.checks.examine import CLOSE, Suspect, Trial, Trouble, attempt, examine, numbers
from specdec_course.checks.report import Report

__all__ = ["loss"]

Text = tuple[int, int, int]  # its tokens, where its answer begins, and where it ends

TEXTS: tuple[Text, ...] = ((8, 3, 7), (6, 2, 6), (9, 5, 8))


def loss(function: Callable[..., Any], texts: Sequence[Text] = TEXTS, words: int = 5) -> Report:
    """Of `function(log_q, p, answer, q_vocab)`: the loss of the rows whose predicted token is part of the answer."""
    trials = []
    for text in texts:
        value, rows = gradients(right_loss, text, words)
        asks = f"({text[0]} tokens, of which {text[1]} to {text[2] - 1} are the answer)"
        trials.append(Trial(f"Which rows are trained {asks}", _outcome(1, text, words), _trains(text, rows)))
        trials.append(Trial(f"How much they count {asks}", _outcome(0, text, words), _counts(value)))
    return examine("Task 5, the bug", function, trials, LOSSES)


def _outcome(which: int, text: Text, words: int) -> Callable[[Any], Any]:
    return lambda code: gradients(code, text, words)[which]


def _counts(right: float) -> Callable[[float], tuple[bool, str]]:
    def judge(value: float) -> tuple[bool, str]:
        good = abs(value - right) < CLOSE
        return good, f"the loss is {value:.4f}" + ("" if good else f"; the mean of the rows that count is {right:.4f}")

    return judge


def _trains(text: Text, right: list[float]) -> Callable[[list[float]], tuple[bool, str]]:
    def judge(rows: list[float]) -> tuple[bool, str]:
        for row, (moved, due) in enumerate(zip(rows, right, strict=True)):
            if bool(moved) != bool(due):
                got = "gets a" if moved else "gets no"
                return False, f"row {row} predicts token {row + 2}, which {_place(row + 2, text)}: it {got} gradient"
        return True, f"the {sum(map(bool, right))} rows that predict a token of the answer, and no others"

    return judge


def _place(token: int, text: Text) -> str:
    length, begin, end = text
    if token >= length:
        return "the text does not have"
    return (
        "is part of the prompt" if token < begin else "is part of the answer" if token < end else "follows the answer"
    )


def gradients(code: Any, text: tuple[int, int, int], words: int) -> tuple[float, list[float]]:
    """(loss, gradient of each row of log_q in absolute value) for a text of so many tokens with such an answer."""
    length, begin, end = text
    chance = torch.Generator().manual_seed(length)
    p = torch.randn(length, words, dtype=torch.float64, generator=chance).softmax(-1)
    q_vocab = torch.tensor([0, 2, 3])
    log_q = torch.randn(length - 1, len(q_vocab), dtype=torch.float64, generator=chance).log_softmax(-1)
    log_q.requires_grad_(True)
    answer = torch.zeros(length, dtype=torch.bool)
    answer[begin:end] = True
    value = attempt(code, log_q, p, answer, q_vocab)
    if not isinstance(value, Tensor) or not value.requires_grad:
        raise Trouble(f"it returned {type(value).__name__}, and a loss that has a gradient was expected")
    (slope,) = torch.autograd.grad(value.sum(), log_q)
    return numbers(value.detach(), 1)[0], slope.abs().sum(-1).tolist()


def _loss(
    used: Callable[[Tensor, int], Tensor] = lambda answer, rows: torch.cat([answer[2:], answer[:1] & False]),
    goal: Callable[[Tensor], Tensor] = lambda p: p[1:],
    mean: Callable[[Tensor, Tensor], Tensor] = lambda each, used: each[used].mean(),
) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """The right loss, with what is given in place of its parts. `used(answer, rows)`: the rows that count."""

    def answer_(log_q: Tensor, p: Tensor, answer: Tensor, q_vocab: Tensor) -> Tensor:
        dist = goal(p)[:, q_vocab]
        dist = dist / dist.sum(-1, keepdim=True)
        return mean(-(dist * log_q).sum(-1), used(answer, len(log_q)))

    return answer_


right_loss = _loss()

LOSSES = (  # (log_q, p, answer, q_vocab) -> loss
    Suspect(
        "The mask is not shifted, as in both projects: row i is trained where token i is part of the answer, and it "
        "predicts token i + 2. The answer's first tokens are never learnt, and what comes after it is.",
        _loss(used=lambda answer, rows: answer[:rows]),
    ),
    Suspect(
        "The mask is not shifted, and the sum is divided by all rows, as it was.",
        _loss(used=lambda answer, rows: answer[:rows], mean=lambda each, used: (each * used).mean()),
    ),
    Suspect(
        "The mask is shifted by one. Row i reads feature i and token i + 1, and it predicts token i + 2.",
        _loss(used=lambda answer, rows: answer[1 : rows + 1]),
    ),
    Suspect(
        "The mask is shifted by one, and the sum is divided by all rows, those of the prompt as well.",
        _loss(used=lambda answer, rows: answer[1 : rows + 1], mean=lambda each, used: (each * used).mean()),
    ),
    Suspect(
        "The sum is divided by the number of all rows. A text with a long prompt then counts less than another.",
        _loss(mean=lambda each, used: (each * used).mean()),
    ),
    Suspect(
        "The mask is right, and the sum is divided by all rows but the last, those of the prompt as well.",
        _loss(mean=lambda each, used: (each * used)[:-1].mean()),
    ),
    Suspect(
        "The rows are summed up, not averaged: a long answer then counts more than a short one.",
        _loss(mean=lambda each, used: each[used].sum()),
    ),
    Suspect(
        "The last row is trained as well. The token that it would predict is after the end of the text.",
        _loss(used=lambda answer, rows: torch.cat([answer[2:], answer[-1:] | True])),
    ),
    Suspect(
        "Row i is taught the distribution of token i + 1, which is already its input. It predicts the next one.",
        _loss(goal=lambda p: p[:-1]),
    ),
    Suspect("Every row is trained, those of the prompt as well.",
            _loss(used=lambda answer, rows: torch.ones(rows, dtype=torch.bool))),
)  # fmt: skip
