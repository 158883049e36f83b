"""Word and character error rates equal jiwer's, in any order of the records, with a stated normaliser."""

import random
import time
from typing import Any

import jiwer
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import DataError
from pipelines.metrics import speech_recognition as speech
from pipelines.metrics.text_normalizers import NORMALISERS, normalised
from pipelines.plots import speech as speech_plots
from pipelines.plots.style import AGGREGATE, png

WORDS = st.lists(st.sampled_from(["the", "cat", "sat", "on", "a", "mat"]), max_size=8).map(" ".join)


@st.composite
def transcripts(draw: Any) -> list[dict[str, Any]]:
    pairs = draw(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=12))
    others = {"seconds": draw(st.floats(0.1, 40)), "confidence": 0.9}
    return [
        {"id": str(i), "true": t, "predicted": p, "speaker": "ab"[i % 2], **others} for i, (t, p) in enumerate(pairs)
    ]


@given(transcripts())
@settings(max_examples=150, deadline=None)
def test_jiwer_agrees(records: list[dict[str, Any]]) -> None:
    true, predicted = ([r[key] for r in records] for key in ("true", "predicted"))
    found, words, letters = (
        speech.scores(records, "none"),
        jiwer.process_words(true, predicted),
        jiwer.process_characters(true, predicted),
    )
    assert found["wer"] == words.wer
    assert found["cer"] == letters.cer
    size = max(1, words.hits + words.substitutions + words.deletions)
    for name in ("insertions", "deletions", "substitutions"):
        assert found[name] == getattr(words, name) / size


@given(transcripts(), st.randoms(use_true_random=False), st.sampled_from(NORMALISERS))
@settings(max_examples=60, deadline=None)
def test_the_order_of_the_records_does_not_matter(
    records: list[dict[str, Any]], rng: random.Random, normaliser: str
) -> None:
    turned = rng.sample(records, len(records))
    assert speech.scores(turned, normaliser) == speech.scores(records, normaliser)
    assert speech.hallucinations(turned, normaliser) == speech.hallucinations(records, normaliser)
    assert speech.tables(turned, normaliser) == speech.tables(records, normaliser)


def record(true: str, predicted: str, **others: Any) -> dict[str, Any]:
    return {"id": others.pop("id", "a"), "true": true, "predicted": predicted, "seconds": 3.0, **others}


def test_normalisers_are_whispers() -> None:
    records = [
        record(
            "Mr. Brown didn't pay £20, he (sighing) paid twenty-one.", "mister brown did not pay 20 pounds he paid 21"
        )
    ]
    for name in NORMALISERS:
        found = speech.scores(records, name)
        raw = found.get("wer_raw", found["wer"])
        assert raw == speech.scores(records, "none")["wer"] > 0.5
        assert ("wer_raw" in found) == ("cer_raw" in found) == (name != "none")
    assert speech.scores(records, "whisper-english")["wer"] < 0.2 < speech.scores(records, "basic")["wer"]
    assert normalised("  Don't  STOP! [noise] ", "basic") == "don't stop"
    assert normalised("  Don't  STOP! ", "none") == "Don't STOP!"
    assert normalised("colour", "whisper-english") == "color"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("हिन्दी में, लिखा है!", "हिन्दी में लिखा है"),  # vowel signs and viramas are marks (M)
        ("தமிழ் மொழி.", "தமிழ் மொழி"),
        ("İstanbul'da, “iyi” günler", "istanbul'da iyi günler"),
        ("Größe: Über-Maß; 3,5 €", "größe über maß 3 5"),
        ("Don't 'quote' the dogs' rock’n’roll", "don't quote the dogs rock'n'roll"),
        (
            "Cafe\u0301 \uff26\uff35\uff2c\uff2c ❤️ co\u00adop",
            "café full coop",
        ),  # combined, full width, an emoji with its mark, a soft hyphen
        ("<unk> hm [laughs] ''yes''", "hm yes"),
        ("' ʼ ...", ""),
    ],
)
def test_basic_keeps_words_of_every_script(text: str, left: str) -> None:
    assert normalised(text, "basic") == left
    assert normalised(left, "basic") == left
    assert speech.scores([record(text, f"({left}!)")], "basic")["wer"] == 0


def test_references_without_words() -> None:
    """Words over silence are insertions. Silence over silence is right. The score always exists."""
    nothing = [record("", ""), record("[music]", "", id="b")]
    assert speech.scores(nothing, "basic") | {"wer_raw": 0, "cer_raw": 0} == dict.fromkeys(
        speech.scores(nothing, "basic"), 0.0
    )
    found = speech.scores([record("", "thank you"), record("the cat", "the cat", id="b")], "none")
    assert (found["wer"], found["insertions"], found["deletions"]) == (1.0, 1.0, 0.0)
    assert speech.scores([record("", "thank you")], "none")["wer"] == jiwer.wer([""], ["thank you"]) == 2
    assert speech.hallucinations([record("", "thank you very much")], "none")["overlong"] == 1
    with pytest.raises(DataError, match="no predictions"):
        speech.scores([], "none")
    with pytest.raises(DataError, match="no predictions"):
        speech.hallucinations([], "none")


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("", 0),
        ("a", 1),
        ("a b c", 1),
        ("no no no thank you", 3),
        ("go on and on and on", 2),
        ("x a b a b a b a b y", 4),
    ],
)
def test_loops(text: str, times: int) -> None:
    assert speech.loops(text) == times


def test_signs_of_hallucination() -> None:
    records = [
        record("I see", "I see I see I see I see"),
        record("ha ha ha ha", "ha ha ha ha", id="b"),  # it is said so
        record("the cat sat", "the cat sat", id="c"),
    ]
    assert speech.hallucinations(records, "none") == {"repetition": 1 / 3, "overlong": 1 / 3, "length_ratio": 15 / 9}


def test_tables_by_length_and_by_speaker() -> None:
    records = [
        record("a b", "a b", id=str(i), speaker="good") | {"seconds": s} for i, s in enumerate((1.0, 2.0, 2.1, 31.0))
    ]
    records.append(record("a b", "a", id="9", speaker="bad") | {"seconds": 31.0})
    found = speech.tables(records, "none")
    assert [(row["seconds"], row["n"], row["wer"]) for row in found["by utterance length"]] == [
        ("up to 2", 2, 0.0),
        ("2 to 5", 1, 0.0),
        ("more than 30", 2, 0.25),
    ]
    by_speaker = [(row["speaker"], row["n"], row["words"], row["wer"]) for row in found["by speaker"]]
    assert by_speaker == [("speaker 1", 1, 2, 0.5), ("speaker 2", 4, 8, 0.0)], "no names: it is published"
    assert list(speech.tables([record("a", "a", speaker="one")], "none")) == ["by utterance length"]


def test_words_stand_beside_what_was_heard() -> None:
    pairs = speech.aligned(record("the cat sat on it", "a cat on it now"), "none")
    assert pairs == [
        ("substitute", "the", "a"),
        ("equal", "cat", "cat"),
        ("delete", "sat", ""),
        ("equal", "on", "on"),
        ("equal", "it", "it"),
        ("insert", "", "now"),
    ]


def test_figures_show_no_rows() -> None:
    records = [record("a b c d " * 20, "a b x d " * 21, id="long", speaker=s) for s in "xy"] + [
        record("a", "a" * 200, id="wide", seconds=60.0)
    ]
    drawn = speech_plots.figures(records, "none")
    assert {name: figure.get_gid() for name, figure in drawn.items()} == {
        "wer_by_utterance_length": AGGREGATE,
        "wer_by_speaker": AGGREGATE,
    }
    assert all(len(png(figure)) > 10_000 for figure in drawn.values())


def test_a_bootstrap_costs_seconds_at_most() -> None:
    rng = random.Random(0)
    texts = [" ".join(rng.choices(["the", "cat", "sat", "on", "a", "mat"], k=20)) for _ in range(600)]
    records = [record(t, t.replace("cat", "dog"), id=str(i)) for i, t in enumerate(texts)]
    speech.scores(records, "basic")
    began = time.process_time()
    for _ in range(100):
        speech.scores(records, "basic")
        speech.hallucinations(records, "basic")
    assert time.process_time() - began < 1.0
