"""Fill-mask: predict masked words of a text, the pretraining objective of BERT (Devlin et al. 2019, arXiv:1810.04805).

Any `AutoModelForMaskedLM`: BERT, DistilBERT, RoBERTa, DeBERTa, ModernBERT. Rows hold `text`; long texts become several
windows. Training draws new masks in every epoch. In evaluation the masks depend only on the row, so scores are
comparable.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from pipelines.config.recipe import Float, Int, Strict
from pipelines.data.encoding import EncodedTokens, encode
from pipelines.data.schema import DataSpec
from pipelines.data.text.packing import IGNORED
from pipelines.data.text.rows import SpecialTokens, readable, titled
from pipelines.errors import DataError, ModelError
from pipelines.losses.language_modelling import Head, at_targets, nats
from pipelines.task import Augmentation, Batch, Example, HubSpec, Record, Task, answer_one
from pipelines.utils.seeding import seeded
from pipelines.utils.sequences import each

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from pipelines.losses.language_modelling import Measure
    from pipelines.metrics.statistics import Statistics
    from pipelines.reporting.mistakes import MistakeSpec


class Options(Strict):
    mask_probability: Annotated[Float, Field(gt=0, lt=1)] = 0.15
    """Fraction of the tokens to predict. Of ten, 8 are masked, 1 is replaced by another token, and 1 is unchanged."""
    whole_words: bool = False
    """Mask all tokens of a word together. This is harder, because no part of the word is visible."""
    max_length: Annotated[Int, Field(ge=8, le=8192)] | None = None
    """Tokens of a window. Left out: 256, or fewer if the model reads fewer."""
    attention_dropout: Annotated[Float, Field(ge=0, lt=1)] | None = None
    """Dropout of the attention.

    Left out: the model's own. On a CPU, 0 makes training about twice as fast, because any other value stores the full
    attention matrix.
    """
    special_tokens: SpecialTokens = "text"
    """How special tokens of the model in a text (<s>, [SEP]) are read: as ordinary `text`, or `keep` their meaning."""


class FillMask(Task):
    name = "fill-mask"
    hub = HubSpec("fill-mask", "transformers", ("ForMaskedLM",))
    augmentation = Augmentation(enabled=True)  # the masks are random
    Options = Options
    tokenizer: Any
    head: Head | None = None  # the last layer, after `build` or `load`
    reader: Any  # the tokenizer that reads texts (models.special_tokens)

    @property
    def data(self) -> DataSpec:
        return DataSpec(
            columns={"text": "text"},
            optional_columns={"title": "text"},
            group_column="title",
            input_columns=("text",),
            clean=lambda row: {"id": row["id"], "text": readable(row, "text"), **titled(row)},
            example=self._example,
        )

    @property
    def metrics(self) -> Mapping[str, str]:
        from pipelines.metrics import language_modelling

        return {**language_modelling.TOKENS, **language_modelling.MASKED}

    # ---- before training ----

    def build(self, source: Any, splits: Any) -> "nn.Module":
        from pipelines.models import special_tokens

        model = self._read(source.folder, source.config, source.random)
        special_tokens.warn(self.tokenizer, [splits.train["text"]], self.options.special_tokens)
        return model

    def _read(self, folder: Path | None, config: dict[str, Any] | None, random: bool = False) -> "nn.Module":
        from transformers import AutoModelForMaskedLM
        from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as KINDS

        from pipelines.models import pretrained, special_tokens
        from pipelines.models import text as language

        found = pretrained.read_config(folder, config)
        language.check_kind(folder, found, KINDS, "fill masks")
        self.tokenizer = language.tokenizer(folder, found)
        if self.tokenizer.mask_token_id is None:
            raise ModelError(
                f"{pretrained.called(folder)}: its tokenizer has no mask (mask_token); choose another model"
            )
        self.reader = special_tokens.reader(self.tokenizer, self.options.special_tokens)
        language.set_attention_dropout(found, self.options.attention_dropout)
        self.limit = language.longest(self.tokenizer, found)
        self.window = language.length(self.options.max_length, self.tokenizer, found, 256)
        model = language.language_model(AutoModelForMaskedLM, folder, found, random=random, new_head=True)
        self.head = language.scores_of(model)
        return model

    def layers(self, model: Any) -> "list[nn.Module]":
        from pipelines.models import text as language

        return language.language_model_layers(model)

    def encode(self, rows: Any) -> EncodedTokens:
        from pipelines.models import text as language

        return EncodedTokens(
            encode(rows, self._windows, [self.name, self.window, language.tokenizer_fingerprint(self.reader)])
        )

    def _windows(self, rows: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
        """Split texts into windows of tokens, and note the word of each token (-1 for special tokens)."""
        encoding = self.reader(rows["text"], truncation=True, max_length=self.window, return_overflowing_tokens=True)
        places = encoding["overflow_to_sample_mapping"]
        words = [[-1 if word is None else word for word in encoding.word_ids(window)] for window in range(len(places))]
        kept = [window for window, found in enumerate(words) if max(found) >= 0]  # a text of spaces has no word
        fields = ("input_ids", "token_type_ids") if "token_type_ids" in encoding else ("input_ids",)
        return {
            "id": [f"{rows['id'][places[window]]}+{window - places.index(places[window])}" for window in kept],
            "row": [numbers[places[window]] for window in kept],
            "length": [len(words[window]) for window in kept],
            "word": [words[window] for window in kept],
            **{field: [encoding[field][window] for window in kept] for field in fields},
        }

    def augment(self, example: Example, rng: Random, progress: float) -> Example:
        """Mask at least one token. `labels` holds the original token at masked places, and IGNORED elsewhere."""
        parts: dict[int, list[int]] = {}
        for place, word in enumerate(example["word"]):
            if word >= 0:
                parts.setdefault(word if self.options.whole_words else place, []).append(place)
        chosen = [places for places in parts.values() if rng.random() < self.options.mask_probability]
        chosen = chosen or [rng.choice(list(parts.values()))]
        ids, labels = list(example["input_ids"]), [IGNORED] * len(example["input_ids"])
        for place in (place for places in chosen for place in places):
            labels[place], how = ids[place], rng.random()
            if how < 0.8:
                ids[place] = self.tokenizer.mask_token_id
            elif how < 0.9:
                ids[place] = rng.randrange(len(self.tokenizer))
        return {**example, "input_ids": ids, "labels": labels}

    def collate(self, examples: Sequence[Example]) -> Batch:
        from pipelines.models import text as language

        masked = [e if "labels" in e else self.augment(e, Random(seeded("masks", e["id"])), 0.0) for e in examples]
        labels = language.padded([e["labels"] for e in masked], IGNORED)
        return {
            **{key: [e[key] for e in masked] for key in ("id", "row")},
            **language.inputs(masked, self.tokenizer),
            "labels": labels,
            "targets": (labels != IGNORED).sum(1).tolist(),
        }

    # ---- one step ----

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"tokens": float((batch["labels"] != IGNORED).sum())}

    def loss(self, model: "nn.Module", batch: Batch, counts: Mapping[str, float], phase: str, step: int) -> "Tensor":
        """Mean cross-entropy of the masked tokens."""
        return self._surprise(model, batch)[0].sum() / counts["tokens"]

    def _surprise(self, model: "nn.Module", batch: Batch, measure: "Measure" = nats) -> "tuple[Tensor, ...]":
        """What `measure` finds at every masked token, [masked tokens] each."""
        names: tuple[str, ...] = ("input_ids", "attention_mask", "token_type_ids")
        fields = {name: batch[name] for name in names if name in batch}
        return at_targets(model, self.head, fields, batch["labels"], IGNORED, sum(batch["targets"]), measure)

    # ---- after training ----

    def predict(self, model: "nn.Module", batch: Batch) -> list[Record]:
        """For each window: sum of nats and number of masked tokens, how often the right token is the likeliest or in
        the top 5, and the wrong token of which the model was surest.
        """
        from pipelines.metrics.language_modelling import with_surest_wrong

        def measure(scores: "Tensor", wanted: "Tensor") -> "tuple[Tensor, ...]":
            return *with_surest_wrong(scores, wanted), (scores > scores.gather(1, wanted[:, None])).sum(1)

        sizes = batch["targets"]
        each, sure, guesses, place = (part.detach().cpu() for part in self._surprise(model, batch, measure))
        nats_of, ranks = each.double().split(sizes), place.split(sizes)
        wrong = [sure.split(sizes), guesses.split(sizes)]
        return [
            {
                "id": id_,
                "row": row,
                "nll": float(nat.sum()),
                "tokens": size,
                "top_1": int((rank < 1).sum()),
                "top_5": int((rank < 5).sum()),
                "surest": self._surest(batch, place, wrong[0][place], wrong[1][place]),
            }
            for place, (id_, row, nat, size, rank) in enumerate(
                zip(batch["id"], batch["row"], nats_of, sizes, ranks, strict=True)
            )
        ]

    def _surest(self, batch: Batch, window: int, sure: "Tensor", guesses: "Tensor") -> dict[str, Any] | None:
        """The wrong token of a window of which the model was surest, in its text; None if all are right."""
        from pipelines.models import text as language

        which = int(sure.argmax())
        if not float(sure[which]) > 0:
            return None
        labels, ids = batch["labels"][window].cpu(), batch["input_ids"][window].cpu()
        masked = labels != IGNORED
        at = int(masked.nonzero()[which, 0])
        # without the padding, and with the original tokens at the masked places
        known = ids.where(~masked, labels)[: int(batch["attention_mask"][window].sum())].tolist()
        texts = language.in_context(self.tokenizer, known[:at], known[at], known[at + 1 :], int(guesses[which]))
        return {"sure": float(sure[which]), **texts}

    def merge(self, records: Sequence[Record], rows: Any) -> list[Record]:
        from pipelines.metrics import language_modelling

        return language_modelling.masked_rows(records, rows)

    def statistics(self, records: Sequence[Record], rows: Any) -> "Statistics":
        from pipelines.metrics import language_modelling

        return language_modelling.statistics(records)

    def summarize(self, statistics: "Statistics", weights: "np.ndarray") -> dict[str, float]:
        from pipelines.metrics import language_modelling

        return language_modelling.summarize(statistics, weights)

    def tables(self, records: Sequence[Record], rows: Any) -> dict[str, list[dict[str, Any]]]:
        from pipelines.metrics import language_modelling

        return {"by length": language_modelling.by_length(records)}

    @property
    def mistakes(self) -> "MistakeSpec":
        from pipelines.reporting.mistakes import wrong_words

        return wrong_words()

    def figures(self, records: Sequence[Record], rows: Any) -> dict[str, Any]:
        from pipelines.plots import language_modelling as language_modelling_plots

        return language_modelling_plots.figures(records)

    # ---- the model folder ----

    def save(self, model: Any, folder: Path) -> None:
        model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def load(self, folder: Path) -> "nn.Module":
        return self._read(folder, None).eval()

    def _example(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The first words of a text with one word masked, and that word."""
        words = row["text"].split()[:40]
        place = max(range(len(words)), key=lambda i: (sum(c.isalpha() for c in words[i]), i))
        masked = [*words[:place], self.tokenizer.mask_token, *words[place + 1 :]]
        return {"text": " ".join(masked), "word": words[place]}

    def infer(self, model: Any, text: str, top_k: int = 5) -> Iterator[list[list[dict[str, Any]]]]:
        """The `top_k` likeliest tokens for each mask of the text ([MASK], or the model's own): [[{"token", "score"}]].

        Raises DataError.
        """
        yield answer_one(self, model, text=text, top_k=top_k)

    def prepare(self, asked: Sequence[Mapping[str, Any]]) -> list[Example | DataError]:
        return each(self._asked, asked)

    def _asked(self, one: Mapping[str, Any]) -> Example:
        from pipelines.models import special_tokens

        text = readable(one, "text")
        for mask in ("[MASK]", "<mask>"):
            text = text.replace(mask, self.tokenizer.mask_token)
        text = special_tokens.guarded(text, self.reader, [self.tokenizer.mask_token])
        example = {key: value for key, value in self.reader(text).items() if key in ("input_ids", "token_type_ids")}
        length = len(example["input_ids"])
        masks = [place for place, token in enumerate(example["input_ids"]) if token == self.tokenizer.mask_token_id]
        if not masks:
            raise DataError("the text has no [MASK]: put one where a word is to be found")
        if length > self.limit:
            raise DataError(f"the text has {length:,} tokens, and this model reads at most {self.limit:,}: shorten it")
        return {**example, "masks": masks, "top_k": one.get("top_k", 5), "length": length}

    def answer(self, model: Any, examples: Sequence[Example]) -> list[Any]:
        import torch

        from pipelines.models import text as language

        device = next(model.parameters()).device
        read = language.inputs(examples, self.tokenizer)
        rows = [row for row, e in enumerate(examples) for _ in e["masks"]]
        places = [place for e in examples for place in e["masks"]]
        with torch.inference_mode():
            logits = model(**{key: value.to(device) for key, value in read.items()}).logits[rows, places].float().cpu()
        answers = []
        for e, own in zip(examples, logits.split([len(e["masks"]) for e in examples]), strict=True):
            best = own.softmax(-1).topk(e["top_k"])
            pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
            answers.append([self._tokens(scores, ids) for scores, ids in pairs])
        return answers

    def _tokens(self, scores: Sequence[float], ids: Sequence[int]) -> list[dict[str, Any]]:
        return [{"token": self.tokenizer.decode([i]).strip(), "score": p} for p, i in zip(scores, ids, strict=True)]
