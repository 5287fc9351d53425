"""Plausible wrong answers to exercise 03."""

from dataclasses import replace

from wrong import Wrong, function

__all__ = ["ANSWERS"]

MAP = """
counts = Counter(token for text in texts for token in text)
best = sorted(range(vocab), key=lambda token: {key})[:size]
ids = torch.tensor({ids})
t2d = torch.zeros(vocab, dtype=torch.bool)
t2d[ids] = True
return {d2t}, {t2d}
"""
CHAIN = """
g = head.read(features, {read})
{before}chain, rows = [text[-1]], []
for _ in range(gamma):
    q = head.logits(g).softmax(-1)
    drawn = {pick}
    word = {word}
    chain.append(word)
    rows.append(q)
    g = head.step({g}, {fed})
rows.append(torch.zeros_like(q))
return DraftTree(torch.tensor(chain), torch.arange(-1, gamma){end})
"""
LOSS = """
goal = {goal}[:, q_vocab]
goal = goal / goal.sum(-1, keepdim=True)
each = -(goal * log_q).sum(-1)
{rest}
"""


def _map(name: str, told: str, **parts: str) -> Wrong:
    right = {"key": "(-counts[token], token)", "ids": "sorted(best)", "d2t": "ids - torch.arange(size)", "t2d": "t2d"}
    signature = "my_draft_map(texts, size, vocab)"
    return Wrong("03_eagle", "vocabulary", name, told, function(signature, MAP.format(**{**right, **parts})))


def _draft(name: str, told: str, **parts: str) -> Wrong:
    right = {"read": "text[1:]", "before": "", "pick": "rng.draw(q)", "word": "int(head.q_vocab[drawn])", "g": "g",
             "fed": "word", "end": ', "iid", torch.stack(rows), head.q_vocab'}  # fmt: skip
    signature = "my_draft(head, features, text, gamma, rng)"
    return Wrong("03_eagle", "draft", name, told, function(signature, CHAIN.format(**{**right, **parts})))


def _commit(name: str, told: str, answer: str) -> Wrong:
    signature = "my_commit(verified, own, features, chain, path, next_token)"
    body = f"accepted = [chain[node] for node in path]\nreturn {answer}"
    return Wrong("03_eagle", "commit", name, told, function(signature, body))


def _mask(name: str, told: str, blocks: str) -> Wrong:
    body = (
        f"full = torch.ones(columns, columns, dtype=torch.bool)\nown = torch.eye(columns, dtype=torch.bool)\n{blocks}"
    )
    return Wrong("03_eagle", "mask", name, told, function("my_mask(columns, step)", body))


def _loss(name: str, told: str, rest: str, goal: str = "p[1:]") -> Wrong:
    body = LOSS.format(goal=goal, rest=rest)
    return Wrong("03_eagle", "loss", name, told, function("my_loss(log_q, p, answer, q_vocab)", body))


ANSWERS = (
    _map("ids for offsets", "holds the ids themselves", d2t="ids"),
    _map("the other way round", "have the wrong sign", d2t="torch.arange(size) - ids"),
    _map("by frequency", "in the order of their frequency", ids="best"),
    _map("larger id first", "the one with the larger id", key="(-counts[token], -token)"),
    _map("rarest words", "keeps the rarest words", key="(counts[token], token)"),
    _map("first ids", "with the smallest ids", key="token"),
    _map("marks the rest", "marks what is left out", t2d="~t2d"),
    _map("a list of ids", "numbers were expected", t2d="ids"),
    _draft("hidden states alone", "as in the tutorial's loop", fed="text[-1]"),
    _draft("the same feature throughout", "g stays what it was", before="first = g\n", g="first"),
    replace(_draft("never steps", "is never called"), code=_draft("", "").code.replace("g = head.step(g, word)", "pass")),
    replace(_draft("what step returns is lost", "its result is not used"),
            code=_draft("", "").code.replace("g = head.step(g, word)", "head.step(g, word)")),
    _draft("draft id fed back", "map first, then feed", fed="drawn"),
    _draft("draft ids throughout", "Draft word 1 is another word", word="drawn"),
    _draft("draft ids in the tree", "although the right words are fed back", word="drawn",
           fed="int(head.q_vocab[drawn])"),
    _draft("argmax", "calls it drawn from q", pick="int(q.argmax())"),
    _draft("called certain", "chosen without chance", end=""),
    _draft("unshifted", "Feature i is beside token i.", read="text[:-1]"),
    _draft("the whole text", "make no pairs", read="text"),
    _draft("no q", "needs q", end=', "iid"'),
    _commit("as the engine did", "lost a tenth", "verified + min(len(path), own), features[[len(path)]], [next_token]"),
    _commit("unshifted", "beside its own token", "verified, features[[0, *path]], [chain[0], *accepted]"),
    _commit("root left out", "root's pair is left out", "verified, features[list(path)], [*accepted[1:], next_token][:len(path)]"),
    _commit("own token left out", "The target's own token is left out", "verified, features[: len(path)], accepted"),
    _commit("rejected ones too", "Rejected drafts are read", "verified, features, [*chain[1:], next_token]"),
    _commit("last pair alone", "has a hole", "verified, features[[len(path)]], [next_token]"),
    _commit("everything stays", "Everything that was drafted", "verified + own, features[[0, *path]], [*accepted, next_token]"),
    _commit("in it twice", "in it twice",
            "verified + min(len(path), own), features[[0, *path]], [*accepted, next_token]"),
    _commit("emptied", "The cache is emptied", "0, features[[0, *path]], [*accepted, next_token]"),
    _commit("one token too many", "which make no pairs", "verified, features[[0, *path]], [chain[0], *accepted, next_token]"),
    _mask("neighbours", "sees its neighbours", "return torch.cat([full.tril()] * (step + 1), 1)"),
    _mask("without its own pair", "pair that it began with", "return torch.cat([full.tril(-1), *[own] * step], 1)"),
    _mask("the other side", "on the other side", "return torch.cat([full.triu(), *[own] * step], 1)"),
    _mask("whole text", "sees the whole text", "return torch.cat([full, *[own] * step], 1)"),
    _mask("last own step", "Only the last own step", """
blocks = [full.tril()] + [torch.zeros_like(own)] * max(0, step - 1) + [own] * min(1, step)
return torch.cat(blocks, 1)
"""),
    _mask("no own steps", "does not see its own steps", "return torch.cat([full.tril(), *[~full] * step], 1)"),
    _mask("shrinking triangle", "triangle shrinks", "return torch.cat([full.tril(-step), *[own] * step], 1)"),
    _mask("one block", "is a row a column, a block a step", "return full.tril()"),
    _loss("unmended", "divided by all rows, as it was", "return (each * answer[: len(each)]).mean()"),
    _loss("mean mended alone", "The mask is not shifted, as in both", "return each[answer[: len(each)]].mean()"),
    _loss("shifted by one", "The mask is shifted by one. Row i", "return each[answer[1:]].mean()"),
    _loss("mask mended alone", "divided by the number of all rows", """
used = torch.cat([answer[2:], torch.tensor([False])])
return (each * used).mean()
"""),
    _loss("mean of all but the last", "all rows but the last", "return (each[:-1] * answer[2:]).mean()"),
    _loss("summed", "summed up, not averaged", "return each[:-1][answer[2:]].sum()"),
    _loss("last row too", "The last row is trained", "return each[torch.cat([answer[2:], torch.tensor([True])])].mean()"),
    _loss("distribution beside the token", "already its input", "return each[:-1][answer[2:]].mean()", goal="p[:-1]"),
    _loss("prompt too", "those of the prompt as well", "return each.mean()"),
)  # fmt: skip
