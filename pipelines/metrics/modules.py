"""Metrics that a recipe lists: modules of code, local files or from the hub, loaded and asked for scores.

    modules = load(["/home/me/my_metric.py", "evaluate-metric/rouge@<commit>"])
    modules[0].scores(records, labels)  ->  {"my_metric_share": 0.75}

A module is Python code with one class that derives from `evaluate.Metric`, or with a function

    def compute(predictions, references, confidence, **rest) -> dict[str, float]

`predictions` and `references` hold one value a row, as the task's records have them: names of classes (lists of names where rows
have several), numbers, or texts (of questions: references are lists of accepted answers). Further parameters get what records hold
under that name, and `**rest` gets every further column. A class gets the columns that its features name; where these are whole numbers,
a class's name becomes its number. A local file may import its neighbours with `from .other import name`.

It is code, and it runs with the rights of the user. So it is loaded only for a recipe that the user names (see
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

NAME = re.compile(r"\w[\w.-]{0,60}", re.ASCII)  # of a score: it is published


@dataclass(frozen=True)
class Module:
    """One entry of a recipe's `metrics`, loaded. `source` names it for readers elsewhere: no path of this machine."""

    name: str
    entry: str
    source: str
    path: Path
    compute: Callable[[Columns, Sequence[str]], Any]

    def scores(self, records: Sequence[Record], labels: Sequence[str]) -> dict[str, float]:
        """<module>_<key> -> score; `labels` are the model's classes in order. Raises RecipeError, whatever the module raises."""
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
            raise RecipeError(f"metrics: {self.entry} fails: {_said(error, self.path)}") from error
        return {f"{self.name}_{key}": value for key, value in _numbers(self.entry, found).items()}


def load(entries: Sequence[str]) -> list[Module]:
    """Import every module; nothing is computed. Raises RecipeError that says what is wrong with one, HubError."""
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
            f"metrics: {entry} has neither a class that derives from evaluate.Metric nor a function compute(predictions, references)"
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Module(name, entry, entry if hub else f"{path.name} (sha256 {digest[:12]})", path, compute)


def _imported(entry: str, path: Path) -> ModuleType:
    """The module of a file, as a part of a package of its own whose folder is the file's: so `from .other import name` works.

    The file is run where it lies. The library would copy it, and would download what comments in it ask for.
    """
    place = f"graft_metric_{hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:16]}"
    for name in [name for name in sys.modules if name.partition(".")[0] == place]:
        del sys.modules[name]  # a file that was loaded before may have changed since
    package = ModuleType(place)
    package.__path__ = [str(path.parent)]
    sys.modules[place] = package
    importlib.invalidate_caches()
    spec = importlib.util.spec_from_file_location(f"{place}.{path.stem}", path)
    if spec is None or spec.loader is None:
        raise RecipeError(f"metrics: {entry}: no file of Python code")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # nothing is written beside the file
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
            f"metrics: {entry} needs the package {package_name}, which is not installed: type `pip install {package_name}`, "
            "or the name under which it is published"
        ) from error
    except (Exception, SystemExit) as error:
        raise RecipeError(f"metrics: {entry} cannot be imported: {_said(error, path)}") from error
    finally:
        sys.dont_write_bytecode = writes
    return module


def _class_of(entry: str, module: ModuleType) -> Any:
    """The class of the module that derives from evaluate.Metric; None where it has none. The library takes seconds to import."""
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


# ---- asked for scores ----


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
        found = function(**copy.deepcopy(given))  # what it changes in a list would stand in the records
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
        raise RecipeError(f"metrics: {entry} cannot be made: {_said(error, path)}") from error
    options = metric.features if isinstance(metric.features, list) else [metric.features]

    def compute(columns: Columns, labels: Sequence[str]) -> Any:
        if lacking := [name for name in options[0] if name not in columns]:
            raise RecipeError(f"metrics: {entry} asks for {lacking[0]}, and a record here has {', '.join(columns)}")
        whole = all(_are_whole(features.get(key)) for features in options for key in ("predictions", "references"))
        given = {name: columns[name] for name in options[0]}
        if whole and labels:
            given |= {key: _numbered(given[key], labels) for key in ("predictions", "references") if key in given}
        return metric.compute(**given)

    return compute


def _are_whole(feature: Any) -> bool:
    return str(getattr(feature, "dtype", "")).startswith(("int", "uint"))


def _numbered(values: list[Any], labels: Sequence[str]) -> list[Any]:
    """Names of classes -> their numbers; a name that the model does not know comes after those that it knows."""
    if not all(isinstance(value, str) for value in values):
        return values
    places = {label: place for place, label in enumerate(labels)}
    return [places.get(value, len(labels)) for value in values]


def _numbers(entry: str, found: Any) -> dict[str, float]:
    """What a module gave as plain numbers; lists and texts beside numbers (a metric of the hub may explain itself) are left out."""
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


def _said(error: BaseException, path: Path) -> str:
    """An error of foreign code in a line: its kind, its first line, and where in the module it was raised."""
    line = next(
        (f.lineno for f in reversed(traceback.extract_tb(error.__traceback__)) if Path(f.filename) == path), None
    )
    text = short(str(error).strip().partition("\n")[0], 160)
    return f"{type(error).__name__}{f': {text}' if text else ''}" + (f" (line {line} of {path.name})" if line else "")
