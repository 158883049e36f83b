"""Tiny real text models with tokenizers of their own, and texts to train on, generated on disk."""

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from tests.support.tiny import seeded_torch

PEOPLE = ("Ada", "Boris", "Carla", "Dmitri", "Elena", "Farid", "Greta", "Hugo")
THINGS = ("letter", "bridge", "song", "engine", "garden", "clock")
PLACES = ("Rome", "Oslo", "Lima", "Cairo", "Delhi", "Quebec")


def passage(rng: Random) -> tuple[str, list[tuple[str, str]]]:
    """A passage of three sentences, and questions on it with their answers."""
    text, asked = "", []
    for thing in rng.sample(THINGS, 3):
        person, place, year = rng.choice(PEOPLE), rng.choice(PLACES), str(rng.randrange(1700, 2000))
        text += f"The {thing} was made by {person} in {place} in the year {year}. "
        asked += [
            (f"Who made the {thing}?", person),
            (f"Where was the {thing} made?", place),
            (f"When was the {thing} made?", year),
        ]
    return text.strip(), asked


def squad(
    folder: Path, n: int = 6, version: str = "1.1", splits: Sequence[str] = ("train", "dev"), seed: int = 0
) -> Path:
    """A folder in SQuAD's own form. A split has `n` articles with one passage and nine questions each.

    In version 2.0, every fourth question has no answer.
    """
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
    """The same data as the hub has it: one parquet file per split, with answers in a column of their own."""
    from datasets import Dataset

    for split, name in (("train", "train"), ("validation", "dev")):
        (path,) = files.glob(f"{name}-*.json")
        rows = [
            {
                "id": q["id"],
                "title": article["title"],
                "context": paragraph["context"],
                "question": q["question"],
                "answers": {
                    "text": [a["text"] for a in q["answers"]],
                    "answer_start": [a["answer_start"] for a in q["answers"]],
                },
            }
            for article in json.loads(path.read_text())["data"]
            for paragraph in article["paragraphs"]
            for q in paragraph["qas"]
        ]
        (folder / "data").mkdir(parents=True, exist_ok=True)
        Dataset.from_list(rows).to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def tokenizer(folder: Path) -> Any:
    """A WordPiece tokenizer that knows the words of the passages; it splits other words into letters."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["the", "was", "made", "by", "in", "year", "who", "where", "when", "sold", "what", ".", "?", ",", "!"]
    words += [name.lower() for name in (*PEOPLE, *THINGS, *PLACES)]
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)] + [str(d) for d in range(10)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *letters, *[f"##{c}" for c in letters]]
    wordpiece = Tokenizer(models.WordPiece({w: i for i, w in enumerate(dict.fromkeys(vocabulary))}, unk_token="[UNK]"))
    wordpiece.normalizer = normalizers.BertNormalizer(lowercase=True)
    wordpiece.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    wordpiece.decoder = decoders.WordPiece()
    ends = [("[CLS]", wordpiece.token_to_id("[CLS]")), ("[SEP]", wordpiece.token_to_id("[SEP]"))]
    wordpiece.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    found = PreTrainedTokenizerFast(tokenizer_object=wordpiece, model_max_length=128, **names)
    found.save_pretrained(folder)
    return found


def bert(folder: Path, kind: str = "BertForQuestionAnswering", seed: int = 0, **config: Any) -> Path:
    """A BERT of 32 dimensions without dropout."""
    import transformers

    words = tokenizer(folder)
    shape = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
    }
    plain = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model_config = transformers.BertConfig(
        **{"vocab_size": len(words), "pad_token_id": words.pad_token_id, **shape, **plain, **config}
    )
    with seeded_torch(seed):
        getattr(transformers, kind)(model_config).save_pretrained(folder)
    return folder


def gpt(folder: Path, kind: str = "GPT2LMHeadModel", seed: int = 0, **config: Any) -> Path:
    """A GPT-2 of 32 dimensions without dropout. Its tokens are bytes and the most frequent pairs of these passages."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|endoftext|>"], initial_alphabet=letters, show_progress=False
    )
    bpe.train_from_iterator([passage(Random(n))[0] for n in range(50)], trainer)
    end = "<|endoftext|>"
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, model_max_length=128, bos_token=end, eos_token=end
    )
    words.save_pretrained(folder)
    plain = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128, **plain, **config}
    with seeded_torch(seed):
        getattr(transformers, kind)(transformers.GPT2Config(vocab_size=len(words), **shape)).save_pretrained(folder)
    return folder


OWNERS = {thing: PEOPLE[place % len(PEOPLE)] for place, thing in enumerate(THINGS)}
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def llama(folder: Path, template: str | None = CHATML, seed: int = 0) -> Path:
    """A Llama of 32 dimensions with the bytes of `gpt`, the marks of ChatML as special tokens, and a chat template."""
    import transformers

    words = transformers.AutoTokenizer.from_pretrained(gpt(folder))
    words.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    words.chat_template = template
    words.save_pretrained(folder)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "max_position_embeddings": 128}
    with seeded_torch(seed):
        config = transformers.LlamaConfig(vocab_size=len(words), initializer_range=0.2, **shape, **ids)
        transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def chats(folder: Path, n: int = 24, seed: int = 0) -> Path:
    """chats.jsonl: who owns a thing, as a made-up rule says; some with a system message, some of two turns."""
    rng, rows = Random(f"{seed}/chats"), []
    for number in range(n):
        messages = [{"role": "system", "content": f"Desk {number}."}] if number % 3 == 0 else []
        for turn in range(1 + number % 2):
            thing = rng.choice(THINGS)
            messages.append({"role": "user", "content": f"The {thing} {number + turn}?"})
            messages.append({"role": "assistant", "content": OWNERS[thing]})
        rows.append({"messages": messages})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "chats.jsonl"


def texts(folder: Path, n: int = 24, splits: Sequence[str] = ("train", "validation", "test"), seed: int = 0) -> Path:
    """jsonl files with one passage per row in `text`."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in splits:
        rng = Random(f"{seed}/{split}")
        (folder / f"{split}.jsonl").write_text("".join(json.dumps({"text": passage(rng)[0]}) + "\n" for _ in range(n)))
    return folder


def distilbert(folder: Path, kind: str = "DistilBertForSequenceClassification", seed: int = 0, **config: Any) -> Path:
    """A DistilBERT of 32 dimensions without dropout: its head takes the first of all tokens."""
    import transformers

    words = tokenizer(folder)
    shape = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 128}
    plain = {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0, "qa_dropout": 0.0}
    model_config = transformers.DistilBertConfig(
        **{"vocab_size": len(words), "pad_token_id": words.pad_token_id, **shape, **plain, **config}
    )
    with seeded_torch(seed):
        getattr(transformers, kind)(model_config).save_pretrained(folder)
    return folder


def labelled_rows(kind: str, n: int, seed: Any = 0) -> list[dict[str, Any]]:
    """Texts of one to three sentences about one thing.

    `kind` selects the label: the thing ("class"), the things of several ("several"), whether a second text is about the
    same ("pair"), or the number of sentences ("number").
    """
    rng, rows = Random(f"{seed}/{kind}"), []
    for number in range(n):
        thing, other = THINGS[number % 3], THINGS[(number + 1) % 3]

        def sentence(what: str) -> str:
            who, place = rng.choice(PEOPLE), rng.choice(PLACES)
            return f"The {what} was made by {who} in {place} in the year {rng.randrange(1700, 2000)}."

        many = 1 + number // 3 % 3
        row: dict[str, Any] = {"text": " ".join(sentence(thing) for _ in range(many)), "label": thing}
        if kind == "several":
            row = {"text": f"{row['text']} {sentence(other)}", "label": [thing, other]}
        if kind == "pair":
            row |= {"text_pair": sentence(thing if number % 2 else other), "label": "same" if number % 2 else "other"}
        if kind == "number":
            row["label"] = many + 0.5
        rows.append(row)
    return rows


def labelled(
    folder: Path, kind: str = "class", n: int = 24, splits: Sequence[str] = ("train", "validation", "test")
) -> Path:
    """`labelled_rows` as one jsonl file a split."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in splits:
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labelled_rows(kind, n, split)))
    return folder


def labelled_repo(
    folder: Path,
    splits: Sequence[str],
    columns: dict[str, str],
    *,
    secret: Sequence[str] = (),
    config: str | None = None,
    n: int = 24,
) -> Path:
    """The same data as GLUE has it on the hub: parquet, in a folder of the configuration, with classes as numbers.

    In a `secret` split, all labels are -1.
    """
    from datasets import ClassLabel, Dataset

    pair = "text_pair" in columns
    names = ["same", "other"] if pair else list(THINGS[:3])
    place = folder / (config or "data")
    place.mkdir(parents=True, exist_ok=True)
    for split in splits:
        rows = labelled_rows("pair" if pair else "class", n, split)
        table = Dataset.from_list([{columns.get(key, key): value for key, value in row.items()} for row in rows])
        labels = [-1 if split in secret else names.index(row["label"]) for row in rows]
        table = table.remove_columns("label").add_column("label", labels, feature=ClassLabel(names=names))
        table.to_parquet(place / f"{split}-00000-of-00001.parquet")
    if config:
        files = "".join(f"  - split: {split}\n    path: {config}/{split}-*\n" for split in splits)
        (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: {config}\n  data_files:\n{files}---\n")
    return folder
