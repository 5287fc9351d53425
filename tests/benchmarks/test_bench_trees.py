"""The measuring command for trees: what it counts, and that its prediction agrees with what it counted."""

import json
from pathlib import Path

import pytest
import torch
from drafting import chain, tree
from helpers import VOCAB, perturbed, tiny_model

from benchmarks.trees import main, plans, probe, rank_acceptance
from specdec_ref.config import DraftBudget
from specdec_ref.core import DraftTree, VerifyResult
from specdec_ref.drafters.draft_model import DraftModelDrafter
from specdec_ref.engine import SpecEngine
from specdec_ref.models.target import Target
from specdec_ref.request import Limits
from specdec_ref.session import Session
from specdec_ref.trees.sequoia import expected_tokens
from specdec_ref.trees.static import chain as chain_shape


def test_ranks_are_counted_below_accepted_nodes_alone() -> None:
    """Three rounds on the same tree: second child, then its first; first child; nothing."""
    one = tree([0, 1, 2, 3, 4, 5], [-1, 0, 0, 1, 2, 2])
    rounds = [(one, VerifyResult(path, 9)) for path in ((2, 4), (1,), ())]
    assert rank_acceptance(rounds) == [[1 / 3, 1 / 3], [1 / 2, 0.0]]  # rank 1 at depth 1: node 2's second child alone
    assert rank_acceptance([(chain([3]), VerifyResult((), 1))]) == rank_acceptance([]) == []


def test_the_probe_offers_every_low_rank_at_every_depth() -> None:
    shape = probe(depth=3, ranks=5, spread=1)
    depths = tree([0] * len(shape), shape).depths
    assert [depths.count(level) for level in range(4)] == [1, 5, 3, 4]


def test_a_chain_s_prediction_is_what_was_measured() -> None:
    """On the rounds that it was counted on, the product of conditional rates is the share of rounds: tau exactly."""
    model = tiny_model(seed=1)
    drafter = DraftModelDrafter(Target(perturbed(model, 0.1), check=False), VOCAB)
    engine = SpecEngine(Target(model, check=False), drafter, budget=DraftBudget(3), limits=Limits(max_new_tokens=40))
    engine.start([[3, 5, 7], [42], [11, 2, 9]])
    rounds: list[tuple[DraftTree, VerifyResult]] = []
    while engine.requests and all(request.remaining > 4 for request in engine.requests):  # no round is cut short
        engine.step()
        rounds += engine.last_round
    tau = sum(len(result.path) + 1 for _, result in rounds) / len(rounds)
    assert 1.2 < tau < 4.0
    assert expected_tokens(chain_shape(3), rank_acceptance(rounds)) == pytest.approx(tau, abs=1e-12)


def test_the_contestants_fit_their_budgets() -> None:
    contest = list(plans([[0.6, 0.2, 0.1], [0.5, 0.2], [0.4]], greedy=True, depth=4))
    assert {plan.name.split()[0] for plan in contest} == {"chain", "2-ary,", "3-ary,", "optimal", "dynamic"}
    for plan in contest:
        if plan.parents is not None:
            assert len(plan.parents) == plan.budget.max_nodes
        assert plan.budget.max_nodes <= 16


def test_every_measure_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The command on a random target that drafts for itself: all four measures, a row each, in JSON."""

    class Words:
        eos_token_id = 0
        chat_template = "yes"

        def apply_chat_template(self, turns: list[dict[str, str]], **options: object) -> dict[str, list[int]]:
            return {"input_ids": [1 + ord(char) % (VOCAB - 1) for char in turns[0]["content"][:12]]}

        def decode(self, tokens: list[int], **options: object) -> str:
            return " ".join(map(str, tokens))

    target = Target(tiny_model(seed=1, dtype=torch.float64))
    session = Session("tiny", target, Words(), frozenset())  # type: ignore[arg-type]
    monkeypatch.setattr(Session, "open", lambda *args, **options: session)
    drafter = DraftModelDrafter(Target(perturbed(target.model, 0.05), check=False), VOCAB)
    monkeypatch.setattr("benchmarks.trees.named_drafter", lambda spelled, target: drafter)
    argv = ["ranks", "tau", "speed", "identity", "--drafter", "draft=any", "--prompts", "1", "--tokens", "12"]
    argv += ["--task", "chat", "code", "--plan", "optimal 6", "--plan", "dynamic 2/6", "--batch", "2"]
    assert main(argv) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row.get("measure") for row in rows] == [None, "ranks", "tau", "tau", "speed", "speed", "identity"]
    optimal, dynamic = rows[2], rows[3]
    assert optimal["predicted"] > 1.0
    assert dynamic["predicted"] is None
    assert optimal["tau"] > 1.2
    assert rows[-1]["batch 2"].startswith("4 of 4 texts identical")
