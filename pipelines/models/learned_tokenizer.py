"""A tokenizer for a model from a configuration, which has none: it is learned from the training rows alone.

`model.config.tokenizer` says how: `bpe` joins frequent pairs of bytes (Sennrich et al. 2016) up to `vocab_size` tokens,
`bytes` has the 256 bytes, `words` the `vocab_size` most frequent words and punctuation marks; other words are <unk>.
It is saved as tokenizer.json, which AutoTokenizer reads.
"""

from collections.abc import Iterable
from typing import Any

from pipelines.errors import DataError, ModelError

KINDS = ("bpe", "bytes", "words")
PAD, END, BETWEEN, UNKNOWN = "<pad>", "<eos>", "<sep>", "<unk>"
MOST_TOKENS = 1_000_000  # of a text


def learn(config: Any, texts: Iterable[str], *, begins: bool) -> Any:
    """The tokenizer that `config` asks for; `config.vocab_size` becomes its number of tokens.

    With `begins` a text begins with the end token, as documents of a language model do; otherwise it ends with it.
    Texts of a pair have <sep> between them. Raises ModelError, and DataError if the texts hold no word.
    """
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    kind = config.tokenizer
    if kind not in KINDS:
        raise ModelError(f"model.config.tokenizer: got {kind!r}, must be one of {', '.join(KINDS)}")
    if type(config.lowercase) is not bool:
        raise ModelError(f"model.config.lowercase: got {config.lowercase!r}, must be true or false")
    if config.lowercase and kind != "words":
        raise ModelError("model.config.lowercase is for tokenizer=words: the others read texts as they are")
    special = [PAD, END, BETWEEN, *([UNKNOWN] if kind == "words" else [])]
    made = _of_words(config, texts, special) if kind == "words" else _of_bytes(config, texts, special)
    ends = [(token, made.token_to_id(token)) for token in (END, BETWEEN)]
    parts = (f"{END} $A", f"{END} $A {BETWEEN} $B") if begins else (f"$A {END}", f"$A {BETWEEN} $B {END}")
    made.post_processor = processors.TemplateProcessing(single=parts[0], pair=parts[1], special_tokens=ends)
    config.vocab_size = made.get_vocab_size()
    names = {"pad_token": PAD, "eos_token": END, "sep_token": BETWEEN}
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        model_max_length=MOST_TOKENS,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        **names,
        **({"unk_token": UNKNOWN} if kind == "words" else {}),
    )


def loses_text(tokenizer: Any) -> bool:
    """Whether tokens say less than the text that they stand for, as those of words do.

    Unknown words are one token, and spaces none, so the bits of the tokens are no bits of the bytes.
    """
    return type(tokenizer.backend_tokenizer.model).__name__ in ("WordLevel", "WordPiece")


def _of_words(config: Any, texts: Iterable[str], special: list[str]) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    if config.vocab_size <= len(special):
        raise ModelError(
            f"model.config.vocab_size: got {config.vocab_size}, which leaves no place for words beside the "
            f"{len(special)} special tokens: must be {len(special) + 1} or more"
        )
    made = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    if config.lowercase:
        made.normalizer = normalizers.Lowercase()
    trainer = trainers.WordLevelTrainer(
        vocab_size=config.vocab_size, min_frequency=1, special_tokens=special, show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    if made.get_vocab_size() <= len(special):
        raise DataError("the texts of train hold no word from which a vocabulary could be learned")
    return made


def _of_bytes(config: Any, texts: Iterable[str], special: list[str]) -> Any:
    """Tokens of bytes. Without merges, every byte is one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from pipelines.models.classics import usual

    least = 256 + len(special)
    if config.tokenizer == "bytes" and config.vocab_size not in (least, usual(config, "vocab_size")):
        raise ModelError(
            f"model.config.vocab_size: got {config.vocab_size}, but a tokenizer of bytes has {least} tokens: leave it "
            "out"
        )
    if config.tokenizer == "bpe" and config.vocab_size <= least:
        raise ModelError(
            f"model.config.vocab_size: got {config.vocab_size}, but a bpe tokenizer has the 256 bytes, "
            f"{len(special)} special tokens and pairs: must be {least + 1} or more, or set model.config.tokenizer=bytes"
        )
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=config.tokenizer == "bpe")
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=least if config.tokenizer == "bytes" else config.vocab_size,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator([] if config.tokenizer == "bytes" else texts, trainer)
    return made
