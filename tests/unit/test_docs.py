"""The pages say what is so: generated parts are up to date, and every command, file and recipe that they name exists."""

import re
from pathlib import Path

import pytest

from tests.support import generated_docs

ROOT = generated_docs.ROOT
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
TEXT = {page.name: page.read_text() for page in PAGES}


def test_generated_parts_are_up_to_date() -> None:
    text = TEXT["README.md"]
    assert [name for _, name, _ in generated_docs.PART.findall(text)] == ["commands", "tasks", "recipes", "tree"]
    assert generated_docs.render(text) == text, "README.md is out of date: run `make docs`"


def test_the_tree_names_every_file_of_the_library() -> None:
    made = generated_docs.tree()
    files = [
        p for folder in ("pipelines", "apps") for p in (ROOT / folder).rglob("*.py") if p.name != "__init__.py" and "space" not in p.parts
    ]
    assert len(files) > 20
    assert not [str(p) for p in files if str(p.relative_to(ROOT)) not in made]
    assert max(map(len, made.splitlines())) <= 150


@pytest.mark.parametrize("page", TEXT)
def test_links_lead_to_files(page: str) -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT[page]) if not link.startswith(("http", "#"))]
    missing = [link for link in links if not (ROOT / link).exists()]
    assert not missing


def test_files_beside_the_library_exist() -> None:
    missing = [name for name in generated_docs.OTHER_FILES if "<" not in name and not (ROOT / name).exists()]
    assert not missing


@pytest.mark.parametrize("page", TEXT)
def test_commands_exist(page: str) -> None:
    import typer

    from pipelines.cli import app
    from pipelines.config.catalog import recipe_paths

    verbs = typer.main.get_command(app).commands
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
    code = "\n".join(re.findall(r"(?s)```(?:\w*)\n(.*?)```", TEXT[page]) + re.findall(r"`([^`\n]+)`", TEXT[page]))
    for verb in re.findall(r"(?:^|\bbin/|\n|# )graft ([a-z]+)", code):
        assert verb in verbs
    for line in re.findall(r"(?m)^make ([a-z -]+)", code):
        assert set(line.split("#")[0].split()) <= targets
    for name in re.findall(r"graft train (\w+)", code):
        assert name in recipe_paths() or name.isupper()


def test_the_recipe_in_the_readme_is_the_one_that_is_shipped() -> None:
    shown = re.search(r"(?s)```yaml\n(.*?)```", TEXT["README.md"])
    assert shown is not None
    assert shown[1] == (ROOT / "recipes/image_classification/pets_vit_base.yaml").read_text()


def test_a_half_line_is_the_first_sentence_or_what_fits() -> None:
    assert generated_docs.half_line("One. Two.") == "One"
    assert generated_docs.half_line("`a.b` is one: " + "word " * 40) == "`a.b` is one"
    assert len(generated_docs.half_line("word " * 40)) <= 104


def test_the_documented_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in ("setup", "demo", "test", "test-integration", "test-all", "coverage", "lint", "bench", "docs"):
        assert re.search(rf"(?m)^{target}: ", makefile), target
    assert Path(ROOT / ".ci/run").stat().st_mode & 0o111, ".ci/run is not executable"
