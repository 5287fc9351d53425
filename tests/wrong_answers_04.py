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
    _lookup("short first", "Short matches are tried first", """
        for n in range(shortest, min(longest, len(text) - 1) + 1):
            for i in reversed(range(len(text) - n)):
                if text[i : i + n] == text[-n:]:
                    return text[i + n : i + n + gamma]
        return []
        """),
    _lookup("room for gamma", "gamma words behind it", """
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
    _tree("by word", "told apart by their word alone", """
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
    _grams("once a text", "counted once a text", """
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
