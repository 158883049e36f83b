"""The loss in parts under DDP and FSDP2, in processes that torchrun started; prints what differs from one process.

Each process has its own tokens. The gradients must be those of all tokens in one process, also for the last layer that
is the input embedding, and for LoRA on the last layer.
"""

import json
import os
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import distributed
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from transformers import LlamaConfig, LlamaForCausalLM

from pipelines.losses.language_modelling import at_targets
from pipelines.models.text import scores_of

IGNORED = -100
SIZES = {"vocab_size": 101, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}


def model_of(kind: str) -> tuple[Any, Any]:
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(LlamaConfig(**SIZES, num_attention_heads=2, tie_word_embeddings=kind == "tied"))
    head = scores_of(model)
    assert head is not None
    if kind == "lora":
        model = get_peft_model(model, LoraConfig(r=2, target_modules=["lm_head", "q_proj"]))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter)
    return model.train(), head


def loss_of(model: Any, head: Any, rows: torch.Tensor, labels: torch.Tensor, total: int) -> torch.Tensor:
    count = int((labels != IGNORED).sum())
    (found,) = at_targets(model, head, {"input_ids": rows}, labels, IGNORED, count, most=5 * 101)
    return found.sum() / total


def main() -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    rank, processes = distributed.get_rank(), distributed.get_world_size()
    torch.manual_seed(5)
    ids = torch.randint(3, 101, (2 * processes, 12))
    labels = torch.randint(3, 101, ids.shape).masked_fill(torch.rand(ids.shape) < 0.3, IGNORED)
    total = int((labels != IGNORED).sum())
    own = slice(2 * rank, 2 * rank + 2)
    compared: dict[str, int] = {}
    for kind in ("untied", "tied", "lora"):
        alone, _ = model_of(kind)
        loss_of(alone, None, ids, labels, total).backward()
        wanted = {name: p.grad for name, p in alone.named_parameters() if p.grad is not None}
        for way in ("ddp", "fsdp"):
            plain, head = model_of(kind)
            model = plain
            if way == "ddp":
                model = DistributedDataParallel(plain)
            else:
                base = plain.get_base_model() if kind == "lora" else plain
                for block in base.model.layers:
                    fully_shard(block)
                if kind == "untied":
                    fully_shard(base.lm_head)  # a unit of its own is gathered and freed by its hooks
                fully_shard(plain)
            for _ in range(2):  # the second pass needs what the first one freed
                model.zero_grad()
                (loss_of(model, head, ids[own], labels[own], total) * processes).backward()
            for name, parameter in plain.named_parameters():
                if name not in wanted:
                    assert parameter.grad is None, name
                    continue
                found = parameter.grad.full_tensor() if isinstance(parameter.grad, DTensor) else parameter.grad
                torch.testing.assert_close(found, wanted[name], rtol=1e-5, atol=1e-6, msg=f"{kind} {way} {name}")
                compared[f"{kind} {way}"] = compared.get(f"{kind} {way}", 0) + bool(found.abs().max() > 0)
    if rank == 0:
        print(json.dumps(compared), flush=True)
    distributed.barrier()
    os._exit(0)


if __name__ == "__main__":
    main()
