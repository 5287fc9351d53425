"""A model ready to be asked: target, tokenizer, and what lies between text and token ids. The first cell of a notebook.

    Session.open().generate("Name three colours.").text     one answer by the best drafter that ships

    Session.from_config(SpecConfig(drafter="eagle", budget=DraftBudget(3))).generate("Name three colours.")

    lab = Session.open()                                    the embedded model, fetched on first use
    prompt = lab.encode("Name three colours.")              its chat template, then token ids
    fast = lab.engine("ngram").generate([prompt])[0]        speculative
    slow = lab.plain([prompt])[0]                           one forward a token: the yardstick
    print(lab.decode(fast.tokens), fast.stats.tau, slow.seconds / fast.seconds)

Every engine of a session shares its target, and a target holds one batch at a time: finish one before starting another.
An engine whose batch was replaced raises RuntimeError at its next step.
"""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from specdec_ref.adaptive import LengthControl
from specdec_ref.baseline import plain_generate
from specdec_ref.calibrate import controller
from specdec_ref.config import DraftBudget, SamplingParams, SpecConfig
from specdec_ref.core import Drafter, Verifier
from specdec_ref.drafters import TrieDrafter, build_drafter
from specdec_ref.drafters.hybrid import HybridDrafter
from specdec_ref.engine import SpecEngine
from specdec_ref.machine import thread_advice
from specdec_ref.metrics import RunStats
from specdec_ref.models.hub import EMBEDDED, load
from specdec_ref.models.target import Target
from specdec_ref.request import Generation, Limits
from specdec_ref.weights import best_drafter

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Answer", "Session"]


def _warn_if_crowded() -> None:
    """Warn where torch's threads wait for each other. The commands use one thread then; a library only tells."""
    if torch.get_num_threads() > 1 and (advice := thread_advice()) is not None:
        warnings.warn(f"{advice}; torch.set_num_threads(1) changes it for this process", stacklevel=3)


@dataclass(frozen=True, slots=True)
class Answer:
    """What `Session.generate` returns. `stats`: tau (tokens per target forward), alpha. Prefill is not timed."""

    text: str
    tokens: list[int]
    stats: RunStats
    seconds: float


@dataclass(frozen=True, slots=True)
class Session:
    """A loaded target and its tokenizer. `name` is what it was asked for by, `eos` the ids that end an answer.

    `config`: what `engine` and `generate` use where they are not told otherwise; None: the defaults of `SpecConfig`,
    and for `generate` the best drafter that ships.
    """

    name: str
    target: Target
    tokenizer: "PreTrainedTokenizerBase"
    eos: frozenset[int]
    config: SpecConfig | None = None

    @classmethod
    def from_config(cls, config: SpecConfig, *, backend: str = "auto", lean: bool = False) -> "Session":
        """The session of a whole set-up: its `engine()` and `generate(text)` do what `config` says.

        Raises as `open` does; names in `config` that do not exist are refused when the engine is made.
        """
        session = cls.open(config.target, dtype=config.dtype, device=config.device, backend=backend, lean=lean)
        return replace(session, config=config)

    @classmethod
    def open(
        cls,
        name: str = EMBEDDED,
        *,
        dtype: str = "auto",
        device: str = "auto",
        backend: str = "auto",
        lean: bool = False,
    ) -> "Session":
        """Load a model by name: the embedded one, a folder, or a Hugging Face id. `backend`: see docs/GPU.md.

        `lean`: on a CPU, hold the layers' weights once (see `Target`), for a program that never reads them itself.

        On a CPU that other programs use, it warns (UserWarning, once per process) that one thread would be faster; the
        number of threads is the whole process's, so it is left to you. OMP_NUM_THREADS silences the check.
        Raises ModelError if it cannot be loaded, ValueError for a bad dtype or device, or a model that runs no trees.
        """
        _warn_if_crowded()
        model, tokenizer = load(name, dtype=dtype, device=device)
        generation_config: Any = getattr(model, "generation_config", None)
        ends = [tokenizer.eos_token_id, getattr(generation_config, "eos_token_id", None)]
        flat = [end for entry in ends for end in (entry if isinstance(entry, list) else [entry])]
        eos = frozenset(int(end) for end in flat if end is not None)
        return cls(name, Target(model, backend=backend, lean=lean), tokenizer, eos)

    def encode(self, text: str, *, raw: bool = False) -> list[int]:
        """Token ids of a user's message under the chat template, or of the text as it is (`raw`).

        Raises ValueError for an empty or broken text, or if there is no chat template.
        """
        if not text:
            raise ValueError("the prompt is empty: write something for the model to go on from")
        if any("\ud800" <= char <= "\udfff" for char in text):
            raise ValueError("the prompt holds half a character (a lone surrogate or bytes that are not UTF-8)")
        if raw:
            return [int(token) for token in self.tokenizer.encode(text)]
        if not self.tokenizer.chat_template:
            raise ValueError(
                f"model {self.name!r} has no chat template, so it is probably a base model: pass --raw (in Python "
                "raw=True) to let it go on from the text as it is"
            )
        tokens = self._under_template(text)
        if not tokens:
            raise ValueError(
                f"the chat template of model {self.name!r} renders nothing for this prompt: pass --raw (in Python "
                "raw=True) to continue the text as it is"
            )
        return tokens

    def _under_template(self, text: str) -> list[int]:
        """Token ids under the chat template, which is a program of the model's author and may fail in any way."""
        from jinja2 import TemplateError

        try:
            turns: Any = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=True
            )
        except (
            TemplateError,
            ArithmeticError,
            AttributeError,
            LookupError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            raise ValueError(
                f"the chat template of model {self.name!r} fails on this prompt ({type(error).__name__}: {error}): "
                "pass --raw (in Python raw=True) to continue the text as it is"
            ) from error
        return list(turns["input_ids"])

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of these ids, without special tokens."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    @property
    def byte_tokens(self) -> frozenset[int]:
        """Ids of tokens that stand for one byte (SentencePiece's byte fallback, <0x41>); empty if there are none."""
        return frozenset(
            number for token, number in self.tokenizer.get_vocab().items() if re.fullmatch("<0x[0-9A-F]{2}>", token)
        )

    def limits(self, max_new_tokens: int = 128, stop: Sequence[str] = (), *, ignore_eos: bool = False) -> Limits:
        """When an answer ends. Raises ValueError as `Limits` does, and for a stop string with a special token in it."""
        for text in stop:
            if found := [token for token in self.tokenizer.all_special_tokens if token in text]:
                raise ValueError(
                    f"the stop string {text!r} can never match: {found[0]!r} is a special token, and decoded text "
                    "leaves those out. Name text that the model writes, or let the EOS tokens end the answer."
                )
        return Limits(max_new_tokens, frozenset() if ignore_eos else self.eos, tuple(stop), self.decode)

    def engine(
        self,
        drafter: str | Drafter | None = None,
        *,
        draft_model: str | None = None,
        budget: DraftBudget | None = None,
        sampling: SamplingParams | None = None,
        verifier: str | Verifier | None = None,
        limits: Limits | None = None,
        lossy: bool | None = None,
        control: LengthControl | None = None,
    ) -> SpecEngine:
        """A speculative engine. `drafter`, `verifier`: names or objects of your own; the rest as in `SpecEngine`.

        What is not given is taken from `config`; its draft model, trie and controller go with its own drafter.
        Raises ValueError for an unknown name, a draft model that does not fit, or a lossy verifier unasked.
        """
        config = self.config or SpecConfig(self.name)
        budget = config.budget if budget is None else budget
        if drafter is None:
            name, model = config.drafter, draft_model or config.draft_model
            guess = self._configured(config, model)
            if config.adaptive is not None and control is None:
                control, budget = controller(config.adaptive, self, f"{name}={model}" if model else name, guess, budget)
        else:
            guess = build_drafter(drafter, self.target, draft_model) if isinstance(drafter, str) else drafter
        return SpecEngine(
            self.target,
            guess,
            budget=budget,
            sampling=config.sampling if sampling is None else sampling,
            verifier=config.verifier if verifier is None else verifier,
            limits=self.limits() if limits is None else limits,
            lossy=config.lossy if lossy is None else lossy,
            control=control,
        )

    def _configured(self, config: SpecConfig, draft_model: str | None) -> Drafter:
        """The drafter that a configuration names, its trie warm."""
        drafter = build_drafter(config.drafter, self.target, draft_model, config)
        if config.trie.corpus is not None and isinstance(drafter, TrieDrafter | HybridDrafter):
            try:
                drafter.warm(self.encode(Path(config.trie.corpus).read_text(encoding="utf-8"), raw=True))
            except ValueError as error:
                raise ValueError(f"the trie's corpus {config.trie.corpus}: {error}") from error
        return drafter

    def generate(
        self,
        text: str,
        *,
        drafter: str | Drafter | None = None,
        sampling: SamplingParams | None = None,
        max_new_tokens: int = 128,
        seed: int = 0,
    ) -> Answer:
        """Answer a user's message. `drafter` None: that of `config`, or the best one that ships for this target.

        Raises ValueError as `encode`, `limits` and `engine` do.
        """
        guess = best_drafter(self.name) if drafter is None and self.config is None else drafter
        engine = self.engine(guess, sampling=sampling, limits=self.limits(max_new_tokens))
        (done,) = engine.generate([self.encode(text)], seeds=[seed])
        return Answer(self.decode(done.tokens), done.tokens, done.stats, done.seconds)

    def plain(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        sampling: SamplingParams = SamplingParams(),
        limits: Limits | None = None,
        seeds: Sequence[int] | None = None,
    ) -> list[Generation]:
        """The same without speculation: one forward a token."""
        limits = self.limits() if limits is None else limits
        return plain_generate(self.target, prompts, limits=limits, sampling=sampling, seeds=seeds)
