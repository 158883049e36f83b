"""Settings of the command line: `train.epochs=3`, or `epochs=3` if only one key of the recipe has this last name.

A setting that no key has is never guessed: the error names the key that was probably meant, with the given value.
"""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from pipelines.config.validation_errors import COMMAND_LINE, closest
from pipelines.config.yaml_io import Keys, parse_value

LISTED = 4  # number of keys that an error suggests

# What other tools call a setting (transformers, ultralytics, timm, fastai), and what Graft calls it. A name below is
# only suggested, or called ambiguous, and never taken.
MEANINGS = {
    "batch": "batch_size",
    "bs": "batch_size",
    "bsz": "batch_size",
    "checkpointing": "gradient_checkpointing",
    "clip": "clip_norm",
    "crop": "image_size",
    "dataset": "data.id",
    "dir": "id",
    "eval_steps": "eval_every",
    "eval_strategy": "eval_every",
    "folder": "id",
    "iterations": "max_steps",
    "imgsz": "image_size",
    "iters": "max_steps",
    "logging_steps": "log_every",
    "lora_dropout": "model.adapter.dropout",
    "lr0": "learning_rate",
    "lr_scheduler_type": "schedule",
    "max_grad_norm": "clip_norm",
    "max_samples": "max_train_rows",
    "max_train_samples": "max_train_rows",
    "model_name": "model.id",
    "model_name_or_path": "model.id",
    "num_workers": "workers",
    "num_train_epochs": "epochs",
    "optim": "optimizer",
    "path": "id",
    "patience": "early_stopping",
    "per_device_train_batch_size": "batch_size",
    "report_to": "trackers",
    "resolution": "image_size",
    "save_steps": "save_every",
    "scheduler": "schedule",
    "sched": "schedule",
    "size": "image_size",
    "steps": "max_steps",
    "test_size": "holdout",
    "val_split": "holdout",
    "wd": "weight_decay",
}
# What is chosen by an option of the command line, or is no setting.
ELSEWHERE = {
    **dict.fromkeys(
        ("output_dir", "output", "out", "run", "run_name", "name", "project", "save_dir"), "--run FOLDER chooses it"
    ),
    **dict.fromkeys(("resume", "resume_from_checkpoint"), "the same command again goes on where the run stopped"),
    **dict.fromkeys(
        ("device", "gpu", "gpus", "cuda"), "the best device is taken; CUDA_VISIBLE_DEVICES chooses among several"
    ),
    **dict.fromkeys(("fp16", "bf16", "dtype", "mixed_precision"), "train.precision=bf16, fp16 or fp32 sets it"),
    "gradient_accumulation_steps": "train.batch_size is the batch of one step, train.micro_batch a part of it",
    "smoke": "--smoke does it",
}


def read(overrides: Sequence[str], known: Mapping[str, str]) -> tuple[list[tuple[str, Any]], list[str]]:
    """The full key and the value of every setting, and what is wrong with the others.

    `known` is every key of the recipe: `keys` of validation_errors.
    """
    if problem := _spaces(overrides, known):
        return [], [problem]
    found: list[tuple[str, Any]] = []
    problems: list[str] = []
    for override in overrides:
        key, equals, text = override.partition("=")
        key, text = key.strip(), text.strip()
        if not equals or not key:
            problems.append(_no_setting(override, known))
            continue
        full = meant(key, known)
        if len(full) > 1:
            problems.append(f"command line: {key}: {len(full)} keys have this name: write {_listed(full, text, 'or')}")
            continue
        if not full:
            problems.append(f"command line: {key}: unknown key{advice(key, text, known)}")
            continue
        if not text:
            problems.append(f"command line: {key}=: the value is missing; `{key}=null` sets none")
            continue
        try:
            sign = len(text) == 1 and not text.isalnum() and text != "~"  # YAML has a meaning of its own for some
            value = text if sign else parse_value(text)
        except yaml.YAMLError:
            problems.append(
                f"{override!r}: the value is not valid YAML (text with braces needs quotes around it, inside of the "
                "shell's)"
            )
            continue
        if known.get(full[0]) == "section" and not isinstance(value, dict) and value is not None:
            problems.append(f"command line: {key}: a section, which takes no value{advice(key, text, known)}")
            continue
        if known.get(full[0]) == "names" and not isinstance(value, dict) and value is not None:
            problems.append(f"command line: {key}: a name follows it: did you mean {full[0]}.NAME={_quoted(text)}?")
            continue
        found.append((full[0], value))
    return found, problems


def put(raw: dict[str, Any], lines: dict[Keys, int], key: str, value: Any) -> list[str]:
    """Set a key of the recipe. Returns what is wrong: a part of the key may be a plain value in the file."""
    *parents, last = key.split(".")
    target = raw
    for parent in parents:
        target[parent] = {} if target.get(parent) is None else target[parent]  # a section may be present and empty
        target = target[parent]
        if not isinstance(target, dict):
            return [f"{key}: {parent} has no keys"]
    target[last] = value
    other = {"train.epochs": "max_steps", "train.max_steps": "epochs"}.get(key)
    if other and value is not None:
        target.pop(other, None)
        if lines.get(("train", "min_steps")) != COMMAND_LINE:  # the length that the user sets replaces the recipe's
            target.pop("min_steps", None)
    if key == "model.config.model_type" and "id" in raw["model"]:  # a network of its own replaces the recipe's model
        for name in ("id", "freeze", "adapter", "weights", "revision"):
            if lines.get(("model", name)) != COMMAND_LINE:
                raw["model"].pop(name, None)
    parts: Keys = tuple(key.split("."))
    for n in range(1, len(parts)):
        lines.setdefault(parts[:n], COMMAND_LINE)
    lines[parts] = COMMAND_LINE
    return []


def meant(key: str, known: Mapping[str, str]) -> list[str]:
    """The keys that have this name or end with it: one if it is clear, several if it is not, none if it is unknown."""
    parts = key.split(".")
    own = [key] if key in known else []
    for n in range(1, len(parts)):  # any name may follow data.columns and model.config
        own += [key] if known.get(".".join(parts[:n])) == "names" else []
    if own:
        return own[:1]
    found = []
    for full, kind in known.items():
        path = full.split(".")
        for n in range(1, min(len(parts), len(path) - 1) + 1):
            rest = parts[n:]
            if path[-n:] == parts[:n] and (kind == "names" if rest else kind != "section"):
                found.append(".".join([*path, *rest]))
    if found and key in MEANINGS:  # `steps` are those of sampling in one task, and those of training elsewhere
        found += [full for full in _of(MEANINGS[key], known) if full not in found]
    return sorted(found)


def advice(word: str, text: str, known: Mapping[str, str]) -> str:
    """`: did you mean train.learning_rate=3e-3?`, with the value that was given, or the keys that there are."""
    name = word.lower().replace("-", "_")
    if name in ELSEWHERE:
        return f": {ELSEWHERE[name]}"
    likely = _likely(word, known)
    if likely:
        options = {"model.id": f"--model {_quoted(text)}", "data.id": f"--data {_quoted(text)}"}
        short = [options[full] for full in likely if full in options and text]
        return f": did you mean {_listed(likely, text, 'or')}{f' ({short[0]})' if short else ''}?"
    section = word if known.get(word) == "section" else word.partition(".")[0]
    inside = [full.removeprefix(f"{section}.") for full in known if full.startswith(f"{section}.")]
    return f" (allowed: {', '.join(inside)})" if inside else "; `graft schema` lists all keys"


def _likely(word: str, known: Mapping[str, str]) -> list[str]:
    """The keys that an unknown name probably means, the likeliest first."""
    name = word.lower().replace("-", "_")
    if name in ("model", "data"):
        return [f"{name}.id"]
    if found := meant(name, known):  # Epochs, learning-rate
        return found[:LISTED] if known.get(found[0]) != "section" else []
    *sections, last = name.split(".")
    if sections:
        section = closest(sections[0], {full.partition(".")[0] for full in known}) or sections[0]
        inside = {full.partition(".")[2]: full for full in known if full.startswith(f"{section}.")}
        rest = ".".join([*sections[1:], last])
        if rest in inside:
            return [inside[rest]]
        if found := meant(last, known):  # train.image_size: the right name in the wrong section
            return found[:LISTED]
        near = MEANINGS[last] if MEANINGS.get(last) in inside else closest(rest, inside)
        if last == "name" and "id" in inside:
            near = "id"
        free = {full.rpartition(".")[2]: full for full, kind in known.items() if kind == "names"}
        if parent := closest(sections[-1], free):  # data.column.text
            return [f"{free[parent]}.{last}"]
        if near is not None:
            return [inside[near]]
    if last in MEANINGS:
        return _of(MEANINGS[last], known)[:LISTED]
    leaves: dict[str, list[str]] = {"model": ["model.id"], "data": ["data.id"]}
    for full, kind in known.items():
        if kind != "section":
            leaves.setdefault(full.rpartition(".")[2], []).append(full)
    near = closest(last, leaves)
    alike = [near] if near else [leaf for leaf in leaves if leaf in last.split("_") or last in leaf.split("_")]
    return [full for leaf in alike for full in leaves[leaf]][:LISTED]


def _of(name: str, known: Mapping[str, str]) -> list[str]:
    """The keys with this last name; a name with a dot is a full key. The keys of `train` come first."""
    found = [full for full in known if full == name or (("." not in name) and full.rpartition(".")[2] == name)]
    return sorted(found, key=lambda full: not full.startswith("train."))


def _listed(found: Sequence[str], text: str, word: str) -> str:
    shown = [_quoted(f"{full}={text}") if text else f"{full}=VALUE" for full in found]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} {word} {shown[-1]}"


def _quoted(text: str) -> str:
    return shlex.quote(text) if re.search(r"[\s'\"\\$&|;<>()]", text) else text


# ---- what is no key=value ----


def _spaces(overrides: Sequence[str], known: Mapping[str, str]) -> str:
    """The advice for `train.epochs = 3`, which a shell passes on as three words, and for `train.epochs 3`."""
    for place, word in enumerate(overrides):
        given = " ".join(overrides[place : place + 3 if overrides[place + 1 : place + 2] == ["="] else place + 2])
        parts = re.fullmatch(r"([\w.-]+)(?: ?[=:] | [=:]?)([^\s=:]\S*)", given)
        found = _near(parts[1], known) if parts and " " not in word and "=" not in parts[2] else []
        if parts and found and not os.path.exists(word):
            full = _quoted(f"{found[0]}={parts[2]}")
            return f"command line: {given!r} is several words for the shell: did you mean {full}?"
    return ""


def _no_setting(override: str, known: Mapping[str, str]) -> str:
    if os.path.exists(override):
        return f"{override!r}: an override is key=value: did you mean --data {_quoted(override)}?"
    key, _, text = override.partition(":")
    found = _near(key.strip(), known)
    hint = f": did you mean {_listed(found, text.strip(), 'or')}?" if found else ""
    return f"{override!r}: an override is key=value, such as train.epochs=1{hint}"


def _near(key: str, known: Mapping[str, str]) -> list[str]:
    return [] if not re.fullmatch(r"[\w.-]+", key) else (meant(key, known) or _likely(key, known))[:LISTED]
