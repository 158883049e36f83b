"""A command that the command line does not understand: what was probably meant.

`typer` says what is wrong. This file adds the verb, the option or the key that a person probably had in mind.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.config.catalog import catalog, find_recipe, recipe_paths
from pipelines.config.overrides import advice
from pipelines.config.recipe import known_keys
from pipelines.config.validation_errors import closest
from pipelines.config.yaml_io import read_file
from pipelines.errors import RecipeError

# What other tools call a verb, or a person looks for -> the words of Graft, the likeliest first.
VERBS = {
    **dict.fromkeys(("run", "fit", "finetune", "fine-tune", "tune", "start", "resume", "continue"), ("train",)),
    **dict.fromkeys(("eval", "test", "score", "val", "benchmark", "metrics"), ("evaluate",)),
    **dict.fromkeys(("infer", "inference", "generate", "classify", "transcribe", "answer", "pred"), ("predict",)),
    **dict.fromkeys(("serve", "app", "ui", "launch", "web", "gradio"), ("demo",)),
    **dict.fromkeys(("list", "ls", "show"), ("recipes", "runs")),
    **dict.fromkeys(("models", "tasks", "recipe", "init", "new", "create"), ("recipes",)),
    **dict.fromkeys(("push", "upload", "deploy", "share", "release"), ("publish",)),
    **dict.fromkeys(("validate", "dry-run", "lint", "doctor"), ("check",)),
    **dict.fromkeys(("diff", "vs"), ("compare",)),
    **dict.fromkeys(("history", "status", "results", "last"), ("runs", "report")),
    **dict.fromkeys(("readme", "model-card", "modelcard"), ("card",)),
    **dict.fromkeys(("keys", "settings", "options"), ("schema",)),
    **dict.fromkeys(("help", "man"), ("--help",)),
    **dict.fromkeys(("version", "about", "info"), ("--version",)),
}
# What an argument is, by the name that the help shows.
NEEDED = {
    "RUN": "a run: give its name, its folder, or `last`",
    "RUN RUN ...": "two runs: give their names or folders, or `last` for the newest",
    "RUN_OR_MODEL": "a run or a model: give a run's name or folder, `last`, a model folder or a hub id",
    "RUN_OR_MODEL_OR_RECIPE": "a run, a model or a recipe: give a run's name or folder, `last`, a model folder, a hub "
    "id or a recipe",
    "INPUT": "inputs: files, folders, a table (csv, jsonl), a text in quotes or column=value, such as "
    "`graft {verb} RUN photo.jpg`",
    "OWNER/NAME": "a name on the hub, such as `graft {verb} RUN YOU/cats-dogs`",
}


def explained(error: Any, arguments: Sequence[str]) -> str:
    """One line for an error of the command line: what is wrong, and what was probably meant.

    `error` is a usage error of typer, and `arguments` are the words after `graft`.
    """
    context = error.ctx
    plain = error.format_message().rstrip(".")
    if context is None:
        return f"{plain}. See: graft --help"
    verbs = list(context.find_root().command.commands)
    known = {name for one in context.command.params for name in one.opts if name.startswith("-")}
    words = ""
    if context.command is context.find_root().command:
        words = _of_verbs(arguments, verbs)
    elif type(error).__name__ == "NoSuchOption":
        words = _of_options(error.option_name, arguments, context.info_name, known)
        if not words:
            places = " ".join(
                one.metavar or one.name for one in context.command.params if not one.opts[0].startswith("-")
            )
            words = (
                f"`graft {context.info_name}` has no option {error.option_name}: it is used as "
                f"`graft {context.info_name} {places}`, with {', '.join(sorted(known | {'--help'}))}"
            )
    return words or f"{plain}. See: {context.command_path} --help"


def needed(verb: str, name: str) -> str:
    """The error for an argument that is missing, by the name that the help shows."""
    return f"`graft {verb}` needs {NEEDED[name].format(verb=verb)}"


def _of_verbs(arguments: Sequence[str], verbs: Sequence[str]) -> str:
    """For a word that is no verb, or an option where the verb belongs."""
    first = arguments[0]
    if first.startswith("-"):
        verb = next((word for word in arguments if word in verbs), None)
        if verb is not None:
            before = arguments[: arguments.index(verb)]
            after = arguments[arguments.index(verb) + 1 :]
            return f"options come after the verb: did you mean `{_line(verb, *after, *before)}`?"
        option = "--version" if first in ("-v", "-V") else closest(first, ["--help", "--version", "--debug"])
        return f"no option {first}" + (f": did you mean `graft {option}`?" if option else ". See: graft --help")
    shown = f"no command {first!r}"
    rest = arguments[1:]
    word = first.lower()
    if word in verbs:
        return f"{shown}: did you mean `{_line(word, *rest)}`?"
    if word in VERBS:
        meant = [one for one in VERBS[word] if one in verbs or one.startswith("-")]
        lines = [
            _line(*rest, one) if one == "--help" else _line(one, *([] if one == "--version" else rest)) for one in meant
        ]
        return f"{shown}: did you mean {' or '.join(f'`{line}`' for line in lines)}?"
    if first in recipe_paths() or Path(first).suffix in (".yaml", ".yml"):
        return f"{shown}: did you mean `{_line('train', *arguments)}`?"
    if (Path(first) / "recipe.yaml").is_file():
        return f"{shown}: it is a run: did you mean `{_line('demo', first)}` or `{_line('report', first)}`?"
    if Path(first).exists():
        return f"{shown}: did you mean `{_line('train', *arguments)}`?"
    near = closest(word, [*verbs, *VERBS])
    if near is not None and near in verbs:
        return f"{shown}: did you mean `{_line(near, *rest)}`?"
    if near is not None:
        return _of_verbs([near, *rest], verbs).replace(repr(near), repr(first), 1)
    recipe = closest(first, recipe_paths()) if len(first) > 6 else None
    if recipe is not None:
        return f"{shown}: did you mean `{_line('train', recipe, *rest)}`?"
    return f"{shown}. The commands: {', '.join(verbs)}"


def _of_options(option: str, arguments: Sequence[str], verb: str, known: set[str]) -> str:
    """For an option that a verb does not have: a similar option, or the key of the recipe that it names; else empty."""
    token = next((word for word in arguments if word.startswith(option)), option)
    place = list(arguments).index(token) if token in arguments else len(arguments)
    name, equals, value = token.partition("=")
    after = arguments[place + 1 : place + 2]
    if not equals and after and (not after[0].startswith("-") or re.fullmatch(r"-[\d.e-]+", after[0])):
        value = after[0]
    bare = name.lstrip("-")
    shown = f"`graft {verb}` has no option {name}"
    near = closest(bare.lower().replace("_", "-"), [one.lstrip("-") for one in known])
    letter = [one for one in sorted(known) if len(bare) == 1 and one.startswith(f"--{bare}")]
    if near is not None or letter:
        return f"{shown}: did you mean {f'--{near}' if near is not None else letter[0]}{' ' + value if value else ''}?"
    if bare in ("recipe", "config", "file", "yaml") and verb in ("train", "check"):
        return f"{shown}: did you mean `{_line(verb, value or 'RECIPE')}`?"
    if bare in ("verbose", "traceback", "v"):
        return f"{shown}: did you mean --debug, which shows where an error comes from?"
    if verb == "predict" and (" " in token or not re.fullmatch(r"--?[a-zA-Z][\w-]*", name)):
        return f"{shown}: an input that begins with a dash comes after `--`: graft predict RUN -- {shlex.quote(token)}"
    if verb not in ("train", "check"):
        return ""
    hint = advice(bare, value, _keys(arguments, value))
    return shown + (hint if hint.startswith(":") else f"{hint}. See: graft {verb} --help")


def _keys(arguments: Sequence[str], value: str) -> Mapping[str, str]:
    """The keys of the recipe that the command names, or those that all recipes have."""
    for word in arguments[1:]:
        if word != value and not word.startswith("-") and "=" not in word:
            try:
                return known_keys(read_file(find_recipe(word)).value)
            except RecipeError:
                continue
    return known_keys({})


def _line(*words: str) -> str:
    return shlex.join(["graft", *words])


def offline(verb: str) -> str:
    """What works without the hub, for the verb that needed it."""
    if verb in ("train", "check"):
        return (
            "Without the hub, models and data sets in the cache, --model FOLDER and --data FOLDER work, and these "
            f"recipes need none: {', '.join(entry['name'] for entry in catalog() if not entry['hub'])}"
        )
    return "Without the hub, run folders, model folders and models in the cache work"
