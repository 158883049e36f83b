"""Save a sharded model as transformers would, one tensor at a time: no process ever holds all of its weights.

The main process writes; the others only help to gather each tensor.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.utils import distributed, shares

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

FILE_SIZE = 5 * 10**9  # bytes of one file, the usual size on the hub; a larger model has several
KINDS = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}  # dtype -> its name in safetensors


@dataclass(frozen=True)
class Entry:
    """A tensor that is to be written. Every process must call `gather`, which returns the values."""

    name: str
    shape: tuple[int, ...]
    dtype: "torch.dtype"
    gather: "Callable[[], Tensor]"

    @property
    def size(self) -> int:
        count = self.dtype.itemsize
        for length in self.shape:
            count *= length
        return count


def entries(model: Any) -> list[Entry] | None:
    """The tensors of a sharded model's files, with a LoRA adapter merged into them.

    None if transformers would not write this model as it is: one of another library, or one whose tensors it joins or
    cuts for the file.
    """
    from transformers import PreTrainedModel
    from transformers.core_model_loading import revert_weight_conversion

    base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not isinstance(base, PreTrainedModel):
        return None
    merges = _merges(base)
    found: dict[str, Entry] = {}
    tied = getattr(base, "all_tied_weights_keys", None) or {}
    state: dict[str, Tensor] = base.state_dict(keep_vars=True)
    for name, tensor in state.items():
        plain = _without_adapter(name)
        if plain is None or plain in (base._keys_to_ignore_on_save or ()):
            continue
        found[plain] = Entry(plain, tuple(tensor.shape), tensor.dtype, _reader(name, tensor, merges))
    for copy, original in tied.items():
        if copy in found and original in found and state.get(copy) is state.get(original):
            del found[copy]
    stand_ins = {name: shares.placeholder(entry.shape, entry.dtype) for name, entry in found.items()}
    names = {tensor.data_ptr(): name for name, tensor in stand_ins.items()}
    renamed = revert_weight_conversion(base, dict(stand_ins))
    if len(renamed) != len(found) or any(tensor.data_ptr() not in names for tensor in renamed.values()):
        return None
    return [
        Entry(name, of.shape, of.dtype, of.gather)
        for name, tensor in renamed.items()
        for of in [found[names[tensor.data_ptr()]]]
    ]


def _without_adapter(name: str) -> str | None:
    """The name that a tensor has without PEFT's wrappers; None for what the merged model does not have."""
    if ".original_module." in name or ".lora_" in name:
        return None
    return name.replace(".base_layer.", ".").replace(".modules_to_save.default.", ".")


def _merges(base: "nn.Module") -> dict[str, Any]:
    """Name of a weight -> the LoRA layer that changes it."""
    from peft.tuners.lora import LoraLayer

    named: list[tuple[str, Any]] = list(base.named_modules())
    return {f"{name}.base_layer.weight": module for name, module in named if isinstance(module, LoraLayer)}


def _reader(name: str, tensor: "Tensor", merges: dict[str, Any]) -> "Callable[[], Tensor]":
    if name in merges:
        return partial(_merged, merges[name])
    return partial(distributed.whole, tensor)


def _merged(layer: Any) -> "Tensor":
    """The weight of a LoRA layer with the adapter merged into it by PEFT."""
    import torch

    parts = [(m, key, p) for m in layer.modules() for key, p in m._parameters.items() if p is not None]
    full = [distributed.whole(p) for _, _, p in parts]
    for (module, key, _), value in zip(parts, full, strict=True):
        module._parameters[key] = torch.nn.Parameter(value, requires_grad=False)
    try:
        layer.merge()
        return layer.get_base_layer().weight.data  # type: ignore[no-any-return]
    finally:
        layer.merged_adapters.clear()
        for module, key, parameter in parts:
            module._parameters[key] = parameter


# ---- files ----


def write(found: Sequence[Entry], folder: Path, size: int | None = None) -> None:
    """Write the tensors to `model.safetensors`, or to several files of at most `size` bytes and an index.

    Every process must call this. Raises OSError on all of them if the disk refuses.
    """
    main = distributed.processes().is_main_process
    files = _in_files(found, size or FILE_SIZE)
    failure: OSError | None = None
    for number, part in enumerate(files, 1):
        name = "model.safetensors" if len(files) == 1 else f"model-{number:05}-of-{len(files):05}.safetensors"
        # Large elements first, as safetensors sorts them: then every tensor begins at a multiple of its element's size.
        part.sort(key=lambda entry: (-entry.dtype.itemsize, entry.name))
        with contextlib.ExitStack() as stack:
            target = None
            try:
                if main and failure is None:
                    target = stack.enter_context((folder / name).open("wb"))
                    target.write(_header(part))
            except OSError as error:
                failure = error
            for entry in part:
                values = entry.gather()  # also after an error: the other processes wait for this one
                try:
                    if target is not None and failure is None:
                        target.write(_bytes(values))
                except OSError as error:
                    failure = error
    if main and failure is None and len(files) > 1:
        failure = _write_index(files, folder)

    def end() -> None:
        if failure is not None:
            raise failure

    distributed.decided(end)


def _in_files(found: Sequence[Entry], size: int) -> list[list[Entry]]:
    files: list[list[Entry]] = [[]]
    for entry in found:
        if files[-1] and sum(e.size for e in files[-1]) + entry.size > size:
            files.append([])
        files[-1].append(entry)
    return files


def _header(part: Sequence[Entry]) -> bytes:
    """The beginning of a safetensors file: the length of the header in 8 bytes, then JSON."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for entry in part:
        kind = KINDS[str(entry.dtype).removeprefix("torch.")]
        header[entry.name] = {
            "dtype": kind,
            "shape": list(entry.shape),
            "data_offsets": [at, at + entry.size],
        }
        at += entry.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _bytes(values: "Tensor") -> Any:
    """The bytes of a tensor, without a copy."""
    import torch

    return values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _write_index(files: Sequence[Sequence[Entry]], folder: Path) -> OSError | None:
    names = [f"model-{number:05}-of-{len(files):05}.safetensors" for number in range(1, len(files) + 1)]
    index = {
        "metadata": {"total_size": sum(entry.size for part in files for entry in part)},
        "weight_map": {entry.name: name for name, part in zip(names, files, strict=True) for entry in part},
    }
    try:
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    except OSError as error:
        return error
    return None


@contextlib.contextmanager
def without_weights(model: Any) -> Iterator[Any]:
    """Inside the block, `save_pretrained` of a transformers model writes its configuration and no weights."""
    save = model.save_pretrained
    model.save_pretrained = lambda folder, **settings: save(folder, state_dict={}, **settings)
    try:
        yield model
    finally:
        del model.save_pretrained
