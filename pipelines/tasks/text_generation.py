"""Text generation: continue a text, or answer a prompt (`options.prompt`).

Any `AutoModelForCausalLM`: GPT-2, SmolLM, Qwen, Llama. Without a prompt, rows hold `text`; texts are packed into full
blocks, and every token counts (perplexity, bits per byte). With a prompt such as "{context} Question: {question}
Answer:", rows hold its columns and `answer`. The loss is then on the answer alone, and greedy answers are scored as in
SQuAD. Radford et al. 2019 introduced both uses.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from pipelines.config.recipe import Float, Int, Strict, of_a_run
from pipelines.data.encoding import EncodedTokens, encode
from pipelines.data.schema import DataSpec
from pipelines.data.text.packing import IGNORED, blocks, positions, token_ids
from pipelines.data.text.passages import answer_texts
from pipelines.data.text.prompts import columns, encoded
from pipelines.data.text.rows import readable, titled
from pipelines.errors import DataError, ModelError
from pipelines.generation.spec import Setting
from pipelines.task import Batch, Example, HubSpec, Metric, Record, Task

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from pipelines.metrics.statistics import Statistics
    from pipelines.reporting.mistakes import Mistake, MistakeSpec


SETTINGS = {
    "seed": Setting(int, 0, 2**63 - 1),
    "temperature": Setting(float, 0, 10),
    "top_p": Setting(float, 0, 1),
    "max_new_tokens": Setting(int, 1, 4096),
}


class Options(Strict):
    prompt: str | None = None
    """A text with column names in braces; `answer` follows it. Left out: the model learns every token of `text`."""
    rows: Literal["document", "line"] = "document"
    """`line`: rows are the lines of one running text (WikiText), so earlier lines are context of a line."""
    max_length: Annotated[Int, Field(ge=8, le=1_000_000)] | None = None
    """Tokens of a block, or of prompt and answer together. Left out: 1024, or fewer if the model reads fewer."""
    max_new_tokens: Annotated[Int, Field(ge=1, le=4096)] = 48
    """Longest answer in tokens, and longest continuation by `predict` and the demo."""
    attention_dropout: Annotated[Float, Field(ge=0, lt=1)] | None = None
    """Dropout of the attention.

    Left out: the model's own. On a CPU, 0 makes training about twice as fast, because any other value stores the full
    attention matrix.
    """

    @field_validator("prompt")
    @classmethod
    def _names_columns(cls, prompt: str | None, info: ValidationInfo) -> str | None:
        if prompt is not None and "answer" in columns(prompt) and not of_a_run(info):
            raise ValueError(
                "{answer} is what is to follow the prompt: take it out, and end the prompt where the answer is to begin"
            )
        return prompt


class TextGeneration(Task):
    name = "text-generation"
    hub = HubSpec("text-generation", "transformers", ("ForCausalLM", "LMHeadModel"))
    Options = Options
    tokenizer: Any
    packs: bool = True  # whether the attention of the model separates the documents of a block

    @property
    def _inputs(self) -> tuple[str, ...]:
        return ("text",) if self.options.prompt is None else columns(self.options.prompt)

    @property
    def data(self) -> DataSpec:
        answers = self.options.prompt is not None
        return DataSpec(
            columns=dict.fromkeys([*self._inputs, *(("answer",) if answers else ())], "text"),
            optional_columns={"title": "text"},
            group_column="title",
            input_columns=self._inputs,
            settings=SETTINGS,
            clean=self._clean,
            record_fields=("predicted",) if answers else (),
        )

    @property
    def metric(self) -> Metric:
        return Metric("perplexity", "min") if self.options.prompt is None else Metric("f1", "max")

    # ---- before training ----

    def _clean(self, row: dict[str, Any]) -> dict[str, Any]:
        texts = self._texts(row, may_be_empty=self.options.rows == "line")
        if self.options.prompt is None:
            return {"id": row["id"], **texts, **titled(row)}
        if row["answer"] is None or row["answer"] == "":  # SQuAD writes [] for no answer
            raise DataError("answer is empty")
        answers = list(dict.fromkeys(answer_texts(row["answer"])))
        return {"id": row["id"], **texts, "answer": answers, **titled({**row, **texts})}

    def _texts(self, row: Mapping[str, Any], *, may_be_empty: bool) -> dict[str, str]:
        """The inputs of a row. Columns of a prompt may be empty, as Alpaca's `input` often is. Raises DataError."""
        if self.options.prompt is None:
            return {"text": readable(row, "text", may_be_empty=may_be_empty)}
        texts = {name: readable(row, name, may_be_empty=True, numbers=True) for name in self._inputs}
        if not any(text.strip() for text in texts.values()):
            raise DataError(f"{' and '.join(texts)} {'is' if len(texts) == 1 else 'are'} empty")
        return texts

    def build(self, source: Any, splits: Any) -> "nn.Module":
        from pipelines.models import text as language

        model = self._read(source.folder, source.config, source.random)
        for column in self._inputs:
            language.warn_of_marks(self.tokenizer, splits.train[column])
        return model

    def _read(self, folder: Path | None, config: dict[str, Any] | None, random: bool = False) -> "nn.Module":
        from transformers import AutoModelForCausalLM
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as KINDS
        from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as MASKED

        from pipelines.models import pretrained
        from pipelines.models import text as language

        found = pretrained.read_config(folder, config)
        language.check_kind(folder, found, KINDS, "write text word by word")
        if found.model_type in MASKED and not found.is_decoder:
            raise ModelError(
                f"{pretrained.called(folder)}: a {found.model_type} model sees the words to come: task fill-mask fits "
                "it"
            )
        self.tokenizer = language.tokenizer(folder, found)
        if self.tokenizer.eos_token_id is None:
            raise ModelError(
                f"{pretrained.called(folder)}: its tokenizer has no end-of-text token (eos_token), by which a text ends"
            )
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        language.set_attention_dropout(found, self.options.attention_dropout)
        self.limit = language.longest(self.tokenizer, found)
        self.window = language.length(self.options.max_length, self.tokenizer, found, 1024)
        model = language.language_model(AutoModelForCausalLM, folder, found, random=random)
        self.packs = language.keeps_apart(model)
        return model

    def layers(self, model: Any) -> "list[nn.Module]":
        from pipelines.models import text as language

        return language.language_model_layers(model)

    def encode(self, rows: Any) -> EncodedTokens:
        from pipelines.models import text as language

        key = [
            self.name,
            self.options.model_dump(),
            self.window,
            self.packs,
            language.tokenizer_fingerprint(self.tokenizer),
        ]
        made = encode(rows, self._blocks if self.options.prompt is None else self._answered, key, at_once=10_000)
        return EncodedTokens(made)

    def _blocks(self, rows: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
        """Pack texts into full blocks. The tokenizer's first and last special token enclose each document."""
        import numpy as np

        words = self.tokenizer
        first = words.eos_token_id if words.bos_token_id is None else words.bos_token_id
        found = token_ids(words, rows["text"])
        running = self.options.rows == "line"
        texts = [
            (number, ids if running else np.array([first, *ids, words.eos_token_id]), place == 0 or not running)
            for place, (number, ids) in enumerate(zip(numbers, found, strict=True))
        ]
        packed = [texts] if self.packs or running else [[text] for text in texts]
        made = [block for part in packed if any(len(ids) for _, ids, _ in part) for block in blocks(part, self.window)]
        made = [block for block in made if (block["labels"] != IGNORED).any()]
        examples: dict[str, list[Any]] = {
            key: [block[key] for block in made] for key in ("input_ids", "labels", "starts", "owners")
        }
        examples["id"] = [f"{rows['id'][0]}+{place}" for place in range(len(made))]
        examples["row"] = [int(block["owners"][0][0]) for block in made]
        examples["length"] = [len(block["input_ids"]) for block in made]
        return examples

    def _answered(self, rows: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
        """Tokens of prompts with their answers."""
        asked = [self._prompt(texts) for texts in zip(*(rows[name] for name in self._inputs), strict=True)]
        examples = encoded(self.tokenizer, asked, rows["answer"], self.window)
        examples["wrong"] = [why and f"{id_}: {why}" for id_, why in zip(rows["id"], examples["wrong"], strict=True)]
        return {"id": rows["id"], "row": numbers, **examples}

    def _prompt(self, texts: Sequence[str]) -> str:
        return str(self.options.prompt.format(**dict(zip(self._inputs, texts, strict=True))))

    def collate(self, examples: Sequence[Example]) -> Batch:
        import torch

        from pipelines.models.text import padded

        ids = [e["input_ids"] for e in examples]
        batch: Batch = {key: [e[key] for e in examples] for key in ("id", "row")}
        batch |= {
            "input_ids": padded(ids, self.tokenizer.pad_token_id),
            "labels": padded([e["labels"] for e in examples], IGNORED),
        }
        if self.options.prompt is not None:
            return {**batch, "prompt": [list(row[: e["prompt"]]) for row, e in zip(ids, examples, strict=True)]}
        if self.packs:
            longest = max(map(len, ids))
            places = [
                positions([*e["starts"], *range(len(row), longest)], longest)
                for e, row in zip(examples, ids, strict=True)
            ]
            batch["position_ids"] = torch.stack([torch.from_numpy(place) for place in places])
        return {**batch, **{key: [e[key] for e in examples] for key in ("owners", "starts")}}

    # ---- one step ----

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"tokens": float((batch["labels"] != IGNORED).sum())}

    def loss(self, model: "nn.Module", batch: Batch, counts: Mapping[str, float], phase: str, step: int) -> "Tensor":
        """Mean cross-entropy of the target tokens."""
        return self._surprise(model, batch)[0].sum() / counts["tokens"]

    def _surprise(self, model: Any, batch: Batch) -> "tuple[Tensor, Tensor, Tensor]":
        """-log p of every target in nats, [targets]; the places of the targets, bool [batch, length]; and the scores of
        all tokens at the targets, float32 [targets, vocabulary].
        """
        from torch.nn import functional as f

        wanted = batch["labels"] != IGNORED
        fields = {key: batch[key] for key in ("input_ids", "position_ids") if key in batch}
        # The vocabulary is large, so its scores are computed only at targets.
        logits = model(**fields, use_cache=False, logits_to_keep=wanted).logits.float()
        return f.cross_entropy(logits, batch["labels"][wanted], reduction="none"), wanted, logits

    # ---- after training ----

    def predict(self, model: "nn.Module", batch: Batch) -> list[Record]:
        """nats and tokens of each row in each block; with a prompt, of each answer, and the greedy answer."""
        from pipelines.metrics.language_modelling import shares

        found, wanted, logits = self._surprise(model, batch)
        names = [{"id": id_, "row": row} for id_, row in zip(batch["id"], batch["row"], strict=True)]
        if self.options.prompt is None:
            parts = shares(found.detach().cpu(), wanted.cpu(), batch["owners"])
            wrong = self._surest(batch, found.detach(), wanted, logits.detach())
            return [{**name, "parts": part, "surest": one} for name, part, one in zip(names, parts, wrong, strict=True)]
        whole = [[[row, int(n)]] for row, n in zip(batch["row"], wanted.sum(1).tolist(), strict=True)]
        nats = shares(found.detach().cpu(), wanted.cpu(), [[[row, wanted.shape[1]]] for ((row, _),) in whole])
        written = self._write(model, batch["prompt"])
        return [
            {**name, "nll": part[0][1], "tokens": part[0][2], "predicted": text}
            for name, part, text in zip(names, nats, written, strict=True)
        ]

    def _surest(self, batch: Batch, nats: "Tensor", wanted: "Tensor", logits: "Tensor") -> list[dict[str, Any] | None]:
        """For each block, the wrong token of which the model was surest, in its text, with its row."""
        import numpy as np

        from pipelines.metrics.language_modelling import surest_wrong
        from pipelines.models import text as language

        sizes = wanted.sum(1).tolist()
        sure, guesses = (part.cpu().split(sizes) for part in surest_wrong(logits, batch["labels"][wanted], nats))
        found: list[dict[str, Any] | None] = []
        for block, (p, guess) in enumerate(zip(sure, guesses, strict=True)):
            which = int(p.argmax()) if len(p) else 0
            if not len(p) or not float(p[which]) > 0:
                found.append(None)
                continue
            at = int(wanted[block].nonzero()[which, 0])
            ids, starts = batch["input_ids"][block].tolist(), [int(start) for start in batch["starts"][block]]
            begin = max((start for start in starts if start <= at), default=0)  # of the document
            end = min((start for start in starts if start > at + 1), default=len(ids))
            true, predicted = int(batch["labels"][block, at]), int(guess[which])
            texts = language.in_context(self.tokenizer, ids[begin : at + 1], true, ids[at + 2 : end], predicted)
            owners = np.asarray(batch["owners"][block])
            row = owners[min(int(np.searchsorted(owners[:, 1].cumsum(), at, side="right")), len(owners) - 1), 0]
            found.append({"row": int(row), "sure": float(p[which]), **texts})
        return found

    def _write(self, model: Any, prompts: Sequence[Sequence[int]]) -> list[str]:
        from pipelines.models.decoding import continuations

        words = self.tokenizer
        ends, most = {words.eos_token_id}, self.options.max_new_tokens
        found = continuations(model, prompts, ends, most, limit=self.limit, pad=words.pad_token_id)
        return [text.strip() for text in words.batch_decode(found, skip_special_tokens=True)]

    def merge(self, records: Sequence[Record], rows: Any) -> list[Record]:
        """One record per row: the sums over its blocks; with a prompt, the score of its answer."""
        from pipelines.metrics import language_modelling
        from pipelines.metrics.question_answering import judge

        if self.options.prompt is None:
            return language_modelling.rows_of(records, rows)
        merged = []
        for record in sorted(records, key=lambda r: r["row"]):
            row = rows[record["row"]]
            predicted, true = record["predicted"], list(row["answer"])
            asked = {key: row[key] for key in ("question",) if key in row}
            kept = {key: record[key] for key in ("id", "nll", "tokens")}
            merged.append({**kept, **asked, "true": true, "predicted": predicted, **judge(predicted, true)})
        return merged

    def statistics(self, records: Sequence[Record], rows: Any) -> "Statistics":
        from pipelines.metrics import language_modelling, question_answering

        found = language_modelling.statistics(records)
        return found if self.options.prompt is None else question_answering.statistics(records) | found

    def summarize(self, statistics: "Statistics", weights: "np.ndarray") -> dict[str, float]:
        from pipelines.metrics import language_modelling, question_answering

        found = language_modelling.summarize(statistics, weights)
        return found if self.options.prompt is None else {**question_answering.summarize(statistics, weights), **found}

    def tables(self, records: Sequence[Record], rows: Any) -> dict[str, list[dict[str, Any]]]:
        from pipelines.metrics import language_modelling, question_answering

        if self.options.prompt is None:
            return {"by length": language_modelling.by_length(records)}
        return question_answering.tables(records)

    def figures(self, records: Sequence[Record], rows: Any) -> dict[str, Any]:
        from pipelines.plots import language_modelling, question_answering

        drawn: dict[str, Any] = (language_modelling if self.options.prompt is None else question_answering).figures(
            records
        )
        return drawn

    @property
    def mistakes(self) -> "MistakeSpec":
        from pipelines.reporting.mistakes import MistakeSpec, wrong_words

        if self.options.prompt is None:
            return wrong_words()
        return MistakeSpec(
            rank=lambda record: (1 - record["f1"]) * record["nll"] / max(record["tokens"], 1) or None,
            show=self._shown,
            order="Wrong answers come first where the right answer was least likely to the model.",
            title="Wrong answers",
        )

    def _shown(self, record: Record, row: Mapping[str, Any], model: Any) -> "Mistake":
        from pipelines.reporting.mistakes import Mistake, Piece
        from pipelines.utils.formatting import number

        perplexity = math.exp(min(record["nll"] / max(record["tokens"], 1), 700.0))
        return Mistake(
            " / ".join(record["true"]) or "no answer",
            record["predicted"],
            facts={"F1": number(record["f1"]), "Perplexity of the right answer": number(perplexity)},
            texts={name: [Piece(row[name])] for name in self._inputs if row[name]},
        )

    # ---- the model folder ----

    def save(self, model: Any, folder: Path) -> None:
        from transformers import GenerationConfig

        words = self.tokenizer
        # A new configuration: that of a chat model has sampling and penalties, but the card's snippet must give what
        # was scored.
        model.generation_config = GenerationConfig(
            bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id
        )
        model.save_pretrained(folder)
        words.save_pretrained(folder)

    def load(self, folder: Path) -> "nn.Module":
        return self._read(folder, None).eval()

    def infer(self, model: Any, *texts: str, **settings: Any) -> Iterator[str]:
        """Continue a text, or answer a prompt from its columns; yields the growing text.

        Settings: `max_new_tokens`, `temperature` (0, the default, takes the likeliest token), `top_p`, `seed`. Raises
        DataError.
        """
        from pipelines.models.decoding import decode

        texts = tuple(self._texts(dict(zip(self._inputs, texts, strict=True)), may_be_empty=False).values())
        words, prompt = self.tokenizer, self.options.prompt
        ids = words(texts[0] if prompt is None else self._prompt(texts))["input_ids"]
        ids = ids[:-1] if ids and ids[-1] == words.eos_token_id else ids
        if not ids:
            raise DataError("the text holds no word that this model knows: write something to go on from")
        if len(ids) >= self.limit:
            raise DataError(
                f"the text has {len(ids):,} tokens, and this model reads at most {self.limit:,}: shorten it"
            )
        most = settings.pop("max_new_tokens", self.options.max_new_tokens)
        tokens: list[int] = []
        yield ""
        for (token,) in decode(
            model, [ids], {words.eos_token_id}, most, limit=self.limit, pad=words.pad_token_id, **settings
        ):
            if token is not None:
                tokens.append(token)
                text = words.decode(tokens, skip_special_tokens=True)
                yield text.strip() if prompt else text
