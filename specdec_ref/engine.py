"""The speculative decoding loop. `SpecEngine.step()` is one round; `stream` and `generate` only call it again.

    1. propose   the drafter guesses a tree a row                                  Drafter.propose
    2. forward   the target scores all nodes of all rows at once                   Target.forward
    3. verify    accept a path, add one token of the target's own                  verify_batch
    4. commit    caches keep root and path; the new tokens are emitted             Target.commit, Drafter.commit

Lossless: the emitted text has the target's own distribution (at T = 0: is its greedy text), whatever the drafter does.
Invariant, checked every round: cached tokens == committed tokens - 1. The last one is the next tree's root.
Sources: Leviathan et al. 2023, Alg. 1; Chen et al. 2023, Alg. 2; for trees, Miao et al. 2024, Alg. 2.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from specdec_ref.adaptive import LengthControl
from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import Drafter, DraftTree, Randomness, TargetOutput, Verifier, VerifyResult
from specdec_ref.metrics import StepRecord
from specdec_ref.models.target import Target
from specdec_ref.randomness import KeyedRandomness, Purpose
from specdec_ref.request import Generation, Limits, Request, check_prompts
from specdec_ref.transfer import upload
from specdec_ref.verifiers import choose_verifier, verify_batch

__all__ = ["SpecEngine"]


class SpecEngine:
    """A target, a drafter and a verifier; at most one batch of requests at a time."""

    def __init__(
        self,
        target: Target,
        drafter: Drafter,
        *,
        budget: DraftBudget = DraftBudget(),
        sampling: SamplingParams = SamplingParams(),
        verifier: Verifier | str = "auto",
        limits: Limits = Limits(),
        lossy: bool = False,
        control: LengthControl | None = None,
        randomness: Callable[[int, int, Purpose], Randomness] = KeyedRandomness,
        backend: str | None = None,
    ) -> None:
        """`limits`: when a request ends. `randomness(seed, position, purpose)` makes every source of chance.

        `lossy`: allow a verifier that changes the distribution of the text. `control`: how deep each row may draft,
        decided anew before every round, within `budget.depth`; None: always as deep as that. `backend`: who verifies,
        see `verify_batch`; None: the kernels where the target uses them, if they can.

        Raises ValueError for an unknown verifier, one that is not exact at this temperature, or a lossy one unasked.
        """
        self.target, self.drafter = target, drafter
        self.budget, self.sampling, self.limits = budget, sampling, limits
        self.verifier = choose_verifier(verifier, sampling, lossy=lossy)
        self.control = control
        self.randomness = randomness
        self.backend = backend or ("auto" if target.backend == "triton" else "torch")
        self.requests: list[Request] = []  # those still running, in the order of the cache's rows
        self.last_round: list[
            tuple[DraftTree, VerifyResult]
        ] = []  # what the last step proposed and decided, a row each
        self._batch = 0  # the target's number of our batch: engines may share a target
        self._roots: TargetOutput | None = None  # before the first round: what the prefill says of the roots

    def start(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int] | None = None) -> list[Request]:
        """Prefill a batch and drop any earlier one. Row i is request i; its seed is `seeds[i]`, or i.

        Raises ValueError for an empty prompt, a token outside the vocabulary or a text the model is too short for.
        """
        self.close()
        check_prompts(prompts, self.target, self.limits)
        seeds = range(len(prompts)) if seeds is None else seeds
        numbered = enumerate(zip(prompts, seeds, strict=True))
        requests = [Request(row, list(prompt), seed, self.limits) for row, (prompt, seed) in numbered]
        started = time.perf_counter()
        self.target.feature_layers = self.drafter.feature_layers  # here: engines may share a target
        room = max(map(len, prompts)) + self.limits.max_new_tokens + self.budget.max_nodes
        output = self.target.start(prompts, capacity=room)
        self._batch = self.target.batch
        counts = [len(prompt) - 1 for prompt in prompts]
        self.target.cache.truncate(counts)  # a prompt's last token is the first root: the first round keeps it
        self.drafter.start(range(len(prompts)), prompts, _features(output, [range(count) for count in counts]))
        self._roots = output and TargetOutput(output.logits, _last_features(output, counts))
        if self.control:
            self.control.start(range(len(prompts)))
        for request in requests:
            request.prefill_seconds = time.perf_counter() - started
        self.requests = requests
        return requests

    @torch.inference_mode()
    def step(self) -> list[StepRecord]:
        """One round for every running request. A failed round changes no request: what was raised can be handled.

        Raises RuntimeError if another batch was started on the target in the meantime.
        """
        if not self.requests:
            return []
        self.target.check_batch(self._batch)
        requests, rows = self.requests, [request.row for request in self.requests]
        clock = [time.perf_counter()]
        rngs = [self.randomness(r.seed, len(r.tokens), "draft") for r in requests]
        depths = self._depths(rows)
        trees = self.drafter.propose(rows, self._round_budget(max(depths)), self.sampling, rngs)
        # cut to what each row may draft, so that a row's drafts do not depend on its neighbours' needs
        trees = [tree.cut(depth) for tree, depth in zip(trees, depths, strict=True)]
        clock.append(time.perf_counter())
        output = self._forward(trees)
        clock.append(time.perf_counter())
        rngs = [self.randomness(r.seed, len(r.tokens), "verify") for r in requests]
        results = verify_batch(self.verifier, trees, output.logits, self.sampling, rngs, backend=self.backend)
        _check_roots(trees, requests)
        clock.append(time.perf_counter())
        self._commit(trees, results, output)
        self.last_round = list(zip(trees, results, strict=True))
        clock.append(time.perf_counter())
        spent = [after - before for before, after in pairwise(clock)]
        records = []
        for request, tree, result in zip(requests, trees, results, strict=True):
            emitted = request.emit([*(tree.token_list[node] for node in result.path), result.next_token])
            record = _record(request, tree, result, emitted, spent)
            request.records.append(record)
            request.seconds += record.step_s
            records.append(record)
        if self.control:
            self.control.observe(records)
        self._retire()
        return records

    def stream(self, prompt: Sequence[int], seed: int = 0) -> Iterator[list[int]]:
        """Yield each round's new tokens. Closing it early frees the request.

        Raises RuntimeError if another batch was started on the target before the text was complete.
        """
        (request,) = self.start([prompt], [seed])
        batch = self._batch
        try:
            while request in self.requests:
                before = len(request.tokens)
                self.step()
                yield request.tokens[before:]
            if request.finish_reason is None:  # dropped: by `close`, or by a batch that came in between
                self.target.check_batch(batch)
        finally:
            if request in self.requests:
                self.close()

    def generate(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int] | None = None) -> list[Generation]:
        """Decode a batch to the end. The engine is free again afterwards, even if this was interrupted."""
        try:
            requests = self.start(prompts, seeds)
            while self.requests:
                self.step()
            return [request.result() for request in requests]
        finally:
            self.close()

    def close(self) -> None:
        """Drop the requests still running, if any."""
        self.drafter.finish([request.row for request in self.requests])
        self.requests, self._roots = [], None

    def _depths(self, rows: Sequence[int]) -> list[int]:
        """How deep each row may draft: as the controller wants, but not past the last token it may emit.

        One of a round's tokens is always the target's own. Nothing here has seen a guess of this round. With a
        controller the first round drafts nothing: the prefill has its token ready, without a forward.
        """
        most = self.budget.depth
        if self.control and self._roots is not None:
            most = 0
        wanted = self.control.depths(rows, most) if self.control else [most] * len(rows)
        return [min(most, depth, r.remaining - 1) for depth, r in zip(wanted, self.requests, strict=True)]

    def _round_budget(self, depth: int) -> DraftBudget:
        """The budget, no deeper than the neediest row can use."""
        return self.budget if depth >= self.budget.depth else replace(self.budget, depth=depth)

    def _forward(self, trees: Sequence[DraftTree]) -> TargetOutput:
        """Score the trees. In the first round the prefill has scored the roots: with nothing else, that is all."""
        roots, self._roots = self._roots, None
        if roots is not None and all(len(tree) == 1 for tree in trees):
            return roots
        return self.target.forward(trees)

    def _commit(self, trees: Sequence[DraftTree], results: Sequence[VerifyResult], output: TargetOutput) -> None:
        kept = [(0, *result.path) for result in results]
        self.target.commit(kept)
        rows = [request.row for request in self.requests]
        self.drafter.commit(rows, trees, results, _features(output, kept))
        for request, path, cached in zip(self.requests, kept, self.target.lengths, strict=True):
            if cached != len(request.tokens) + len(path) - 1:
                raise RuntimeError(f"request {request.row}: {cached} tokens cached, {len(request.tokens)} committed")

    def _retire(self) -> None:
        """Finished requests leave the batch, its caches and the drafter."""
        done = [request.row for request in self.requests if request.finish_reason]
        if not done:
            return
        kept = [i for i, request in enumerate(self.requests) if not request.finish_reason]
        self.drafter.finish(done)
        self.target.cache.select(kept)
        self.requests = [self.requests[i] for i in kept]


def _check_roots(trees: Sequence[DraftTree], requests: Sequence[Request]) -> None:
    """After the verdict, since reading a tree's tokens earlier could wait for the device once more."""
    for tree, request in zip(trees, requests, strict=True):
        if tree.token_list[0] != request.tokens[-1]:
            raise RuntimeError(f"the drafter's root {tree.token_list[0]} is not request {request.row}'s last token")


def _features(output: TargetOutput | None, kept: Sequence[Sequence[int]]) -> list[Tensor] | None:
    """The features of each row's kept nodes, or None if the drafter reads none."""
    if output is None or output.features is None:
        return None
    index = [upload(torch.tensor(list(nodes), dtype=torch.long), output.features.device) for nodes in kept]
    return [row[nodes] for row, nodes in zip(output.features, index, strict=True)]


def _last_features(output: TargetOutput, last: Sequence[int]) -> Tensor | None:
    """Of a prefill: the features of each row's token `last`, as those of one node."""
    if output.features is None:
        return None
    index = upload(torch.tensor(last), output.features.device)
    return output.features[torch.arange(len(last), device=index.device), index][:, None]


def _record(
    request: Request, tree: DraftTree, result: VerifyResult, emitted: int, spent: Sequence[float]
) -> StepRecord:
    """Count a round. A tree is tested level by level: a level is accepted or rejected as a whole."""
    accepted = min(len(result.path), emitted)
    last = result.path[-1] if result.path else 0
    rejected = emitted > accepted and bool(tree.children(last))
    return StepRecord(
        request=request.row,
        drafted=len(tree) - 1,
        tested=accepted + rejected,
        accepted=accepted,
        emitted=emitted,
        depth=max(tree.depths),
        distortion=result.distortion,
        context=len(request.tokens) - emitted,
        propose_s=spent[0],
        forward_s=spent[1],
        verify_s=spent[2],
        step_s=sum(spent),
    )
