"""Plausible wrong answers to exercise 04."""

from wrong import task

__all__ = ["ANSWERS"]

_lookup = task("04_ngram", "lookup", "my_lookup(text, gamma, longest, shortest)")
_tree = task("04_ngram", "tree", "my_tree(root, branches, nodes)")
_grams = task("04_ngram", "grams", "my_grams(texts, depth)")
_propose = task("04_ngram", "propose", "my_propose(texts, ready, gamma)")

ANSWERS = (
    _lookup("first place", "copies from the first place", """
        for n in range(min(longest, len(text) - 1), shortest - 1, -1):
            for i in range(len(text) - n):
                if text[i : i + n] == text[-n:]:
                    return text[i + n : i + n + gamma]
        return []
        """),
    _lookup("short first", "latest place where a *short* match ends", """
        for n in range(shortest, min(longest, len(text) - 1) + 1):
            for i in reversed(range(len(text) - n)):
                if text[i : i + n] == text[-n:]:
                    return text[i + n : i + n + gamma]
        return []
        """),
    _lookup("room for gamma", "gamma words after it", """
        for n in range(min(longest, len(text) - 1), shortest - 1, -1):
            for i in reversed(range(len(text) - n - gamma + 1)):
                if text[i : i + n] == text[-n:]:
                    return text[i + n : i + n + gamma]
        return []
        """),
    _lookup("itself", "finds the end of the text itself", """
        for n in range(min(longest, len(text) - 1), shortest - 1, -1):
            for i in range(len(text) - n, -1, -1):
                if text[i : i + n] == text[-n:]:
                    return text[i + n : i + n + gamma]
        return []
        """),
    _lookup("one length", "exactly `longest` words", """
        n = longest
        for i in reversed(range(len(text) - n)):
            if text[i : i + n] == text[-n:]:
                return text[i + n : i + n + gamma]
        return []
        """),
    _lookup("no shortest", "`shortest` is ignored", """
        for n in range(min(longest, len(text) - 1), 0, -1):
            for i in reversed(range(len(text) - n)):
                if text[i : i + n] == text[-n:]:
                    return text[i + n : i + n + gamma]
        return []
        """),
    _lookup("with the match", "returns the match, too", """
        for n in range(min(longest, len(text) - 1), shortest - 1, -1):
            for i in reversed(range(len(text) - n)):
                if text[i : i + n] == text[-n:]:
                    return text[i : i + n + gamma]
        return []
        """),
    _lookup("none", "a list of words was expected", """
        for n in range(min(longest, len(text) - 1), shortest - 1, -1):
            for i in reversed(range(len(text) - n)):
                if text[i : i + n] == text[-n:]:
                    return text[i + n : i + n + gamma]
        """),
    _lookup("places first", "loop over places is the outer one", """
        for end in range(len(text) - 1, 0, -1):
            for n in range(longest, shortest - 1, -1):
                if end >= n and text[end - n : end] == text[-n:]:
                    return text[end : end + gamma]
        return []
        """),
    _lookup("shortest excluded", "shortest match is never tried", """
        for n in range(min(longest, len(text) - 1), shortest, -1):
            for end in range(len(text) - 1, n - 1, -1):
                if text[end - n : end] == text[-n:]:
                    return text[end : end + gamma]
        return []
        """),
    _lookup("first place excluded", "may begin at word 0", """
        for n in range(min(longest, len(text) - 1), shortest - 1, -1):
            for i in range(len(text) - n - 1, 0, -1):
                if text[i : i + n] == text[-n:]:
                    return text[i + n : i + n + gamma]
        return []
        """),
    _lookup("no overlap", "overlaps the end of the text is not found", """
        for n in range(longest, shortest - 1, -1):
            for end in range(len(text) - n, n - 1, -1):
                if text[end - n : end] == text[-n:]:
                    return text[end : end + gamma]
        return []
        """),
    _lookup("letters", "Letters are compared, not words", """
        words = " ".join(text)
        for n in range(min(longest, len(text) - 1), shortest - 1, -1):
            tail = " ".join(text[-n:])
            at = words[:-1].rfind(tail)
            if at >= 0:
                return words[at + len(tail) :].split()[:gamma]
        return []
        """),
    _lookup("the match itself", "from the match's beginning", """
        for n in range(min(longest, len(text) - 1), shortest - 1, -1):
            for i in reversed(range(len(text) - n)):
                if text[i : i + n] == text[-n:]:
                    return text[i : i + gamma]
        return []
        """),
    _lookup("printed", "a function without `return`", """
        for n in range(min(longest, len(text) - 1), shortest - 1, -1):
            for i in reversed(range(len(text) - n)):
                if text[i : i + n] == text[-n:]:
                    print(text[i + n : i + n + gamma])
        """),
    _lookup("the package's lookup", "it calls `look`", "return look(text, gamma, longest, shortest)"),
    _tree("no merging", "several guesses share is repeated", """
        tokens, parents = [root], [-1]
        for branch in branches:
            at = 0
            for token in branch:
                if len(tokens) < nodes:
                    tokens.append(token)
                    parents.append(at)
                    at = len(tokens) - 1
        return DraftTree(torch.tensor(tokens), torch.tensor(parents))
        """),
    _tree("by word", "identified by their word alone", """
        tokens, parents, place = [root], [-1], {}
        for branch in branches:
            at = 0
            for token in branch:
                if token not in place:
                    if len(tokens) == nodes:
                        break
                    place[token] = len(tokens)
                    tokens.append(token)
                    parents.append(at)
                at = place[token]
        return DraftTree(torch.tensor(tokens), torch.tensor(parents))
        """),
    _tree("root for free", "of n nodes, n - 1 are guesses", """
        tokens, parents, child = [root], [-1], {}
        for branch in branches:
            at = 0
            for token in branch:
                if (at, token) not in child:
                    if len(tokens) > nodes:
                        break
                    child[at, token] = len(tokens)
                    tokens.append(token)
                    parents.append(at)
                at = child[at, token]
        return DraftTree(torch.tensor(tokens), torch.tensor(parents))
        """),
    _tree("padded", "filled up with pads", """
        tokens, parents, child = [root], [-1], {}
        for branch in branches:
            at = 0
            for token in branch:
                if (at, token) not in child:
                    if len(tokens) == nodes:
                        break
                    child[at, token] = len(tokens)
                    tokens.append(token)
                    parents.append(at)
                at = child[at, token]
        while len(tokens) < nodes:
            tokens.append(0)
            parents.append(0)
        return DraftTree(torch.tensor(tokens), torch.tensor(parents))
        """),
    _tree("best branch", "Only the first guess is in the tree", """
        chain = [root, *(branches[0] if branches else [])][:nodes]
        return DraftTree(torch.tensor(chain), torch.arange(-1, len(chain) - 1))
        """),
    _tree("not back at the root", "continues where the previous one ended", """
        tokens, parents, child = [root], [-1], {}
        at = 0
        for branch in branches:
            for token in branch:
                if (at, token) not in child:
                    if len(tokens) == nodes:
                        break
                    child[at, token] = len(tokens)
                    tokens.append(token)
                    parents.append(at)
                at = child[at, token]
        return DraftTree(torch.tensor(tokens), torch.tensor(parents))
        """),
    _tree("one chain", "continues where the previous one ended", """
        tokens = [root, *(token for branch in branches for token in branch)][:nodes]
        return DraftTree(torch.tensor(tokens), torch.arange(-1, len(tokens) - 1))
        """),
    _tree("level by level", "filled level by level", """
        tokens, parents, child, at = [root], [-1], {}, [0] * len(branches)
        for level in range(max(map(len, branches), default=0)):
            for number, branch in enumerate(branches):
                if level < len(branch):
                    key = at[number], branch[level]
                    if key not in child and len(tokens) < nodes:
                        child[key] = len(tokens)
                        tokens.append(branch[level])
                        parents.append(at[number])
                    at[number] = child.get(key, at[number])
        return DraftTree(torch.tensor(tokens), torch.tensor(parents))
        """),
    _tree("whole guesses", "does not fit as a whole", """
        tokens, parents, child = [root], [-1], {}
        for branch in branches:
            if len(tokens) + len(branch) > nodes:
                continue
            at = 0
            for token in branch:
                if (at, token) not in child:
                    child[at, token] = len(tokens)
                    tokens.append(token)
                    parents.append(at)
                at = child[at, token]
        return DraftTree(torch.tensor(tokens), torch.tensor(parents))
        """),
    _tree("by pairs", "the word before it", """
        tokens, parents, child = [root], [-1], {}
        for branch in branches:
            at, before = 0, root
            for token in branch:
                if (before, token) not in child:
                    if len(tokens) == nodes:
                        break
                    child[before, token] = len(tokens)
                    tokens.append(token)
                    parents.append(at)
                at, before = child[before, token], token
        return DraftTree(torch.tensor(tokens), torch.tensor(parents))
        """),
    _tree("where it first stood", "occurs 2 times", """
        tokens, parents = [root], [-1]
        for branch in branches:
            at = 0
            for token in branch:
                if token in tokens and parents[tokens.index(token)] == at:
                    at = tokens.index(token)
                elif len(tokens) < nodes:
                    tokens.append(token)
                    parents.append(at)
                    at = len(tokens) - 1
        return DraftTree(torch.tensor(tokens), torch.tensor(parents))
        """),
    _tree("no root", "that place is the root's", """
        tokens, parents, child = [], [], {}
        for branch in branches:
            at = -1
            for token in branch:
                if (at, token) not in child:
                    if len(tokens) == nodes:
                        break
                    child[at, token] = len(tokens)
                    tokens.append(token)
                    parents.append(at)
                at = child[at, token]
        return DraftTree(torch.tensor(tokens), torch.tensor(parents))
        """),
    _grams("full depth", "Only n-grams of the full depth", """
        counts = {}
        for text in texts:
            for i in range(len(text) - depth + 1):
                gram = tuple(text[i : i + depth])
                counts[gram] = counts.get(gram, 0) + 1
        return counts
        """),
    _grams("glued", "glued together", """
        counts, text = {}, sum(texts, [])
        for i in range(len(text)):
            for n in range(1, depth + 1):
                if i + n <= len(text):
                    gram = tuple(text[i : i + n])
                    counts[gram] = counts.get(gram, 0) + 1
        return counts
        """),
    _grams("once a text", "counted once per text", """
        counts = {}
        for text in texts:
            seen = {tuple(text[i : i + n]) for n in range(1, depth + 1) for i in range(len(text) - n + 1)}
            for gram in seen:
                counts[gram] = counts.get(gram, 0) + 1
        return counts
        """),
    _grams("depth short", "one too small", """
        counts = {}
        for text in texts:
            for n in range(1, depth):
                for i in range(len(text) - n + 1):
                    gram = tuple(text[i : i + n])
                    counts[gram] = counts.get(gram, 0) + 1
        return counts
        """),
    _grams("full windows", "because they are not full", """
        counts = {}
        for text in texts:
            for i in range(len(text) - depth + 1):
                window = text[i : i + depth]
                for n in range(1, depth + 1):
                    counts[tuple(window[:n])] = counts.get(tuple(window[:n]), 0) + 1
        return counts
        """),
    _grams("short pieces", "is counted once more", """
        counts = {}
        for text in texts:
            for i in range(len(text)):
                for n in range(1, depth + 1):
                    gram = tuple(text[i : i + n])
                    counts[gram] = counts.get(gram, 0) + 1
        return counts
        """),
    _grams("beginnings", "Only the beginnings of texts", """
        counts = {}
        for text in texts:
            for n in range(1, min(depth, len(text)) + 1):
                counts[tuple(text[:n])] = counts.get(tuple(text[:n]), 0) + 1
        return counts
        """),
    _grams("last start", "last n-gram of each length", """
        counts = {}
        for text in texts:
            for n in range(1, depth + 1):
                for i in range(len(text) - n):
                    gram = tuple(text[i : i + n])
                    counts[gram] = counts.get(gram, 0) + 1
        return counts
        """),
    _grams("last text", "Only the last text", """
        for text in texts:
            counts = {}
            for n in range(1, depth + 1):
                for i in range(len(text) - n + 1):
                    gram = tuple(text[i : i + n])
                    counts[gram] = counts.get(gram, 0) + 1
        return counts
        """),
    _grams("joined", "one of its keys is 'a'", """
        counts = {}
        for text in texts:
            for n in range(1, depth + 1):
                for i in range(len(text) - n + 1):
                    gram = " ".join(text[i : i + n])
                    counts[gram] = counts.get(gram, 0) + 1
        return counts
        """),
    _propose("another's text", "looked up in the text of another", """
        drafts = [[] for _ in texts]
        for i, number in enumerate(n for n in range(len(texts)) if ready[n]):
            drafts[number] = look(texts[i], gamma)
        return drafts
        """),
    _propose("both by place", "Text and draft now agree", """
        drafts = [[] for _ in texts]
        for i in range(sum(ready)):
            drafts[i] = look(texts[i], gamma)
        return drafts
        """),
    _propose("one list", "one and the same list", """
        drafts = [[]] * len(texts)
        for number in range(len(texts)):
            if ready[number]:
                drafts[number].extend(look(texts[number], gamma))
        return drafts
        """),
    _propose("as it shipped", "still what shipped", """
        chosen = [number for number in range(len(texts)) if ready[number]]
        drafts = [[] for _ in texts]
        for i, number in enumerate(chosen):
            drafts[i] = look(texts[number], gamma)
        return drafts
        """),
    _propose("ready alone", "Only the ready requests", "return [look(t, gamma) for t, r in zip(texts, ready) if r]"),
    _propose("everybody", "not ready get a draft", "return [look(text, gamma) for text in texts]"),
    _propose("None", "gets None", "return [look(t, gamma) if r else None for t, r in zip(texts, ready)]"),
)  # fmt: skip
