"""Words with labels ±1, from word lists that come in packages. They are read as data and not imported."""

import gzip
import json
from importlib.resources import files

FREQUENT = 5000
"""Number of words of each language, the most frequent ones."""


def polarity() -> dict[str, int]:
    """Sign of the mean rating of each word in VADER's lexicon (MIT); emoticons and phrases are left out."""
    lines = (files("vaderSentiment") / "vader_lexicon.txt").read_text("utf-8").splitlines()
    entries = (line.split("\t")[:2] for line in lines if line.strip())
    return {word: 1 if float(rating) > 0 else -1 for word, rating in entries if word.isalpha()}


def gender() -> dict[str, int]:
    """1 for first names of women, -1 of men, in gender-guesser's list (GNU FDL); other names are left out."""
    lines = (files("gender_guesser") / "data" / "nam_dict.txt").read_text("utf-8").splitlines()
    kinds_by_name: dict[str, set[str]] = {}
    for line in lines:
        if not line.startswith(("#", "=")):
            kinds_by_name.setdefault(line[3:29].strip(), set()).add(line[:2].strip())
    labels = {"F": 1, "M": -1}
    return {
        name: labels[min(kinds)]
        for name, kinds in kinds_by_name.items()
        if name.isalpha() and len(kinds) == 1 and kinds <= labels.keys()
    }


def german() -> dict[str, int]:
    """1 for frequent German words, -1 for Dutch ones."""
    return languages("de", "nl")


def spanish() -> dict[str, int]:
    """1 for frequent Spanish words, -1 for Italian ones."""
    return languages("es", "it")


def languages(first: str, second: str) -> dict[str, int]:
    """1 for the first language, -1 for the second, of words of four letters or more in pyspellchecker (MIT).

    Words that both languages have are left out.
    """
    counts = [
        json.loads(gzip.decompress((files("spellchecker") / "resources" / f"{name}.json.gz").read_bytes()))
        for name in (first, second)
    ]
    labels: dict[str, int] = {}
    for label, own, other in ((1, *counts), (-1, *reversed(counts))):
        words = [word for word in own if word.isalpha() and len(word) > 3 and word not in other]
        labels |= dict.fromkeys(sorted(words, key=lambda word: (-own[word], word))[:FREQUENT], label)
    return labels
