"""What a user may choose, as frozen values that refuse nonsense when they are made."""

from dataclasses import asdict, dataclass, fields
from typing import Any

__all__ = ["DraftBudget", "SamplingParams", "SpecConfig", "SuffixOptions", "TrieOptions"]

# gamma: the less a guess costs, the longer a draft may be; eagle: the better of 3 and 4 on the dev split, two cores
_DEPTHS = {"ngram": 6, "trie": 6, "suffix": 16, "hybrid": 6, "eagle": 3, "layer-skip": 2}
_ADAPTIVE_DEPTH = 12  # what a controller may choose up to


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How logits become the distribution p that is sampled from (`sampling.warp`). Temperature 0 is greedy decoding."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        _require(self.temperature >= 0.0, f"temperature must be >= 0 (0 = greedy), got {self.temperature}")
        _require(self.temperature != float("inf"), "temperature must be finite")
        _require(self.top_k >= 0, f"top_k must be >= 0 (0 = off), got {self.top_k}")
        _require(0.0 < self.top_p <= 1.0, f"top_p must be in (0, 1] (1 = off), got {self.top_p}")
        _require(0.0 <= self.min_p <= 1.0, f"min_p must be in [0, 1] (0 = off), got {self.min_p}")

    @property
    def greedy(self) -> bool:
        """True if p is one-hot at the argmax."""
        return self.temperature == 0.0


@dataclass(frozen=True, slots=True)
class DraftBudget:
    """How much a drafter may guess in one round.

    `depth` is the length of the longest branch (vLLM's num_speculative_tokens, SGLang's num-steps); 0: no drafting.
    `topk` is the number of children a node may have (SGLang's eagle-topk). `nodes` caps the tree and counts the root
    (SGLang's num-draft-tokens); 0 means depth + 1, a full chain. A draft stops after a node whose draft probability
    is below `min_confidence`; the node itself stays, so the distribution stays exact.
    """

    depth: int = 4
    topk: int = 1
    nodes: int = 0
    min_confidence: float = 0.0

    def __post_init__(self) -> None:
        _require(self.depth >= 0, f"depth (gamma) must be >= 0 (0 = no drafting), got {self.depth}")
        _require(self.topk >= 1, f"topk must be >= 1, got {self.topk}")
        _require(self.nodes >= 0, f"nodes must be >= 1, the root included (0 = depth + 1), got {self.nodes}")
        _require(0.0 <= self.min_confidence <= 1.0, f"min_confidence must be in [0, 1], got {self.min_confidence}")

    @classmethod
    def suited_to(cls, drafter: str, *, adaptive: bool = False) -> "DraftBudget":
        """A chain of the length that suits a drafter of this name; `adaptive`: the most a controller may choose."""
        return cls(_ADAPTIVE_DEPTH if adaptive else _DEPTHS.get(drafter, cls().depth))

    @property
    def max_nodes(self) -> int:
        """The cap on nodes, root included."""
        return self.nodes or self.depth + 1

    @property
    def chain_depth(self) -> int:
        """How many tokens a chain may hold under both `depth` and `nodes`."""
        return min(self.depth, self.max_nodes - 1)

    def describe(self) -> str:
        """The three spellings of this budget: ours, SGLang's, vLLM's."""
        return (
            f"depth {self.depth}, topk {self.topk}, nodes {self.max_nodes} (root included)"
            f" = SGLang num-steps {self.depth}, eagle-topk {self.topk}, num-draft-tokens {self.max_nodes}"
            f" = vLLM num_speculative_tokens {self.depth}{'' if self.topk == 1 else ' (chains only)'}"
        )


@dataclass(frozen=True, slots=True)
class TrieOptions:
    """The shared n-gram trie (`drafters/trie.py`): SGLang's ngram-match-type, -max-trie-depth, -bfs-breadth, -capacity.

    `match`: "bfs" prefers what was said last, "prob" what was said most. `max_depth`: match and guesses together.
    `corpus`: a text file that is learnt beforehand.
    """

    match: str = "bfs"
    max_depth: int = 18
    min_breadth: int = 1
    max_breadth: int = 10
    capacity: int = 250_000
    corpus: str | None = None

    def __post_init__(self) -> None:
        _require(self.match in ("bfs", "prob"), f"the trie's match must be bfs or prob, got {self.match!r}")
        _require(self.max_depth >= 2, f"the trie's depth must be >= 2 (a match and a guess), got {self.max_depth}")
        _require(
            1 <= self.min_breadth <= self.max_breadth,
            f"the trie's breadths must satisfy 1 <= min <= max, got {self.min_breadth} and {self.max_breadth}",
        )
        _require(
            self.capacity >= self.max_depth,
            f"the trie's capacity must hold a path of its depth: {self.capacity} < {self.max_depth}",
        )


@dataclass(frozen=True, slots=True)
class SuffixOptions:
    """Suffix decoding (`drafters/suffix.py`): vLLM's suffix_decoding_max_tree_depth, _max_spec_factor, _min_token_prob.

    `max_depth`: match and drafts of one node's string together. `factor`: drafts per matched token, at most.
    `min_prob`: a draft less likely than this by the counts is not made. `capacity`: tokens of past answers.
    """

    max_depth: int = 24
    factor: float = 3.0
    min_prob: float = 0.3
    capacity: int = 250_000

    def __post_init__(self) -> None:
        _require(
            self.max_depth >= 2, f"the suffix tree's depth must be >= 2 (a match and a guess), got {self.max_depth}"
        )
        _require(0.0 < self.factor < float("inf"), f"the suffix factor must be positive and finite, got {self.factor}")
        _require(0.0 <= self.min_prob <= 1.0, f"the suffix min_prob must be in [0, 1], got {self.min_prob}")
        _require(self.capacity >= 1, f"the suffix tree's capacity must be >= 1 token, got {self.capacity}")


@dataclass(frozen=True, slots=True)
class SpecConfig:
    """A whole set-up by name: what `Session.from_config` turns into an engine."""

    target: str = "smollm2-135m"
    drafter: str = "ngram"
    draft_model: str | None = None
    verifier: str = "auto"
    lossy: bool = False
    budget: DraftBudget = DraftBudget()
    trie: TrieOptions = TrieOptions()
    suffix: SuffixOptions = SuffixOptions()
    sampling: SamplingParams = SamplingParams()
    dtype: str = "auto"
    device: str = "auto"
    adaptive: str | None = None  # a controller of `adaptive.CONTROLS`; the budget's depth is then its cap

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "SpecConfig":
        """The inverse of `to_dict`. Raises ValueError that names an unknown key."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        _require(not unknown, f"unknown setting {unknown}; known: {sorted(known)}")
        plain = dict(values)
        for name, kind in (
            ("budget", DraftBudget), ("trie", TrieOptions), ("suffix", SuffixOptions), ("sampling", SamplingParams),
        ):  # fmt: skip
            if isinstance(plain.get(name), dict):
                try:
                    plain[name] = kind(**plain[name])
                except TypeError as error:
                    raise ValueError(f"{name}: {error}") from error
        return cls(**plain)
