"""What this machine can do: its cores and memory, the fast precision, and how many examples fit at a time."""

import contextlib
import ctypes
import os
import resource
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def best_precision(model: Any, device: str | None = None) -> str:
    """bf16 if the hardware multiplies it faster and the model is mostly matrix products, else fp32.

    `device` is the type of the device that computes. Left out: the GPU if there is one, else the CPU.

    On a GPU bf16, or fp16 if it has units for fp16 products alone (V100, T4), or else fp32.

    On a CPU without AMX or AVX-512 bf16, and for small or convolutional models, autocast costs more than it gains.
    Convolutions between group norms are an exception: they have their own kernel (see pipelines.models.cpu_kernels).
    Embeddings do not count, because a lookup takes no time; they are half of a small language model's parameters.
    """
    import torch
    from transformers.pytorch_utils import Conv1D  # GPT-2's linear layer

    if device != "cpu" and torch.cuda.is_available():
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16"
        return "fp16" if torch.cuda.get_device_capability() >= (7, 0) else "fp32"
    fast = torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    looked_up = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    products = {
        id(m.weight) for m in model.modules() if isinstance(m, (torch.nn.Linear, Conv1D)) and min(m.weight.shape) >= 128
    }
    if any(isinstance(m, torch.nn.GroupNorm) for m in model.modules()):
        products |= {
            id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Conv2d) and min(m.weight.shape[:2]) >= 32
        }
    sizes = {id(p): p.numel() for p in model.parameters() if id(p) in products or id(p) not in looked_up}
    return "bf16" if fast and sum(sizes[p] for p in products) > 0.5 * sum(sizes.values()) else "fp32"


def accelerator(precision: str, **settings: Any) -> Any:
    """Accelerate's Accelerator for a precision of the recipe ("no" is fp32, too).

    In fp16 it does not scale the loss, because the loop does.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    # One Python process may make several runs, each with its own precision.
    AcceleratorState._reset_state()
    found = Accelerator(mixed_precision="no" if precision == "fp32" else precision, **settings)
    if precision == "fp16":
        found.scaler = torch.amp.GradScaler(found.device.type, enabled=False)
        found.native_amp = True  # on a CPU Accelerate would compute in fp32 and not say so
    return found


def set_tf32(allowed: bool, precision: str) -> bool:
    """Let products in fp32 round their factors to TF32, or not. Returns whether they do so in a run of this precision.

    TF32 has the range of fp32 and the precision of fp16; NVIDIA's GPUs from Ampere on (2020) have it.
    """
    import torch

    has = torch.cuda.is_available() and torch.version.hip is None and torch.cuda.get_device_capability() >= (8, 0)
    # the flags of torch's older interface, which torch itself still reads: a mix of both is an error
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed and has
    return allowed and has and precision == "fp32"


def micro_batch(
    train: Any, accelerator: Any, examples: Any, *, budget: int | None = None, together: bool = False
) -> tuple[int, int | None]:
    """Examples on one device at a time and, for examples that have lengths, the `budget` that they may take together.

    `auto` on a GPU is the device's full part of the batch, which is halved if memory runs out. On a CPU it is as many
    examples as have 5 MB of input (8 photos of 224 pixels), which stay in the caches. Examples that are normalised
    `together` (BatchNorm in training) are not split.
    """
    import torch

    share = -(-train.batch_size // accelerator.num_processes)
    if train.micro_batch != "auto":
        return min(train.micro_batch, share), None
    if budget is not None:
        return share, budget
    if accelerator.device.type != "cpu" or together:
        return share, None
    batch = examples[[(None, 0)]].batch
    tensors = [
        t
        for value in batch.values()
        for t in (value if isinstance(value, list) else [value])
        if isinstance(t, torch.Tensor)
    ]
    return max(1, min(share, round(5e6 / max(1, sum(t.untyped_storage().nbytes() for t in tensors))))), None


def eval_batch(asked: int | str, device: str, ragged: bool, most: int | None = None) -> int:
    """Examples scored at a time: the number asked for; or 64 on a GPU, and on a CPU 4 texts or 8 photos, which stay in
    its caches.

    `most` limits the number for tasks that generate images: a VAE in float32 needs 0.5 GB for one image of 512 pixels.
    """
    if isinstance(asked, int):
        return asked
    usual = 64 if device == "cuda" else 4 if ragged else 8
    return usual if most is None else min(usual, most)


def workers(asked: int | str, processes: int, examples: Any) -> int:
    """Loader processes per training process: the number asked for, or an equal part of the cores, at most 8.

    It is 0 if a pass over `examples` takes less than two seconds, because starting processes would take longer. The
    number never changes a result.
    """
    if isinstance(asked, int):
        return asked
    since = time.perf_counter()
    some = [(None, i) for i in range(min(4, len(examples)))]
    examples[some]
    if (time.perf_counter() - since) / max(1, len(some)) * len(examples) < 2.0:
        return 0
    here = int(os.environ.get("LOCAL_WORLD_SIZE", processes))  # other nodes have their own cores
    return max(1, min(8, cores() // here))


def keep_memory() -> None:
    """On a CPU, tell malloc to keep freed blocks, because the next step allocates the same sizes.

    glibc returns every large block to the kernel, which fills it with zeros page by page at the next use. MobileNetV2
    at 224 pixels, batch 16: 24 -> 28 images/s in fp32, 25 -> 26 in bf16. Other C libraries are not changed.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: no block gets its own mapping
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: keep up to 2 GB


def return_memory() -> None:
    """On a CPU, tell malloc to return every freed block of 1 MB or more to the kernel.

    FSDP allocates a layer's weights again and again, by several threads, and the holes between the blocks add up: two
    processes with a share of 201 M parameters each took 3.4 and 4.2 GB of memory. Other C libraries are not changed.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(-3, 2**20)  # M_MMAP_THRESHOLD


def keep_few_kernels() -> None:
    """On a CPU, for examples of many lengths, let oneDNN keep the kernels of its last 32 shapes instead of 1,024.

    Each length has about twenty kernels, which are rarely needed again soon. BERT with 22 M parameters, bf16, 100
    steps, with the last 64: 3.3 -> 2.6 GB at the same speed. oneDNN reads the setting once, before its first product.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")


def trim_memory() -> None:
    """On a CPU, return the holes between malloc's blocks to the kernel.

    Batches of many lengths leave holes that fit no later block: 0.5 GB after 30 micro-batches of BERT with 22 M
    parameters. Returned every 8 steps, they cost less time than single runs differ (10 %). Other C libraries are not
    changed.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def peak_memory_mb() -> float:
    """Peak memory of this process in MB: of the GPU's allocator if there is one, else resident memory."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def out_of_memory(error: RuntimeError) -> bool:
    """Whether the error is about memory, so that a smaller micro-batch may help."""
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    return isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error)
