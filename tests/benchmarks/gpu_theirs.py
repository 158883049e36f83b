"""What a user would run instead on a GPU: transformers.Trainer at its best, or the loop of diffusers' example.

    python -m tests.benchmarks.gpu_theirs SETTINGS.json

It trains until `seconds` have passed after the first `warm` steps, and prints one JSON line: examples_per_second,
steps, peak_memory_mb. At its best means: bf16, TF32 for what stays in fp32, the fused AdamW, loader processes that stay
alive, pinned memory, and batches of similar length. Texts and recordings are prepared before the clock starts.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import Trainer, TrainingArguments

from pipelines.utils.hardware import peak_memory_mb
from tests.benchmarks.gpu_inputs import RATE, read


class Clock(transformers.TrainerCallback):
    """Stops the training, and counts the steps after the first ones."""

    def __init__(self, seconds: float, warm: int) -> None:
        self.seconds, self.warm, self.since, self.took = seconds, warm, 0.0, 0.0
        self.steps = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.warm:
            synchronize()
            self.since = time.perf_counter()
        elif state.global_step > self.warm and time.perf_counter() - self.since > self.seconds:
            synchronize()
            self.took, self.steps = time.perf_counter() - self.since, state.global_step - self.warm
            control.should_training_stop = True


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def arguments(settings: dict[str, Any], **more: Any) -> TrainingArguments:
    cpu = settings["device"] == "cpu"
    workers = 0 if cpu else min(8, len(os.sched_getaffinity(0)))
    loaders = {} if cpu else {"dataloader_num_workers": workers, "dataloader_persistent_workers": True}
    return TrainingArguments(
        settings["folder"],
        max_steps=1_000_000,
        per_device_train_batch_size=settings["batch"],
        learning_rate=1e-4,
        bf16=True,
        optim="adamw_torch" if cpu else "adamw_torch_fused",
        save_strategy="no",
        logging_steps=50,
        report_to=[],
        disable_tqdm=True,
        use_cpu=cpu,
        **({} if cpu else {"tf32": True}),
        **loaders,
        **more,
    )


def trained(model: Any, settings: dict[str, Any], rows: Any, collator: Any = None, **more: Any) -> dict[str, float]:
    clock = Clock(settings["seconds"], settings["warm"])
    trainer = Trainer(model, arguments(settings, **more), train_dataset=rows, data_collator=collator, callbacks=[clock])
    trainer.train()
    return {
        "examples_per_second": settings["batch"] * clock.steps / clock.took,
        "steps": clock.steps,
        "peak_memory_mb": peak_memory_mb(),
    }


def photos(settings: dict[str, Any]) -> dict[str, float]:
    from tests.benchmarks.trainer import Photos

    fields = dict(settings["config"])
    config = transformers.AutoConfig.for_model(fields.pop("model_type"), **fields, num_labels=2)
    size = {"height": fields["image_size"], "width": fields["image_size"]}
    processor = transformers.ViTImageProcessor(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    model = transformers.AutoModelForImageClassification.from_config(config)
    return trained(model, settings, Photos(settings["train"], processor))


def questions(settings: dict[str, Any]) -> dict[str, float]:
    from tests.benchmarks.trainer_questions import windows

    words = transformers.AutoTokenizer.from_pretrained(settings["model"])
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(settings["model"])
    rows = windows(read(Path(settings["data"]), "train"), words, best=True)
    collator = transformers.DataCollatorWithPadding(words)
    return trained(model, settings, rows, collator, train_sampling_strategy="group_by_length")


def speech(settings: dict[str, Any]) -> dict[str, float]:
    from tests.benchmarks.trainer_speech import Collator, features

    processor = transformers.AutoProcessor.from_pretrained(settings["model"])
    model = transformers.AutoModelForCTC.from_pretrained(settings["model"], ctc_loss_reduction="mean")
    model.freeze_feature_encoder()
    folder = Path(settings["data"])
    listed = [{**row, "audio": {"path": str(folder / row["audio"]), "bytes": None}} for row in read(folder, "train")]
    more = {"train_sampling_strategy": "group_by_length", "length_column_name": "input_length"}
    return trained(
        model, settings, features(listed, processor), Collator(processor), remove_unused_columns=False, **more
    )


def language_model(settings: dict[str, Any]) -> dict[str, float]:
    """The library's example: texts put together and cut into blocks, with PEFT's LoRA on every Linear layer."""
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model

    words = transformers.AutoTokenizer.from_pretrained(settings["model"])
    model = transformers.AutoModelForCausalLM.from_pretrained(settings["model"], dtype=torch.bfloat16)
    adapter = LoraConfig(r=16, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, adapter)
    ids = [token for row in read(Path(settings["data"]), "train") for token in words(row["text"])["input_ids"]]
    size = settings["length"]
    blocks = [ids[at : at + size] for at in range(0, len(ids) - size + 1, size)]
    return trained(model, settings, Dataset.from_dict({"input_ids": blocks, "labels": blocks}))


def diffusion(settings: dict[str, Any]) -> dict[str, float]:
    from tests.benchmarks.diffusers_loops import unconditional

    found = unconditional(
        {**settings, "batch_size": settings["batch"], "epochs": 1_000_000, "precision": "bf16", "workers": 8}
    )
    return {key: found[key] for key in ("examples_per_second", "steps", "peak_memory_mb")}


PROGRAMS = {
    "photos": photos,
    "questions": questions,
    "speech": speech,
    "language-model": language_model,
    "diffusion": diffusion,
}

if __name__ == "__main__":
    transformers.utils.logging.disable_progress_bar()
    assert RATE == 16000
    asked = json.loads(Path(sys.argv[1]).read_text())
    torch.manual_seed(0)
    print("\n" + json.dumps(PROGRAMS[asked["kind"]](asked)))
