"""Text generation: continue a text, answer a prompt (`options.prompt`) or a chat (`options.chat`).

Any `AutoModelForCausalLM`: GPT-2, SmolLM, Qwen, Llama. Without a prompt, rows hold `text`; texts are packed into full
blocks, and every token counts (perplexity, bits per byte). With a prompt such as "{context} Question: {question}
Answer:", rows hold its columns and `answer`. The loss is then on the answer alone, and greedy answers are scored as in
SQuAD. Radford et al. 2019 introduced both uses. In a chat, rows hold conversations in one of several layouts
(pipelines.data.text.chat); the model's own chat template writes them, and the loss is on the answers alone.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from pipelines.config.recipe import Float, Int, Strict, of_a_run
from pipelines.data.encoding import EncodedTokens, encode
from pipelines.data.schema import DataSpec
from pipelines.data.text import chat, chat_tokens
from pipelines.data.text.packing import IGNORED, blocks, positions, token_ids
from pipelines.data.text.passages import answer_texts
from pipelines.data.text.prompts import columns, encoded
from pipelines.data.text.rows import SpecialTokens, readable, titled
from pipelines.errors import DataError, ModelError
from pipelines.losses.language_modelling import Head, at_targets, nats
from pipelines.models.classic_kinds import KINDS as CLASSICS
from pipelines.task import Batch, Example, HubSpec, Record, Task
from pipelines.utils.sequences import each
from pipelines.utils.settings import Setting

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from pipelines.losses.language_modelling import Measure
    from pipelines.metrics.statistics import Statistics
    from pipelines.reporting.mistakes import Mistake, MistakeSpec


log = logging.getLogger("graft")

SHORT = 32  # tokens: where half of the right answers are no longer, the answers of the model are scored word by word

SETTINGS = {
    "seed": Setting(int, 0, 2**63 - 1),
    "temperature": Setting(float, 0, 10),
    "top_p": Setting(float, 0, 1),
    "max_new_tokens": Setting(int, 1, 4096),
}


class Options(Strict):
    learned: ClassVar[tuple[str, ...]] = ("prompt", "chat")

    prompt: str | None = None
    """A text with column names in braces; `answer` follows it. Left out: the model learns every token of `text`."""
    chat: bool = False
    """Rows are conversations. The model learns the answers, and not what is asked."""
    rows: Literal["document", "line"] = "document"
    """`line`: rows are the lines of one running text (WikiText), so earlier lines are context of a line."""
    max_length: Annotated[Int, Field(ge=8, le=1_000_000)] | None = None
    """Tokens of a block, of prompt and answer together, or of a conversation.

    Left out: 1024, or fewer if the model reads fewer. The end of a longer conversation is cut.
    """
    max_new_tokens: Annotated[Int, Field(ge=1, le=4096)] = 48
    """Longest answer in tokens, and longest continuation by `predict` and the demo."""
    attention_dropout: Annotated[Float, Field(ge=0, lt=1)] | None = None
    """Dropout of the attention.

    Left out: the model's own. On a CPU, 0 makes training about twice as fast, because any other value stores the full
    attention matrix.
    """
    special_tokens: SpecialTokens = "text"
    """How special tokens of the model in a text (<s>, [SEP]) are read: as ordinary `text`, or `keep` their meaning.

    Special tokens that `prompt` names keep it in any case.
    """

    @field_validator("prompt")
    @classmethod
    def _names_columns(cls, prompt: str | None, info: ValidationInfo) -> str | None:
        if prompt is not None and "answer" in columns(prompt) and not of_a_run(info):
            raise ValueError(
                "{answer} is what is to follow the prompt: take it out, and end the prompt where the answer is to begin"
            )
        return prompt

    @model_validator(mode="after")
    def _one_form(self) -> "Options":
        if self.chat and (self.prompt is not None or self.rows == "line"):
            other = "options.rows=line" if self.prompt is None else "options.prompt"
            raise ValueError(f"options.chat and {other} are two forms of data: leave one out")
        if self.chat and self.special_tokens == "keep":
            raise ValueError("special tokens in a message are words in a chat: leave options.special_tokens out")
        return self


class TextGeneration(Task):
    name = "text-generation"
    hub = HubSpec("text-generation", "transformers", ("ForCausalLM", "LMHeadModel"))
    Options = Options
    tokenizer: Any
    head: Head | None = None  # the last layer, after `build` or `load`
    reader: Any  # the tokenizer that reads texts (models.special_tokens)
    template: str  # `options.prompt` as the reader takes it
    packs: bool = True  # whether the attention of the model separates the documents of a block
    words_only: bool = False  # whether the tokens say less than the bytes of a text
    end: int | None = None  # the token that ends an answer in a chat; None: that which ends a text

    @property
    def _packed(self) -> bool:
        """Whether the model learns every token of texts, and not answers alone."""
        return self.options.prompt is None and not self.options.chat

    @property
    def _inputs(self) -> tuple[str, ...]:
        if self.options.chat:
            return (chat.KIND,)
        return ("text",) if self.options.prompt is None else columns(self.options.prompt)

    @property
    def data(self) -> DataSpec:
        if self.options.chat:
            return DataSpec(
                columns={chat.KIND: chat.KIND},
                input_columns=self._inputs,
                settings=SETTINGS,
                clean=_conversation,
                example=_sample,
            )
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
    def metrics(self) -> Mapping[str, str]:
        from pipelines.metrics import language_modelling, question_answering

        if self._packed:
            return {**language_modelling.TOKENS, **({} if self.words_only else language_modelling.BYTES)}
        if self.options.chat:
            return {**language_modelling.TOKENS, **question_answering.DIRECTIONS}
        return {**question_answering.DIRECTIONS, **language_modelling.TOKENS}

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
        from pipelines.models import special_tokens

        model = self._read(source.folder, source.config, source.random, splits.train)
        if self.words_only and self._packed:
            log.warning(
                "model.config.tokenizer=words: an unknown word is one token, and spaces are none, so perplexity is of "
                "these tokens, and there are no bits per byte"
            )
        if self.options.chat:
            self._tell_of_marks(splits.train)
            return model
        texts = [splits.train[column] for column in self._inputs]
        if self.options.prompt is not None:
            texts.append([answers[0] for answers in splits.train["answer"][: special_tokens.MOST_LOOKED_AT]])
        special_tokens.warn(self.tokenizer, texts, self.options.special_tokens)
        return model

    def _tell_of_marks(self, rows: Any) -> None:
        """Warn of messages that hold marks of the tokenizer."""
        from pipelines.models import special_tokens

        looked = rows[chat.KIND][: special_tokens.MOST_LOOKED_AT]
        found = chat_tokens.marks_in(self.tokenizer, self.end)
        marks = [mark for mark in map(found, looked) if mark]
        if marks:
            log.warning(
                "%d of %d conversations of train hold special tokens of this model (%s): they are read as words",
                len(marks),
                len(looked),
                ", ".join(map(repr, dict.fromkeys(mark for some in marks for mark in some))),
            )

    def _learned(self, rows: Any) -> Iterator[str]:
        """The texts from which a tokenizer is learned."""
        if self.options.chat:
            yield from (str(message["content"]) for messages in rows[chat.KIND] for message in messages)
        elif self.options.prompt is None:
            yield from rows["text"]
        else:
            for row in rows:
                yield f"{self.options.prompt.format(**{name: row[name] for name in self._inputs})} {row['answer'][0]}"

    def _read(
        self, folder: Path | None, config: dict[str, Any] | None, random: bool = False, rows: Any = None
    ) -> "nn.Module":
        """The model with its tokenizer; a model that has none learns it from `rows`."""
        from transformers import AutoModelForCausalLM
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as KINDS
        from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as MASKED

        from pipelines.models import learned_tokenizer, pretrained, special_tokens, word_vectors
        from pipelines.models import text as language

        found = pretrained.read_config(folder, config)
        language.check_kind(folder, found, KINDS, "write text word by word", "ForCausalLM")
        if found.model_type in MASKED and not found.is_decoder:
            raise ModelError(
                f"{pretrained.called(folder)}: a {found.model_type} model sees the words to come: task fill-mask fits "
                "it"
            )
        learned = None if rows is None else lambda: self._learned(rows)
        self.tokenizer = language.tokenizer(folder, found, learned, begins=True)
        self.words_only = learned_tokenizer.loses_text(self.tokenizer)
        vectors = word_vectors.of(found, self.tokenizer, folder)
        if self.tokenizer.eos_token_id is None:
            raise ModelError(
                f"{pretrained.called(folder)}: its tokenizer has no end-of-text token (eos_token), by which a text ends"
            )
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.reader = special_tokens.reader(self.tokenizer, self.options.special_tokens)
        marks = special_tokens.marks(self.tokenizer)
        self.template = special_tokens.guarded(self.options.prompt or "", self.reader, marks)
        if self.options.chat and found.model_type in CLASSICS:
            raise ModelError(
                f"options.chat: a {found.model_type} model has no chat template: take a pretrained chat model, or "
                "write the turns with options.prompt"
            )
        if self.options.chat:
            self._read_template(pretrained.called(folder))
        language.set_attention_dropout(found, self.options.attention_dropout)
        self.limit = language.longest(self.tokenizer, found)
        self.window = language.length(self.options.max_length, self.tokenizer, found, 1024)
        model = language.language_model(AutoModelForCausalLM, folder, found, random=random)
        if vectors:
            word_vectors.put(model, vectors, frozen=found.freeze_word_vectors)
        self.packs = language.keeps_apart(model)
        self.head = language.scores_of(model)
        return model

    def _read_template(self, name: str) -> None:
        """Find how the chat template ends an answer; a model without a template gets one. Raises ModelError."""
        if self.tokenizer.chat_template is None:
            self.tokenizer.chat_template = chat_tokens.template_for(self.tokenizer)
            log.warning("%s has no chat template: Graft's own one is used and saved with the model", name)
        try:
            self.end = chat_tokens.end_of_turn(self.tokenizer)
        except (DataError, ValueError) as error:  # several templates, and none of them the default one
            raise ModelError(f"{name}: {error}") from None

    @property
    def _ends(self) -> set[int]:
        """The tokens at which an answer or a text ends."""
        return {self.tokenizer.eos_token_id, *(() if self.end is None else (self.end,))}

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
            self.template,
            self.end,
            language.tokenizer_fingerprint(self.reader),
        ]
        if self.options.chat:
            made = encode(rows, self._chatted, [*key, self.tokenizer.chat_template], at_once=1_000)
            self._tell_of_cuts(made)
            return EncodedTokens(made.add_column("scored", [self._all_short(made)] * len(made)))
        made = encode(rows, self._blocks if self.options.prompt is None else self._answered, key, at_once=10_000)
        return EncodedTokens(made)

    def _blocks(self, rows: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
        """Pack texts into full blocks. The tokenizer's first and last special token enclose each document."""
        words = self.tokenizer
        first = words.eos_token_id if words.bos_token_id is None else words.bos_token_id
        found = token_ids(self.reader, rows["text"])
        running = self.options.rows == "line"
        texts = [
            (number, ids if running else _enclosed(ids, first, words.eos_token_id), place == 0 or not running)
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
        examples = encoded(self.reader, asked, rows["answer"], self.window)
        examples["wrong"] = [why and f"{id_}: {why}" for id_, why in zip(rows["id"], examples["wrong"], strict=True)]
        return {"id": rows["id"], "row": numbers, **examples}

    def _chatted(self, rows: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
        """Tokens of conversations with their answers as targets."""
        examples = chat_tokens.encoded(self.tokenizer, rows[chat.KIND], self.window, self.end)
        examples["wrong"] = [why and f"{id_}: {why}" for id_, why in zip(rows["id"], examples["wrong"], strict=True)]
        return {"id": rows["id"], "row": numbers, **examples}

    def _tell_of_cuts(self, made: Any) -> None:
        cuts = [(gone, cut) for gone, cut in zip(made["gone"], made["cut"], strict=True) if gone or cut]
        if cuts:
            log.warning(
                "%d of %d conversations have more than %d tokens (options.max_length): %d of their answers are cut "
                "off, %d in part",
                len(cuts),
                len(made),
                self.window,
                sum(gone for gone, _ in cuts),
                sum(cut for _, cut in cuts),
            )

    def _all_short(self, made: Any) -> bool:
        """Whether the answers of these rows are short enough to be compared word by word."""
        lengths = sorted(length for length in made["answer_tokens"] if length)
        return bool(lengths) and lengths[len(lengths) // 2] <= SHORT

    def _prompt(self, texts: Sequence[str]) -> str:
        return str(self.template.format(**dict(zip(self._inputs, texts, strict=True))))

    def collate(self, examples: Sequence[Example]) -> Batch:
        import torch

        from pipelines.models.text import padded

        ids = [e["input_ids"] for e in examples]
        batch: Batch = {key: [e[key] for e in examples] for key in ("id", "row")}
        batch |= {
            "input_ids": padded(ids, self.tokenizer.pad_token_id),
            "labels": padded([e["labels"] for e in examples], IGNORED),
        }
        batch["targets"] = (batch["labels"] != IGNORED).sum(1).tolist()
        if not self._packed:
            batch["prompt"] = [list(row[: e["prompt"]]) for row, e in zip(ids, examples, strict=True)]
            if self.options.chat:
                batch |= {key: [e[key] for e in examples] for key in ("answer", "scored")}
            return batch
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

    def _surprise(self, model: Any, batch: Batch, measure: "Measure" = nats) -> "tuple[Tensor, ...]":
        """What `measure` finds at every target, [targets] each."""
        fields = {key: batch[key] for key in ("input_ids", "position_ids") if key in batch} | {"use_cache": False}
        if self.head is None:
            fields["logits_to_keep"] = batch["labels"] != IGNORED
        return at_targets(model, self.head, fields, batch["labels"], IGNORED, sum(batch["targets"]), measure)

    # ---- after training ----

    def predict(self, model: "nn.Module", batch: Batch) -> list[Record]:
        """nats and tokens of each row in each block; with a prompt, of each answer, and the greedy answer."""
        from pipelines.metrics.language_modelling import shares, with_surest_wrong

        found, *wrong = self._surprise(model, batch, with_surest_wrong if self._packed else nats)
        found, wanted = found.detach().cpu(), (batch["labels"] != IGNORED).cpu()
        names = [{"id": id_, "row": row} for id_, row in zip(batch["id"], batch["row"], strict=True)]
        if self._packed:
            parts = shares(found, wanted, batch["owners"])
            surest = self._surest(batch, *(part.detach().cpu() for part in wrong))
            return [
                {**name, "parts": part, "surest": one} for name, part, one in zip(names, parts, surest, strict=True)
            ]
        rows = [[[row, n]] for row, n in zip(batch["row"], batch["targets"], strict=True)]
        nats_of = shares(found, wanted, [[[row, wanted.shape[1]]] for ((row, _),) in rows])
        if self.options.chat:
            costs = [
                {**name, "nll": part[0][1], "tokens": part[0][2]} for name, part in zip(names, nats_of, strict=True)
            ]
            if not all(batch["scored"]):
                return costs
            written = self._write(model, batch["prompt"])
            pairs = zip(costs, batch["answer"], written, strict=True)
            return [{**cost, "true": [true], "predicted": text} for cost, true, text in pairs]
        written = self._write(model, batch["prompt"])
        return [
            {**name, "nll": part[0][1], "tokens": part[0][2], "predicted": text}
            for name, part, text in zip(names, nats_of, written, strict=True)
        ]

    def _surest(self, batch: Batch, sure: "Tensor", guesses: "Tensor") -> list[dict[str, Any] | None]:
        """For each block, the wrong token of which the model was surest, in its text, with its row."""
        import numpy as np

        from pipelines.models import text as language

        wanted, sizes = batch["labels"] != IGNORED, batch["targets"]
        found: list[dict[str, Any] | None] = []
        for block, (p, guess) in enumerate(zip(sure.split(sizes), guesses.split(sizes), strict=True)):
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
        ends, most = self._ends, self.options.max_new_tokens
        found = continuations(model, prompts, ends, most, limit=self.limit, pad=words.pad_token_id)
        return [text.strip() for text in words.batch_decode(found, skip_special_tokens=True)]

    def merge(self, records: Sequence[Record], rows: Any) -> list[Record]:
        """One record per row: the sums over its blocks; with a prompt, the score of its answer."""
        from pipelines.metrics import language_modelling
        from pipelines.metrics.question_answering import judge

        if self._packed:
            merged = language_modelling.rows_of(records, rows)
            return [{k: v for k, v in one.items() if k != "bytes"} for one in merged] if self.words_only else merged
        in_order = sorted(records, key=lambda r: r["row"])
        if self.options.chat:
            found = [{key: value for key, value in record.items() if key != "row"} for record in in_order]
            return [{**one, **judge(one["predicted"], one["true"])} if "true" in one else one for one in found]
        merged = []
        for record in in_order:
            row = rows[record["row"]]
            predicted, true = record["predicted"], list(row["answer"])
            asked = {key: row[key] for key in ("question",) if key in row}
            kept = {key: record[key] for key in ("id", "nll", "tokens")}
            merged.append({**kept, **asked, "true": true, "predicted": predicted, **judge(predicted, true)})
        return merged

    def statistics(self, records: Sequence[Record], rows: Any) -> "Statistics":
        from pipelines.metrics import language_modelling, question_answering

        found = language_modelling.statistics(records)
        return question_answering.statistics(records) | found if self._judged(records) else found

    def _judged(self, records: Sequence[Record]) -> bool:
        """Whether answers of the model are scored: always with a prompt, in a chat where the right ones are short."""
        return not self._packed and all("predicted" in record for record in records)

    def summarize(self, statistics: "Statistics", weights: "np.ndarray") -> dict[str, float]:
        from pipelines.metrics import language_modelling, question_answering

        found = language_modelling.summarize(statistics, weights)
        judged = question_answering.summarize(statistics, weights) if "f1" in statistics else {}
        return {**found, **judged} if self.options.chat else {**judged, **found}

    def tables(self, records: Sequence[Record], rows: Any) -> dict[str, list[dict[str, Any]]]:
        from pipelines.metrics import language_modelling, question_answering

        if self._judged(records):
            return question_answering.tables(records)
        return {"by length": language_modelling.by_length(records)}

    def figures(self, records: Sequence[Record], rows: Any) -> dict[str, Any]:
        from pipelines.plots import language_modelling, question_answering

        drawn: dict[str, Any] = (question_answering if self._judged(records) else language_modelling).figures(records)
        return drawn

    @property
    def mistakes(self) -> "MistakeSpec":
        from pipelines.reporting.mistakes import MistakeSpec, wrong_words

        if self._packed:
            return wrong_words()
        if self.options.chat:
            return MistakeSpec(
                rank=lambda record: (1 - record.get("f1", 0)) * record["nll"] / max(record["tokens"], 1) or None,
                show=self._shown_chat,
                order="Conversations come first whose right answers were least likely to the model.",
                title="Unlikely answers",
                graded=False,
            )
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

    def _shown_chat(self, record: Record, row: Mapping[str, Any], model: Any) -> "Mistake":
        from pipelines.reporting.mistakes import Mistake, Piece
        from pipelines.utils.formatting import number

        perplexity = math.exp(min(record["nll"] / max(record["tokens"], 1), 700.0))
        return Mistake(
            " / ".join(record["true"]) if "true" in record else None,
            record.get("predicted"),
            facts={"Perplexity of the right answers": number(perplexity)},
            texts={"Conversation": [Piece(chat.written(row[chat.KIND]))]},
        )

    # ---- the model folder ----

    def save(self, model: Any, folder: Path) -> None:
        from transformers import GenerationConfig

        words = self.tokenizer
        # A new configuration: that of a chat model has sampling and penalties, but the card's snippet must give what
        # was scored.
        model.generation_config = GenerationConfig(
            bos_token_id=words.bos_token_id,
            eos_token_id=sorted(self._ends) if len(self._ends) > 1 else words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
        model.save_pretrained(folder)
        words.save_pretrained(folder)

    def load(self, folder: Path) -> "nn.Module":
        return self._read(folder, None).eval()

    def infer(self, model: Any, *texts: Any, **settings: Any) -> Iterator[str]:
        """Continue a text, answer a prompt from its columns, or answer in a chat; yields the growing text.

        The input of a chat is one text, or a list of messages with role and content, also as JSON. Answers at its
        end are left out. Settings: `max_new_tokens`, `temperature` (0, the default, takes the likeliest token),
        `top_p`, `seed`. Raises DataError.
        """
        from pipelines.models.decoding import decode

        asked = self._asked(dict(zip(self._inputs, texts, strict=True)) | settings)
        words, tokens = self.tokenizer, []
        yield ""
        for (token,) in decode(
            model,
            [asked["ids"]],
            self._ends,
            asked["most"],
            limit=self.limit,
            pad=words.pad_token_id,
            seeds=[asked["seed"]],
            **asked["like"],
        ):
            if token is not None:
                tokens.append(token)
                yield self._text(tokens)

    def prepare(self, asked: Sequence[Mapping[str, Any]]) -> list[Example | DataError]:
        return each(self._asked, asked)

    def _asked(self, one: Mapping[str, Any]) -> Example:
        """The tokens to go on from, and the settings of the decoding."""
        ids = self._begun(one)
        if not ids:
            raise DataError("the text holds no word that this model knows: write something to go on from")
        if len(ids) >= self.limit:
            raise DataError(
                f"the text has {len(ids):,} tokens, and this model reads at most {self.limit:,}: shorten it"
            )
        most = one.get("max_new_tokens", self.options.max_new_tokens)
        like = {key: one[key] for key in ("temperature", "top_p") if key in one}
        return {"ids": ids, "most": most, "seed": one.get("seed", 0), "like": like, "length": len(ids) + most}

    def _begun(self, one: Mapping[str, Any]) -> list[int]:
        """The tokens that a text, a prompt or a chat begins with. Raises DataError."""
        words, asked_for = self.tokenizer, self.options.prompt
        if self.options.chat:
            return chat_tokens.prompt(words, chat.asked(chat.turns(one[chat.KIND])), self.end)
        texts = tuple(self._texts({name: one[name] for name in self._inputs}, may_be_empty=False).values())
        ids: list[int] = self.reader(texts[0] if asked_for is None else self._prompt(texts))["input_ids"]
        return ids[:-1] if ids and ids[-1] == words.eos_token_id else ids

    def _text(self, tokens: Sequence[int]) -> str:
        text = str(self.tokenizer.decode(tokens, skip_special_tokens=True))
        return text if self._packed else text.strip()

    def answer(self, model: Any, examples: Sequence[Example]) -> list[Any]:
        from pipelines.models.decoding import decode

        words = self.tokenizer
        found: list[list[int]] = [[] for _ in examples]
        for step in decode(
            model,
            [e["ids"] for e in examples],
            self._ends,
            max(e["most"] for e in examples),
            limit=self.limit,
            pad=words.pad_token_id,
            seeds=[e["seed"] for e in examples],
            **examples[0]["like"],
        ):
            for tokens, token, e in zip(found, step, examples, strict=True):
                if token is not None and len(tokens) < e["most"]:
                    tokens.append(token)
        return [self._text(tokens) if tokens else "" for tokens in found]


def _enclosed(ids: "np.ndarray", first: int, last: int) -> "np.ndarray":
    """A document between its first and last special token, which its text may contain (special_tokens: keep)."""
    import numpy as np

    begins, ends = (len(ids) and ids[place] == token for place, token in ((0, first), (-1, last)))
    return np.concatenate([[] if begins else [first], ids, [] if ends else [last]]).astype(np.int32)


def _conversation(row: dict[str, Any]) -> dict[str, Any]:
    """A row as the model learns it: up to the last answer. Raises DataError."""
    messages = chat.learned(row[chat.KIND])
    return {"id": row["id"], "opening": chat.opening(messages), chat.KIND: messages}


def _sample(row: dict[str, Any]) -> dict[str, Any]:
    """A row as card and demo show it: what is asked, and the answer."""
    messages = row[chat.KIND]
    return {chat.KIND: chat.asked(messages), "answer": messages[-1]["content"]}
