"""Metrics that a recipe lists: Python modules, local files or from the hub, that are loaded and called for scores.

    modules = load(["/home/me/my_metric.py", "evaluate-metric/rouge@<commit>"])
    modules[0].scores(records, labels)  ->  {"my_metric_share": 0.75}

A module is Python code with one class that derives from `evaluate.Metric`, or with a function

    def compute(predictions, references, confidence, **rest) -> dict[str, float]

`predictions` and `references` hold one value per row, as in the task's records: names of classes (lists of names if
rows have several), numbers, or texts (for questions, references are lists of accepted answers). Further parameters get
the record fields of the same name, and `**rest` gets all remaining fields. A class gets the columns that its features
name; if these are integers, class names become class numbers. A local file may import modules in its folder with `from
.other import name`.

A module is code, and it runs with the rights of the user. So it is loaded only for a recipe that the user names (see
config.recipe.recipe_of_model), and a module of the hub only at the commit that the recipe names.
"""

import copy
import hashlib
import importlib.util
import inspect
import numbers
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pipelines.config.recipe import HUB_METRIC, metric_module_name
from pipelines.errors import RecipeError
from pipelines.hub.download import download_metric
from pipelines.utils.formatting import short

Record = Mapping[str, Any]
Columns = dict[str, list[Any]]

NAME = re.compile(r"\w[\w.-]{0,60}", re.ASCII)  # allowed names of a score, because it is published


@dataclass(frozen=True)
class Module:
    """A loaded entry of a recipe's `metrics`. `source` names it for publication, without local paths."""

    name: str
    entry: str
    source: str
    path: Path
    compute: Callable[[Columns, Sequence[str]], Any]

    def scores(self, records: Sequence[Record], labels: Sequence[str]) -> dict[str, float]:
        """{"<module>_<key>": score}; `labels` are the model's classes in order.

        Any error of the module is raised as RecipeError.
        """
        columns: Columns = {
            "predictions": [r["predicted"] for r in records],
            "references": [r["true"] for r in records],
        }
        shared = set.intersection(*[set(record) for record in records]) - {"predicted", "true"}
        columns |= {key: [record[key] for record in records] for key in sorted(shared)}
        try:
            found = self.compute(columns, labels)
        except RecipeError:
            raise
        except (Exception, SystemExit) as error:
            raise RecipeError(f"metrics: {self.entry} fails: {_described(error, self.path)}") from error
        return {f"{self.name}_{key}": value for key, value in _numbers(self.entry, found).items()}


def load(entries: Sequence[str]) -> list[Module]:
    """Import every module without calling it. Raises RecipeError or HubError."""
    return [_load(entry) for entry in entries]


def _load(entry: str) -> Module:
    name, hub = metric_module_name(entry), HUB_METRIC.fullmatch(entry)
    if hub:
        path = download_metric(hub["repo"], hub["commit"]) / f"{hub['repo'].split('/')[1]}.py"
        if not path.is_file():
            raise RecipeError(f"metrics: {entry} holds no {path.name}, so it is no metric of the evaluate library")
    else:
        path = Path(entry).expanduser()
        if not path.is_file():
            raise RecipeError(f"metrics: {entry}: {'a folder, and not a file' if path.is_dir() else 'no such file'}")
    module = _imported(entry, path)
    metric = _class_of(entry, module)
    function = getattr(module, "compute", None)
    if metric is not None:
        compute = _of_class(entry, path, metric)
    elif inspect.isfunction(function):
        compute = _of_function(entry, function)
    else:
        raise RecipeError(
            f"metrics: {entry} has neither a class that derives from evaluate.Metric "
            "nor a function compute(predictions, references)"
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Module(name, entry, entry if hub else f"{path.name} (sha256 {digest[:12]})", path, compute)


def _imported(entry: str, path: Path) -> ModuleType:
    """Import a file as a module of its own package, whose folder is the file's.

    So `from .other import name` works. The file runs where it is; the library's loader would copy it, and would
    download what comments in it ask for.
    """
    place = f"graft_metric_{hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:16]}"
    for name in [name for name in sys.modules if name.partition(".")[0] == place]:
        del sys.modules[name]  # the file may have changed since it was loaded
    package = ModuleType(place)
    package.__path__ = [str(path.parent)]
    sys.modules[place] = package
    importlib.invalidate_caches()
    spec = importlib.util.spec_from_file_location(f"{place}.{path.stem}", path)
    if spec is None or spec.loader is None:
        raise RecipeError(f"metrics: {entry}: no file of Python code")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # write no bytecode next to the file
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise RecipeError(f"metrics: {entry}: no valid Python: {error.msg} (line {error.lineno})") from error
    except ModuleNotFoundError as error:
        package_name = str(error.name or "").partition(".")[0]
        if package_name == place:
            raise RecipeError(
                f"metrics: {entry} imports {str(error.name).partition('.')[2]}.py, which does not lie beside it"
            ) from error
        raise RecipeError(
            f"metrics: {entry} needs the package {package_name}, which is not installed: "
            f"type `pip install {package_name}`, or the name under which it is published"
        ) from error
    except (Exception, SystemExit) as error:
        raise RecipeError(f"metrics: {entry} cannot be imported: {_described(error, path)}") from error
    finally:
        sys.dont_write_bytecode = writes
    return module


def _class_of(entry: str, module: ModuleType) -> Any:
    """The module's class that derives from evaluate.Metric; None if it has none. Raises RecipeError for several.

    A module that has one has imported `evaluate`; otherwise the library, which takes seconds, is not imported.
    """
    if "evaluate" not in sys.modules:
        return None
    import evaluate

    own = [
        v
        for v in vars(module).values()
        if isinstance(v, type) and issubclass(v, evaluate.Metric) and v.__module__ == module.__name__
    ]
    last = [kind for kind in own if not any(kind in other.__mro__[1:] for other in own)]
    if len(last) > 1:
        raise RecipeError(
            f"metrics: {entry} has several metrics ({', '.join(kind.__name__ for kind in last)}): keep one in each file"
        )
    return last[0] if last else None


# ---- calling a module ----


def _of_function(entry: str, function: Callable[..., Any]) -> Callable[[Columns, Sequence[str]], Any]:
    parameters = inspect.signature(function).parameters.values()
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    needed = [p.name for p in parameters if p.name in names and p.default is p.empty]
    if len([p for p in parameters if p.kind is p.POSITIONAL_ONLY]) or (
        not takes_all and not {"predictions", "references"} <= set(names)
    ):
        raise RecipeError(f"metrics: {entry}: its compute must take predictions and references by these names")

    def compute(columns: Columns, labels: Sequence[str]) -> Any:
        if lacking := [name for name in needed if name not in columns]:
            raise RecipeError(
                f"metrics: {entry}: compute asks for {lacking[0]}, and a record here has {', '.join(columns)}"
            )
        given = columns if takes_all else {name: columns[name] for name in names if name in columns}
        # a copy, because the function may change the lists of the records
        found = function(**copy.deepcopy(_as_dicts(given)))
        bad = (
            next((key for key, value in found.items() if not _is_number(value)), None)
            if isinstance(found, dict)
            else None
        )
        if bad is not None:
            raise RecipeError(
                f"metrics: {entry}: the value of {bad!r} must be a number, got {short(repr(found[bad]), 40)}"
            )
        return found

    return compute


def _of_class(entry: str, path: Path, kind: Any) -> Callable[[Columns, Sequence[str]], Any]:
    from pipelines.utils.cache import cache_root

    try:
        metric = kind(keep_in_memory=True, cache_dir=str(cache_root() / "metrics"))
        metric.download_and_prepare()
    except (Exception, SystemExit) as error:
        raise RecipeError(f"metrics: {entry} cannot be made: {_described(error, path)}") from error
    options = metric.features if isinstance(metric.features, list) else [metric.features]

    def compute(columns: Columns, labels: Sequence[str]) -> Any:
        if lacking := [name for name in options[0] if name not in columns]:
            raise RecipeError(f"metrics: {entry} asks for {lacking[0]}, and a record here has {', '.join(columns)}")
        integers = all(_are_whole(features.get(key)) for features in options for key in ("predictions", "references"))
        given = _as_dicts({name: columns[name] for name in options[0]})
        if integers and labels:
            given |= {key: _numbered(given[key], labels) for key in ("predictions", "references") if key in given}
        return metric.compute(**given)

    return compute


def _as_dicts(columns: Columns) -> Columns:
    """The columns with plain dictionaries, where a record has the scores of many labels in an array."""
    return {
        name: [dict(value) if isinstance(value, Mapping) else value for value in column]
        for name, column in columns.items()
    }


def _are_whole(feature: Any) -> bool:
    return str(getattr(feature, "dtype", "")).startswith(("int", "uint"))


def _numbered(values: list[Any], labels: Sequence[str]) -> list[Any]:
    """Class names -> class numbers; a name that the model does not know gets the number after the last class."""
    if not all(isinstance(value, str) for value in values):
        return values
    places = {label: place for place, label in enumerate(labels)}
    return [places.get(value, len(labels)) for value in values]


def _numbers(entry: str, found: Any) -> dict[str, float]:
    """The numbers in a module's result.

    Other values are left out: a metric of the hub may return lists or texts too. Raises RecipeError.
    """
    if not isinstance(found, dict):
        raise RecipeError(f"metrics: {entry} must give a dictionary of numbers, got {short(repr(found), 60)}")
    kept = {str(key): float(value) for key, value in found.items() if _is_number(value)}
    if not kept:
        raise RecipeError(f"metrics: {entry} gives no number: {short(repr(found), 60)}")
    if bad := [key for key in kept if not NAME.fullmatch(key)]:
        raise RecipeError(
            f"metrics: {entry}: {short(bad[0], 60)!r} cannot be the name of a score: use letters, digits and _"
        )
    return kept


def _is_number(value: Any) -> bool:
    import numpy as np

    if isinstance(value, np.ndarray):
        return value.ndim == 0 and np.issubdtype(value.dtype, np.number)
    return isinstance(value, numbers.Real | np.number) and not isinstance(value, bool | complex)


def _described(error: BaseException, path: Path) -> str:
    """Describe an error of a module in one line: its type, its first line, and its line number in the module."""
    line = next(
        (f.lineno for f in reversed(traceback.extract_tb(error.__traceback__)) if Path(f.filename) == path), None
    )
    text = short(str(error).strip().partition("\n")[0], 160)
    return f"{type(error).__name__}{f': {text}' if text else ''}" + (f" (line {line} of {path.name})" if line else "")
