"""Write a table of SQuAD's questions without their first word, which is the label: what, who, how, ...

    .venv/bin/python -m tests.benchmarks.first_words squad/train-v1.1.json questions.csv

The rows are the questions that begin with one of the 7 commonest words. Questions of one article share their `title`:
`data.group: title` keeps them in one split.
"""

import csv
import json
import re
import sys
from collections import Counter
from pathlib import Path

CLASSES = 7


def table(squad: Path) -> list[tuple[str, str, str, str]]:
    """Rows (id, text, label, title) of a file of SQuAD 1.1 or 2.0."""
    articles = json.loads(squad.read_text(encoding="utf-8"))["data"]
    questions = [
        (question["id"], question["question"].strip(), article["title"])
        for article in articles
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]
    parted = [(id_, *_first_word(text), title) for id_, text, title in questions]
    common = Counter(word for _, word, rest, _ in parted if rest).most_common(CLASSES)
    words = {word for word, _ in common}
    return [(id_, rest, word, title) for id_, word, rest, title in parted if word in words and rest]


def _first_word(text: str) -> tuple[str, str]:
    """The first word in lower case, and the text after it."""
    found = re.match(r"(\w+)\W*(.*)", text, re.DOTALL)
    return (found[1].lower(), found[2].strip()) if found else ("", text)


def main() -> None:
    source, target = map(Path, sys.argv[1:])
    rows = table(source)
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "text", "label", "title"))
        writer.writerows(rows)
    print(f"{len(rows):,} questions: {dict(Counter(label for _, _, label, _ in rows).most_common())}")


if __name__ == "__main__":
    main()
