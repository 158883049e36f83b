"""Tiny text-to-image pipelines on disk, built from configurations: Stable Diffusion, and Stable Diffusion 3.

    stable(tmp_path / "sd"); stable(tmp_path / "safe", safety=True); stable3(tmp_path / "sd3", t5=True)

A seed decides everything. No function touches torch's global generator. Images are 16 x 16 pixels, latents 8 x 8.
"""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from tests.support.tiny_pictures import CAPTIONS, shape

TOKENS = 24  # tokens that the text encoders read, including begin and end
LETTERS = [chr(code) for code in range(33, 127)]


def tokenizer(folder: Path) -> CLIPTokenizer:
    """One token per letter: a text of n letters without spaces has n + 2 tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    words = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: place for place, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=TOKENS, pad_token="<|endoftext|>"
    )


def text_config(width: int, projection: int = 16) -> CLIPTextConfig:
    count = 2 * len(LETTERS) + 2
    return CLIPTextConfig(
        vocab_size=count,
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=projection,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        bos_token_id=count - 2,
        eos_token_id=count - 1,
        pad_token_id=count - 1,
    )


def vae(channels: int = 4, **fields: Any) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=16,
        **fields,
    )


def stable(
    folder: Path,
    *,
    safety: bool = False,
    flags: bool = False,
    unet: dict[str, Any] | None = None,
    scheduler: Any = None,
    seed: int = 1,
) -> Path:
    """A StableDiffusionPipeline.

    `unet` sets other fields of the U-Net. If the safety checker `flags`, it flags every image.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        fields: dict[str, Any] = {
            "sample_size": 8,
            "block_out_channels": (8, 16),
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "cross_attention_dim": 16,
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "attention_head_dim": 2,
        }
        StableDiffusionPipeline(
            unet=UNet2DConditionModel(**{**fields, **(unet or {})}),
            vae=vae(),
            text_encoder=CLIPTextModel(text_config(16)),
            tokenizer=tokenizer(folder / "tokenizer"),
            scheduler=scheduler or DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1),
            safety_checker=safety_checker(flags) if safety else None,
            feature_extractor=CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
            if safety
            else None,
            requires_safety_checker=safety,
        ).save_pretrained(folder)
    return folder


def safety_checker(flags: bool) -> StableDiffusionSafetyChecker:
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(text_config=tower, vision_config={**tower, "image_size": 16, "patch_size": 8}, projection_dim=8)
    checker = StableDiffusionSafetyChecker(config)
    checker.concept_embeds_weights.data.fill_(-2.0 if flags else 2.0)  # a larger cosine is flagged
    checker.special_care_embeds_weights.data.fill_(2.0)
    return checker


def clip(folder: Path) -> Path:
    """A CLIPModel with its processor, for a CLIP score."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        tower = {
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 8,
        }
        CLIPModel(
            CLIPConfig(text_config=text_config(16).to_dict(), vision_config=tower, projection_dim=16)
        ).save_pretrained(folder)
    pixels = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    CLIPProcessor(pixels, tokenizer(folder / "words")).save_pretrained(folder)
    return folder


def stable3(folder: Path, *, t5: bool = False, seed: int = 1) -> Path:
    """A StableDiffusion3Pipeline, without its third text encoder unless `t5`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        StableDiffusion3Pipeline(
            transformer=SD3Transformer2DModel(
                sample_size=8,
                patch_size=2,
                in_channels=4,
                out_channels=4,
                num_layers=2,
                attention_head_dim=8,
                num_attention_heads=2,
                joint_attention_dim=32,
                caption_projection_dim=16,
                pooled_projection_dim=32,
                pos_embed_max_size=8,
            ),
            vae=vae(shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False),
            text_encoder=CLIPTextModelWithProjection(text_config(16)),
            tokenizer=tokenizer(folder / "tokenizer"),
            text_encoder_2=CLIPTextModelWithProjection(text_config(16)),
            tokenizer_2=tokenizer(folder / "tokenizer_2"),
            text_encoder_3=T5EncoderModel(t5_config()) if t5 else None,
            tokenizer_3=t5_tokenizer() if t5 else None,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        ).save_pretrained(folder)
    return folder


def t5_config() -> T5Config:
    return T5Config(
        vocab_size=100,
        d_model=32,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        dense_act_fn="relu",
        feed_forward_proj="relu",
    )


def t5_tokenizer() -> T5TokenizerFast:
    from tokenizers import Tokenizer, models, pre_tokenizers

    pieces = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        ("▁", -1.0),
        *((letter, -2.0) for letter in LETTERS[64:90]),
    ]
    unigram = Tokenizer(models.Unigram(pieces, unk_id=2))
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    return T5TokenizerFast(tokenizer_object=unigram, extra_ids=0)


def captions_repo(folder: Path, n: int = 30, size: int = 16) -> Path:
    """The shapes of tiny_pictures as a hub data set repo of one split, with the columns image and text."""
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

    features = Features({"image": ImageFeature(), "text": Value("string")})
    columns = {"image": [shape(i, size) for i in range(n)], "text": [CAPTIONS[i % len(CAPTIONS)] for i in range(n)]}
    (folder / "data").mkdir(parents=True, exist_ok=True)
    Dataset.from_dict(columns, features=features).to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    return folder
