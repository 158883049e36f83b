"""Extractive question answering: find the answer to a question in a passage, or that it has none (`options.version:
"2.0"`).

Any `AutoModelForQuestionAnswering`: BERT, DistilBERT, RoBERTa, DeBERTa, ModernBERT, MiniLM. Rows hold `question`,
`context` and `answer`: SQuAD's {"text": [...], "answer_start": [...]} or plain text (Rajpurkar et al. 2016,
arXiv:1606.05250). A passage that is too long for the model becomes several overlapping windows; the answer is the best
span of all windows.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator

from pipelines.config.recipe import Float, Int, Strict
from pipelines.data.encoding import EncodedTokens, encode
from pipelines.data.schema import DataSpec
from pipelines.data.text.passages import answered, token_span
from pipelines.data.text.rows import SpecialTokens
from pipelines.errors import DataError, ModelError
from pipelines.task import Batch, Example, HubSpec, Record, Task, answer_one
from pipelines.utils.sequences import each

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from pipelines.metrics.statistics import Statistics
    from pipelines.reporting.mistakes import Mistake, MistakeSpec

WINDOWS = 8  # of one passage that are read at a time
CANDIDATES = 20  # spans per window that may become the answer, as in the example of transformers


class Options(Strict):
    version: Literal["1.1", "2.0"] = "1.1"
    """`2.0`: some questions have no answer in their passage."""
    max_length: Annotated[Int, Field(ge=16, le=8192)] | None = None
    """Tokens of a window with the question. Left out: 384, or fewer if the model reads fewer."""
    stride: Annotated[Int, Field(ge=0, le=4096)] | None = None
    """Tokens that neighbouring windows share. Left out: 128, or half of the passage part of a window."""
    max_answer_length: Annotated[Int, Field(ge=1, le=512)] = 30
    """Longest answer in tokens."""
    max_question_length: Annotated[Int, Field(ge=4, le=4096)] = 64
    """Longest question in tokens; longer questions are cut."""
    special_tokens: SpecialTokens = "text"
    """How special tokens of the model in a text (<s>, [SEP]) are read: as ordinary `text`, or `keep` their meaning."""
    attention_dropout: Annotated[Float, Field(ge=0, lt=1)] | None = None
    """Dropout of the attention.

    Left out: the model's own. On a CPU, 0 makes training about twice as fast, because any other value stores the full
    attention matrix.
    """

    @field_validator("version", mode="before")
    @classmethod
    def _as_text(cls, version: Any) -> Any:
        """A shell takes the quotes of "2.0" away, and YAML then reads a number."""
        return str(version) if isinstance(version, float) else version


class QuestionAnswering(Task):
    name = "question-answering"
    hub = HubSpec("question-answering", "transformers", ("ForQuestionAnswering",))
    Options = Options
    tokenizer: Any
    reader: Any  # the tokenizer that reads texts (models.special_tokens)
    threshold: float = 0.0  # no answer is given if its score exceeds that of the best span by more than this

    @property
    def data(self) -> DataSpec:
        return DataSpec(
            columns={"question": "text", "context": "text", "answer": "text"},
            optional_columns={"answer_start": "number", "title": "text"},
            group_column="title",
            input_columns=("question", "context"),
            clean=lambda row: answered(row, self.options.version == "2.0"),
            record_fields=("predicted",),
        )

    @property
    def metrics(self) -> Mapping[str, str]:
        from pipelines.metrics import question_answering

        more = question_answering.WITHOUT_ANSWERS if self.options.version == "2.0" else {}
        return {**question_answering.DIRECTIONS, **more}

    # ---- before training ----

    def build(self, source: Any, splits: Any) -> "nn.Module":
        from pipelines.models import pretrained, special_tokens, text

        config = pretrained.read_config(source.folder, source.config)
        self._read_tokens(source.folder, config)
        texts = [splits.train["question"], splits.train["context"]]
        special_tokens.warn(self.tokenizer, texts, self.options.special_tokens)
        text.set_attention_dropout(config, self.options.attention_dropout)
        return self._model(source.folder, config, source.random)

    def _read_tokens(self, folder: Path | None, config: Any) -> None:
        """Read the tokenizer and the window size.

        Raises ModelError if neighbouring windows cannot share `options.stride` tokens.
        """
        from pipelines.models import special_tokens, text

        self.tokenizer = text.tokenizer(folder, config)
        self.reader = special_tokens.reader(self.tokenizer, self.options.special_tokens)
        self.window = text.length(self.options.max_length, self.tokenizer, config, 384)
        room = self.window - self.options.max_question_length - 3
        self.stride = min(128, room // 2) if self.options.stride is None else self.options.stride
        if room <= self.stride:
            raise ModelError(
                f"options.stride: windows of {self.window} tokens less a question of up to "
                f"{self.options.max_question_length} cannot share "
                f"{self.stride}: lower options.stride or options.max_question_length"
            )

    def _model(self, folder: Path | None, config: Any, random: bool = False) -> "nn.Module":
        from transformers import AutoModelForQuestionAnswering
        from transformers.models.auto.modeling_auto import MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES as KINDS

        from pipelines.models import text

        text.check_kind(folder, config, KINDS, "point at answers in a passage")
        return text.text_model(AutoModelForQuestionAnswering, folder, config, random=random)

    def layers(self, model: Any) -> "list[nn.Module]":
        from pipelines.models import text

        return text.layers(model)

    def encode(self, rows: Any) -> EncodedTokens:
        from pipelines.models import text

        return EncodedTokens(
            encode(
                rows,
                self._windows,
                [self.name, self.options.model_dump(), self.window, text.tokenizer_fingerprint(self.reader)],
            )
        )

    def _windows(self, rows: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
        """Split rows into windows: tokens, their positions in the passage, and the first accepted answer (0, 0 if not
        in it).
        """
        questions = [q.strip() for q in rows["question"]]
        cut = self.reader(
            questions, add_special_tokens=False, truncation=True, max_length=self.options.max_question_length
        )
        questions = [
            q if len(ids) < self.options.max_question_length else self.tokenizer.decode(ids)
            for q, ids in zip(questions, cut["input_ids"], strict=True)
        ]
        encoding = self.reader(
            questions,
            rows["context"],
            truncation="only_second",
            max_length=self.window,
            stride=self.stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        examples: dict[str, list[Any]] = {
            key: [] for key in ("id", "row", "length", "input_ids", "first", "offsets", "start", "end")
        }
        if "token_type_ids" in encoding:
            examples["token_type_ids"] = encoding["token_type_ids"]
        for window, place in enumerate(encoding["overflow_to_sample_mapping"]):
            parts = encoding.sequence_ids(window)
            if 1 not in parts:
                raise DataError(
                    f"{rows['id'][place]}: its context holds no word that this model's tokenizer knows: take the row "
                    "out"
                )
            first = parts.index(1)
            last = len(parts) - 1 - parts[::-1].index(1)
            offsets = encoding["offset_mapping"][window][first : last + 1]
            answer = rows["answer"][place]
            start, end = (
                token_span(offsets, answer["answer_start"][0], len(answer["text"][0])) if answer["text"] else (-1, -1)
            )
            examples["id"].append(rows["id"][place])
            examples["row"].append(numbers[place])
            examples["length"].append(len(parts))
            examples["input_ids"].append(encoding["input_ids"][window])
            examples["first"].append(first)
            examples["offsets"].append([list(pair) for pair in offsets])
            examples["start"].append(first + start if start >= 0 else 0)
            examples["end"].append(first + end if start >= 0 else 0)
        return examples

    def collate(self, examples: Sequence[Example]) -> Batch:
        import torch

        from pipelines.models import text

        return {
            **{key: [e[key] for e in examples] for key in ("id", "row", "first", "offsets")},
            **text.inputs(examples, self.tokenizer),
            "start": torch.tensor([e["start"] for e in examples]),
            "end": torch.tensor([e["end"] for e in examples]),
        }

    # ---- one step ----

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"examples": float(len(batch["id"]))}

    def loss(self, model: "nn.Module", batch: Batch, counts: Mapping[str, float], phase: str, step: int) -> "Tensor":
        """Mean cross-entropy of the first and the last token.

        Padding is excluded; the library's own loss includes it.
        """
        from torch.nn import functional as f

        start, end = self._logits(model, batch)
        total = f.cross_entropy(start, batch["start"], reduction="sum") + f.cross_entropy(
            end, batch["end"], reduction="sum"
        )
        return total / 2 / counts["examples"]

    def _logits(self, model: "nn.Module", batch: Batch) -> "tuple[Tensor, Tensor]":
        """Start and end logits [batch, length], float32; padding is -inf."""
        fields = {key: batch[key] for key in ("input_ids", "attention_mask", "token_type_ids") if key in batch}
        found = model(**fields)
        padding = batch["attention_mask"] == 0
        start, end = (
            logits.float().masked_fill(padding, float("-inf")) for logits in (found.start_logits, found.end_logits)
        )
        return start, end

    # ---- after training ----

    def predict(self, model: "nn.Module", batch: Batch) -> list[Record]:
        """The best spans of each window as [score, first character, end], and the score of no answer."""
        import torch

        start, end = (logits.detach().cpu() for logits in self._logits(model, batch))
        records = []
        for i, (first, offsets) in enumerate(zip(batch["first"], batch["offsets"], strict=True)):
            inside = slice(first, first + len(offsets))
            pairs = start[i, inside, None] + end[i, None, inside]
            # The end is at or after the start, and an answer has at most `max_answer_length` tokens.
            allowed = torch.ones_like(pairs, dtype=torch.bool).triu().tril(self.options.max_answer_length - 1)
            best = pairs.masked_fill(~allowed, float("-inf")).flatten().topk(min(CANDIDATES, int(allowed.sum())))
            spans = [
                [score, offsets[place // len(offsets)][0], offsets[place % len(offsets)][1]]
                for score, place in zip(best.values.tolist(), best.indices.tolist(), strict=True)
            ]
            records.append(
                {"id": batch["id"][i], "row": batch["row"][i], "spans": spans, "null": float(start[i, 0] + end[i, 0])}
            )
        return records

    def merge(self, records: Sequence[Record], rows: Any) -> list[Record]:
        """One record per row: the best span of all windows; no answer if that beats it by more than the threshold."""
        from pipelines.metrics.question_answering import judge

        found: dict[int, list[Record]] = {}
        for record in records:
            found.setdefault(record["row"], []).append(record)
        merged = []
        for number, windows in sorted(found.items()):
            row = rows[number]
            ranked, null = _ranked(windows)
            margin = null - ranked[0][0]
            scores = _softmax([span[0] for span in ranked] + ([null] if self.options.version == "2.0" else []))
            best = [
                {"text": row["context"][s:e], "start": s, "end": e, "score": p}
                for p, (_, s, e) in zip(scores, ranked, strict=False)
            ]
            none = self.options.version == "2.0" and margin > self.threshold
            predicted = "" if none else best[0]["text"]
            true = list(row["answer"]["text"])
            merged.append(
                {
                    "id": row["id"],
                    "question": row["question"],
                    "true": true,
                    "predicted": predicted,
                    **judge(predicted, true),
                    "confidence": scores[-1] if none else best[0]["score"],
                    "margin": margin,
                    "span": best[0]["text"],
                    "nbest": best[:5],
                }
            )
        return merged

    def calibrate(self, records: Sequence[Record], rows: Any) -> dict[str, Any]:
        from pipelines.metrics.question_answering import no_answer_threshold

        if self.options.version == "1.1":
            return {}
        self.threshold = no_answer_threshold(records)
        return {"no_answer_threshold": self.threshold}

    def statistics(self, records: Sequence[Record], rows: Any) -> "Statistics":
        from pipelines.metrics import question_answering

        return question_answering.statistics(records)

    def summarize(self, statistics: "Statistics", weights: "np.ndarray") -> dict[str, float]:
        from pipelines.metrics import question_answering

        return question_answering.summarize(statistics, weights)

    def tables(self, records: Sequence[Record], rows: Any) -> dict[str, list[dict[str, Any]]]:
        from pipelines.metrics import question_answering

        return question_answering.tables(records)

    def figures(self, records: Sequence[Record], rows: Any) -> dict[str, Any]:
        from pipelines.plots import question_answering as question_answering_plots

        return question_answering_plots.figures(records)

    @property
    def mistakes(self) -> "MistakeSpec":
        from pipelines.reporting.mistakes import MistakeSpec

        return MistakeSpec(
            rank=lambda record: (1 - record["f1"]) * record["confidence"] or None,
            show=self._shown,
            order="The mistakes of which the model was surest come first; partly right answers count less.",
            marks="The right answer is green, the predicted one orange.",
        )

    def _shown(self, record: Record, row: Mapping[str, Any], model: Any) -> "Mistake":
        from pipelines.reporting.mistakes import Mistake, Piece, spans

        passage, best = row["context"], record["nbest"][0]
        found = [(best["start"], best["end"], "predicted", 1.0)] if record["predicted"] else []
        for start, answer in zip(row["answer"]["answer_start"], row["answer"]["text"], strict=False):
            found.append((start, start + len(answer), "true", 1.0))
        return Mistake(
            " / ".join(dict.fromkeys(record["true"])) or "no answer",
            record["predicted"] or "no answer",
            record["confidence"],
            facts={"F1": f"{record['f1']:.2f}"} if record["f1"] else {},
            texts={"Question": [Piece(row["question"])], "Passage": spans(passage, found)},
        )

    # ---- the model folder ----

    def save(self, model: Any, folder: Path) -> None:
        model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def load(self, folder: Path) -> "nn.Module":
        from pipelines.models import pretrained

        config = pretrained.read_config(folder, None)
        self._read_tokens(folder, config)
        threshold = getattr(config, "no_answer_threshold", None)
        if threshold is not None:
            self.threshold = threshold
            self.options = self.options.model_copy(update={"version": "2.0"})
        return self._model(folder, config).eval()

    def infer(self, model: Any, question: str, context: str) -> Iterator[dict[str, Any]]:
        """The answer in the passage: {"answer", "score", "start", "end", "nbest"}.

        The answer is empty if there is none.
        """
        yield answer_one(self, model, question=question, context=context)

    def prepare(self, asked: Sequence[Mapping[str, Any]]) -> list[Example | DataError]:
        return each(self._asked, asked)

    def _asked(self, one: Mapping[str, Any]) -> Example:
        row = answered({"id": "input", "question": one["question"], "context": one["context"], "answer": []}, True)
        found = self._windows({key: [value] for key, value in row.items()}, [0])
        windows = [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]
        return {"asked": row, "windows": windows, "length": len(windows) * max(found["length"])}

    def answer(self, model: Any, examples: Sequence[Example]) -> list[Any]:
        import torch

        from pipelines.data.batching import on_device

        device, records = next(model.parameters()).device, []
        windows = [{**window, "row": place} for place, e in enumerate(examples) for window in e["windows"]]
        windows.sort(key=lambda window: -window["length"])
        at_once = max(WINDOWS, len(examples))
        for start in range(0, len(windows), at_once):
            batch = on_device(self.collate(windows[start : start + at_once]), device)
            with torch.inference_mode():
                records += self.predict(model, batch)
        return [_answer(found) for found in self.merge(records, [e["asked"] for e in examples])]


def _answer(found: Record) -> dict[str, Any]:
    best = found["nbest"][0]
    where = {"start": best["start"], "end": best["end"]} if found["predicted"] else {"start": None, "end": None}
    return {"answer": found["predicted"], "score": found["confidence"], **where, "nbest": found["nbest"]}


# ---- spans ----


def _ranked(windows: Sequence[Record]) -> tuple[list[list[Any]], float]:
    """The spans of all windows without repetition, best first; and the lowest score of no answer of all windows."""
    best: dict[tuple[int, int], float] = {}
    for score, start, end in (span for window in windows for span in window["spans"]):
        best[start, end] = max(score, best.get((start, end), float("-inf")))
    ranked = sorted(best.items(), key=lambda item: (-item[1], item[0]))[:CANDIDATES]
    return [[score, *span] for span, score in ranked], min(window["null"] for window in windows)


def _softmax(scores: Sequence[float]) -> list[float]:
    import math

    powers = [math.exp(score - max(scores)) for score in scores]
    return [power / sum(powers) for power in powers]
