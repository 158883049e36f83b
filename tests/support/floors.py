"""Who may import whom: a package may import the floors below its own. tests/unit/test_house_rules.py enforces it."""

FLOORS = (
    {"errors"},
    {"utils"},
    {"task", "config", "hub", "losses"},
    {"data", "metrics"},
    {"models", "plots"},
    {"generation", "reporting", "publishing"},
    {"detection"},  # what two tasks share
    {"tasks", "inference"},
    {"evaluation", "apps"},
    {"training", "diagnostics", "baselines", "export"},
    {"cli", "usage", "__main__", ""},  # "" is pipelines/__init__.py, the public names
)
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
SIDEWAYS = {  # on purpose, and never back
    "publishing": {"reporting"},  # a card shows what results.json holds
    "generation": {"inference"},  # finished models listen to recordings; `graft predict` only asks for results
    "diagnostics": {"training"},  # `graft check` takes the first steps of a run
    "cli": {"usage"},
    "__main__": {"cli"},
}
ONLY_IN = {"typer": {"cli"}, "gradio": {"apps"}}
NEVER_IN = {"publishing": {"torch"}, "reporting.report": {"torch"}, "tasks": {"accelerate"}}
LIGHT = {"errors", "config"}  # the errors of a recipe appear at once: these modules import only these libraries
LIGHT_LIBRARIES = {"pydantic", "yaml", "pipelines"}
