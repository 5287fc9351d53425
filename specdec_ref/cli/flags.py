"""The flags that several commands share: the model, how to draft and verify, how to sample."""

import argparse
from typing import Any

from specdec_ref.cli.shared import spellings
from specdec_ref.config import DraftBudget, SamplingParams, SpecConfig, SuffixOptions, TrieOptions
from specdec_ref.request import Limits

__all__ = ["add_drafting", "add_model", "add_sampling", "add_suffix", "add_trie"]

SEED = (
    "prompt i (counted from 0) uses seed + i in any batch (default 0); with trie, suffix and hybrid the draws, not "
    "their distribution, also depend on earlier prompts"
)
DRAFTERS = (
    "prompt lookup, copies what followed the same words earlier in the text; "
    "trie: copies what followed them in any text, as a tree; "
    "suffix: copies the most frequent continuation, more of it after a longer match; "
    "layer-skip: the target without some of its layers; draft: a smaller model; eagle: a trained head that reads "
    "the target's features (draft, eagle: the one shipped for this target, or --draft-model); "
    "hybrid: trie and eagle in one tree, each where it is better; none: plain decoding, one forward per token. "
    "Four that `specdec train eagle --kind` makes, named by --draft-model: p-eagle: an EAGLE head that drafts all "
    "tokens in one pass; mtp: a module on the target's last layer; medusa: one small head per position; "
    "block: a head that drafts four tokens in one pass"
)  # what each does, for --help


def add_model(parser: argparse.ArgumentParser, *, device: bool = True) -> None:
    """--target, --dtype, and --device for commands that can use another than the CPU."""
    default = SpecConfig()
    group = parser.add_argument_group("model", "The target is the model whose text is wanted.")
    group.add_argument(
        "--target", default=default.target, metavar="MODEL",
        help=f"{default.target} (the embedded one, default), a local folder, or a Hugging Face id, org/name",
    )  # fmt: skip
    group.add_argument(
        "--dtype", default=default.dtype, metavar="TYPE",
        help="auto (bfloat16 where the processor multiplies it natively, else float32), float32, bfloat16, float16, "
        "float64",
    )  # fmt: skip
    if not device:
        return
    group.add_argument(
        "--device", default=default.device, metavar="NAME", help="auto (a GPU if there is one), cpu, cuda, cuda:1, mps"
    )


def add_drafting(parser: argparse.ArgumentParser, *, best: bool = False) -> None:
    """--drafter, --verifier and the budget. `best`: no drafter named is None, for the command to choose one."""
    default, budget = SpecConfig(), DraftBudget()
    group = parser.add_argument_group(
        "drafting",
        "In each round a drafter guesses up to gamma tokens, and one forward of the\n"
        "target checks them all. The default drafter's budget, as three engines spell\nit:\n"
        + spellings(DraftBudget.suited_to(default.drafter)),
    )
    group.add_argument(
        "--drafter", default=None if best else default.drafter, metavar="NAME",
        help=("default: hybrid where a head ships for the target, else ngram. ngram: " if best else "ngram (default): ")
        + DRAFTERS,
    )  # fmt: skip
    group.add_argument(
        "--draft-model", metavar="MODEL",
        help="draft: a folder or id, with the target's vocabulary; others: a head's folder or file",
    )  # fmt: skip
    group.add_argument(
        "--verifier", default=default.verifier, metavar="NAME",
        help="auto (default): the exact one that fits the draft; greedy: for temperature 0, accepts guesses that are "
        "the target's first choice; rejection: for chains, accepts guess x with probability min(1, p(x)/q(x)); "
        "target_only: for trees, draws from p and accepts the child drawn, if any; multi_round: for trees of drawn "
        "children, tests each against the q it came from; block: for chains, tests them as a whole and accepts more "
        "than rejection. With --lossy also typical: accepts what is plausible under p, and threshold: accepts what "
        "has probability 1/2 or more under p",
    )  # fmt: skip
    group.add_argument("--lossy", action="store_true", help="allow a verifier that changes the text's distribution")
    group.add_argument(
        "--adaptive", metavar="NAME",
        help="choose the draft length in each round, up to --depth (default then: 12). plus-minus: transformers' "
        "heuristic; ema: SGLang's tiers; window: from the mean acceptance of ten drafts; confidence: stop after an "
        "unsure guess; optimal: most tokens per second, from recent acceptance and this machine's costs (measured "
        "once), may also choose not to draft; constant: always --depth",
    )  # fmt: skip
    _add_budget(group, budget)


def _add_budget(group: Any, budget: DraftBudget) -> None:
    for flag, kind, value, text in (
        (
            "--depth",
            int,
            None,
            "gamma, the longest branch (default: 16 suffix; 6 ngram, trie, hybrid; 3 eagle; 2 layer-skip; 4 others); "
            "0: no guesses",
        ),
        ("--topk", int, budget.topk, f"most children per node, for drafters that grow trees (default {budget.topk})"),
        ("--nodes", int, budget.nodes, "most nodes of the tree, root included (default: depth + 1, a chain)"),
        (
            "--min-confidence",
            float,
            budget.min_confidence,
            "draft: stop after a guess less likely than this; block: before one",
        ),
    ):
        group.add_argument(flag, type=kind, default=value, metavar="N" if kind is int else "Q", help=text)


def add_trie(parser: argparse.ArgumentParser) -> None:
    """The options of the shared trie."""
    default = TrieOptions()
    group = parser.add_argument_group(
        "trie", "For the drafters trie and hybrid. --topk limits how wide a draft gets,\n--nodes how large."
    )
    group.add_argument(
        "--trie-match", default=default.match, metavar="NAME",
        help="bfs (default): prefer recent continuations; prob: prefer frequent ones",
    )  # fmt: skip
    for flag, value, text in (
        ("--trie-depth", default.max_depth, "longest match plus guesses, in tokens"),
        ("--trie-min-breadth", default.min_breadth, "bfs: children of a node after the longest match"),
        ("--trie-max-breadth", default.max_breadth, "bfs: children after the shortest match; prob: anywhere"),
        ("--trie-capacity", default.capacity, "most nodes, about 0.6 kB each; the least recently used are dropped"),
    ):
        group.add_argument(flag, type=int, default=value, metavar="N", help=f"{text} (default {value})")
    group.add_argument("--corpus", metavar="FILE", help="a text to fill the trie with first")


def add_suffix(parser: argparse.ArgumentParser) -> None:
    """The options of suffix decoding."""
    default = SuffixOptions()
    group = parser.add_argument_group("suffix", "For the drafter suffix. --depth also limits its drafts.")
    for flag, kind, value, text in (
        ("--suffix-depth", int, default.max_depth, "longest match plus guesses, in tokens"),
        ("--suffix-factor", float, default.factor, "most guesses per matched token"),
        ("--suffix-min-prob", float, default.min_prob, "leave out guesses less likely than this, by the counts"),
        ("--suffix-capacity", int, default.capacity, "tokens of past answers to keep; the oldest are dropped"),
    ):
        metavar = "N" if kind is int else "X"
        group.add_argument(flag, type=kind, default=value, metavar=metavar, help=f"{text} (default {value})")


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """Temperature and the rest, and when to end."""
    group = parser.add_argument_group(
        "sampling",
        "Temperature 0 takes the likeliest token (greedy). Above it, tokens are drawn\nfrom the distribution p.",
    )
    default = SamplingParams()
    for flag, kind, value, text in (
        ("--temperature", float, default.temperature, "flattens p above 1, sharpens it below (default 0)"),
        ("--top-k", int, default.top_k, "keep the N likeliest tokens (default 0: off)"),
        ("--top-p", float, default.top_p, "keep the likeliest tokens up to this mass (default 1: off)"),
        ("--min-p", float, default.min_p, "drop tokens less likely than this share of the likeliest (default 0: off)"),
        ("--seed", int, 0, SEED),
        (
            "--max-new-tokens",
            int,
            Limits().max_new_tokens,
            f"tokens per answer, at most (default {Limits().max_new_tokens})",
        ),
    ):
        group.add_argument(flag, type=kind, default=value, metavar="N" if kind is int else "X", help=text)
    group.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this text; repeatable")
    group.add_argument("--ignore-eos", action="store_true", help="continue after the model's end-of-text token")
