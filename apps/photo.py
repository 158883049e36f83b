"""What the demos share that draw their answer on a photo: the field of the photo, its examples, and the answer's HTML.

An answer is a <figure> whose data are in an attribute, and the script of its page draws, counts and saves from these
data: so no switch or slider needs the server.
"""

import base64
import html
import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, cast

import gradio as gr

from pipelines.apps import parts, visitor

if TYPE_CHECKING:
    from PIL import Image

    from pipelines.inference.loading import Loaded

SIDE = 1600  # longest side in pixels of the photo in the page
LEAST = 720  # a smaller photo is drawn larger, so that what lies on it can be seen

_START = r"""
const bytes = (text) => Uint8Array.from(atob(text), sign => sign.charCodeAt(0));
const decoded = (text) => JSON.parse(new TextDecoder().decode(bytes(text)));
const part = (root, name) => root.querySelector(name);
const node = (name, text, ...more) => {
  const made = document.createElement(name);
  made.append(text, ...more);
  return made;
};
const save = (content, name) => {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
};
"""
_END = r"""
const known = new WeakMap();
// Gradio changes the attributes of an older answer: a copy of it has no listeners
const look = () => element.querySelectorAll('figure[data-found]').forEach(root => {
  if (known.get(root) === root.dataset.found) return;
  const fresh = known.has(root) ? root.cloneNode(true) : root;
  known.set(fresh, fresh.dataset.found);
  if (fresh !== root) root.replaceWith(fresh);
  begin(fresh);
});
new MutationObserver(look).observe(element, {childList: true, subtree: true, attributeFilter: ['data-found']});
look();
"""


def script(begin: str) -> str:
    """The script of a page. `begin` defines the function begin(root), which gets each new <figure>.

    It can use `bytes`, `decoded`, `part`, `node` and `save`; `element` is the part of the page that holds the answer.
    """
    return _START + begin + _END


def field() -> gr.Image:
    """The field that takes a photo."""
    return gr.Image(
        label="Photo",
        sources=["upload", "clipboard", "webcam"],
        height=340,
        placeholder=f"Drop a photo here or tap to choose one\n(JPEG, PNG, WebP, up to {visitor.MAX_MEGABYTES} MB)",
        elem_classes="graft-photo",
    )


def answer(begin: str) -> gr.HTML:
    """The place of the answer, with the script that draws it."""
    return gr.HTML(js_on_load=script(begin), elem_classes=["graft-answer", "graft-found"])


def examples(loaded: "Loaded", image: gr.Image) -> None:
    """The photos of the sample rows, if there are any."""
    files = parts.example_files(loaded, "image")
    if files:
        gr.Examples(
            [[name] for name in files],
            inputs=[image],
            label="Examples",
            examples_per_page=12,
            cache_examples=False,
        )


def classes(loaded: "Loaded") -> list[str]:
    """The model's classes in its own order."""
    return list(cast("Any", loaded.task).labels)


def describe(loaded: "Loaded", what: str) -> str:
    """One line below the title: `what` it finds, the classes, and the origin of the model."""
    labels = classes(loaded)
    line = f"{what} of {len(labels):,} classes: {parts.listed(labels)}."
    source = parts.origin(loaded.results)
    return f"{line} {source}." if source else line


def small(image: "Image.Image") -> str:
    """The photo as the page shows it: a data URI, at most SIDE pixels long."""
    shown = image.copy()
    shown.thumbnail((SIDE, SIDE))
    uri: str = parts.data_uri(shown, "JPEG")
    return uri


def figure(about: Mapping[str, Any], inside: str) -> str:
    """An answer as HTML. No text of `about` is HTML, or a template of Gradio's."""
    data = base64.b64encode(json.dumps(about).encode()).decode()
    return f'<figure data-found="{html.escape(data)}">{inside}</figure>'


def stem(name: str) -> str:
    """A visitor's name of a file without its suffix, for files that are saved: letters, digits and -_ only."""
    kept = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in PurePath(name).stem)
    return kept[:60] or "answer"
