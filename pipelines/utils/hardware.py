"""What a run needs of this machine: precision, micro-batch, loader processes, trackers, signals, and libraries that keep quiet."""

import contextlib
import ctypes
import datetime
import logging
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from pipelines.errors import ModelError, RecipeError
from pipelines.progress import Progress
from pipelines.recipe import Recipe

# that processes wait for the first one to download and encode; by default they give up after ten minutes
PATIENCE = datetime.timedelta(hours=12)


def best_precision(model: Any) -> str:
    """bf16 where the hardware multiplies it faster and the model is mostly matrix products, else fp32.

    On a CPU without AMX or AVX-512 bf16, and for small or convolutional models, autocast costs more than it gives; not so for
    convolutions between group norms, which have a kernel of their own (see pipelines.kernels). Embeddings do not count: looking
    up takes no time. They are half of a small language model's parameters.
    """
    import torch
    from transformers.pytorch_utils import Conv1D  # GPT-2's Linear

    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    fast = torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    looked_up = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    products = {id(m.weight) for m in model.modules() if isinstance(m, (torch.nn.Linear, Conv1D)) and min(m.weight.shape) >= 128}
    if any(isinstance(m, torch.nn.GroupNorm) for m in model.modules()):
        products |= {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Conv2d) and min(m.weight.shape[:2]) >= 32}
    sizes = {id(p): p.numel() for p in model.parameters() if id(p) in products or id(p) not in looked_up}
    return "bf16" if fast and sum(sizes[p] for p in products) > 0.5 * sum(sizes.values()) else "fp32"


# of one micro-batch, padding included. 4 windows of 384 were fastest on two cores; a GPU's is a first try, halved when memory does
# not suffice
TOKENS = {"cpu": 1536, "cuda": 32768}
EVAL_TOKENS = {"cpu": 6144, "cuda": 32768}  # nothing is kept for a gradient


def micro_batch(train: Any, model: Any, accelerator: Any, examples: Any, ragged: bool = False) -> tuple[int, int | None]:
    """Examples on one device at a time, and for `ragged` ones the tokens that they may have together.

    `auto` is the whole share on a GPU (halved when memory does not suffice); on a CPU as many as have 5 MB of input (8 photos
    of 224 pixels), which stay in the caches. BatchNorm in training is not split.
    """
    import torch

    from pipelines.layers import has_batch_norm

    share = -(-train.batch_size // accelerator.num_processes)
    if train.micro_batch != "auto":
        return min(train.micro_batch, share), None
    if ragged:
        return share, TOKENS.get(accelerator.device.type, 8192)
    if accelerator.device.type != "cpu" or has_batch_norm(model):
        return share, None
    batch = examples[[(None, 0)]].batch
    tensors = [t for value in batch.values() for t in (value if isinstance(value, list) else [value]) if isinstance(t, torch.Tensor)]
    return max(1, min(share, round(5e6 / max(1, sum(t.untyped_storage().nbytes() for t in tensors))))), None


def eval_batch(asked: int | str, device: str, ragged: bool, task: Any = None) -> int:
    """Examples scored at a time: what was asked, or 64 on a GPU; on a CPU as few as stay in its caches, 4 texts or 8 photos.

    Of a `task` that makes images no more than are made at a time: a VAE in float32 needs 0.5 GB for one of 512 pixels.
    """
    if isinstance(asked, int):
        return asked
    most = 64 if device == "cuda" else 4 if ragged else 8
    return min(most, images_at_once("auto", task.size)) if task is not None and task.makes else most


def images_at_once(asked: int | str, size: tuple[int, int]) -> int:
    """Images of this height and width that are made at a time: what was asked, else 64 small ones, 16 of 256 pixels, 4 of 512."""
    return asked if isinstance(asked, int) else max(1, min(64, 2**20 // max(size) ** 2))


def workers(asked: int | str, processes: int, examples: Any) -> int:
    """Loader processes per training process: what was asked, or a fair share of the cores, at most 8.

    None where a pass over `examples` takes less than two seconds here: starting processes would take longer. The number
    never changes a result.
    """
    if isinstance(asked, int):
        return asked
    since = time.perf_counter()
    some = [(None, i) for i in range(min(4, len(examples)))]
    examples[some]
    if (time.perf_counter() - since) / max(1, len(some)) * len(examples) < 2.0:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    here = int(os.environ.get("LOCAL_WORLD_SIZE", processes))  # other nodes have cores of their own
    return max(1, min(8, cores // here))


def keep_memory() -> None:
    """On a CPU: have malloc keep what training frees, for the next step wants it again.

    glibc gives every large block back at once, and the kernel fills it with zeros page by page when it is asked for again:
    MobileNetV2 at 224 pixels, batch 16: 24 -> 28 images/s in fp32, 25 -> 26 in bf16. Nothing happens under another C library.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: no block has a mapping of its own
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: up to 2 GB stay


def keep_few_kernels() -> None:
    """On a CPU, for examples of many lengths: oneDNN keeps the kernels of its last 64 shapes instead of 1,024.

    Each length has some twenty of its own, which are not wanted again soon. BERT of 22 M parameters, bf16, 100 steps: 3.3 -> 2.6 GB
    at the same speed. oneDNN reads this once, before its first product.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")


@contextlib.contextmanager
def sharded_by(plugin: Any, model: Any, blocks: list[Any]) -> Iterator[None]:
    """While a model is prepared: FSDP shards by these blocks. `plugin` is Accelerate's; None changes nothing.

    Accelerate's own choice fails for models without text embeddings, ViT among them: it shards the input embeddings apart, which
    some models do not have, and others inside of a unit.
    """
    if plugin is None:
        yield
        return
    kinds = {type(block) for block in blocks}
    plugin.transformer_cls_names_to_wrap = sorted(kind.__name__ for kind in kinds if not kind.__module__.startswith("torch.nn"))
    for parameter in model.parameters():  # FSDP takes none in channels-last memory
        parameter.data = parameter.data.contiguous()
    model.get_input_embeddings = model.get_output_embeddings = lambda: None
    yield
    del model.get_input_embeddings, model.get_output_embeddings


def trackers(recipe: Recipe) -> list[str]:
    """The recipe's trackers. Raises RecipeError for one that is not installed."""
    from accelerate.tracking import get_available_trackers

    ready = {str(t.value if hasattr(t, "value") else t) for t in get_available_trackers()}
    missing = [t for t in recipe.train.trackers if t not in ready]
    if missing:
        raise RecipeError(f"train.trackers: {missing[0]} is not installed: pip install {missing[0]}, or leave it out")
    return list(recipe.train.trackers)


def checkpoint_gradients(model: Any) -> None:
    if getattr(model, "_supports_gradient_checkpointing", False):  # diffusers' name for it
        model.enable_gradient_checkpointing()
        return
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise ModelError(f"train.gradient_checkpointing: {type(model).__name__} does not support it; leave it out")
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Inside, SIGTERM and Ctrl-C only raise a flag: the loop ends its step, saves and returns. A second one ends at once."""
    asked: list[int] = []

    def note(number: int, _: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not in the main thread: the host program handles signals
        yield lambda: False
        return
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def processes() -> Any:
    """Accelerate's view of the processes of this run (PartialState).

    Where there is no accelerator it has to be told to use the CPU, or each process that torchrun started thinks it is alone.
    """
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    return PartialState(cpu=cpu, timeout=PATIENCE)


def quiet_libraries(progress: Progress) -> None:
    """Libraries speak through us: their own bars and advice off, our warnings as one line each."""
    import datasets
    import transformers

    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    for library in ("datasets", "huggingface_hub"):  # they log every retry; what it comes to in the end is told by our errors
        logging.getLogger(library).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="torch|transformers|accelerate|datasets")
    logger = logging.getLogger("graft")
    logger.handlers = [_Say(progress)]
    logger.propagate = False


class _Say(logging.Handler):
    def __init__(self, progress: Progress) -> None:
        super().__init__(logging.WARNING)
        self.progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        self.progress.say(record.getMessage())
