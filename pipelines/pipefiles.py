"""Read a folder of a text-to-image pipeline of diffusers, and write one, or its LoRA alone."""

import contextlib
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from pipelines import diffusion
from pipelines.errors import ModelError
from pipelines.pipes import ENCODERS, TRAINS, Pipe, image_size, quiet
from pipelines.pretrained import LORA, called, first_line

# ---- reading ----


def read_pipe(folder: Path, *, size: int | None = None, random: bool = False) -> tuple[Pipe, Any]:
    """A folder's pipeline and the model that trains, which is to make images of `size` pixels a side (left out: its own). ModelError."""
    import diffusers
    import torch

    index = diffusion.read_index(folder)
    name = index["_class_name"]
    if name not in TRAINS:
        raise ModelError(f"{called(folder)}: a {name} is not supported; choose a {' or a '.join(TRAINS)}")
    trains, expected = TRAINS[name]
    _check_index(folder, index)
    if (index.get(trains) or [None, None])[1] != expected:
        raise ModelError(f"{called(folder)}: model_index.json names no {expected} as {trains}")
    kind = getattr(diffusers, name)
    model = _read_part(folder, trains, index, random=random)
    absent = {part: None for part, value in index.items() if isinstance(value, list) and value[0] is None}
    models = {part: _read_part(folder, part, index) for part in ("vae", *ENCODERS) if part in index and part not in absent}
    try:
        with quiet(), _no_bars():
            whole = kind.from_pretrained(
                folder, **{**absent, **models, trains: None}, local_files_only=True, dtype=torch.float32, low_cpu_mem_usage=False
            )
    except Exception as error:  # whatever a damaged or strange file brings about
        raise ModelError(f"{called(folder)}: the pipeline cannot be loaded: {first_line(error)}") from error
    parts = {part: value for part, value in whole.components.items() if part != trains}
    for value in parts.values():
        if isinstance(value, nn.Module):
            value.eval()
    settings = {"requires_safety_checker": whole.config.requires_safety_checker} if trains == "unet" else {}
    pipe = Pipe(kind, parts, settings)
    _check_fit(folder, pipe, model)
    _set_size(folder, pipe, model, size)
    return pipe, model


def _check_index(folder: Path, index: dict[str, Any]) -> None:
    """Every part is there, and is of a library that is installed. Raises ModelError."""
    parts = {key: value for key, value in index.items() if isinstance(value, list) and len(value) == 2 and value[0] is not None}
    for part, (library, kind) in parts.items():
        if library not in ("diffusers", "transformers", "stable_diffusion"):
            raise ModelError(f"{called(folder)}: {part} needs code of its own ({library}.{kind}); Graft never runs a model's code")
        if not (folder / part).is_dir():
            raise ModelError(f"{called(folder)}: model_index.json names a {part}, but there is no folder {part}/: download the model again")
    lacking = [part for part in ("vae", "text_encoder", "tokenizer", "scheduler") if part not in parts]
    if lacking:
        raise ModelError(f"{called(folder)}: a pipeline without {lacking[0]} cannot be trained; choose a complete one")
    _check_scheduler(folder, parts["scheduler"][1], index["_class_name"] == "StableDiffusion3Pipeline")


def _check_scheduler(folder: Path, kind: str, flow: bool) -> None:
    import diffusers

    if not hasattr(diffusers, kind):
        raise ModelError(f"{called(folder)}: diffusers {diffusers.__version__} knows no scheduler {kind}")
    if kind.startswith("FlowMatch") != flow:
        what = (
            "flow matching, but this pipeline has a schedule of noise"
            if flow
            else "a schedule of noise, but this pipeline has flow matching"
        )
        raise ModelError(f"{called(folder)}: its model learns by {what} ({kind})")


def _read_part(folder: Path, part: str, index: dict[str, Any], *, random: bool = False) -> Any:
    """One model of a pipeline, float32 and in fresh memory. Raises ModelError."""
    import torch

    library, name = index[part]
    try:
        kind = getattr(importlib.import_module(library), name)
        with quiet(), _no_bars():
            if random:
                return kind.from_config(kind.load_config(folder / part, local_files_only=True))
            whole = (
                {"low_cpu_mem_usage": False} if library == "diffusers" else {}
            )  # else what is missing is not drawn at random, but stays empty
            model, info = kind.from_pretrained(folder / part, output_loading_info=True, local_files_only=True, dtype=torch.float32, **whole)
    except Exception as error:  # whatever a damaged or strange file brings about
        raise ModelError(f"{called(folder)}: its {part} cannot be loaded: {first_line(error)}") from error
    lacking = [*info["missing_keys"], *info["mismatched_keys"]]
    if lacking:
        raise ModelError(f"{called(folder)}: weights of its {part} are missing or of another shape: {lacking[0]} ({len(lacking)} in all)")
    return diffusion.fresh(model).eval()


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """Without the bars of the libraries, which count parts of a pipeline."""
    from diffusers.utils import logging as ours
    from transformers.utils import logging as theirs

    shown = ours.is_progress_bar_enabled(), theirs.is_progress_bar_enabled()
    try:
        ours.disable_progress_bar()
        theirs.disable_progress_bar()
        yield
    finally:
        for library, was in zip((ours, theirs), shown, strict=True):
            if was:
                library.enable_progress_bar()


def _check_fit(folder: Path, pipe: Pipe, model: Any) -> None:
    """VAE, text encoders and model fit each other. Raises ModelError."""
    config, channels = model.config, pipe.parts["vae"].config.latent_channels
    name, out = type(model).__name__, config.out_channels or config.in_channels
    if config.in_channels != out:
        raise ModelError(
            f"{called(folder)}: this {name} has {config.in_channels} channels in and {out} out, as those have that fill in parts of an "
            "image; choose one that makes whole images of text"
        )
    if config.in_channels != channels:
        raise ModelError(f"{called(folder)}: the VAE makes latents of {channels} channels, the {name} takes {config.in_channels}")
    widths = [pipe.parts[part].config for part in ENCODERS if pipe.parts.get(part) is not None]
    if not pipe.flow:
        given, taken = widths[0].hidden_size, config.cross_attention_dim
    elif pipe.parts.get("text_encoder_2") is None:
        raise ModelError(f"{called(folder)}: a pipeline without text_encoder_2 cannot be trained; choose a complete one")
    else:
        given, taken = sum(one.projection_dim for one in widths[:2]), config.pooled_projection_dim
    if given != taken:
        raise ModelError(f"{called(folder)}: the text encoders give {given} numbers, the {name} takes {taken}")


def _set_size(folder: Path, pipe: Pipe, model: Any, size: int | None) -> None:
    """The side of its images as the model's own from now on. Raises ModelError for one that it cannot make."""
    step = pipe.factor * model.config.patch_size if pipe.flow else max(8, pipe.factor)
    if size is not None and size % step:
        near = f"{size - size % step} or {size - size % step + step}" if size > step else str(step)
        raise ModelError(
            f"options.image_size: latent size mismatch: {size} pixels, but the VAE and {type(model).__name__} of {called(folder)} take "
            f"multiples of {step}: set {near}"
        )
    if size is not None:
        model.register_to_config(sample_size=size // pipe.factor)
    if model.config.sample_size is None:
        raise ModelError(f"{called(folder)}: its model says no sample_size: set options.image_size")
    height, width = image_size(pipe, model)
    most = pipe.factor * model.config.patch_size * model.config.pos_embed_max_size if pipe.flow else None
    if most is not None and max(height, width) > most:
        raise ModelError(f"options.image_size: {max(height, width)} pixels, but {called(folder)} has positions for {most} at most")


# ---- writing ----


def save_pipe(pipe: Pipe, model: Any, folder: Path) -> None:
    """A whole pipeline as diffusers reads it, without the place on this disk where its parts came from."""
    whole = pipe.around(model)
    with quiet(), _no_bars():
        whole.save_pretrained(folder)
    for path in [*folder.glob("*.json"), *folder.glob("*/*.json")]:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and {"_name_or_path", "name_or_path"} & found.keys():
            kept = {key: value for key, value in found.items() if key not in ("_name_or_path", "name_or_path")}
            path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def save_lora(pipe: Pipe, model: Any, folder: Path, base: str, revision: str | None) -> None:
    """LoRA alone, in diffusers' own format: with its configuration, or an alpha that is not the rank would be lost."""
    from peft import get_peft_model_state_dict

    values = {name.removeprefix("base_model.model."): value.detach().cpu() for name, value in get_peft_model_state_dict(model).items()}
    config = {**model.peft_config["default"].to_dict(), "base_model_name_or_path": base, "revision": revision}
    given = {f"{pipe.trains}_lora_layers": values, f"{pipe.trains}_lora_adapter_metadata": config}
    pipe.kind.save_lora_weights(folder, weight_name=LORA, **given)


def load_lora(pipe: Pipe, model: Any, folder: Path) -> Any:
    """The model with the LoRA of a folder beside its weights, as diffusers has it. Raises ModelError."""
    try:
        with quiet():
            pipe.around(model).load_lora_weights(str(folder), weight_name=LORA)
    except Exception as error:  # damaged files, or a base model of another shape
        raise ModelError(f"{called(folder)}: {LORA} does not fit its base model: {first_line(error)}") from error
    return model
