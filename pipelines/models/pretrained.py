"""Load a pretrained transformers model of any kind: its configuration and its weights. Only the head may be new.

Code that comes with a model is never run, and a pickle may hold nothing but tensors.
"""

import json
import logging
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config.validation_errors import suggest
from pipelines.errors import ModelError
from pipelines.models.classic_kinds import KINDS
from pipelines.models.layers import in_own_memory
from pipelines.utils import shares
from pipelines.utils.formatting import short

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger("graft")

LORA = "pytorch_lora_weights.safetensors"  # a LoRA file of diffusers; it holds its own configuration


OTHERS = ("torchvision", "libreyolo", "smp")  # a model_type that names another library
_OTHERS = (
    "the tasks object-detection, instance-segmentation and image-segmentation train them; this task takes another "
    "model, by a hub id or a folder"
)


def read_config(folder: Path | None, config: dict[str, Any] | None) -> Any:
    """The configuration of a model folder, or one built from a recipe's `model.config`. Raises ModelError."""
    from transformers import AutoConfig

    _register_classic(folder, config)
    try:
        if folder is None:
            return _built(dict(config or {}))
        found = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        if wrong := _impossible(found.to_dict(), _usual(type(found))):
            raise ModelError(f"{called(folder)}: config.json: {wrong}")
        if found.model_type in KINDS:
            from pipelines.models import classics

            classics.forget_recipe_keys(found)
        return found
    except ModelError:
        raise
    except Exception as error:  # the library's own checks raise many kinds
        what = called(folder)
        if any(f"`{kind}`" in str(error) for kind in OTHERS):
            raise ModelError(f"{what}: a model of another library: {_OTHERS}") from error
        if "trust_remote_code" in str(error) or "custom code" in str(error):
            raise ModelError(
                f"{what}: this model needs code of its own; Graft never runs a model's code: choose another model"
            ) from error
        if field := re.search(r"Validation error for field '(\w+)'", str(error)):
            where = f"{what}.{field[1]}" if folder is None else f"{what}: config.json: {field[1]}"
            raise ModelError(f"{where}: {first_line(error.__cause__ or error)}") from error
        raise ModelError(f"{what}: not a model that transformers knows: {first_line(error)}") from error


def _register_classic(folder: Path | None, config: dict[str, Any] | None) -> None:
    """Let transformers read the configuration of a network of pipelines.models.classics."""
    stated: Any = config
    if folder is not None:
        try:
            stated = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return  # the caller reads it again, and says what is wrong
    kind = stated.get("model_type") if isinstance(stated, dict) else None
    if isinstance(kind, str) and kind in KINDS:
        from pipelines.models import classics

        classics.register(kind)


def _built(fields: dict[str, Any]) -> Any:
    """A configuration from a recipe's `model.config`. Raises ModelError.

    transformers accepts any field, so a misspelled one would have no effect.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    kind = fields.pop("model_type")
    if kind in OTHERS:
        raise ModelError(f"models of {kind} (also the ids {kind}/NAME) are not of transformers: {_OTHERS}")
    if kind not in CONFIG_MAPPING:
        raise ModelError(
            f"model.config.model_type: transformers knows no {kind!r}{suggest(str(kind), [*KINDS, *CONFIG_MAPPING])}"
        )
    built = AutoConfig.for_model(kind, **fields)
    known = AutoConfig.for_model(kind).to_dict()
    unknown = [name for name in fields if name not in known and name not in built.attribute_map]
    if unknown:
        raise ModelError(f"model.config: {kind} has no field {unknown[0]!r}{suggest(unknown[0], list(known))}")
    if wrong := _impossible(built.to_dict(), known):
        raise ModelError(f"model.config: {wrong}")
    return built


def _usual(kind: Any) -> dict[str, Any]:
    """The default fields of a kind of configuration; empty if it cannot be built without arguments."""
    try:
        return kind().to_dict()  # type: ignore[no-any-return]
    except Exception:  # each kind raises its own type of error
        return {}


_COUNTS = re.compile(r"(num_|n_).*|.*(_size|_heads|_layers|_dim|_channels)|max_position_embeddings|depth")


def _impossible(fields: dict[str, Any], usual: dict[str, Any]) -> str:
    """Describe a wrong size or count in a configuration; empty if there is none.

    transformers accepts any number and fails only in the first forward pass. A number below 1 is allowed where the
    `usual` configuration has one below 1, because it then has a meaning of its own. A count of layers may be 0.
    """
    for name, value in fields.items():
        like = usual.get(name)
        if isinstance(value, dict):
            wrong = _impossible(value, like if isinstance(like, dict) else {})
            if wrong:
                return f"{name}: {wrong}"
        if type(value) is not int or not _COUNTS.fullmatch(name) or (type(like) is int and like < 1):
            continue
        none_is_usual = "layers" in name or name == "num_denoising"  # RT-DETR trains without noisy boxes too
        least = 1 if type(like) is int and not none_is_usual else 0
        if value < least:
            return f"{name} is {value}, and must be {least} or more: take the config.json that the model came with"
    return ""


def load_model(
    auto: Any,
    folder: Path | None,
    config: Any,
    head: "Callable[[Any], nn.Module]",
    *,
    random: bool = False,
    may_be_new: Iterable[str] = (),
    mend: "Callable[[Any, Path, dict[str, tuple[int, ...]]], list[str]] | None" = None,
    hint: str = "",
    renew: bool = False,
) -> "nn.Module":
    """A model of the class that `auto` picks for `config`, float32, in its own memory.

    Weights may be missing or have another shape if they belong to `head(model)`, or if their name contains a part of
    `may_be_new`. `mend(model, folder, {name: saved shape})` may repair others; it returns the names of those it
    repaired. With `renew` the last layer of the head gets random weights even if the file's have this shape, because
    they belong to other classes. The attribute `unread` of a model that was read names the weights that are not from
    the files. Raises ModelError if the folder holds a model of another kind, a pickle that torch does not load safely,
    or weights that do not fit.
    """
    import torch

    if config.model_type in KINDS:
        return _classic(auto, folder, config, head, random=random, renew=renew)
    try:
        if folder is None or random:
            config.architectures = config.architectures or []  # the auto class iterates over it
            if shares.asked():
                log.warning("random weights: every process draws all of them, and then keeps its share")
            drawn: nn.Module = auto.from_config(config, dtype=torch.float32, trust_remote_code=False)
            return drawn
        options = {
            "config": config,
            "ignore_mismatched_sizes": True,
            "output_loading_info": True,
            "dtype": torch.float32,
            "trust_remote_code": False,
        }
        model, info = (shares.asked() and _with_placeholders(auto, folder, options)) or auto.from_pretrained(
            folder, **options
        )
    except Exception as error:  # a damaged file raises many kinds: SafetensorError, UnpicklingError, KeyError, ...
        raise ModelError(_why(folder, error)) from error
    if not any(folder.glob("*.safetensors")):
        log.warning(
            "%s has no safetensors: its weights were read from a pickle, tensors only (nothing in it was run)",
            called(folder),
        )
    own = {id(one) for one in [*head(model).parameters(), *head(model).buffers()]}
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    shapes = {key: tuple(saved) for key, saved, _ in info["mismatched_keys"]}
    new = [key for key in [*info["missing_keys"], *shapes] if key in named and id(named[key]) not in own]
    wrong = [key for key in new if not any(part in key for part in may_be_new)]
    if len(wrong) < len(new):
        fresh = next(key for key in new if key not in wrong)
        log.warning(
            "%s has no %s: it begins with random weights, and stays so if it is frozen",
            called(folder),
            fresh.rpartition(".")[0],
        )
    if mend is not None:
        try:
            mended = mend(model, folder, {key: shapes[key] for key in wrong if key in shapes})
        # these errors come from a configuration with entirely different shapes
        except (RuntimeError, ValueError, IndexError, ZeroDivisionError) as error:
            raise ModelError(
                f"{called(folder)}: its weights do not fit its config.json: {first_line(error)}"
            ) from error
        wrong = [key for key in wrong if key not in mended]
    if wrong:
        kind = "have another shape" if wrong[0] in shapes else "are missing"
        listed = f"{', '.join(sorted(wrong)[:3])}{' ...' if len(wrong) > 3 else ''} ({len(wrong)} in all)"
        raise ModelError(f"{called(folder)}: weights beyond the head {kind}: {listed}; {hint}")
    if renew:
        shares.fill(head(model))
        for layer in last_layers(head(model)):
            if not {id(named[key]) for key in [*info["missing_keys"], *shapes] if key in named} & {
                id(p) for p in layer.parameters()
            }:
                _draw(layer, getattr(config, "initializer_range", None) or 0.02)
    loaded: Any = in_own_memory(model)
    loaded.unread = frozenset([*info["missing_keys"], *shapes])
    return loaded  # type: ignore[no-any-return]


def _classic(
    auto: Any, folder: Path | None, config: Any, head: "Callable[[Any], nn.Module]", *, random: bool, renew: bool
) -> "nn.Module":
    """What `load_model` returns, for a network of pipelines.models.classics."""
    from pipelines.models import classics

    suffix = auto.__name__.removeprefix("AutoModel")
    if folder is None or random:
        return classics.create(config, suffix, folder)
    stated = config.architectures
    model = classics.load(folder, config, suffix)
    own = {id(parameter) for parameter in head(model).parameters()}
    if missing := [name for name in model.unread if id(model.get_parameter(name)) not in own]:
        what = f"its config.json says that it is a {short(str(stated[0]), 60)}" if stated else "it may be another model"
        raise ModelError(
            f"{called(folder)}: {missing[0]} is missing for a {type(model).__name__}, and {what}: choose a model of "
            "this task"
        )
    if renew:
        for layer in last_layers(head(model)):
            _draw(layer, 0.02)
    return model


class _Read:
    """A tensor of a file, for transformers: what it reads of it is a placeholder."""

    def __init__(self, source: shares.Stored, found: dict[int, shares.Stored]) -> None:
        self.source, self.found = source, found

    def __getitem__(self, _: Any) -> "_Read":
        return self

    def to(self, device: Any = None, dtype: Any = None) -> Any:
        value = shares.placeholder(self.source.shape, dtype)
        self.found[value.data_ptr()] = self.source
        return value


def _with_placeholders(auto: Any, folder: Path, options: dict[str, Any]) -> Any:
    """What `from_pretrained` returns, with placeholders for the parameters that the files hold.

    Returns None, and says so, if the files hold no such tensors: pickles, or tensors that must be joined or cut.
    """
    import torch
    from safetensors import safe_open
    from transformers.core_model_loading import WeightConverter
    from transformers.models.auto.auto_factory import _get_model_class

    before = torch.get_rng_state()
    found: dict[int, shares.Stored] = {}
    tensors: dict[str, _Read] = {}
    for path in _weight_files(folder):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 (it is no dictionary)
                source = shares.Stored(path, name, tuple(file.get_slice(name).get_shape()))
                tensors[name] = _Read(source, found)
    if tensors and not type(options["config"]).extra_files:
        kind = _get_model_class(options["config"], auto._model_mapping)
        model, info = kind.from_pretrained(None, state_dict=tensors, **options)
        if not any(isinstance(change, WeightConverter) for change in model._weight_conversions):
            _read_settings(model, folder)
            for parameter in model.parameters():
                if (own := found.get(parameter.data_ptr())) is not None:
                    shares.put(parameter, own)
            for buffer in model.buffers():
                if (own := found.get(buffer.data_ptr())) is not None:
                    buffer.data = own.rows().to(buffer.dtype)
            named = dict(model.named_parameters(remove_duplicate=False))
            for name, read in tensors.items():  # a tied bias (BERT's decoder) has got memory of its own by now
                parameter = named.get(name)
                if parameter is not None and shares.stored(parameter) is None and parameter.shape == read.source.shape:
                    parameter.data = shares.placeholder(read.source.shape, parameter.dtype)
                    shares.put(parameter, read.source)
            return model, info
    torch.set_rng_state(before)
    log.warning(
        "%s: its files do not hold the weights as the model uses them: every process reads all of them, and then keeps "
        "its share",
        called(folder),
    )
    return None


def _read_settings(model: Any, folder: Path) -> None:
    """What `from_pretrained` reads of a folder next to its weights: the settings for generating."""
    model.config.name_or_path = str(folder)
    if model.can_generate() and hasattr(model, "adjust_generation_fn"):  # SpeechT5 generates in its own way
        unused = {"cache_dir": None, "force_download": False, "proxies": None, "token": None, "revision": None}
        model.adjust_generation_fn(
            None, True, False, folder, **unused, subfolder="", local_files_only=True, trust_remote_code=False
        )


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder, as transformers chooses them."""
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    try:
        named = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))["weight_map"]
        return sorted({folder / Path(name).name for name in named.values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def logits(found: Any) -> Any:
    """The logits that a model returned: those of transformers in an object, those of a classic alone."""
    return getattr(found, "logits", found)


def trunk(model: Any) -> "nn.Module":
    """The base model: the child called `base_model_prefix`; if there is none (CLIP, SigLIP), the largest child."""
    named: dict[str, nn.Module] = dict(model.named_children())
    return named.get(model.base_model_prefix) or max(
        named.values(), key=lambda m: sum(p.numel() for p in m.parameters())
    )


def head(model: Any) -> "nn.Module":
    """The children with parameters other than the trunk; a ModuleList if there are several.

    Raises ModelError if there is none.
    """
    from torch import nn

    base = trunk(model)
    parts = [m for m in model.children() if m is not base and any(True for _ in m.parameters())]
    if not parts:
        raise ModelError(
            f"a {model.config.model_type} model has no head of its own beside its trunk; choose another model"
        )
    return parts[0] if len(parts) == 1 else nn.ModuleList(parts)


# ---- matching classes by name ----

NO_HEAD = "new, because the weights are those of a model without this head"


def with_classes(
    config: Any,
    labels: list[str],
    load: "Callable[[bool], nn.Module]",
    head: "Callable[[Any], nn.Module]",
    *,
    fresh: bool,
) -> "nn.Module":
    """A classifier with these classes in this order, in whatever order the pretrained model has them.

    If the model knows all of them by name, its head is kept: each class keeps the row with its name. Otherwise, or if
    the files hold no such head, the last layer of the head starts from random weights. `load(renew)` loads the model
    that `config` describes; with `fresh` all of its weights are random. The model's attribute `about_head` says which
    of these happened; it is empty if `fresh`.
    """
    known = [str(config.id2label.get(index, f"LABEL_{index}")) for index in range(config.num_labels)]
    rows = None if fresh else rows_of(known, labels)
    about = "" if fresh else kept(known, labels, rows)
    if rows is None:
        name_classes(config, labels)
    model: Any = load(rows is None)
    if rows is not None and not fresh:
        unread = {id(value) for name, value in model.named_parameters() if name in model.unread}
        if any(id(layer.weight) in unread for layer in last_layers(head(model))):
            about = NO_HEAD
    if rows is not None and rows != list(range(len(known))):
        shares.fill(head(model))
        choose_rows(head(model), rows, len(known))
    name_classes(model.config, labels)
    model.num_labels = len(labels)
    model.about_head = about
    return model  # type: ignore[no-any-return]


def rows_of(known: list[str], labels: list[str]) -> list[int] | None:
    """The index in `known` of each of `labels`; None if a label is missing there or its name is ambiguous.

    Names that are not equal may differ in case, and in spaces, underscores and hyphens. Default names (LABEL_0, or a
    class whose name is its own number) carry no meaning: they match only if all of them are the same in the same order.
    There LABEL_0 equals 0.
    """
    if known == labels:
        return list(range(len(known)))
    if _unnamed(known):
        return list(range(len(known))) if _numbers(known) == _numbers(labels) else None
    for alike in (str, _plain):
        places: dict[str, list[int]] = {}
        for index, name in enumerate(known):
            places.setdefault(alike(name), []).append(index)
        rows = [places.get(alike(label), []) for label in labels]
        _namesakes(labels, rows, places, alike)
        if all(len(row) == 1 for row in rows) and len({row[0] for row in rows}) == len(rows):
            return [row[0] for row in rows]
    return None


# the names that two classes of ImageNet-1k have, with the synsets of both
_NAMESAKES = {"crane": ("n02012849", "n03126707"), "maillot": ("n03710637", "n03710721")}
_WITH_SYNSET = re.compile(r"(.+) \((n\d{8})\)")


def _namesakes(
    labels: list[str], rows: list[list[int]], places: dict[str, list[int]], alike: "Callable[[str], str]"
) -> None:
    """Fill in the rows of ImageNet's classes of one name, which data call "crane (n02012849)", and models "crane".

    Models have their classes in the order of the synsets. Data may have one of the two only.
    """
    by_name: dict[str, list[tuple[str, int]]] = {}
    for number, label in enumerate(labels):
        if not rows[number] and (found := _WITH_SYNSET.fullmatch(label)):
            by_name.setdefault(found[1], []).append((found[2], number))
    for name, same in by_name.items():
        own = places.get(alike(name), [])
        if len(own) == len(same):
            for place, (_, number) in zip(own, sorted(same), strict=True):
                rows[number] = [place]
        elif len(own) == len(both := _NAMESAKES.get(name, ())):
            for synset, number in same:
                rows[number] = [own[both.index(synset)]] if synset in both else []


def _unnamed(known: list[str]) -> bool:
    """Whether these classes have default names only: LABEL_0, LABEL_1, ... or 0, 1, ..."""
    return all(re.fullmatch(r"LABEL_\d+", name) or name == str(index) for index, name in enumerate(known))


def _numbers(names: list[str]) -> list[str]:
    return [name.removeprefix("LABEL_") for name in names]


def kept(known: list[str], labels: list[str], rows: list[int] | None) -> str:
    """Describe what happens to the head of a model with the classes `known`, for data with `labels`.

    `rows` is from `rows_of`.
    """
    if rows is not None:
        if rows == list(range(len(known))):
            return f"kept, the model knows the {len(labels)} classes of the data"
        if len(rows) < len(known):
            return (
                f"kept for the {len(labels)} classes of the data, which the model knows by name among its {len(known)}"
            )
        return "kept, its rows in the order of the data's classes"
    if _unnamed(known):
        return f"new, because the classes of the model have no names ({short(', '.join(known[:3]), 60)})"
    missing = [label for label in labels if _plain(label) not in {_plain(name) for name in known}]
    if not missing:
        return "new, because two classes of the model, or of the data, have the same name"
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return (
        f"new, because the model does not know the class {short(missing[0], 40)!r}{more}; "
        f"it knows {short(', '.join(known[:5]), 100)}"
    )


def _plain(name: str) -> str:
    return " ".join(re.sub(r"[_\-\s]+", " ", name).casefold().split())


def name_classes(config: Any, labels: list[str]) -> None:
    """Set the classes in a configuration."""
    config.label2id = {label: index for index, label in enumerate(labels)}
    config.id2label = dict(enumerate(labels))
    if config.model_type == "timm_wrapper":
        config.label_names = labels  # timm's configuration saves this instead of id2label


def last_layers(head: "nn.Module") -> list[Any]:
    """The layers of a head that compute the class scores.

    A head may have two of them (DeiT's has one for distillation).
    """
    from torch import nn

    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d)
    parts = list(head) if isinstance(head, nn.ModuleList) else [head]
    ends: list[Any] = [found[-1] for part in parts if (found := [m for m in part.modules() if isinstance(m, kinds)])]
    if not ends:
        return []
    out, size = ends[-1].weight.shape[:2]
    # A square layer before the last one is not a second output: it is DistilBERT's first layer, if there are as many
    # classes as dimensions.
    return [end for end in ends if out != size and end.weight.shape == ends[-1].weight.shape] or ends[-1:]


def choose_rows(head: "nn.Module", classes: list[int], known: int) -> None:
    """Keep only the rows of these classes in a head's last layers, in this order.

    Raises ModelError if the sizes do not fit.
    """
    from torch import nn

    layers = last_layers(head)
    if not layers or any(len(layer.weight) != known for layer in layers):
        raise ModelError(
            f"this model's head does not end in a layer of {known} classes, as its configuration says: "
            "choose another model"
        )
    for last in layers:
        last.weight = nn.Parameter(last.weight.detach()[classes])
        if last.bias is not None:
            last.bias = nn.Parameter(last.bias.detach()[classes])
        for name in ("out_features", "out_channels"):
            if hasattr(last, name):
                setattr(last, name, len(classes))


def _draw(layer: Any, spread: float) -> None:
    """Draw random weights as transformers does for a new head."""
    from torch import nn

    nn.init.normal_(layer.weight, std=spread)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def read_tensor(folder: Path, *names: str) -> Any:
    """A tensor of a model folder, under the first of these names that exists. Raises ModelError if none does."""
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            stored = set(weights.keys())
            for name in names:
                if name in stored:
                    return weights.get_tensor(name)
    raise ModelError(f"{called(folder)}: {names[0]} must be resized, which needs weights in safetensors")


def _why(folder: Path | None, error: Exception) -> str:
    from pickle import UnpicklingError

    if folder is not None and not any(path.suffix in (".safetensors", ".bin") for path in folder.iterdir()):
        return f"{called(folder)}: no weights here (model.safetensors)"
    if isinstance(error, UnpicklingError):
        return (
            f"{called(folder)}: its weights are a pickle that holds more than tensors, and is not run: "
            "choose a model with safetensors"
        )
    return f"{called(folder)}: the model cannot be loaded: {first_line(error)}"


def first_line(error: BaseException) -> str:
    """The first two lines of an error's message, joined and cut to 300 characters."""
    return " ".join(line.strip() for line in str(error).strip().splitlines()[:2])[:300] or type(error).__name__


def called(folder: Path | None) -> str:
    """The name of a model folder for messages.

    For a folder in the hub's cache (models--OWNER--NAME/snapshots/COMMIT) it is the hub id.
    """
    if folder is None:
        return "model.config"
    cached = folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--")
    return folder.parent.parent.name.removeprefix("models--").replace("--", "/") if cached else str(folder)
