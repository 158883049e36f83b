"""Models with random weights and made-up data for the GPU benchmark: both programs read the same files."""

import json
import string
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import soundfile
from PIL import Image

RATE = 16000
WORDS = [
    "".join(Random(number).choices(string.ascii_lowercase, k=2 + number % 7)) + str(number) for number in range(2000)
]


@dataclass(frozen=True)
class Case:
    """One comparison: what both programs train, and the recipe by which Graft trains it."""

    name: str
    kind: str
    """Which program of `gpu_theirs` is the opponent."""
    batch: int
    recipe: dict[str, Any]
    rows: dict[str, Any] = field(default_factory=dict)
    """What the opponent needs besides the model: files, labels, lengths."""


# ---- models ----


def vit(tiny: bool) -> dict[str, Any]:
    base = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    return {
        "model_type": "vit",
        "image_size": 32 if tiny else 224,
        "patch_size": 16,
        **(small if tiny else base),
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }


def tokenizer() -> Any:
    """A tokenizer with one token a word, for texts of WORDS."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS, ".", "?"])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(
        tokenizer_object=words, mask_token="[MASK]", eos_token="[SEP]", model_max_length=512, **names
    )


def bert(folder: Path, tiny: bool) -> Path:
    import torch
    from transformers import BertConfig, BertForQuestionAnswering

    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    torch.manual_seed(0)
    # BERT-base's own vocabulary is larger than that of the tokenizer: the rows that no text uses cost what they cost
    config = BertConfig(**(small if tiny else {}), **({"vocab_size": len(tokenizer())} if tiny else {}))
    BertForQuestionAnswering(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def wav2vec2(folder: Path, tiny: bool) -> Path:
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC, Wav2Vec2Processor

    from pipelines.models import ctc_vocabulary
    from tests.support.tiny_audio import SHAPE

    words = ctc_vocabulary.made(WORDS)
    torch.manual_seed(0)
    shape = SHAPE if tiny else {"layerdrop": 0.0, "mask_time_prob": 0.0}
    config = Wav2Vec2Config(**shape, vocab_size=len(words), pad_token_id=words.pad_token_id)
    Wav2Vec2ForCTC(config).save_pretrained(folder)
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(return_attention_mask=tiny), words).save_pretrained(folder)
    return folder


def llama(folder: Path, tiny: bool, device: str) -> Path:
    """The shape of Llama 3.2 1B, with its vocabulary of 128,256 tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8}
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(
        **(small if tiny else shape),
        intermediate_size=64 if tiny else 8192,
        vocab_size=len(tokenizer()) if tiny else 128_256,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        max_position_embeddings=4096,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


UNET: dict[str, Any] = {  # the U-Net of DDPM for CIFAR-10 (Ho et al. 2020, appendix B): 35.7 M parameters
    "sample_size": 32,
    "in_channels": 3,
    "out_channels": 3,
    "layers_per_block": 2,
    "block_out_channels": [128, 256, 256, 256],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
}
TINY_UNET = {
    **UNET,
    "layers_per_block": 1,
    "block_out_channels": [8, 16],
    "norm_num_groups": 4,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
}


# ---- data ----


def photos(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """JPEG files of two classes in train/, validation/ and test/."""
    for split, number in {"train": count, "validation": 8, "test": 8}.items():
        for index in range(number):
            rng = np.random.default_rng([index, len(split)])
            place = folder / split / ("cat", "dog")[index % 2] / f"{index:05}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8))
            coarse.resize(size, Image.Resampling.BICUBIC).save(place, quality=90)
    return folder


def sentence(rng: Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words))


def questions(folder: Path, count: int, longest: int) -> Path:
    """jsonl tables of questions on passages of 40 to `longest` words."""
    folder.mkdir(parents=True)
    for split, number in {"train": count, "validation": 8, "test": 8}.items():
        lines = []
        for index in range(number):
            rng = Random(f"{split}/{index}")
            context = sentence(rng, rng.randint(min(40, longest), longest))
            words = context.split()
            first = rng.randrange(len(words) - 2)
            place = len(" ".join(words[:first])) + (first > 0)
            answer = {"text": [" ".join(words[first : first + 2])], "answer_start": [place]}
            question = f"{' '.join(words[max(0, first - 5) : first])} {index} ?"
            lines.append(json.dumps({"question": question.strip(), "context": context, "answer": answer}))
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def speech(folder: Path, count: int, longest: float) -> Path:
    """Recordings of noise with transcripts, of 2 seconds (or less) to `longest` seconds."""
    folder.mkdir(parents=True)
    for split, number in {"train": count, "validation": 4, "test": 4}.items():
        lines = []
        for index in range(number):
            rng = np.random.default_rng([index, len(split)])
            seconds = rng.uniform(min(2.0, longest / 2), longest)
            name = f"{split}{index}.wav"
            soundfile.write(folder / name, rng.normal(0, 0.1, int(seconds * RATE)).astype(np.float32), RATE)
            text = "".join(c for c in sentence(Random(index), max(1, int(seconds))) if c.isalpha() or c == " ")
            lines.append(json.dumps({"audio": name, "text": text}))
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def texts(folder: Path, count: int, words: int) -> Path:
    folder.mkdir(parents=True)
    for split, number in {"train": count, "validation": 4, "test": 4}.items():
        rows = [json.dumps({"text": sentence(Random(f"{split}/{index}"), words)}) for index in range(number)]
        (folder / f"{split}.jsonl").write_text("\n".join(rows) + "\n")
    return folder


def flat(source: Path, folder: Path) -> Path:
    """The training photos in one folder, as the example of diffusers reads them."""
    folder.mkdir()
    for index, path in enumerate(sorted((source / "train").rglob("*.jpg"))):
        (folder / f"{index:05}.jpg").symlink_to(path)
    return folder


# ---- the cases ----


def read(folder: Path, split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]


def cases(work: Path, tiny: bool, device: str, only: Sequence[str]) -> list[Case]:
    """The cases whose kind is in `only`, with their models and data written below `work`."""
    builders = {
        "photos": _photos,
        "questions": _questions,
        "speech": _speech,
        "diffusion": _diffusion,
        "language-model": _language_model,
    }
    unknown = set(only) - set(builders)
    if unknown:
        raise SystemExit(f"no such case: {', '.join(sorted(unknown))} (there are: {', '.join(builders)})")
    return [build(work, tiny, device) for kind, build in builders.items() if kind in (only or builders)]


def _photos(work: Path, tiny: bool, device: str) -> Case:
    folder, batch = photos(work / "photos", 16 if tiny else 1024, (40, 40) if tiny else (320, 280)), 4 if tiny else 64
    rows = [[str(path), int(path.parent.name == "dog")] for path in sorted((folder / "train").rglob("*.jpg"))]
    recipe = {
        "task": "image-classification",
        "model": {"config": vit(tiny)},
        "data": {"id": str(folder)},
        "options": {"augment": "none"},
    }
    return Case("ViT-B/16, 224 px", "photos", batch, recipe, {"config": vit(tiny), "train": rows})


def _questions(work: Path, tiny: bool, device: str) -> Case:
    folder, batch = questions(work / "questions", 24 if tiny else 2000, 60 if tiny else 300), 4 if tiny else 32
    model = bert(work / "bert", tiny)
    recipe = {"task": "question-answering", "model": {"id": str(model)}, "data": {"id": str(folder)}}
    return Case("BERT-base, extractive QA", "questions", batch, recipe, {"model": str(model), "data": str(folder)})


def _speech(work: Path, tiny: bool, device: str) -> Case:
    folder, batch = speech(work / "speech", 8 if tiny else 256, 1.0 if tiny else 15.0), 4 if tiny else 16
    model = wav2vec2(work / "wav2vec2", tiny)
    recipe = {"task": "speech-recognition-ctc", "model": {"id": str(model)}, "data": {"id": str(folder)}}
    return Case("wav2vec2-base, CTC", "speech", batch, recipe, {"model": str(model), "data": str(folder)})


def _diffusion(work: Path, tiny: bool, device: str) -> Case:
    folder, batch = photos(work / "pictures", 16 if tiny else 1024, (32, 32)), 4 if tiny else 128
    config = TINY_UNET if tiny else UNET
    recipe = {
        "task": "unconditional-image-generation",
        "model": {"config": {"model_type": "UNet2DModel", **config}},
        "data": {"id": str(folder)},
        "options": {"flip": True, "samples": 0, "grid": 0, "steps": 2},
    }
    images = flat(folder, work / "flat")
    rows = {"images": str(images), "size": 32, "config": config, "ema": True}
    return Case("U-Net of DDPM, 32 px", "diffusion", batch, recipe, rows)


def _language_model(work: Path, tiny: bool, device: str) -> Case:
    folder = texts(work / "texts", 16 if tiny else 512, 70 if tiny else 1000)
    model, batch, length = llama(work / "llama", tiny, device), 2 if tiny else 8, 64 if tiny else 1024
    recipe = {
        "task": "text-generation",
        "model": {"id": str(model), "adapter": {"kind": "lora", "rank": 16, "alpha": 16}},
        "data": {"id": str(folder)},
        "options": {"max_length": length},
    }
    rows = {"model": str(model), "data": str(folder), "length": length}
    return Case("Llama of 1.2 B, LoRA of rank 16, blocks of 1,024 tokens", "language-model", batch, recipe, rows)
