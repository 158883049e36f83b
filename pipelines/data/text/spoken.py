"""Texts as they are spoken: numbers, dates, money, units and abbreviations of English are written out.

    spoken("Dr. Smith paid $5.50 in 1984.")   "Doctor Smith paid five dollars and fifty cents in nineteen eighty-four."

Numbers are written by inflect (MIT licence, one MB with all that it needs). Of the other libraries that work without a
network, nemo_text_processing takes 740 MB, num2words has the LGPL, and wetext 0.1.8 takes 52 MB, reads `the 1990s` as
seconds, and needs 2.8 GB of memory for a text of 100,000 characters. Which parts of a text are a year, money or a unit
is decided here, as in the cleaners of Tacotron (Keith Ito 2017), which also use inflect. What no rule knows stays as it
is.
"""

import functools
import logging
import re
import unicodedata
from collections.abc import Callable
from typing import Any

from pipelines.errors import DataError, ModelError
from pipelines.utils.formatting import short

log = logging.getLogger("graft")

LONGEST = 100_000  # characters; a recording of an hour has about 50,000
DIGITS = 15  # longer numbers are read digit by digit
KNOWN = ("en",)

# ---- characters ----

PLAIN = str.maketrans(
    {
        **dict.fromkeys("‘’‚‛′ʼ`´", "'"),
        **dict.fromkeys("“”„‟″«»", '"'),
        **dict.fromkeys("‐‑‒–−", "-"),
        **dict.fromkeys("—―", " - "),
        **dict.fromkeys("[{", "("),
        **dict.fromkeys("]}", ")"),
        **dict.fromkeys("*_~|\\^<>", " "),
        "⁄": "/",
    }
)
JOINERS = "\u200c\u200d"  # part of the spelling of Persian and of Indic languages


def plain(text: str) -> str:
    """One form of equal characters (NFKC), plain quotes and dashes, one blank between words.

    Control characters, marks of direction, emoji and other pictures are left out. Raises DataError if nothing is left
    that has a sound, or if the text is too long.
    """
    if len(text) > LONGEST:
        raise DataError(f"a text of {len(text):,} characters; at most {LONGEST:,} are read: part it")
    # a fraction that is one character must not grow together with the number before it; neither must a raised 2
    text = re.sub(r"(?<=\d)(?=[¼-¾⅐-⅞])", " ", text)
    text = unicodedata.normalize("NFKC", text.translate(PLAIN)).translate(PLAIN)
    text = "".join(_kept(character) for character in text)
    text = " ".join(text.split())
    if not any(unicodedata.category(character)[0] in "LN" for character in text):
        raise DataError("no text that can be spoken: it has neither a letter nor a digit")
    return text


def _kept(character: str) -> str:
    kind = unicodedata.category(character)
    if character in JOINERS or character == "°":
        return character
    if kind == "Cc" or kind[0] == "Z":
        return " "
    return "" if kind in ("Cf", "Cs", "Co", "Cn", "So", "Sk", "Me") or character == "\ufe0f" else character


def spoken(text: str, language: str = "en") -> str:
    """The text with everything written out that a voice reads in another way than it is written.

    Of languages other than English only the characters are made plain; a warning says once that numbers stay.
    Raises DataError for a text without a letter or a digit, ModelError if inflect is needed and is not installed.
    """
    text = plain(text)
    if language.lower().replace("_", "-").split("-")[0] not in KNOWN:
        if any(character.isdigit() for character in text):
            _warn(language)
        return text
    text = "".join(_ascii_digit(character) for character in text).replace("\u200c", "").replace("\u200d", "")
    for pattern, write in RULES:
        text = pattern.sub(write, text)
    return re.sub(r" +([,.;:!?)])", r"\1", " ".join(text.split()))


@functools.cache
def _warn(language: str) -> None:
    log.warning(
        "language %s: numbers and abbreviations are not written out, only those of English are: write them as they are "
        "spoken",
        short(language, 20),
    )


def _ascii_digit(character: str) -> str:
    return str(unicodedata.digit(character)) if character.isdecimal() and not character.isascii() else character


# ---- numbers ----


@functools.cache
def _engine() -> Any:
    try:
        import inflect
    except ImportError:
        raise ModelError("numbers in texts need inflect: pip install 'graft-pipelines[speech]'") from None
    return inflect.engine()


@functools.lru_cache(10_000)
def cardinal(digits: str) -> str:
    """A whole number without sign: `1984` -> one thousand nine hundred eighty-four. Digit by digit if it is long, or
    begins with 0.
    """
    if len(digits) > DIGITS or (len(digits) > 1 and digits[0] == "0"):
        return one_by_one(digits)
    found: str = _engine().number_to_words(int(digits), andword="")
    return found.replace(",", "")


def one_by_one(digits: str) -> str:
    """`007` -> zero zero seven."""
    return " ".join(cardinal(digit) for digit in digits)


@functools.lru_cache(10_000)
def ordinal(digits: str) -> str:
    """`21` -> twenty-first."""
    if len(digits) > DIGITS:
        return one_by_one(digits)
    found: str = _engine().number_to_words(_engine().ordinal(int(digits)), andword="")
    return found.replace(",", "")


def year(digits: str) -> str:
    """`1984` -> nineteen eighty-four, `1905` -> nineteen oh five, `1900` -> nineteen hundred, `2005` -> two thousand
    five.
    """
    century, rest = digits[:2], digits[2:]
    if digits[1:3] == "00":
        return cardinal(digits)
    if rest == "00":
        return f"{cardinal(century)} hundred"
    return f"{cardinal(century)} {'oh ' + cardinal(rest[1]) if rest[0] == '0' else cardinal(rest)}"


def amount(text: str) -> str:
    """A number with commas or a decimal point: `1,234.5` -> one thousand two hundred thirty-four point five."""
    whole, *parts = text.replace(",", "").split(".")
    found = [cardinal(whole)] if whole else []
    for part in parts:
        found += ["point", one_by_one(part)]
    return " ".join(found)


def _plural(count: str, one: str, many: str) -> str:
    return one if count.replace(",", "") == "1" else many


# ---- rules: each is a pattern and what it is written as. All repeats are bounded, so time is linear in the text ----

NUMBER = r"\d{1,3}(?:,\d{3}){1,12}(?:\.\d{1,30})?(?![\d,.]\d)|\d{1,30}(?:\.\d{1,30})?|\.\d{1,30}"
START = r"(?<![\w.,])"  # before a number: no letter, and no part of the number
LARGE = r"hundred|thousand|million|billion|trillion"
MONEY = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
    "¥": ("yen", "yen", "sen", "sen"),
    "₹": ("rupee", "rupees", "paisa", "paise"),
    "¢": ("cent", "cents", "", ""),
}
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
UNITS = {
    "mm": ("millimeter", "millimeters"), "cm": ("centimeter", "centimeters"), "m": ("meter", "meters"),
    "km": ("kilometer", "kilometers"), "mg": ("milligram", "milligrams"), "g": ("gram", "grams"),
    "kg": ("kilogram", "kilograms"), "ml": ("milliliter", "milliliters"), "mL": ("milliliter", "milliliters"),
    "l": ("liter", "liters"), "L": ("liter", "liters"), "ms": ("millisecond", "milliseconds"),
    "s": ("second", "seconds"), "sec": ("second", "seconds"), "min": ("minute", "minutes"),
    "h": ("hour", "hours"), "hr": ("hour", "hours"), "hrs": ("hour", "hours"), "ft": ("foot", "feet"),
    "lb": ("pound", "pounds"), "lbs": ("pound", "pounds"), "oz": ("ounce", "ounces"), "mi": ("mile", "miles"),
    "mph": ("mile per hour", "miles per hour"), "km/h": ("kilometer per hour", "kilometers per hour"),
    "kph": ("kilometer per hour", "kilometers per hour"), "m/s": ("meter per second", "meters per second"),
    "Hz": ("hertz", "hertz"), "kHz": ("kilohertz", "kilohertz"), "MHz": ("megahertz", "megahertz"),
    "GHz": ("gigahertz", "gigahertz"), "W": ("watt", "watts"), "kW": ("kilowatt", "kilowatts"),
    "V": ("volt", "volts"), "kB": ("kilobyte", "kilobytes"), "KB": ("kilobyte", "kilobytes"),
    "MB": ("megabyte", "megabytes"), "GB": ("gigabyte", "gigabytes"), "TB": ("terabyte", "terabytes"),
    "°C": ("degree Celsius", "degrees Celsius"), "°F": ("degree Fahrenheit", "degrees Fahrenheit"),
    "°": ("degree", "degrees"), "%": ("percent", "percent"), "m2": ("square meter", "square meters"),
    "km2": ("square kilometer", "square kilometers"), "m3": ("cubic meter", "cubic meters"),
}  # fmt: skip
TITLES = {  # written out before a name
    "Mr": "Mister", "Mrs": "Missis", "Ms": "Miz", "Dr": "Doctor", "Prof": "Professor", "Rev": "Reverend",
    "Gen": "General", "Col": "Colonel", "Maj": "Major", "Capt": "Captain", "Lt": "Lieutenant", "Sgt": "Sergeant",
    "Gov": "Governor", "Sen": "Senator", "Rep": "Representative", "Pres": "President", "Hon": "Honorable",
    "Messrs": "Messieurs", "Mt": "Mount", "Ft": "Fort", "St": "Saint",
}  # fmt: skip
ROADS = {"St": "Street", "Dr": "Drive", "Ave": "Avenue", "Blvd": "Boulevard", "Rd": "Road"}
WORDS = {
    "e.g.": "for example", "i.e.": "that is", "etc.": "et cetera", "vs.": "versus", "approx.": "approximately",
    "Jr.": "Junior", "Sr.": "Senior", "Ltd.": "Limited", "Inc.": "Incorporated", "Corp.": "Corporation",
    "Co.": "Company", "Bros.": "Brothers", "dept.": "department", "Dept.": "Department",
}  # fmt: skip
COUNTED = {  # written out before a number
    "no": "number", "nos": "numbers", "vol": "volume", "ch": "chapter", "p": "page", "pp": "pages", "fig": "figure",
    "sec": "section", "jan": "January", "feb": "February", "mar": "March", "apr": "April", "jun": "June",
    "jul": "July", "aug": "August", "sep": "September", "sept": "September", "oct": "October", "nov": "November",
    "dec": "December",
}  # fmt: skip
NUMERALS = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII", "XIII", "XIV", "XV", "XVI")
ROMAN = {name: str(number) for number, name in enumerate(NUMERALS, start=1)}
SIGNS = {"&": "and", "%": "percent", "@": "at", "+": "plus", "=": "equals", "×": "times", "÷": "divided by",
         "#": "number", "°": "degrees", "$": "dollars", "€": "euros", "£": "pounds", "¥": "yen", "₹": "rupees",
         "¢": "cents"}  # fmt: skip
Match = re.Match[str]


def _ended(match: Match, words: str) -> str:
    """`words` for an abbreviation; its full stop also ends the text if nothing follows."""
    last = re.fullmatch(r"[\"')]{0,3}", match.string[match.end() : match.end() + 4])
    return f"{words}." if last and match[0].endswith(".") else words


def _money(match: Match) -> str:
    value, large = match["value"], match["large"]
    one, many, cent, cents = MONEY[match["sign"] or match["after"]]
    whole, _, part = value.partition(".")
    if large:
        return f"{amount(value)} {large} {many}"
    if len(part) != 2 or not cent:  # $1.5 is no number of cents
        return f"{amount(value)} {_plural(value, one, many)}"
    found = [] if not whole.strip("0,") else [f"{cardinal(whole.replace(',', ''))} {_plural(whole, one, many)}"]
    if part != "00" or not found:
        few = part.lstrip("0") or "0"
        found.append(f"{cardinal(few)} {_plural(few, cent, cents)}")
    return " and ".join(found)


def _time(match: Match) -> str:
    hour, minute, half = int(match["hour"]), match["minute"], match["half"]
    if hour > 24 or int(minute) > 59:
        return f"{cardinal(str(hour))} {cardinal(str(int(minute)))}"
    late = f" {half[0].lower()} m" if half else ""
    if minute == "00":
        return _ended(match, cardinal(str(hour)) + (late or " o'clock"))
    few = f"oh {cardinal(minute[1])}" if minute[0] == "0" else cardinal(minute)
    return _ended(match, f"{cardinal(str(hour))} {few}{late}")


def _date(match: Match) -> str:
    first, second = (int(match[name] or 0) for name in ("month", "day"))
    month, day = (second, first) if first > 12 else (first, second)  # 25/12/2020 can only begin with the day
    if not 1 <= month <= 12 or not 1 <= day <= 31:
        return match[0]
    return f"{MONTHS[month - 1]} {ordinal(str(day))}, {year(match['year'])}"


def _fraction(match: Match) -> str:
    above, below, whole = match["above"], int(match["below"]), match["whole"]
    if below < 2 or below > 100:
        return f"{match[0].replace('/', ' over ')}"
    name = {2: ("half", "halves"), 4: ("quarter", "quarters")}.get(below)
    one, many = name or (ordinal(str(below)), f"{ordinal(str(below))}s")
    found = f"{cardinal(above)} {_plural(above, one, many)}"
    return f"{cardinal(whole)} and {found}" if whole else found


def _decade(match: Match) -> str:
    digits = match["digits"]
    if len(digits) == 4 and digits[2:] == "00":
        return f"{cardinal(digits[:2])} hundreds" if digits[1] != "0" else f"{cardinal(digits)}s"
    tens = cardinal(digits[-2:])
    many = f"{tens[:-1]}ies" if tens.endswith("y") else f"{tens}s"
    return f"{cardinal(digits[:2])} {many}" if len(digits) == 4 else many


def _number(match: Match) -> str:
    value = match["value"]
    sign = {"-": "minus ", "+": "plus "}.get(match["sign"] or "", "")
    return f" {sign}{year(value) if re.fullmatch('1[1-9]..|20..', value) and not sign else amount(value)} "


def _road(match: Match) -> str:
    return _ended(match, f"{match['name']} {ROADS[match['road']]}")


def _rule(
    pattern: str, write: Callable[[Match], str], flags: int = 0
) -> tuple[re.Pattern[str], Callable[[Match], str]]:
    return re.compile(pattern, flags), write


def _any(names: Any) -> str:
    return "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))


RULES = (
    # words with dots
    _rule(rf"(?<![\w.])({_any(WORDS)})(?!\w)", lambda m: _ended(m, WORDS[m[1]])),
    _rule(
        rf"(?<=\d )(?P<name>[A-Z]\w{{1,30}}(?: [A-Z]\w{{1,30}}){{0,2}}) (?P<road>{_any(ROADS)})\.(?!\w)", _road
    ),  # 5 Main St.
    _rule(rf"\b({_any(TITLES)})\. (?=[A-Z]|and M)", lambda m: f"{TITLES[m[1]]} "),
    _rule(rf"(?P<name>[A-Z]\w{{1,30}}) (?P<road>{_any(ROADS)})\.(?!\w)", _road),
    _rule(rf"\b({_any(COUNTED)})\. ?(?=\d)", lambda m: f"{COUNTED[m[1].lower()]} ", re.IGNORECASE),
    _rule(
        r"\b((?:[Cc]hapter|[Pp]art|[Bb]ook|[Vv]olume|[Ss]ection|[Aa]ct|[Ss]cene|[Aa]ppendix|War) )([IVX]{1,5})\b",
        lambda m: m[1] + (cardinal(ROMAN[m[2]]) if m[2] in ROMAN else m[2]),
    ),
    _rule(r"(?<![\w@.])([\w.+-]{1,64})@((?:[\w-]{1,63}\.){1,5}[A-Za-z]{2,20})\b", lambda m: _address(m[0])),
    _rule(r"\b(?:https?://)?(www\.(?:[\w-]{1,63}\.){1,5}[A-Za-z]{2,20})\b", lambda m: _address(m[1])),
    # numbers of a known kind
    _rule(r"(?<![\d-])(?:\((\d{3})\) ?|(\d{3})-)?(\d{3})-(\d{4})(?![\d-])", lambda m: _telephone(m)),
    _rule(r"(?<![\w/-])(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})(?![\w/-])", _date),
    _rule(r"(?<![\w/-])(?P<month>\d{1,2})/(?P<day>\d{1,2})/(?P<year>\d{4})(?![\w/-])", _date),
    _rule(
        r"(?<![\d:.])(?P<hour>\d{1,2}):(?P<minute>\d{2})(?![\d:])(?: ?(?P<half>[ap]\.?m\b\.?))?", _time, re.IGNORECASE
    ),
    _rule(
        r"(?<![\d:.,])(\d{1,2}) ?([ap])\.?m\b\.?",
        lambda m: _ended(m, f"{cardinal(m[1])} {m[2].lower()} m"),
        re.IGNORECASE,
    ),
    _rule(rf"(?:US)?(?P<sign>[$£€¥₹]) ?(?P<value>{NUMBER})(?: ?(?P<large>{LARGE})\b)?(?P<after>)", _money),
    _rule(rf"{START}(?P<value>{NUMBER})(?: (?P<large>{LARGE}))? ?(?P<after>[€£¢$₹])(?P<sign>)(?!\d)", _money),
    _rule(r"(?<![\w/])(?:(?P<whole>\d{1,9}) )?(?P<above>\d{1,3})/(?P<below>\d{1,3})(?![\w/])", _fraction),
    _rule(rf"{START}'?(?P<digits>(?:\d\d)?\d0)'?s\b", _decade),
    _rule(
        r"(?<![\d.,])(\d{1,3}(?:,\d{3}){1,4}|\d{1,15})(?:st|nd|rd|th)\b",
        lambda m: ordinal(m[1].replace(",", "")),
        re.IGNORECASE,
    ),
    _rule(rf"{START}((?:{NUMBER})[%°]?[CF]?)-(?=(?:{NUMBER}))(?!\d{{1,30}}-)", lambda m: f"{m[1]} to "),
    _rule(
        rf"(?P<sign>(?<![\w)])[-+])?{START}(?P<value>{NUMBER}) ?(?P<unit>{_any(UNITS)})(?![\w°])",
        lambda m: (
            f"{ {'-': 'minus ', '+': 'plus '}.get(m['sign'] or '', '') }{amount(m['value'])} "
            f"{_plural(m['value'], *UNITS[m['unit']])}"
        ),
    ),
    _rule(r"#(?=\d)", lambda m: "number "),
    # all others
    _rule(rf"(?P<sign>(?<![\w)])[-+])?(?P<value>\d{{1,30}}(?:\.\d{{1,30}}){{2,9}}|{NUMBER})", _number),
    _rule(f"[{re.escape(''.join(SIGNS))}]", lambda m: f" {SIGNS[m[0]]} "),
)


def _address(text: str) -> str:
    return text.replace("@", " at ").replace(".", " dot ").replace("-", " dash ").replace("_", " underscore ")


def _telephone(match: Match) -> str:
    return ", ".join(one_by_one(part) for part in match.groups() if part)
