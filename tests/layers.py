"""What may use what in the library: tests/test_house_rules.py reads the imports and holds it."""

# What may use what: a module uses the layers below its own. One task never uses another.
LAYERS = {
    6: {"cli", "demo", "__main__", ""},  # "" is pipelines/__init__.py, the public names
    5: {"apps"},
    4: {"run", "stages", "finish", "making", "runfolder", "check", "score"},
    3: {"samples", "loop", "evaluation", "card", "hub", "fetch", "outgoing", "patience", "space", "report", "weights", "tasks"},
    2: {"data", "batching", "skips", "classes", "optim", "features", "probe", "ragged", "stubs", "encoding", "checkpoint", "metrics",
        "results", "unet", "pipes", "pipefiles", "figures", "curves", "machine", "extractors", "galleries", "requested"},
    1: {"diffusion", "task", "layers", "kernels", "kernels_diffusers", "vision", "sound", "language", "pretrained", "decoding",
        "normalisers", "ctc", "vocabulary", "whisper", "packing", "prompts", "progress"},
    0: {"cache", "errors", "recipe", "yamlfile", "complaints", "catalog", "wording", "hub_metadata", "files"},
}  # fmt: skip
LAYER = {name: layer for layer, names in LAYERS.items() for name in names}
SIDEWAYS = {  # the exceptions inside a layer: a noun that was cut into several files, or an edge that is there on purpose
    "recipe": {"errors", "yamlfile", "complaints", "catalog", "hub_metadata", "files", "wording"},
    "hub_metadata": {"complaints"},
    "catalog": {"errors", "yamlfile", "complaints", "files", "wording"},
    "yamlfile": {"errors"},
    "vision": {"pretrained"},
    "sound": {"pretrained", "layers"},
    "ctc": {"pretrained"},
    "vocabulary": {"pretrained"},
    "prompts": {"packing"},
    "whisper": {"decoding", "language", "pretrained"},
    "language": {"pretrained", "layers"},
    "encoding": {"data"},
    "classes": {"data"},
    "features": {"batching", "checkpoint", "probe", "ragged", "stubs"},
    "probe": {"batching", "ragged", "stubs"},
    "checkpoint": {"results"},
    "curves": {"figures"},
    "galleries": {"figures"},
    "requested": {"batching"},
    "extractors": {"data"},
    "metrics": {"figures", "galleries"},
    "hub": {"fetch", "outgoing", "patience", "space", "card"},  # publishing writes the card for the new id
    "fetch": {"patience"},
    "weights": {"fetch"},  # a hub id is one of its three sources
    "run": {"stages", "finish", "runfolder"},
    "finish": {"stages", "making"},
    "stages": {"runfolder", "making"},
    "diffusion": {"pretrained"},
    "kernels": {"kernels_diffusers"},
    "unet": {"data"},
    "pipefiles": {"pipes"},
    "check": {"stages", "making"},
    "__main__": {"cli"},
}
PACKAGES = {"data", "metrics", "apps"}  # their modules may use each other
ONLY_IN = {"typer": {"cli"}, "gradio": {"apps"}}
NEVER_IN = {"card": {"torch"}, "hub": {"torch"}, "report": {"torch"}, "tasks": {"accelerate"}}
LAYER_0_MAY_USE = {"pydantic", "yaml", "psutil", "pipelines"}
