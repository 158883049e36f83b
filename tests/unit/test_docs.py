"""The pages are true: generated parts are up to date, and every command, file and recipe that they name exists."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import generated_docs
from tests.support.doc_blocks import LANGUAGES, MARKS, SNIPPETS, Block, blocks, commands, pages, snippets

ROOT = generated_docs.ROOT
OTHERS = [
    ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", ".github/pull_request_template.md")
]
PAGES = {str(page.relative_to(ROOT)): page for page in (*pages(), *OTHERS)}
TEXT = {name: page.read_text() for name, page in PAGES.items()}


# ---- generated parts ----


def test_generated_parts_are_up_to_date() -> None:
    text = TEXT["README.md"]
    assert [name for _, name, _ in generated_docs.PART.findall(text)] == ["tasks"]
    assert generated_docs.render(text) == text, "README.md is out of date: run `make docs`"


def test_the_site_has_every_generated_part() -> None:
    asked = [place for name, text in TEXT.items() if name.startswith("docs/") for place in generated_docs.places(text)]
    every = {name for name in generated_docs.PARTS if name not in ("tasks", "recipe")}
    assert every <= {name for name, _ in asked}
    pages = {name.split("/")[-1][:-3].replace("_", "-") for name in TEXT if name.startswith("docs/tasks/")} - {"index"}
    assert pages <= set(_tasks())
    for part in ("options", "measured"):
        assert {word for name, word in asked if name == part and word} == pages


def _tasks() -> list[str]:
    from pipelines.config.recipe import task_names

    return task_names()


def test_a_page_is_filled() -> None:
    generated = generated_docs.filled("before\n\n<!-- generated: options fill-mask -->\n\nafter\n")
    assert generated.startswith("before\n\n| key | value | default | meaning |")
    assert "| `mask_probability` | number, above 0 below 1 | `0.15` | Fraction of" in generated
    assert generated.endswith("\n\nafter\n")


def test_every_key_of_a_recipe_has_a_sentence_and_a_type() -> None:
    assert generated_docs.keys_without_a_sentence() == []
    reference = generated_docs.recipe_reference() + generated_docs.options()
    rows = [line for line in reference.splitlines() if line.startswith("| `")]
    assert len(rows) > 150
    assert "| `batch_size` | whole number, from 1 to 1,000,000 | `32` | Examples in one optimiser step" in reference
    assert "| `freeze` | `auto`, `none`, `encoder`, `backbone` or whole number, from 1 | `auto` |" in reference


def test_the_lists_of_recipes_formats_and_names_are_complete() -> None:
    import pipelines
    from pipelines.config.catalog import recipe_paths
    from pipelines.data.loading import format_names

    generated = generated_docs.recipes()
    assert [
        name for name in recipe_paths() if f"\n### {name}\n" not in generated or f"[{name}](#{name})" not in generated
    ] == []
    assert [name for name in format_names() if f"### {name}\n" not in generated_docs.formats()] == []
    assert [name for name in pipelines.__all__ if not re.search(rf"(?m)^::: .*\.{name}$", generated_docs.api())] == []
    assert (
        "| [questions_minilm](recipes.md#questions_minilm) | a laptop | f1 50.3, exact_match 40.8 on test"
        in generated_docs.measured()
    )
    assert "not yet |" not in generated_docs.measured()


def test_the_tree_names_every_file_of_the_library() -> None:
    generated = generated_docs.tree()
    files = [
        p
        for folder in ("pipelines", "apps")
        for p in (ROOT / folder).rglob("*.py")
        if p.name != "__init__.py" and "space" not in p.parts
    ]
    assert len(files) > 20
    assert not [str(p) for p in files if str(p.relative_to(ROOT)) not in generated]
    assert max(map(len, generated.splitlines())) <= 150


def test_files_outside_of_the_library_exist() -> None:
    missing = [name for name in generated_docs.OTHER_FILES if "<" not in name and not (ROOT / name).exists()]
    assert not missing


def test_a_half_line_is_the_first_sentence_or_what_fits() -> None:
    assert generated_docs.half_line("One. Two.") == "One"
    assert generated_docs.half_line("`a.b` is one: " + "word " * 40) == "`a.b` is one"
    assert len(generated_docs.half_line("word " * 40)) <= 104


# ---- what the pages name ----


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_files(name: str) -> None:
    text = re.sub(r"(?ms)^```.*?^```$", "", TEXT[name])
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith(("http", "#"))]
    missing = [link for link in links if not (PAGES[name].parent / link.partition("#")[0]).exists()]
    assert not missing


@pytest.mark.parametrize("name", PAGES)
def test_commands_exist(name: str) -> None:
    import typer

    from pipelines.cli import app
    from pipelines.config.catalog import recipe_paths

    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
    fenced = re.findall(r"(?ms)^```\w*\n(.*?)^```$", TEXT[name])
    code = "\n".join(fenced + re.findall(r"`([^`\n]+)`", re.sub(r"(?ms)^```.*?^```$", "", TEXT[name])))
    for verb in re.findall(r"(?:^|\bbin/|\n|# )graft ([a-z]+)", code):
        assert verb in verbs
    for line in re.findall(r"(?m)^make ([a-z -]+)", code):
        assert set(line.split("#")[0].split()) <= targets
    for recipe in re.findall(r"(?m)^graft (?:train|check) (\w+\b)(?!/)", code):  # NAME/ is a folder with data
        written = f"{recipe}.yaml" in TEXT[name]  # the page writes this recipe itself
        assert recipe in recipe_paths() or recipe.isupper() or written


def test_the_recipe_in_the_readme_is_the_one_that_is_shipped() -> None:
    (shown,) = [block.text for block in blocks(ROOT / "README.md") if block.language == "yaml"]
    assert shown == (ROOT / "recipes/image_classification/pets_vit_base.yaml").read_text()


def test_every_task_has_a_page_with_its_parts() -> None:
    from pipelines.config.catalog import recipe_paths

    nav = str(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    pages = [task for task in _tasks() if f"docs/tasks/{task.replace('-', '_')}.md" in TEXT]
    assert len(pages) >= 10
    for task in pages:
        name = task.replace("-", "_")
        text = TEXT[f"docs/tasks/{name}.md"]
        assert f"tasks/{name}.md" in nav
        assert re.findall(r"(?m)^## (.+)$", text) == [
            "Data",
            "Train",
            "A recipe",
            "In Python",
            "Demo",
            "Options",
            "Measured",
        ]
        assert f"](../pictures/{name}.png)" in text
        shown = re.findall(r"(?m)^graft demo (\w+)$", text)
        assert shown
        assert [recipe_paths()[run].parent.name for run in shown] == [name] * len(shown)


# ---- blocks ----


def test_blocks_say_what_they_are() -> None:
    every = [block for page in pages() for block in blocks(page)]
    assert len(every) > 60
    assert [str(b) for b in every if b.language not in LANGUAGES or b.mark not in ("", *MARKS)] == []
    assert [str(b) for b in every if b.mark in ("shown", "fails", "layout") and not b.note] == []
    assert [
        str(b) for b in every if b.language == "text" and re.search(r"(?m)^(graft|make|pip|python|accelerate) ", b.text)
    ] == []
    fences = sum(len(re.findall(r"(?m)^```", page.read_text())) for page in pages())
    assert fences == 2 * len(every)


def test_at_most_a_tenth_of_the_snippets_is_only_shown() -> None:
    """The others are run: tests/integration/test_documented_commands.py."""
    every = snippets()
    shown = [block for block in every if block.mark == "shown"]
    assert len(every) >= 50
    assert len(shown) <= len(every) / 10, f"{len(shown)} of {len(every)}: {', '.join(map(str, shown))}"


def test_blocks_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.doc_blocks.ROOT", tmp_path)
    page = tmp_path / "page.md"
    text = "<!-- fails: 2 -->\n```bash\ngraft train x # why\n\n# no\ngraft a \\\n  b\n```\n"
    page.write_text(text + "\n<!-- other -->\n```text\na\n```\n")
    first, second = blocks(page)
    assert first == Block("page.md", 2, "bash", "graft train x # why\n\n# no\ngraft a \\\n  b\n", "fails", "2")
    assert commands(first) == ["graft train x", "graft a b"]
    assert (second.language, second.mark, second.line) == ("text", "", 11)
    assert {first.language} <= set(SNIPPETS)


# ---- README, and the files for visitors of the repository ----


def test_the_readme_is_short() -> None:
    assert len(TEXT["README.md"].splitlines()) <= 150


def test_pictures_are_small() -> None:
    for page in PAGES.values():
        for link in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text()):
            picture = page.parent / link
            assert picture.stat().st_size < 400_000, picture


def test_the_citation_is_the_one_of_this_version() -> None:
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"cff-version", "message", "title", "authors"} <= set(found)
    assert found["version"] == project["version"]
    assert found["license"] == project["license"]
    assert found["authors"] == [{"name": "The Graft contributors"}]


def test_issue_forms_ask_for_what_a_maintainer_needs() -> None:
    forms: dict[str, Any] = {
        p.stem: yaml.safe_load(p.read_text()) for p in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")
    }
    assert set(forms) == {"bug", "feature", "config"}
    for name in ("bug", "feature"):
        assert {"name", "description", "body"} <= set(forms[name])
        assert all({"type", "attributes"} <= set(part) for part in forms[name]["body"])
    needed = {part["id"] for part in forms["bug"]["body"] if part.get("validations", {}).get("required")}
    assert {"recipe", "command", "output", "environment"} <= needed


def test_the_documented_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in ("setup", "demo", "test", "test-integration", "test-all", "coverage", "lint", "bench", "docs"):
        assert re.search(rf"(?m)^{target}: ", makefile), target
    assert (ROOT / ".ci/run").stat().st_mode & 0o111, ".ci/run is not executable"
    assert "\nmake docs\n" in (ROOT / ".ci/run").read_text()
