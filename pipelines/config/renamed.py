"""Keys of recipes that were renamed. Recipes of finished runs are read under their old names."""

from typing import Any

FROZEN = {  # option of versions up to 0.1 -> value of model.freeze for each of its values, and for its absence
    "freeze_feature_encoder": {True: "encoder", False: "none", None: "auto"},
    "freeze_encoder": {True: "encoder", False: "none", None: "none"},
}


def options(raw: dict[str, Any], *, exists: bool) -> tuple[dict[str, Any], list[str]]:
    """A recipe without old options, and what is wrong with it.

    The recipe of a run or model that exists is never wrong.
    """
    found = raw.get("options")
    old = [key for key in FROZEN if isinstance(found, dict) and key in found]
    if not isinstance(found, dict) or not old:
        return raw, []
    kept = {key: value for key, value in found.items() if key not in old}
    model = raw.get("model")
    value = found[old[0]]
    new = FROZEN[old[0]].get(value if isinstance(value, bool) else None, "auto")
    if not exists:
        return {**raw, "options": kept}, [
            f"options.{old[0]}: freezing has one switch now, model.freeze: set model.freeze={new}"
        ]
    if isinstance(model, dict):
        freeze = model.get("freeze", "none")
        # `backbone` freezes the encoder, too. A number of blocks does so for wav2vec2, whose stem is its encoder.
        # Whisper's encoder is blocks, and its option froze all of them whatever the number.
        if freeze == "none" or (isinstance(freeze, int) and new == "encoder" and old[0] == "freeze_encoder"):
            model = {**model, "freeze": new}
    return {**raw, "model": model, "options": kept}, []
