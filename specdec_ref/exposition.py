"""A run's figures as a server would publish them: Prometheus text, and the engines' own log lines.

    specdec:*   ours                           counters, and tau and alpha as gauges
    sglang:*    accept INCLUDES the bonus      spec_accept_length = tau, spec_accept_rate = accepted / proposed drafts
    vllm:*      accepted EXCLUDES the bonus    num_drafts counts rounds with a draft; length = 1 + accepted / num_drafts

One run under three vocabularies, so that a dashboard made for an engine reads our numbers as well. vLLM's length leaves
out rounds without a draft (`make_spec_decoding_stats`), so with n-grams it is higher than tau; under the V2 runner's
asynchronous scheduling, K placeholders are booked every round, and it is 1 + accepted / rounds. It gives each round its
bonus; tau leaves that out where the end of a text cut a round short. SGLang divides by its tree's nodes without the
root in every round, so a round with fewer drafts lowers its rate.
Format: Prometheus text exposition 0.0.4. Names as in sglang 0.5.23 and vllm 0.33.0 (`exporters/engines.json`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from specdec_ref.config import DraftBudget
from specdec_ref.metrics import RunStats

__all__ = ["CONTENT_TYPE", "exposition", "parse", "sglang_line", "vllm_line"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric and its samples: labels -> value."""

    name: str
    kind: str
    words: str
    samples: Mapping[str, int | float]

    def lines(self, labels: str) -> list[str]:
        """As Prometheus reads it."""
        head = [f"# HELP {self.name} {self.words}", f"# TYPE {self.name} {self.kind}"]
        return head + [f"{self.name}{_braces(own, labels)} {value:.12g}" for own, value in self.samples.items()]


def exposition(stats: RunStats, budget: DraftBudget, *, seconds: float | None = None, model: str = "") -> str:
    """All three vocabularies. `seconds`: decoding time, for tokens a second; `model` becomes the label model_name."""
    labels = f'model_name="{_escaped(model)}"' if model else ""
    metrics = [*_ours(stats, seconds), *_sglang(stats, budget), *_vllm(stats)]
    return "".join(f"{line}\n" for metric in metrics for line in metric.lines(labels))


def sglang_line(stats: RunStats, budget: DraftBudget, *, running: int = 1, seconds: float = 0.0) -> str:
    """SGLang's decode log line, the part about speculation."""
    speed = stats.tokens / seconds if seconds else 0.0
    return (
        f"Decode batch, #running-req: {running}, accept len: {stats.tau:.2f}, accept rate: {_rate(stats, budget):.2f}, "
        f"gen throughput (token/s): {speed:.2f}"
    )


def vllm_line(stats: RunStats, *, seconds: float = 0.0) -> str:
    """vLLM's SpecDecoding log line. Its length gives every round with a draft a bonus: 1 + accepted / these rounds."""
    rounds = max(1, stats.drafting)
    accepted, drafted = (count / seconds if seconds else 0.0 for count in (stats.accepted, stats.drafted))
    positions = ", ".join(f"{count / rounds:.3f}" for count in stats.accepted_per_position)
    return (
        f"SpecDecoding metrics: Mean acceptance length: {stats.drafted_length:.2f}, "
        f"Accepted throughput: {accepted:.2f} tokens/s, Drafted throughput: {drafted:.2f} tokens/s, "
        f"Accepted: {stats.accepted} tokens, Drafted: {stats.drafted} tokens, "
        f"Per-position acceptance rate: {positions}, Avg Draft acceptance rate: {100 * stats.acceptance_rate:.1f}%"
    )


def parse(text: str) -> dict[str, float]:
    """Sample, with its labels in braces, -> value: what a test, or a notebook, wants of an exposition.

    Raises ValueError for a line that is neither a sample nor a comment.
    """
    try:
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    except (ValueError, IndexError) as error:  # IndexError: some unfinished labels
        raise ValueError(f"no sample: {error}") from error
    labels = [(f'{name}="{_escaped(value)}"' for name, value in sample.labels.items()) for sample in samples]
    return {sample.name + _braces(*own): float(sample.value) for sample, own in zip(samples, labels, strict=True)}


def _ours(stats: RunStats, seconds: float | None) -> Iterable[Metric]:
    for name, words, value in (
        ("rounds", "Forwards of the target.", stats.rounds),
        ("tokens", "Tokens emitted, corrections and bonuses included.", stats.tokens),
        ("drafted", "Drafts proposed.", stats.drafted),
        ("tested", "Drafts that the verifier came to.", stats.tested),
        ("accepted", "Drafts accepted.", stats.accepted),
    ):
        yield Metric(f"specdec:{name}_total", "counter", words, {"": value})
    positions = {f'position="{i + 1}"': float(n) for i, n in enumerate(stats.accepted_per_position)}
    yield Metric("specdec:accepted_at_position_total", "counter", "Rounds that accepted draft 1, 2, ...", positions)
    yield Metric("specdec:tau", "gauge", "Mean tokens a forward of the target.", {"": stats.tau})
    yield Metric("specdec:alpha", "gauge", "Accepted over tested drafts.", {"": stats.alpha})
    if seconds:
        yield Metric("specdec:tokens_per_second", "gauge", "Decoding speed.", {"": stats.tokens / seconds})


def _sglang(stats: RunStats, budget: DraftBudget) -> Iterable[Metric]:
    yield Metric("sglang:spec_accept_length", "gauge", "Tokens a verification, bonus included.", {"": stats.tau})
    yield Metric(
        "sglang:spec_accept_rate", "gauge", "Correct drafts over nodes less the root.", {"": _rate(stats, budget)}
    )
    yield Metric("sglang:spec_num_steps", "gauge", "Levels of drafting.", {"": budget.depth})
    yield Metric("sglang:spec_num_draft_tokens", "gauge", "Nodes, root included.", {"": budget.max_nodes})
    yield Metric("sglang:spec_verify_calls_total", "counter", "Verifications.", {"": stats.rounds})


def _vllm(stats: RunStats) -> Iterable[Metric]:
    for name, words, value in (
        ("num_drafts", "Rounds that had a draft.", stats.drafting),
        ("num_draft_tokens", "Drafts proposed.", stats.drafted),
        ("num_accepted_tokens", "Drafts accepted, bonus left out.", stats.accepted),
    ):
        yield Metric(f"vllm:spec_decode_{name}_total", "counter", words, {"": value})
    positions = {f'position="{i}"': float(n) for i, n in enumerate(stats.accepted_per_position)}  # from 0, as theirs
    name = "vllm:spec_decode_num_accepted_tokens_per_pos_total"
    yield Metric(name, "counter", "Rounds that accepted the draft at this position.", positions)


def _rate(stats: RunStats, budget: DraftBudget) -> float:
    """SGLang's accept rate: over a full tree a round, whether or not it was drafted."""
    proposed = stats.rounds * (budget.max_nodes - 1)
    return stats.accepted / proposed if proposed else 0.0


def _braces(*labels: str) -> str:
    some = ",".join(label for label in labels if label)
    return f"{{{some}}}" if some else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
