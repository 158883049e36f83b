"""Conversations as tokens of a chat model, through its tokenizer's chat template.

The targets are the answers alone: from the first token that the model writes at its turn to the mark that ends the
turn. They are found in the way in which the model is asked: the tokens of the messages before an answer, and of the
template's start of an answer, must be the beginning of the tokens of the conversation. A template with
`{% generation %}` marks its answers itself.

The marks of the tokenizer in a message (`<|im_end|>`) are words there: no message can end its own turn.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from pipelines.data.text.chat import Message, answers
from pipelines.data.text.packing import IGNORED
from pipelines.errors import DataError
from pipelines.utils.formatting import short

# For models without a template, in the form of Zephyr's: the roles are plain words, and the token that ends a text ends
# every message. So the vocabulary needs no new token, and no message can hold the end of a turn.
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'tool' %}{{ raise_exception('it has no role tool') }}{% endif %}"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] | trim + eos_token + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
_PLAIN = {"add_special_tokens": False, "split_special_tokens": False}  # the template writes the marks


def template_for(words: Any) -> str:
    """TEMPLATE for a tokenizer; it begins with the token that this tokenizer puts before every text."""
    begins = words.bos_token_id is not None and words("a")["input_ids"][:1] == [words.bos_token_id]
    return "{{ bos_token }}" * begins + TEMPLATE


def end_of_turn(words: Any) -> int | None:
    """The token by which the template ends an answer; None if it ends it with plain words or with nothing.

    Raises DataError if the template refuses a question with its answer.
    """
    question, answer = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    texts = [_rendered(words, [question], True), _rendered(words, [question, answer], False)]
    start, found = words(texts, **_PLAIN)["input_ids"]
    written = found[len(start) :] if found[: len(start)] == start else found
    marks = {*words.added_tokens_decoder, *words.all_special_ids}
    return next((token for token in reversed(written) if token in marks), None)


def marks_in(words: Any, end: int | None) -> Callable[[Sequence[Message]], list[str]]:
    """A function that finds the special tokens of the tokenizer, and the mark `end` of a turn, in messages."""
    marks = dict.fromkeys(words.all_special_tokens)
    marks |= dict.fromkeys(token.content for token in words.added_tokens_decoder.values() if token.special)
    marks |= dict.fromkeys([] if end is None else [words.convert_ids_to_tokens(end)])
    wanted = [mark for mark in marks if mark.strip()]
    return lambda messages: [mark for mark in wanted if any(mark in one["content"] for one in messages)]


def prompt(words: Any, messages: Sequence[Message], end: int | None) -> list[int]:
    """The tokens of messages and of the start of an answer. `end` is the mark that ends a turn. Raises DataError."""
    text = _rendered(words, messages, True)
    check_complete(messages, text)
    if marks_in(words, end)(messages):
        return _guarded(words, messages, True)
    return list(words(text, **_PLAIN)["input_ids"])


def check_complete(messages: Sequence[Message], text: str) -> None:
    """Raise DataError if the template left a message out, as some do with roles that they do not know."""
    for one in messages:
        # templates drop the thoughts of earlier answers
        content = one["content"].rpartition("</think>")[2] if one["role"] == "assistant" else one["content"]
        if content.strip() not in text:
            raise DataError(
                f"the model's chat template leaves out a message of the role {one['role']}: take it out of the data, "
                "or choose a model whose template has this role"
            )


def _refusals() -> tuple[type[Exception], ...]:
    from jinja2 import TemplateError

    # templates raise the first, and fail in other ways where they do not expect a message
    return TemplateError, TypeError, ValueError, LookupError, AttributeError


def _rendered(words: Any, messages: Sequence[Message], answer_follows: bool) -> str:
    """A conversation as the template writes it. Raises DataError if the template refuses it."""
    try:
        return str(words.apply_chat_template(list(messages), add_generation_prompt=answer_follows, tokenize=False))
    except _refusals() as error:
        raise DataError(f"the model's chat template does not take these messages: {short(str(error), 160)}") from None


def _guarded(words: Any, messages: Sequence[Message], answer_follows: bool) -> list[int]:
    """The tokens of a conversation whose messages hold marks of the tokenizer, which stay words. Raises DataError."""
    try:
        return list(
            words.apply_chat_template(
                list(messages),
                add_generation_prompt=answer_follows,
                return_dict=False,
                sanitize_control_tokens=True,
                tokenizer_kwargs={"split_special_tokens": False},
            )
        )
    except _refusals() as error:
        raise DataError(f"a message holds a mark of the tokenizer: {short(str(error), 160)}") from None


# ---- training examples ----


def encoded(
    words: Any, conversations: Sequence[Sequence[Message]], window: int, end: int | None
) -> dict[str, list[Any]]:
    """Encode conversations that end with an answer, as examples of at most `window` tokens.

    `labels` are the tokens to predict, those of the answers. `prompt` is the number of tokens before the last answer
    that begins within the window, `answer` its text and `answer_tokens` its length. `answers` counts the answers of the
    conversation, `gone` those that begin after the window; `cut` is 1 if the window ends within an answer. A
    conversation that cannot be used has the reason in `wrong`.
    """
    nothing = {"input_ids": [words.eos_token_id], "labels": [IGNORED], "length": 1, "prompt": 1, "answer": ""}
    nothing |= {"answer_tokens": 0, "answers": 0, "gone": 0, "cut": 0, "wrong": ""}
    examples: dict[str, list[Any]] = {key: [] for key in nothing}
    for found in _answers(words, conversations, end):
        try:
            made = _example(words, found(), window)
        except DataError as error:
            made = {"wrong": str(error)}
        for key, value in (nothing | made).items():
            examples[key].append(value)
    return examples


Span = tuple[int, int]  # the first token of an answer, and the one after its last


class Answers(NamedTuple):
    """A conversation as tokens, and where its answers are."""

    ids: list[int]
    spans: list[Span]


def _example(words: Any, found: Answers, window: int) -> dict[str, Any]:
    ids, spans = found
    inside = [span for span in spans if 0 < span[0] < window]
    if not inside:
        raise DataError(
            f"its first answer begins after {spans[0][0]:,} tokens, and {window:,} are read (options.max_length)"
        )
    targets = [IGNORED] * len(ids)
    for start, stop in inside:
        targets[start:stop] = ids[start:stop]
    start, stop = inside[-1]
    return {
        "input_ids": ids[:window],
        "labels": [*targets[1:window], IGNORED],
        "length": min(len(ids), window),
        "prompt": start,
        "answer": words.decode(ids[start:stop], skip_special_tokens=True).strip(),
        "answer_tokens": stop - start,
        "answers": len(spans),
        "gone": len(spans) - len(inside),
        "cut": int(stop > window),
    }


def _answers(words: Any, conversations: Sequence[Sequence[Message]], end: int | None) -> list[Callable[[], Answers]]:
    """For each conversation a function that returns its tokens and answers, or raises DataError.

    The texts of all conversations are encoded in one call, which is several times faster than one by one.
    """
    marks = marks_in(words, end)
    by_template = re.search(r"\{%-?\s*generation\s*-?%\}", words.get_chat_template()) is not None
    texts: list[str] = []
    encodings: list[list[int]] = []
    found: list[Callable[[], Answers]] = []
    for messages in conversations:
        parts = _parts(messages)
        try:
            rendered = [_rendered(words, *part) for part in (parts[:1] if by_template else parts)]
            check_complete(messages, rendered[0])
        except DataError as error:
            found.append(partial(_raise, error))
            continue
        if marks(messages):
            found.append(partial(_of_guarded, words, parts, end))
        elif by_template:
            found.append(partial(_of_template, words, messages, end))
        else:
            found.append(partial(_of_texts, words, encodings, len(texts), len(rendered), end))
            texts += rendered
    encodings += words(texts, **_PLAIN)["input_ids"] if texts else []
    return found


def _raise(error: DataError) -> Answers:
    raise error


def _of_texts(words: Any, encodings: list[list[int]], first: int, count: int, end: int | None) -> Answers:
    return _by_prefix(words, encodings[first : first + count], end)


def _of_guarded(words: Any, parts: "Sequence[Part]", end: int | None) -> Answers:
    return _by_prefix(words, [_guarded(words, *part) for part in parts], end)


def _of_template(words: Any, messages: Sequence[Message], end: int | None) -> Answers:
    """The answers that the template marks."""
    found = words.apply_chat_template(
        list(messages),
        return_dict=True,
        return_assistant_tokens_mask=True,
        tokenizer_kwargs={"split_special_tokens": False},
    )
    mask = [0, *found["assistant_masks"], 0]
    edges = [place for place in range(len(mask) - 1) if mask[place] != mask[place + 1]]
    return _ended(words, list(found["input_ids"]), list(zip(edges[::2], edges[1::2], strict=True)), end)


Part = tuple[Sequence[Message], bool]


def _parts(messages: Sequence[Message]) -> list[Part]:
    """The conversation, then the messages up to each answer; and whether the start of an answer follows."""
    return [(messages, False), *((messages[:place], True) for place in answers(messages))]


def _by_prefix(words: Any, parts: Sequence[list[int]], end: int | None) -> Answers:
    """Tokens and answers, from the tokens of a conversation and of the messages up to each answer. Raises DataError."""
    ids, *starts = parts
    if any(ids[: len(start)] != start for start in starts):
        raise DataError(
            "the model's chat template writes the messages before an answer in another way than in the conversation: "
            "give each answer a row of its own"
        )
    # without a mark at the end of a turn, only the last answer has an end that is sure
    spans = [(len(start), len(ids)) for start in (starts if end is not None else starts[-1:])]
    return _ended(words, ids, spans, end)


def _ended(words: Any, ids: list[int], spans: list[Span], end: int | None) -> Answers:
    """Let each answer end after its first mark `end`, and the tokens after the last answer; without a mark, with the
    token that ends a text. Raises DataError if there is no answer.
    """
    found: list[Span] = []
    limits = [*(start for start, _ in spans[1:]), len(ids)]
    for (start, stop), limit in zip(spans, limits, strict=True):
        mark = next((place for place in range(start, limit) if ids[place] == end), None)
        found.append((start, stop if mark is None else mark + 1))
    if not found or any(start >= stop for start, stop in found):
        raise DataError("the model's chat template writes an answer of it without a token")
    if end is not None:
        return Answers(ids[: found[-1][1]], found)
    start, stop = found[-1]
    while stop > start + 1 and not words.decode(ids[stop - 1 : stop]).strip():
        stop -= 1
    return Answers([*ids[:stop], words.eos_token_id], [*found[:-1], (start, stop + 1)])
