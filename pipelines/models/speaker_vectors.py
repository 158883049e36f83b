"""Voices as vectors: the x-vectors (Snyder et al. 2018) of a speaker verification model, averaged over recordings.

vectors = of_speakers(rows, ["ada", "bob"], "microsoft/wavlm-base-plus-sv")     float32 [speakers, size]
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.data.audio.reading import read_audio
from pipelines.data.columns import values
from pipelines.errors import DataError, ModelError, of_key
from pipelines.models.source import local_model

MOST_RECORDINGS = 20  # of a speaker; the mean of more changes little
LONGEST = 15.0  # seconds of a recording that are read
SHORTEST = 1.0  # seconds; shorter ones are repeated, because such models take statistics over many frames


def of_speakers(rows: Any, speakers: Sequence[str], source: str) -> np.ndarray:
    """The mean vector of up to 20 recordings of each speaker, each of length 1; without speakers, of all rows.

    `source` is a folder or hub id of a transformers ...ForXVector. Raises ModelError, HubError, and DataError if none
    of a speaker's recordings can be read.
    """
    import torch

    model, extractor = _loaded(source)
    own = [None if one is None else str(one) for one in values(rows, "speaker")] if speakers else [None] * len(rows)
    found = []
    asked: list[str | None] = [*speakers] or [None]
    for speaker in asked:
        places = [place for place, name in enumerate(own) if name == speaker]
        spread = np.linspace(0, len(places) - 1, min(len(places), MOST_RECORDINGS)).round().astype(int)
        vectors, why = [], ""
        for place in (places[number] for number in spread):
            try:
                samples = read_audio(rows[place]["audio"], extractor.sampling_rate)
            except DataError as error:
                why = str(error)
                continue
            samples = samples[: round(LONGEST * extractor.sampling_rate)]
            if len(samples) < SHORTEST * extractor.sampling_rate:
                samples = np.resize(samples, round(SHORTEST * extractor.sampling_rate))
            inputs = extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="pt")
            with torch.no_grad():
                vector = model(**inputs).embeddings[0].float().numpy()
            if not np.isfinite(vector).all():
                why = f"{rows[place]['id']}: the model's vector holds values that are no numbers"
                continue
            vectors.append(vector / max(float(np.linalg.norm(vector)), 1e-12))
        if not vectors:
            raise DataError(f"speaker {speaker}: no recording can be read, so the voice is unknown: {why}")
        found.append(np.mean(vectors, 0))
    return np.stack(found).astype(np.float32)


def _loaded(source: str) -> tuple[Any, Any]:
    from transformers import AutoFeatureExtractor, AutoModelForAudioXVector

    from pipelines.models.pretrained import first_line, read_config

    with of_key("options.speaker_embeddings"):
        folder = local_model(source)
        if folder is None:
            from pipelines.hub.download import download

            folder = download(source, None)
        config = read_config(folder, None)
    try:
        model, info = AutoModelForAudioXVector.from_pretrained(
            folder, config=config, output_loading_info=True, trust_remote_code=False, local_files_only=True
        )
        extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # a damaged file raises many kinds
        raise ModelError(
            f"options.speaker_embeddings: {source}: no speaker verification model (...ForXVector): {first_line(error)}"
        ) from error
    if info["missing_keys"]:
        raise ModelError(
            f"options.speaker_embeddings: {source}: {sorted(info['missing_keys'])[0]} is missing: it is no speaker "
            "verification model"
        )
    return model.eval(), extractor
