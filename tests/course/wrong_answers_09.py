"""Plausible wrong answers to exercise 09."""

from textwrap import indent

from wrong import Wrong, function, task

__all__ = ["ANSWERS"]

EXERCISE = "09_capstone"
_greedy = task(EXERCISE, "greedy", "my_greedy_round(model, last, guess)")
_sampled = task(EXERCISE, "sampled", "my_sampled_round(model, last, guess, rng)")
_loop = task(EXERCISE, "loop", "my_generate(model, prompt, max_new_tokens, eos, guess)")


def _class(title: str, **methods: str) -> str:
    """Source of a class; a method's name stands before two underscores, its arguments behind them."""
    written = [function(f"{name}({arguments})", body) for name, (arguments, body) in methods.items()]
    return f"class {title}:\n" + "\n".join(indent(method, "    ") for method in written)


def _index(name: str, told: str, add: str, guess: str, init: str = "self.text, self.seen = [], {}") -> Wrong:
    code = _class("MyIndex", __init__=("self", init), add=("self, tokens", add), guess=("self, gamma", guess))
    return Wrong(EXERCISE, "index", name, told, code)


ENTER = """
    for token in tokens:
        {before}
        for n in (2, 3, 4):
            if n <= len(self.text):
                self.seen{enter}
        {after}
    """
LOOK = """
    for n in {lengths}:
        at = self.seen.get(tuple(self.text[-n:]))
        if at is not None and n <= len(self.text):
            return {found}
    return []
    """
LATEST = "[tuple(self.text[-n:])] = len(self.text)"


def _enter(enter: str = LATEST, before: str = "pass", after: str = "self.text.append(token)") -> str:
    return ENTER.format(enter=enter, before=before, after=after)


def _look(lengths: str = "(4, 3, 2)", found: str = "self.text[at : at + gamma]") -> str:
    return LOOK.format(lengths=lengths, found=found)


SCAN = """
    t = self.text
    for n in (4, 3, 2):
        for i in range(len(t) - n - 1, -1, -1):
            if t[i : i + n] == t[len(t) - n :]:
                return t[i + n : i + n + gamma]
    return []
    """
PIECE = """
    for i in range(len(tokens)):
        for n in (2, 3, 4):
            if i >= n:
                self.seen[tuple(tokens[i - n : i])] = len(self.text) + i
    self.text += tokens
    """

# A whole decoder; the wrong ones differ in one place.
GENERATE = """
    index, gamma, new = {}, 4, []
    text = list(prompt)
    done = 0
    while len(new) < max_new_tokens:
        for end in range(done, len(text)):
            for n in (2, 3):
                if end >= n:
                    index[tuple(text[end - n : end])] = end
        done = len(text)
        at = index.get(tuple(text[-3:]), index.get(tuple(text[-2:])))
        guess = [] if at is None else text[at : at + min(gamma, max_new_tokens - len(new) - 1)]
        UNCHECKED
        p = model.score([text[-1]] + guess)
        block = []
        for i, x in enumerate(guess):
            if model.temperature == 0:
                good = int(p[i].argmax()) == x
            else:
                good = KEEP
            if not good:
                break
            block.append(x)
        row = p[len(block)].clone()
        model.keep(range(len(block) + 1))
        if len(block) < len(guess):
            row[guess[len(block)]] = 0
        block.append(int(row.argmax()) if model.temperature == 0 else DRAW)
        gamma = ADAPT
        STOP
    return new
    """
STOP = """for token in block:
            new.append(token)
            text.append(token)
            if token in eos:
                return new"""
LATE = """new += block
        text += block
        if new[-1] in eos:
            return new"""


def _decoder(
    name: str,
    told: str,
    unchecked: str = "pass",
    keep: str = "rng.accept(float(p[i, x]))",
    draw: str = "rng.draw(row)",
    adapt: str = "min(16, 2 * gamma) if len(block) > len(guess) else max(1, len(block))",
    stop: str = STOP,
    before: str = "",
    room: bool = True,
    own: str = "int(row.argmax())",
) -> Wrong:
    body = GENERATE if room else GENERATE.replace("min(gamma, max_new_tokens - len(new) - 1)", "gamma")
    body = body.replace("int(row.argmax()) if", f"{own} if")
    for word, code in (("UNCHECKED", unchecked), ("KEEP", keep), ("DRAW", draw), ("ADAPT", adapt), ("STOP", stop)):
        body = body.replace(word, code)
    made = _class("MyDecoder", generate=("self, model, prompt, max_new_tokens, eos, rng", before + body))
    return Wrong(EXERCISE, "decoder", name, told, made)


TRUST = """if at is not None and text[-3:] == text[at - 3 : at] and len(new) + 2 < max_new_tokens:
            p = model.score([text[-1], text[at]])
            model.keep([0, 1])
            new += text[at : at + 2]
            text += text[at : at + 2]
            continue"""

ANSWERS = (
    _index("scan", "reads the whole text again", "self.text += tokens", SCAN),
    _index("self match", "finds the end of the text itself",
           _enter(before="self.text.append(token)", after="pass"), _look()),
    _index("first place", "copies from the first place",
           _enter(".setdefault(tuple(self.text[-n:]), len(self.text))"), _look()),
    _index("short first", "Short matches are tried first", _enter(), _look("(2, 3, 4)")),
    _index("within a piece", "N-grams that reach from one add()", PIECE, _look()),
    _index("padded", "filled up to gamma", _enter(),
           _look(found="(self.text[at : at + gamma] + self.text[:1] * gamma)[:gamma]")),
    _index("one token", "It guesses one token", _enter(), _look(found="[self.text[at]]")),
    _index("the prompt's list", "a list that was passed to add()", """
        if not self.text:
            self.text = tokens
            start = 2
        else:
            start = len(self.text)
            self.text += tokens
        for end in range(start, len(self.text)):
            for n in (2, 3, 4):
                if n <= end:
                    self.seen[tuple(self.text[end - n : end])] = end
        """, _look()),
    _greedy("no rollback", "Nothing is rolled back", """
        best = model.score([last] + guess).argmax(dim=1)
        n = 0
        for g, b in zip(guess, best):
            if g != b:
                break
            n += 1
        model.keep(list(range(len(guess) + 1)))
        return guess[:n] + [int(best[n])]
        """),
    _greedy("root forgotten", "begins with node 0", """
        best = model.score([last] + guess).argmax(dim=1)
        n = 0
        while n < len(guess) and guess[n] == best[n]:
            n += 1
        model.keep(range(1, n + 1))
        return guess[:n] + [int(best[n])]
        """),
    _greedy("no bonus", "added only if a guess failed", """
        best = model.score([last] + guess).argmax(dim=1).tolist()
        new = []
        for g, b in zip(guess, best):
            new.append(b)
            if g != b:
                break
        right = sum(g == b for g, b in zip(new, guess))
        model.keep(range(right + 1))
        return new
        """),
    _greedy("sum", "come after a wrong one", """
        best = model.score([last] + guess).argmax(dim=1)
        n = int((best[:-1] == torch.tensor(guess, dtype=torch.long)).sum())
        model.keep(range(n + 1))
        return guess[:n] + [int(best[n])]
        """),
    _greedy("shifted", "tested with row 1", """
        best = model.score([last] + guess).argmax(dim=1)
        n = 0
        while n < len(guess) and guess[n] == best[n + 1]:
            n += 1
        model.keep(range(n + 1))
        return guess[:n] + [int(best[n])]
        """),
    _greedy("own choice as a tensor", "make it an int first", """
        best = model.score([last] + guess).argmax(dim=1)
        n = 0
        while n < len(guess) and guess[n] == best[n]:
            n += 1
        model.keep(range(n + 1))
        return guess[:n] + [best[n]]
        """),
    _greedy("a number to keep", "keep() takes a list of nodes", """
        best = model.score([last] + guess).argmax(dim=1).tolist()
        n = 0
        while n < len(guess) and guess[n] == best[n]:
            n += 1
        model.keep(n + 1)
        return guess[:n] + [best[n]]
        """),
    _greedy("one kept too few", "An accepted guess is missing in the cache", """
        best = model.score([last] + guess).argmax(dim=1).tolist()
        n = 0
        while n < len(guess) and guess[n] == best[n]:
            n += 1
        model.keep(range(max(1, n)))
        return guess[:n] + [best[n]]
        """),
    _greedy("last again", "It returns `last` as well", """
        best = model.score([last] + guess).argmax(dim=1).tolist()
        new = [last]
        for g, b in zip(guess, best):
            if g != b:
                break
            new.append(g)
        model.keep(range(len(new)))
        return new + [best[len(new) - 1]]
        """),
    _greedy("guesses alone", "`last` is not scored", """
        best = model.score(guess).argmax(dim=1).tolist()
        n = 0
        while n < len(guess) and guess[n] == best[n]:
            n += 1
        model.keep(range(n + 1))
        return guess[:n] + [best[n]]
        """),
    _greedy("token by token", "a round must take one", """
        new = []
        for g in guess:
            last = int(model.score([last])[0].argmax())
            model.keep([0])
            new.append(last)
            if last != g:
                return new
        new.append(int(model.score([last])[0].argmax()))
        model.keep([0])
        return new
        """),
    _sampled("last row", "draws from the last row", """
        p = model.score([last] + guess)
        n = 0
        while n < len(guess) and rng.accept(p[n, guess[n]]):
            n += 1
        model.keep(range(n + 1))
        rest = p[-1]
        if n < len(guess):
            rest[guess[n]] = 0
        return guess[:n] + [rng.draw(rest)]
        """),
    _sampled("greedy", "a round at temperature 0", """
        p = model.score([last] + guess)
        n = 0
        while n < len(guess) and int(p[n].argmax()) == guess[n]:
            n += 1
        model.keep(range(n + 1))
        return guess[:n] + [int(p[n].argmax())]
        """),
    _sampled("second chance", "with the guess still in it", """
        p = model.score([last] + guess)
        n = 0
        while n < len(guess) and rng.accept(p[n, guess[n]]):
            n += 1
        model.keep(range(n + 1))
        return guess[:n] + [rng.draw(p[n])]
        """),
    _sampled("argmax", "that is the rule of temperature 0", """
        p = model.score([last] + guess)
        n = 0
        while n < len(guess) and int(p[n].argmax()) == guess[n]:
            n += 1
        model.keep(range(n + 1))
        if n < len(guess):
            p[n, guess[n]] = 0
        return guess[:n] + [rng.draw(p[n])]
        """),
    _sampled("no bonus", "The bonus is missing", """
        p = model.score([last] + guess)
        new = []
        for i, x in enumerate(guess):
            if not rng.accept(p[i, x]):
                p[i, x] = 0
                new.append(rng.draw(p[i]))
                model.keep(range(i + 1))
                return new
            new.append(x)
        model.keep(range(len(guess) + 1))
        return new
        """),
    _sampled("threshold", "at least an even chance", """
        p = model.score([last] + guess)
        n = 0
        while n < len(guess) and p[n, guess[n]] >= 0.5:
            n += 1
        model.keep(range(n + 1))
        if n < len(guess):
            p[n, guess[n]] = 0
        return guess[:n] + [rng.draw(p[n])]
        """),
    _loop("as it shipped", "The bug is still there", """
        new = []
        while len(new) < max_new_tokens:
            text = prompt + new
            new += greedy_round(model, text[-1], guess(text))
            if new[-1] in eos:
                break
        return new[:max_new_tokens]
        """),
    _loop("end dropped", "The end-of-text token itself is missing", """
        new = []
        while len(new) < max_new_tokens:
            text = prompt + new
            for token in greedy_round(model, text[-1], guess(text)):
                if token in eos:
                    return new[:max_new_tokens]
                new.append(token)
        return new[:max_new_tokens]
        """),
    _loop("prompt's end", "of the prompt for the end", """
        text = list(prompt)
        while len(text) - len(prompt) < max_new_tokens:
            for token in greedy_round(model, text[-1], guess(text)):
                text.append(token)
                if token in eos:
                    break
            if any(token in eos for token in text):
                break
        return text[len(prompt) :][:max_new_tokens]
        """),
    _loop("break", "leaves only the innermost loop", """
        new = []
        while len(new) < max_new_tokens:
            text = prompt + new
            for token in greedy_round(model, text[-1], guess(text)):
                new.append(token)
                if token in eos:
                    break
        return new[:max_new_tokens]
        """),
    _loop("end behind the limit", "2, 11], plain decoding", """
        new = []
        while len(new) < max_new_tokens:
            text = prompt + new
            for token in greedy_round(model, text[-1], guess(text)):
                new.append(token)
                if token in eos:
                    return new
        return new[:max_new_tokens]
        """),
    _loop("too long", "more than max_new_tokens", """
        new = []
        while len(new) < max_new_tokens:
            text = prompt + new
            for token in greedy_round(model, text[-1], guess(text)):
                new.append(token)
                if token in eos:
                    return new
        return new
        """),
    _decoder("fixed length", "most of its guesses failed", adapt="8"),
    _decoder("never more than two", "more guesses would have been right", adapt="2"),
    _decoder("end behind the limit", "tokens, and max_new_tokens was 3", adapt="4", room=False),
    _decoder("greedy at any temperature", "a round at temperature 0", keep="int(p[i].argmax()) == x",
             draw="int(row.argmax())"),
    _decoder("tensors", "make it an int first", own="row.argmax()"),
    _decoder("past the end", "went on after an end-of-text token", stop=LATE),
    _decoder("greedy coin", "that is the rule of temperature 0", keep="int(p[i].argmax()) == x"),
    _decoder("likeliest", "The target's own token is the likeliest one", draw="int(row.argmax())"),
    _decoder("trusting", "though a forward of this request gave", unchecked=TRUST),
    _decoder("global coin", "random numbers, or memory, from outside", draw="int(torch.multinomial(row, 1))"),
    Wrong(EXERCISE, "decoder", "another cell's index", "of another cell", _class("MyDecoder", generate=(
        "self, model, prompt, max_new_tokens, eos, rng", """
        index, new, last = MyIndex(), [], prompt[-1]
        index.add(prompt)
        while len(new) < max_new_tokens:
            guess = index.guess(min(4, max_new_tokens - len(new) - 1))
            round_ = my_greedy_round if model.temperature == 0 else my_sampled_round
            got = round_(model, last, guess) if model.temperature == 0 else round_(model, last, guess, rng)
            index.add(got)
            last = got[-1]
            for token in got:
                new.append(token)
                if token in eos:
                    return new
        return new
        """))),
    Wrong(EXERCISE, "decoder", "borrowed", "an entry stands alone", _class("MyDecoder", generate=(
        "self, model, prompt, max_new_tokens, eos, rng", """
        new = []
        while len(new) < max_new_tokens:
            new += greedy_round(model, (prompt + new)[-1], [])
            if new[-1] in eos:
                break
        return new
        """))),
)  # fmt: skip
