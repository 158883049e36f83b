"""Text classification: one label per text or pair of texts, several (`options.multi_label`), or a number
(`options.regression`).

Any `AutoModelForSequenceClassification`: BERT, DistilBERT, RoBERTa, DeBERTa, ModernBERT, MiniLM. Rows hold `text`,
`label` and, for pairs, `text_pair` (GLUE, Wang et al. 2018, arXiv:1804.07461). Labels are matched by name, never by
number. GLUE's test splits have no labels (-1), so its recipes test on validation. A text that is too long for the model
is cut at its end.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from pipelines.config.recipe import Float, Int, Strict
from pipelines.data.encoding import EncodedTokens, encode
from pipelines.data.labels import check_known, check_numbers, number
from pipelines.data.schema import DataSpec
from pipelines.data.text.rows import SpecialTokens, readable
from pipelines.errors import DataError, ModelError
from pipelines.models.source import read_json_object
from pipelines.task import Batch, Example, HubSpec, Record, Task, answer_one
from pipelines.utils.sequences import each

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from pipelines.metrics.statistics import Statistics
    from pipelines.models.attribution import Parts
    from pipelines.models.occlusion import Region
    from pipelines.reporting.mistakes import Mistake, MistakeSpec, Piece

TEXTS = ("text", "text_pair")
FLAT = 0.1  # log-odds, or the number; if no word changes more than this, no word is marked
HIDDEN = 1000  # tokens of a text's copies with a word hidden, to find the words that decide


class Options(Strict):
    of_the_model: ClassVar[tuple[str, ...]] = ("multi_label", "regression")

    max_length: Annotated[Int, Field(ge=4, le=1_000_000)] | None = None
    """Tokens of a text, or of a pair together.

    Left out: 512, or fewer if the model reads fewer. Longer texts are cut.
    """
    multi_label: bool = False
    """A text may have several labels, or no label."""
    regression: bool = False
    """Labels are numbers. They are not rescaled, so they should vary by about 1 (0 to 5, not 0 to 100,000)."""
    label_smoothing: Annotated[Float, Field(ge=0, lt=1)] = 0.0
    """Fraction of the target that is spread over all classes (Szegedy et al. 2016)."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: the loss weighs each class by n / (classes * n of the class), so rare classes weigh more."""
    special_tokens: SpecialTokens = "text"
    """How special tokens of the model in a text (<s>, [SEP]) are read: as ordinary `text`, or `keep` their meaning."""

    @model_validator(mode="after")
    def _fits(self) -> "Options":
        if self.multi_label and self.regression:
            raise ValueError("multi_label and regression exclude each other: give one of them")
        if (self.multi_label or self.regression) and (self.label_smoothing or self.class_weights != "none"):
            raise ValueError(
                "label_smoothing and class_weights are for one class per text: leave them out with multi_label or "
                "regression"
            )
        return self


def _text(row: Mapping[str, Any], column: str) -> str:
    """The text in a column; only the second text of a pair may be empty. Raises DataError."""
    return readable(row, column, may_be_empty=column == "text_pair")


class TextClassification(Task):
    name = "text-classification"
    hub = HubSpec("text-classification", "transformers", ("ForSequenceClassification",))
    Options = Options
    tokenizer: Any
    reader: Any  # the tokenizer that reads texts (models.special_tokens)
    pair: bool = False  # whether it was trained on pairs of texts
    single: bool = False  # whether it was trained on single texts; a model that Graft did not train may read both
    window: int  # number of tokens that it reads
    pads_left: bool = False
    reads_end: bool = False  # whether the model classifies at the end token of a text

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.labels: list[str] = []  # empty for regression
        self.weights: dict[str, float] = {}  # class -> weight in the loss, if it is not 1

    @property
    def data(self) -> DataSpec:
        return DataSpec(
            columns={"text": "text", "label": "label"},
            optional_columns={} if self.single else {"text_pair": "text"},
            input_columns=TEXTS if self.pair else TEXTS[:1],
            optional_inputs=() if self.pair else TEXTS[1:],
            label_kind="number" if self.options.regression else "classes" if self.options.multi_label else "class",
            from_model=self._read_inputs,
            labels=tuple(self.labels),
            clean=self._clean,
            example=lambda row: {key: row[key] for key in (*TEXTS, "label") if key in row},
            record_fields=("predicted",),
        )

    @property
    def metrics(self) -> Mapping[str, str]:
        from pipelines.metrics import classification, regression

        if self.options.regression:
            return regression.DIRECTIONS
        if self.options.multi_label:
            return classification.SEVERAL_LABELS
        return {**classification.ONE_LABEL, "mcc": "max"}

    # ---- before training ----

    def _clean(self, row: dict[str, Any]) -> dict[str, Any]:
        texts = {column: _text(row, column) for column in TEXTS if column in row}
        return {**row, **texts, **({"label": number(row["label"])} if self.options.regression else {})}

    def build(self, source: Any, splits: Any) -> "nn.Module":
        from pipelines.data import labels
        from pipelines.models import pretrained, special_tokens, word_vectors

        self.pair = "text_pair" in splits.train.column_names
        self.single = not self.pair
        config = pretrained.read_config(source.folder, source.config)
        if self.options.regression:
            check_numbers(splits.train["label"], splits.name)
        else:
            self.labels = labels.names(splits, self.options.multi_label)
        if self.options.class_weights == "balanced":
            self.weights = labels.balanced(splits.train["label"], self.labels)
        if self.options.regression:
            pretrained.name_classes(config, ["value"])
        kind = "regression" if self.options.regression else "multi" if self.options.multi_label else "single"
        config.problem_type = kind if kind == "regression" else f"{kind}_label_classification"
        config.reads_pairs = self.pair
        self._read_tokens(source.folder, config, splits.train)
        texts = [splits.train[column] for column in TEXTS if column in splits.train.column_names]
        special_tokens.warn(self.tokenizer, texts, self.options.special_tokens)
        vectors = word_vectors.of(config, self.tokenizer, source.folder)
        model = self._model(source.folder, config, source.random, self.labels)
        if vectors:
            word_vectors.put(model, vectors, frozen=config.freeze_word_vectors)
        return model

    def _read_tokens(self, folder: Path | None, config: Any, rows: Any = None) -> None:
        """The tokenizer of a model; one that has none learns it from `rows`."""
        from pipelines.models import special_tokens
        from pipelines.models import text as language

        def texts() -> Iterator[str]:
            for column in TEXTS:
                yield from rows[column] if column in rows.column_names else ()

        self.tokenizer = language.tokenizer(folder, config, texts if rows is not None else None)
        if self.tokenizer.pad_token is None:
            if self.tokenizer.eos_token is None:
                raise ModelError(
                    "this model's tokenizer has no padding token, so texts cannot be read side by side: choose "
                    "another model"
                )
            self.tokenizer.pad_token = self.tokenizer.eos_token
        if getattr(config, "pad_token_id", None) is None:
            config.pad_token_id = self.tokenizer.pad_token_id  # a decoder finds the last token of a text by it
        self.window = language.length(self.options.max_length, self.tokenizer, config, 512)
        self.pads_left = language.summarises_last(config)
        self.reads_end = self.options.special_tokens == "keep" and language.reads_end(config)
        self.reader = special_tokens.reader(self.tokenizer, self.options.special_tokens)

    def _model(self, folder: Path | None, config: Any, random: bool = False, labels: Any = None) -> "nn.Module":
        from transformers import AutoModelForSequenceClassification
        from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as KINDS

        from pipelines.models import text as language

        language.check_kind(folder, config, KINDS, "classify texts", "ForSequenceClassification")
        return language.text_model(AutoModelForSequenceClassification, folder, config, random=random, labels=labels)

    def layers(self, model: Any) -> "list[nn.Module]":
        from pipelines.models import text as language

        return language.layers(model)

    def encode(self, rows: Any) -> EncodedTokens:
        from pipelines.models import text as language

        if self.pair and "text_pair" not in rows.column_names:
            raise DataError(
                "these data have no text_pair, and the model reads pairs: name its column with "
                "data.columns.text_pair=NAME"
            )
        if not self.options.regression:
            found = {part for label in rows["label"] for part in (label if isinstance(label, list) else [label])}
            check_known(found, self.labels)
        key = [self.name, self.window, self.reads_end, language.tokenizer_fingerprint(self.reader)]
        return EncodedTokens(encode(rows, self._tokens, key))

    def _tokens(self, rows: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
        """Token ids of the rows, cut if there are too many, and the number before the cut (`tokens`)."""
        texts = [rows[column] for column in TEXTS if column in rows]
        encoding = self.reader(*texts, verbose=False)
        examples = {key: encoding[key] for key in ("input_ids", "token_type_ids") if key in encoding}
        tokens = [len(ids) for ids in encoding["input_ids"]]
        long = [i for i, n in enumerate(tokens) if n > self.window]
        if long:
            cut = self.reader(*[[text[i] for i in long] for text in texts], truncation=True, max_length=self.window)
            for key, values in examples.items():
                for i, value in zip(long, cut[key], strict=True):
                    values[i] = value
        lengths = [len(ids) for ids in examples["input_ids"]]
        return {
            "id": rows["id"],
            "row": numbers,
            "label": rows["label"],
            "length": lengths,
            "tokens": tokens,
            **examples,
            **self._unusable(rows["id"], examples["input_ids"], len(texts)),
        }

    def _unusable(self, names: Sequence[str], ids: Sequence[Sequence[int]], texts: int) -> dict[str, list[str]]:
        """The column `wrong`, if the model reads the end token: it must stand in every row equally often."""
        if not self.reads_end:
            return {}
        end = self.tokenizer.eos_token_id
        usual = self.reader(*[["a"]] * texts)["input_ids"][0].count(end)
        why = f"its text holds {self.tokenizer.eos_token!r}, by which this model finds the end of a text: take it out"
        return {
            "wrong": ["" if one.count(end) == usual else f"{id_}: {why}" for id_, one in zip(names, ids, strict=True)]
        }

    def collate(self, examples: Sequence[Example]) -> Batch:
        import torch

        from pipelines.models import text as language

        true = [e["label"] for e in examples]
        if self.options.regression:
            target = torch.tensor(true, dtype=torch.float32)
        else:
            number_of = {label: i for i, label in enumerate(self.labels)}
            target = torch.zeros(len(true), len(self.labels))
            for line, label in zip(target, true, strict=True):
                for part in label if isinstance(label, list) else [label]:
                    if part in number_of:  # a label that the model does not know counts as an error in the scores
                        line[number_of[part]] = 1.0
        lists = {key: [e[key] for e in examples] for key in ("id", "row", "tokens")}
        return {**lists, "true": true, "target": target, **language.inputs(examples, self.tokenizer, self.pads_left)}

    # ---- one step ----

    def counts(self, batch: Batch) -> dict[str, float]:
        from pipelines.losses import classification as classes

        if self.options.regression:
            return {"examples": float(len(batch["id"]))}
        return classes.counts(
            batch["target"], classes.weights_of(self.weights, self.labels, "cpu"), self.options.multi_label
        )

    def loss(self, model: "nn.Module", batch: Batch, counts: Mapping[str, float], phase: str, step: int) -> "Tensor":
        from pipelines.losses import classification as classes

        logits = self._logits(model, batch)
        if self.options.regression:
            loss: Tensor = ((logits[:, 0] - batch["target"]) ** 2).sum() / counts["examples"]
            return loss
        weights = classes.weights_of(self.weights, self.labels, logits.device)
        return classes.loss(
            logits, batch["target"], counts, weights, self.options.multi_label, self.options.label_smoothing
        )

    def _logits(self, model: "nn.Module", batch: Batch) -> "Tensor":
        """[batch, classes], float32."""
        from pipelines.models import pretrained

        read = {key: batch[key] for key in ("input_ids", "attention_mask", "token_type_ids") if key in batch}
        logits: Tensor = pretrained.logits(model(**read)).float()
        return logits

    # ---- after training ----

    def predict(self, model: "nn.Module", batch: Batch) -> list[Record]:
        from pipelines.metrics import classification

        logits = self._logits(model, batch).detach().cpu()
        if self.options.regression:
            classification.check_finite(batch, logits)
            pairs = zip(batch["id"], batch["true"], logits[:, 0].tolist(), strict=True)
            records = [{"id": id_, "true": true, "predicted": predicted} for id_, true, predicted in pairs]
        else:
            records = classification.records(batch, logits, self.labels, self.options.multi_label)
        return [{**record, "tokens": tokens} for record, tokens in zip(records, batch["tokens"], strict=True)]

    def statistics(self, records: Sequence[Record], rows: Any) -> "Statistics":
        from pipelines.metrics import classification, regression

        if self.options.regression:
            return regression.statistics(records)
        return classification.statistics(records, self.labels, self.options.multi_label)

    def summarize(self, statistics: "Statistics", weights: "np.ndarray") -> dict[str, float]:
        from pipelines.metrics import classification, regression

        if self.options.regression:
            return regression.summarize(statistics, weights)
        found = classification.summarize(statistics, weights)
        return found if self.options.multi_label else {**found, **classification.matthews(statistics, weights)}

    def _by_length(self) -> tuple[Any, str, int]:
        """The quantity to average over texts of similar length, its name, and the length at which texts are cut."""
        if self.options.regression:
            return lambda r: abs(r["true"] - r["predicted"]), "mean_absolute_error", self.window
        if self.options.multi_label:
            return lambda r: float(set(r["true"]) == set(r["predicted"])), "subset_accuracy", self.window
        return lambda r: float(r["true"] == r["predicted"]), "accuracy", self.window

    def tables(self, records: Sequence[Record], rows: Any) -> dict[str, list[dict[str, Any]]]:
        from pipelines.metrics import by_length as lengths
        from pipelines.metrics import classification

        by_length = {"by text length": lengths.table(records, *self._by_length())}
        if self.options.regression:
            return by_length
        return {"per class": classification.per_class(records, self.labels, self.options.multi_label), **by_length}

    def figures(self, records: Sequence[Record], rows: Any) -> dict[str, Any]:
        from pipelines.plots import by_length as by_length_plots
        from pipelines.plots import classification as classification_plots
        from pipelines.plots import regression as regression_plots

        by_length = by_length_plots.figures(records, *self._by_length())
        if self.options.regression:
            return {**regression_plots.figures(records), **by_length}
        return {**classification_plots.figures(records, self.labels, multi_label=self.options.multi_label), **by_length}

    @property
    def mistakes(self) -> "MistakeSpec":
        from pipelines.reporting.mistakes import SURE, MistakeSpec, surest_label

        if self.options.regression:
            return MistakeSpec(
                rank=lambda record: abs(record["true"] - record["predicted"]) or None,
                show=self._shown,
                order="The largest errors come first.",
                marks="Words that raised the number are orange, words that lowered it blue.",
                title="Largest errors",
            )
        return MistakeSpec(
            rank=lambda record: surest_label(record, self.options.multi_label),
            show=self._shown,
            order=SURE,
            marks="Words that raised the score of the wrong answer are orange, words that lowered it blue. "
            "In a text without marks no single word decides.",
        )

    def _shown(self, record: Record, row: Mapping[str, Any], model: Any) -> "Mistake":
        from pipelines.reporting.mistakes import Mistake, labelled

        texts = tuple(row[column] for column in TEXTS if column in row)
        shown = self._marked(texts, self._deciding(model, record, texts) if model is not None else [], FLAT)
        if self.options.regression:
            true, predicted = (f"{record[key]:.4g}" for key in ("true", "predicted"))
            return Mistake(
                true, predicted, facts={"Error": f"{record['predicted'] - record['true']:+.4g}"}, texts=shown
            )
        return replace(labelled(record, self.options.multi_label), texts=shown)

    def _marked(
        self, texts: tuple[str, ...], drops: "Sequence[tuple[Region, float]]", flat: float, by: str = ""
    ) -> "dict[str, list[Piece]]":
        """The texts by their names, with marks on the words whose values are more than `flat` and not much weaker than
        the strongest one.
        """
        from pipelines.reporting.mistakes import spans

        marks: list[list[tuple[int, int, str, float]]] = [[] for _ in texts]
        highest = max((abs(drop) for _, drop in drops), default=0.0)
        for region, drop in drops if highest > flat else []:
            share = abs(drop) / highest
            if share > 0.1:
                marks[region.text].append((region.start, region.end, "for" if drop > 0 else "against", share))
        names = ("Text",) if len(texts) == 1 else ("First text", "Second text")
        return {f"{name}{by}": spans(text, found) for name, text, found in zip(names, texts, marks, strict=True)}

    def _deciding(self, model: Any, record: Record, texts: tuple[str, ...]) -> "list[tuple[Region, float]]":
        """The words that decide the (surest wrong) answer, and how much its log-odds, or the number, fall without
        each.
        """
        from pipelines.models.attribution import log_odds
        from pipelines.models.occlusion import deciding_words
        from pipelines.reporting.mistakes import wrong_labels

        wrong = wrong_labels(record)[:1] if self.options.multi_label else [(str(record["predicted"]), 1.0, True)]
        if not wrong or (not self.options.regression and wrong[0][0] not in self.labels):
            return []  # a true label that the model does not know
        label, _, given = wrong[0]
        number = 0 if self.options.regression else self.labels.index(label)

        def score(batch: dict[str, Any]) -> "Tensor":
            chosen = log_odds(self._logits(model, batch), number, self.data.label_kind)
            return chosen if given else -chosen

        return deciding_words(model, self._encoder(model), score, texts, self._places(texts), HIDDEN)

    def _encoder(self, model: Any) -> "Callable[[Sequence[tuple[str, ...]]], dict[str, Any]]":
        """A function that turns texts or pairs into the model's input, on its device."""
        from pipelines.models import text as language

        device = next(model.parameters()).device

        def encode(inputs: Sequence[tuple[str, ...]]) -> dict[str, Any]:
            columns = [list(column) for column in zip(*inputs, strict=True)]
            found = self.reader(*columns, truncation=True, max_length=self.window)
            rows = [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]
            ready = language.inputs(rows, self.tokenizer, self.pads_left)
            return {key: value.to(device) for key, value in ready.items()}

        return encode

    def _places(self, texts: tuple[str, ...]) -> list[tuple[int | None, int, int]]:
        """The number of the text (None: none of them) and the characters of every token."""
        lists = [[text] for text in texts]
        own = self.reader(*lists, truncation=True, max_length=self.window, return_offsets_mapping=True)
        return [(part, *place) for part, place in zip(own.sequence_ids(0), own["offset_mapping"][0], strict=True)]

    # ---- the model folder ----

    def save(self, model: Any, folder: Path) -> None:
        model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _read_inputs(self, folder: Path) -> None:
        config = read_json_object(folder / "config.json") or {}
        pairs = config.get("reads_pairs")  # only models that Graft trained state it
        self.pair, self.single = bool(pairs), pairs is False

    def load(self, folder: Path) -> "nn.Module":
        from pipelines.models import pretrained

        config = pretrained.read_config(folder, None)
        kinds = {
            "regression": config.problem_type == "regression",
            "multi_label": config.problem_type == "multi_label_classification",
        }
        self.options = self.options.model_copy(update=kinds)
        self.labels = [] if self.options.regression else [config.id2label[index] for index in range(config.num_labels)]
        self._read_inputs(folder)
        self._read_tokens(folder, config)
        return self._model(folder, config).eval()

    def infer(self, model: Any, text: str, text_pair: str | None = None, top_k: int = 5) -> Iterator[Any]:
        """The `top_k` labels of a text or pair, best first: [{"label", "score"}]; for regression {"value": number}."""
        yield answer_one(self, model, text=text, text_pair=text_pair, top_k=top_k)

    def prepare(self, asked: Sequence[Mapping[str, Any]]) -> list[Example | DataError]:
        examples: list[Example | DataError] = list(each(self._asked, asked))
        for columns in (TEXTS[:1], TEXTS):
            rows = [
                e for e in examples if not isinstance(e, DataError) and tuple(c for c in TEXTS if c in e) == columns
            ]
            if rows:
                given = {key: [row[key] for row in rows] for key in (*columns, "id", "label")}
                tokens = self._tokens(given, list(range(len(rows))))
                for place, row in enumerate(rows):
                    row |= {key: values[place] for key, values in tokens.items()}
        return [DataError(e["wrong"]) if not isinstance(e, DataError) and e.get("wrong") else e for e in examples]

    def _asked(self, one: Mapping[str, Any]) -> Example:
        row = {column: one.get(column) for column in TEXTS if column == "text" or one.get(column) is not None}
        texts = {column: _text(row, column) for column in row}
        if self.pair and len(texts) < 2:
            raise DataError("this model reads two texts: give text_pair, too")
        if self.single and len(texts) > 1:
            raise DataError("this model was trained on single texts: leave text_pair out")
        return {**texts, "id": "input", "label": None, "top_k": one.get("top_k", 5)}

    def answer(self, model: Any, examples: Sequence[Example]) -> list[Any]:
        import torch

        from pipelines.metrics import classification
        from pipelines.models import text as language

        device = next(model.parameters()).device
        read = language.inputs(examples, self.tokenizer, self.pads_left)
        with torch.inference_mode():
            logits = self._logits(model, {key: value.to(device) for key, value in read.items()}).cpu()
        if self.options.regression:
            return [{"value": value} for value in logits[:, 0].tolist()]
        return classification.ranked(logits, self.labels, self.options.multi_label, [e["top_k"] for e in examples])

    def read(self, *texts: str) -> list[int]:
        """The number of characters of each text that the model reads before the cut."""
        places = self._places(texts)
        return [max((end for part, _, end in places if part == number), default=0) for number in range(len(texts))]

    def parts(self, model: Any, row: Mapping[str, Any]) -> "Parts":
        """A text or pair in words. Raises DataError."""
        from pipelines.models import attribution

        given = {column: row[column] for column in TEXTS if row.get(column) is not None}
        (example,) = self.prepare([given])
        if isinstance(example, DataError):
            raise example
        texts = tuple(example[column] for column in given)
        filler = self.tokenizer.pad_token_id

        def classify(batch: dict[str, Any]) -> "Tensor":
            return self._logits(model, batch)

        return attribution.of_text(model, self._encoder(model), classify, texts, self._places(texts), filler)

    def map_texts(
        self, row: Mapping[str, Any], parts: "Parts", values: "np.ndarray", method: str
    ) -> "dict[str, list[Piece]]":
        """The texts with the words marked that a heat map finds strong."""
        texts = tuple(row[column] for column in TEXTS if row.get(column) is not None)
        return self._marked(texts, list(zip(parts.places, values.tolist(), strict=True)), 0.0, f", by {method}")
