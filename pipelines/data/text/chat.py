"""Conversations as data sets write them, brought into one form: [{"role": ..., "content": text}, ...].

The columns of a data set tell its layout: `messages` with role and content, ShareGPT's `conversations` with from and
value, Alpaca's `instruction`, `input` and `output`, or `prompt` and `completion`. Roles are system, user, assistant and
tool.
"""

import ast
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from pipelines.data.text.rows import blank, check_characters
from pipelines.errors import DataError
from pipelines.utils.formatting import short

Message = dict[str, str]

KIND = "messages"  # the kind of a column of conversations, and the name of this column in a task


class Layout(NamedTuple):
    """Columns that hold a conversation."""

    needed: tuple[str, ...]
    optional: tuple[str, ...]
    answers: tuple[str, ...] = ()
    """The optional columns without which there is nothing to learn; `graft predict` does without them."""


LAYOUTS = (
    Layout(("messages",), ("system", "tools")),
    Layout(("conversations",), ("system", "tools")),
    Layout(("prompt",), ("completion", "system", "tools"), ("completion",)),
    Layout(("instruction",), ("input", "output", "system", "history"), ("output",)),
)
COLUMNS = tuple(dict.fromkeys(column for one in LAYOUTS for column in (*one.needed, *one.optional)))
NESTED = ("messages", "conversations", "prompt", "completion", "history", "tools")  # may hold lists

ROLES = {  # a name of a role -> the role, as chat templates call it
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model", "bing", "bard"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "function_response", "tool_response"), "tool"),
}
_SAY = (
    "Graft reads `messages` (role, content), `conversations` (from, value), `instruction`, `input` and `output`, or "
    "`prompt` and `completion`; other names of columns are given with data.columns, as in data.columns.messages=NAME"
)


def layouts(have: Collection[str] | None, named: Mapping[str, str]) -> list[Layout]:
    """The layouts that columns with these names can hold; all of them if the names are not known.

    `named` gives the data's own names of columns. Where answers are known by name, a layout with them comes first.
    """
    if have is None:
        return list(LAYOUTS)
    found = [one for one in LAYOUTS if all(named.get(column, column) in have for column in one.needed)]
    return sorted(found, key=lambda one: not all(named.get(column, column) in have for column in one.answers))


def no_layout(source: str, have: Collection[str] | None) -> str:
    """What to say of data without conversations."""
    names = f" (it has: {', '.join(have)})" if have else ""
    return f"{source}: no column with conversations{names}: {_SAY}"


def learnable(columns: Mapping[str, str], named: Mapping[str, str]) -> tuple[str, ...] | None:
    """The columns that hold conversations with answers, by names and kinds of the columns; None if none do."""
    for one in layouts(columns, named):
        wanted = (*one.needed, *one.answers)
        lists = one.answers or all(columns.get(named.get(column, column)) == KIND for column in one.needed)
        if lists and all(named.get(column, column) in columns for column in wanted):
            return wanted
    return None


def is_talk(value: Any) -> bool:
    """Whether a cell is a list of messages, also one that is written as JSON."""
    value = _parsed(value)
    first = value[0] if isinstance(value, list) and value else None
    keys = set(first) if isinstance(first, Mapping) else set()
    return bool(keys & {"content", "value"}) and bool(keys & {"role", "from"})


def cell(value: Any) -> Any:
    """A cell with lists as JSON: messages have different keys and types, which one column cannot hold."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else value


def conversation(row: Mapping[str, Any]) -> list[Message]:
    """The messages of a row in one of the layouts. Raises DataError."""
    if _filled(row.get("tools")):
        raise DataError("tools: descriptions of tools are not read; write them into the system message")
    if row.get("messages") is not None:
        found = turns(row["messages"], "messages")
    elif row.get("conversations") is not None:
        found = turns(row["conversations"], "conversations")
    elif "prompt" in row:
        found = turns(row["prompt"], "prompt")
        if _filled(row.get("completion")):
            found += turns(row["completion"], "completion", role="assistant")
    elif "instruction" in row:
        found = _instructed(row)
    else:
        raise DataError("there are no messages")
    if _filled(row.get("system")):
        found = [{"role": "system", "content": _text(row["system"], "system")}, *found]
    if not found:
        raise DataError("there are no messages")
    return found


def turns(value: Any, column: str = KIND, role: str = "user") -> list[Message]:
    """Messages from a list of them, from such a list as JSON, or from one text, which gets the `role`.

    Raises DataError.
    """
    value = _parsed(value)
    if not isinstance(value, list):
        return [{"role": role, "content": _text(value, column)}]
    return [_message(one, f"message {number} of {column}") for number, one in enumerate(value, 1)]


def _filled(value: Any) -> bool:
    return value not in (None, "", "[]", "{}", "null") and value != [] and value != {}


def _parsed(value: Any) -> Any:
    """A list that is written as JSON, or as Python prints it, as a list; anything else unchanged."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(value.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list) and (not found or isinstance(found[0], dict)):
            return found
    return value


def _message(given: Any, where: str) -> Message:
    if not isinstance(given, Mapping):
        raise DataError(f"{where} is {type(given).__name__}: a message has a role and a content")
    name = given.get("role", given.get("from"))
    role = ROLES.get(name.strip().lower()) if isinstance(name, str) else None
    if any(_filled(given.get(key)) for key in ("tool_calls", "function_call")) or name == "function_call":
        raise DataError(f"{where} calls a tool, which is not read: write the call into its content")
    if role is None:
        raise DataError(f"{where} has the role {short(repr(name), 40)} (known: {', '.join(ROLES)})")
    if given.get("weight") == 0:
        raise DataError(f"{where} has the weight 0, and every answer is learned: take the row out")
    return {"role": role, "content": _text(given.get("content", given.get("value")), where)}


def _text(value: Any, where: str) -> str:
    """A text, or the texts of a list of parts, as one text. Raises DataError."""
    if isinstance(value, list):
        parts = [part if isinstance(part, Mapping) else {"type": "text", "text": part} for part in value]
        odd = next((part for part in parts if part.get("type", "text") != "text"), None)
        if odd is not None:
            raise DataError(f"{where} holds a part of the type {short(repr(odd.get('type')), 40)}: only text is read")
        value = "\n".join(_text(part.get("text"), where) for part in parts)
    if isinstance(value, (bool, int, float)):
        value = str(value)
    if value is None:
        raise DataError(f"{where} is empty")
    if not isinstance(value, str):
        raise DataError(f"{where} is no text but {type(value).__name__}")
    check_characters(value, where)
    return value


def _instructed(row: Mapping[str, Any]) -> list[Message]:
    """Alpaca's columns: the input follows the instruction after an empty line; `history` holds earlier pairs."""
    found: list[Message] = []
    history = row.get("history")
    if isinstance(history, str) and history.strip():
        try:
            history = json.loads(history)
        except ValueError:
            raise DataError("history is no list of pairs of texts") from None
    for pair in history or []:
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise DataError("history is no list of pairs of texts")
        for role, text in zip(("user", "assistant"), pair, strict=True):
            found.append({"role": role, "content": _text(text, "history")})
    parts = [_text(row[name], name) for name in ("instruction", "input") if _filled(row.get(name))]
    if not any(part.strip() for part in parts):
        raise DataError("instruction is empty")
    found.append({"role": "user", "content": "\n\n".join(part for part in parts if part.strip())})
    if _filled(row.get("output")):
        found.append({"role": "assistant", "content": _text(row["output"], "output")})
    return found


def asked(messages: Sequence[Message]) -> list[Message]:
    """The messages without the answers at the end: what a model is to answer. Raises DataError if none is left."""
    end = len(messages)
    while end and messages[end - 1]["role"] == "assistant":
        end -= 1
    if not any(message["role"] == "user" for message in messages[:end]) or blank(messages[end - 1]["content"]):
        raise DataError("there is no message to answer: end with a message of the role user")
    return list(messages[:end])


def learned(messages: Sequence[Message]) -> list[Message]:
    """The messages up to the last answer. Raises DataError if a row has no answer, or an empty one."""
    last = max(answers(messages), default=None)
    if last is None:
        raise DataError(
            "there is no answer to learn: no message of the role assistant after another message, no output, no "
            "completion"
        )
    if any(one["role"] == "assistant" and blank(one["content"]) for one in messages[: last + 1]):
        raise DataError("an answer is empty")
    return list(messages[: last + 1])


def answers(messages: Sequence[Message]) -> list[int]:
    """The places of the answers to learn. A greeting that opens a conversation answers nothing."""
    return [place for place, one in enumerate(messages) if one["role"] == "assistant" and place > 0]


def opening(messages: Sequence[Message]) -> str:
    """The messages before the first answer as text: conversations with the same opening are kept in one split.

    A greeting after the system's message belongs to it: it does not say what the conversation is about.
    """
    asked_at = next((place for place, one in enumerate(messages) if one["role"] == "user"), 0)
    return written(messages[: next((place for place in answers(messages) if place > asked_at), len(messages))])


def written(messages: Sequence[Message]) -> str:
    """Messages as people read them."""
    return "\n\n".join(f"{one['role']}: {one['content']}" for one in messages)
