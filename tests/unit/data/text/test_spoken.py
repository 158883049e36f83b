"""Texts as they are spoken: right words for numbers of every kind, and hostile texts."""

import logging
import time

import pytest

from pipelines.data.text.spoken import LONGEST, spoken
from pipelines.errors import DataError


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I have 3 apples and 0 pears.", "I have three apples and zero pears."),
        (
            "1,234,567 houses",
            "one million two hundred thirty-four thousand five hundred sixty-seven houses",
        ),
        ("007 and 3.14 and .5", "zero zero seven and three point one four and point five"),
        ("-5 or 10-20, not well-known", "minus five or ten to twenty, not well-known"),
        ("version 1.2.3 of mp3", "version one point two point three of mp three"),
        ("The 1st, 2nd, 23rd and 100th.", "The first, second, twenty-third and one hundredth."),
        ("In 1984, 1905, 1900, 2005 and 2015.", "In nineteen eighty-four, nineteen oh five, nineteen hundred, two "
         "thousand five and twenty fifteen."),
        ("1914-1918, the 1990s, the '80s",
         "nineteen fourteen to nineteen eighteen, the nineteen nineties, the eighties"),
        ("1984 kg", "one thousand nine hundred eighty-four kilograms"),
        ("$5.50, $1, $0.99 and £3.20", "five dollars and fifty cents, one dollar, ninety-nine cents and three pounds "
         "and twenty pence"),
        ("$2.5 million or 10 €", "two point five million dollars or ten euros"),
        ("5 1/2 cups, ½ cup, 3/4", "five and one half cups, one half cup, three quarters"),
        ("1 km at 10 km/h and -5 °C, 50%, 5 m²", "one kilometer at ten kilometers per hour and minus five degrees "
         "Celsius, fifty percent, five square meters"),
        ("3:30 p.m., 3:05 and 3:00.", "three thirty p m, three oh five and three o'clock."),
        ("It is 9 a.m.", "It is nine a m."),
        ("12/25/2020 or 2020-12-25", "December twenty-fifth, twenty twenty or December twenty-fifth, twenty twenty"),
        ("Call 555-0199.", "Call five five five, zero one nine nine."),
        ("Dr. Smith lives at 5 St. James St.", "Doctor Smith lives at five Saint James Street."),
        ("Mr. and Mrs. O'Neil vs. Lt. Col. Y, etc.",
         "Mister and Missis O'Neil versus Lieutenant Colonel Y, et cetera."),
        ("No. 5, vol. 3, pp. 12", "number five, volume three, pages twelve"),
        ("No. I say no.", "No. I say no."),
        ("Chapter IV of World War II", "Chapter four of World War two"),
        ("me@example.org & www.example.com", "me at example dot org and www dot example dot com"),
        ("“It’s” – he said—now…", '"It\'s" - he said - now...'),
        ("ﬁne ２ ٣ ७ ①", "fine two three seven one"),
        ("Straße, Zoë, naïve", "Straße, Zoë, naïve"),
    ],
)  # fmt: skip
def test_words(text: str, words: str) -> None:
    assert spoken(text) == words


def test_a_text_that_is_written_as_it_is_spoken_stays() -> None:
    text = (
        "Printing, in the only sense with which we are at present concerned, differs from most arts (it's true); or so!"
    )
    assert spoken(text) == text
    assert spoken(spoken("In 1984, 21 people paid $5.50.")) == spoken("In 1984, 21 people paid $5.50.")


@pytest.mark.parametrize("text", ["", "   ", "!?", "…", "€ % &", "😀👍🏽", "\x00\x07\u200b", "\u202e", "---", "°"])
def test_a_text_without_a_sound_is_an_error(text: str) -> None:
    with pytest.raises(DataError, match="no text that can be spoken: it has neither a letter nor a digit"):
        spoken(text)


def test_what_has_no_sound_is_left_out() -> None:
    assert spoken("a\x00b\tc\nd\u200be 😀 f\u202eg") == "a b c de fg"
    assert spoken("مرحبا 5") == "مرحبا five"


@pytest.mark.parametrize(
    "piece", ["1", "1,111,", "1.", "a.", "a@a.", "St. ", "12:", "1-", "$", "1/2", "A St. ", "'", "9" * 7 + " "]
)
def test_time_is_linear_in_the_text(piece: str) -> None:
    """A rule that looks back over the whole text takes minutes for such texts."""
    start = time.process_time()
    spoken(f"a {piece * (40_000 // len(piece))}")
    assert time.process_time() - start < 10


def test_a_text_that_is_too_long(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(DataError, match=r"a text of 1,000,000 characters; at most 100,000 are read: part it"):
        spoken("a" * 1_000_000)
    assert len(spoken("a" * LONGEST)) == LONGEST


def test_other_languages_keep_their_numbers_and_say_so_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="graft"):
        assert spoken("Es ist 5 „Uhr“.", "de") == 'Es ist 5 "Uhr".'
        assert spoken("Es ist 6.", "de") == "Es ist 6."
        assert spoken("می\u200cشود", "fa") == "می\u200cشود"
        assert spoken("5", "en-GB") == "five"
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["language de"]
