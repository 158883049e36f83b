"""Tiny real text models with a tokenizer of their own, and texts to train on: made on disk in a moment."""

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from tests.tiny import _seeded

PEOPLE = ("Ada", "Boris", "Carla", "Dmitri", "Elena", "Farid", "Greta", "Hugo")
THINGS = ("letter", "bridge", "song", "engine", "garden", "clock")
PLACES = ("Rome", "Oslo", "Lima", "Cairo", "Delhi", "Quebec")


def passage(rng: Random) -> tuple[str, list[tuple[str, str]]]:
    """A passage of three sentences, and questions on it with their answers."""
    text, asked = "", []
    for thing in rng.sample(THINGS, 3):
        person, place, year = rng.choice(PEOPLE), rng.choice(PLACES), str(rng.randrange(1700, 2000))
        text += f"The {thing} was made by {person} in {place} in the year {year}. "
        asked += [(f"Who made the {thing}?", person), (f"Where was the {thing} made?", place), (f"When was the {thing} made?", year)]
    return text.strip(), asked


def squad(folder: Path, n: int = 6, version: str = "1.1", splits: Sequence[str] = ("train", "dev"), seed: int = 0) -> Path:
    """A folder in SQuAD's own form: `n` articles a split with one passage and nine questions each; in 2.0 every fourth has no answer."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in splits:
        rng, articles = Random(f"{seed}/{split}"), []
        for article in range(n):
            text, asked = passage(rng)
            questions: list[dict[str, Any]] = []
            for number, (question, answer) in enumerate(asked):
                one: dict[str, Any] = {"id": f"{split}-{article}-{number}", "question": question}
                if version == "2.0":
                    one["is_impossible"] = number % 4 == 3
                    one["question"] = question.replace("made", "sold") if one["is_impossible"] else question
                start = text.index(question.split("the ")[1].split(" ")[0].strip("?"))
                place = text.index(answer, start)
                one["answers"] = [] if one.get("is_impossible") else [{"text": answer, "answer_start": place}]
                questions.append(one)
            articles.append({"title": f"{split} {article}", "paragraphs": [{"context": text, "qas": questions}]})
        (folder / f"{split}-v{version}.json").write_text(json.dumps({"version": version, "data": articles}))
    return folder


def squad_repo(folder: Path, files: Path) -> Path:
    """The same as the hub has it: one parquet file a split with answers in a column of their own."""
    from datasets import Dataset

    for split, name in (("train", "train"), ("validation", "dev")):
        (path,) = files.glob(f"{name}-*.json")
        rows = [
            {"id": q["id"], "title": article["title"], "context": paragraph["context"], "question": q["question"],
             "answers": {"text": [a["text"] for a in q["answers"]], "answer_start": [a["answer_start"] for a in q["answers"]]}}
            for article in json.loads(path.read_text())["data"] for paragraph in article["paragraphs"] for q in paragraph["qas"]
        ]  # fmt: skip
        (folder / "data").mkdir(parents=True, exist_ok=True)
        Dataset.from_list(rows).to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def tokenizer(folder: Path) -> Any:
    """A WordPiece tokenizer whose words are those of the passages; other words go by letter."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["the", "was", "made", "by", "in", "year", "who", "where", "when", "sold", "what", ".", "?", ",", "!"]
    words += [name.lower() for name in (*PEOPLE, *THINGS, *PLACES)]
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)] + [str(d) for d in range(10)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *letters, *[f"##{c}" for c in letters]]
    made = Tokenizer(models.WordPiece({w: i for i, w in enumerate(dict.fromkeys(vocabulary))}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    ends = [("[CLS]", made.token_to_id("[CLS]")), ("[SEP]", made.token_to_id("[SEP]"))]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    found = PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=128, **names)
    found.save_pretrained(folder)
    return found


def bert(folder: Path, kind: str = "BertForQuestionAnswering", seed: int = 0, **config: Any) -> Path:
    """A BERT of 32 dimensions without dropout."""
    import transformers

    words = tokenizer(folder)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 128}
    plain = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    made = transformers.BertConfig(vocab_size=len(words), pad_token_id=words.pad_token_id, **{**shape, **plain, **config})
    with _seeded(seed):
        getattr(transformers, kind)(made).save_pretrained(folder)
    return folder
