"""What a page shows while it generates images, and the images."""

import base64
from typing import Any

SECONDS = 1000
NOTES = """() => {
  const note = document.querySelector('.graft-output');
  window.said = [];
  window.seen = [];
  new MutationObserver(() => {
    const words = note.querySelector('p')?.innerText.trim();
    if (words && words != window.said.at(-1)) window.said.push(words);
  }).observe(document.body, {subtree: true, childList: true, characterData: true});
  document.addEventListener('load', event => {
    const drawn = event.target.matches('.graft-after .thumbnail-lg img') && event.target.naturalWidth;
    if (drawn) window.seen.push(event.target.src);
  }, true);
}"""
FETCH = """async images => Promise.all(images.map(async image => {
  await image.decode();
  if (!image.naturalWidth) throw new Error('no picture: ' + image.src);
  const bytes = new Uint8Array(await (await fetch(image.src)).arrayBuffer());
  return btoa(String.fromCharCode(...bytes));
}))"""


class Watch:
    """Record every progress note and every image that appears from now on."""

    def __init__(self, page: Any) -> None:
        self.page = page
        page.locator(".graft-output").first.wait_for()
        page.evaluate(NOTES)

    def said(self) -> list[str]:
        return self.page.evaluate("window.said")

    def seen(self) -> list[str]:
        """Names of the files that were drawn among the images, in order. A preview has the name image.png."""
        return [address.split("/")[-1] for address in self.page.evaluate("window.seen")]


def steps(images: int, last: int, stride: int = 1) -> list[str]:
    """The notes of so many images."""
    places = [*range(stride, last, stride), last]
    return [f"Image {image} of {images}: step {step} of {last}" for image in range(1, images + 1) for step in places]


def finished(page: Any, words: str) -> None:
    page.locator(".graft-output").get_by_text(f"{words}. A saved file says what made it.").wait_for(
        timeout=60 * SECONDS
    )


def wait_for_images(page: Any, gallery: str, first: str) -> None:
    """Wait until the images are finished whose first caption is this one."""
    shown = "([name, first]) => document.querySelector(`.${name} .caption-label`)?.innerText.trim() == first"
    page.wait_for_function(shown, arg=[gallery, first], timeout=60 * SECONDS)
    finished(page, "4 images")


def pictures(page: Any, gallery: str) -> list[tuple[str, bytes]]:
    """Caption and file of every image in a gallery. The browser was able to draw each of them."""
    items = page.locator(f".{gallery} .thumbnail-lg")
    captions = [text.strip() for text in items.locator(".caption-label").all_inner_texts()]
    files = [base64.b64decode(data) for data in items.locator("img").evaluate_all(FETCH)]
    return list(zip(captions, files, strict=True))
