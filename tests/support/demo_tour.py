"""What a visitor does in the demo of any task until it shows an answer, for tests and pictures."""

from typing import Any

SECONDS = 1000
EXAMPLE = ".gallery-item, .table-wrap tbody tr"
ANSWER = ".graft-bars .confidence-set, .graft-bars h2, .graft-answer p, .graft-wave figure, .graft-after .thumbnail-lg"
DONE = """answer => {
  const busy = [...document.querySelectorAll('[data-testid=status-tracker]:not(.hide)')].some(one => one.offsetParent);
  const written = [...document.querySelectorAll('.graft-said textarea')].some(one => one.value.trim());
  return !busy && (written || [...document.querySelectorAll(answer)].some(one => one.offsetParent));
}"""


def answered(page: Any) -> None:
    """Take the first example, ask for an answer, and wait until it is there, with the map of what decided it."""
    example, button = page.locator(EXAMPLE).first, page.locator("button.primary").first
    if example.count():
        example.click()
    if button.count():
        if example.count():
            page.wait_for_function("[...document.querySelectorAll('textarea')].some(field => field.value)")
        button.click()
    page.wait_for_function(DONE, arg=ANSWER, timeout=60 * SECONDS)
    if page.locator(".graft-said.graft-note").count():  # a generator: its images appear one by one
        page.get_by_text("A saved file says what made it.").wait_for(timeout=60 * SECONDS)
    ask = page.locator(".graft-ask")
    if ask.count():
        ask.click()
        page.locator(".graft-note p").first.wait_for(timeout=60 * SECONDS)
    page.wait_for_timeout(300)  # pictures are drawn


def darken(page: Any, dark: bool) -> None:
    """Light or dark, as `?__theme=dark` of the address makes it."""
    page.evaluate("dark => document.body.classList.toggle('dark', dark)", dark)
