"""What is wrong with how a page looks: `problems(page)` measures the boxes and colours of an open Chromium page.

It finds a page that scrolls sideways, texts that lie on each other or on a picture, texts of too little contrast with
what is behind them, and texts that are too small. It sees what a visitor sees: no closed panels, no hidden labels.
"""

from typing import Any

CONTRAST = 4.5  # WCAG 2.2, criterion 1.4.3, level AA, without its exception for large text
SMALLEST = 10.0  # pixels

MEASURE = r"""([least, smallest]) => {
  const found = [];
  const say = (text) => { if (found.length < 30) found.push(text); };
  const words = (text) => '"' + text.trim().replace(/\s+/g, ' ').slice(0, 40) + '"';
  const name = (element) => {
    const path = [];
    for (let at = element; at && path.length < 3; at = at.parentElement) {
      const classes = typeof at.className === 'string' ? at.className.trim().split(/\s+/).filter(Boolean) : [];
      const marks = (at.id ? '#' + at.id : '') + classes.slice(0, 2).map(c => '.' + c).join('');
      path.unshift(at.tagName.toLowerCase() + marks);
    }
    return path.join(' > ');
  };

  // ---- colours: as the browser draws them, because a computed colour may be of any colour space ----
  const pen = Object.assign(document.createElement('canvas'), {width: 1, height: 1})
    .getContext('2d', {willReadFrequently: true});
  const known = new Map();
  const rgba = (colour) => {
    if (!known.has(colour)) {
      pen.clearRect(0, 0, 1, 1);
      pen.fillStyle = 'rgba(0, 0, 0, 0)';
      pen.fillStyle = colour;
      pen.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
      known.set(colour, [r, g, b, a / 255]);
    }
    return known.get(colour);
  };
  const over = (top, below, alpha = 1) => {
    const a = top[3] * alpha;
    return [0, 1, 2].map(i => top[i] * a + below[i] * (1 - a)).concat(1);
  };
  const luminance = (colour) => {
    const part = colour.slice(0, 3).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
  };
  const ratio = (one, two) => {
    const [low, high] = [luminance(one), luminance(two)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const canvas = (() => {  // what the browser draws below the page
    const probe = document.createElement('div');
    probe.style.cssText = 'position:absolute;background:Canvas';
    document.documentElement.append(probe);
    const colour = rgba(getComputedStyle(probe).backgroundColor);
    probe.remove();
    return colour;
  })();
  const COLOUR = /(?:rgba?|hsla?|color|oklch|oklab|lab|lch)\([^()]*\)|#[0-9a-f]{3,8}\b/gi;

  // the possible colours behind an element: several if it lies on a gradient; null if on a picture
  const behind = (element) => {
    const chain = [];
    for (let at = element; at; at = at.parentElement) chain.unshift(at);
    let layers = [canvas];
    for (const at of chain) {
      const style = getComputedStyle(at);
      if (at instanceof SVGElement && !(at instanceof SVGSVGElement)) continue;
      layers = layers.map(below => over(rgba(style.backgroundColor), below));
      if (style.backgroundImage.includes('url(')) layers = null;
      else if (style.backgroundImage !== 'none' && style.backgroundClip !== 'text') {
        const stops = (style.backgroundImage.match(COLOUR) || []).map(rgba);
        if (stops.length) layers = stops.flatMap(stop => layers.map(below => over(stop, below)));
      }
      if (!layers) return null;
    }
    return layers;
  };
  const opacity = (element) => {
    let value = 1;
    for (let at = element; at; at = at.parentElement) value *= +getComputedStyle(at).opacity;
    return value;
  };
  const shapes = new Map();  // of each inline SVG: its filled shapes in the order in which they are drawn
  const drawn = (text, layers) => {
    const svg = text.ownerSVGElement;
    if (!shapes.has(svg)) shapes.set(svg, [...svg.querySelectorAll('path, rect, circle, ellipse, polygon')]
      .filter(shape => !shape.closest('defs, clipPath') && getComputedStyle(shape).fill !== 'none')
      .map(shape => [shape, shape.getBoundingClientRect()]));
    const box = text.getBoundingClientRect(), x = (box.left + box.right) / 2, y = (box.top + box.bottom) / 2;
    for (const [shape, at] of shapes.get(svg)) {
      if (!(at.left <= x && x <= at.right && at.top <= y && y <= at.bottom)) continue;
      if (!(shape.compareDocumentPosition(text) & Node.DOCUMENT_POSITION_FOLLOWING)) continue;
      if (!shape.isPointInFill(new DOMPoint(x, y).matrixTransform(shape.getScreenCTM().inverse()))) continue;
      const style = getComputedStyle(shape), alpha = +style.fillOpacity * opacity(shape);
      layers = layers.map(below => over(rgba(style.fill), below, alpha));
    }
    return layers;
  };

  // ---- the texts that are seen, each with the boxes of its lines ----
  const inside = (box, frame) => ({
    left: Math.max(box.left, frame.left), top: Math.max(box.top, frame.top),
    right: Math.min(box.right, frame.right), bottom: Math.min(box.bottom, frame.bottom),
  });
  const empty = (box) => box.right - box.left < 2 || box.bottom - box.top < 2;
  const visible = (element) =>
    element.checkVisibility({opacityProperty: true, visibilityProperty: true}) && opacity(element) > 0.05;
  const clipped = (element, box) => {
    for (let at = element; at && at !== document.body && at !== document.documentElement; at = at.parentElement) {
      const style = getComputedStyle(at);
      if (style.overflowX !== 'visible' || style.clipPath !== 'none') box = inside(box, at.getBoundingClientRect());
      if (style.position === 'fixed') break;
    }
    return box;
  };
  const floats = (element) => {
    for (let at = element; at; at = at.parentElement)
      if (['fixed', 'sticky'].includes(getComputedStyle(at).position) || at.role === 'dialog') return true;
    return false;
  };
  const texts = [], UNSEEN = 'script, style, noscript, template, defs, title';
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || !element || element.closest(UNSEEN) || !visible(element)) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const boxes = [...range.getClientRects()].map(box => clipped(element, box)).filter(box => !empty(box));
    if (boxes.length) texts.push({element, boxes, text: node.data, floats: floats(element)});
  }

  // ---- sideways scrolling ----
  const page = document.documentElement;
  if (page.scrollWidth > page.clientWidth) {
    const beyond = (box) => box.right > page.clientWidth + 1;
    const far = texts.filter(one => one.boxes.some(beyond)).map(one => one.element);
    const wide = [...document.body.querySelectorAll('*')].filter(at => beyond(at.getBoundingClientRect()));
    say(`the page is ${page.scrollWidth} pixels wide in a window of ${page.clientWidth}: `
      + [...new Set([...far, ...wide].map(name))].slice(0, 3).join(', '));
  }

  // ---- texts on texts, texts on pictures ----
  const core = (box) => {  // a line's box is higher than its letters
    const cut = 0.22 * (box.bottom - box.top);
    return {left: box.left, right: box.right, top: box.top + cut, bottom: box.bottom - cut};
  };
  const lines = texts.filter(one => !one.floats)
    .flatMap(one => one.boxes.map(box => ({...one, box: core(box)})))
    .sort((a, b) => a.box.top - b.box.top);
  lines.forEach((one, place) => {
    for (let next = place + 1; next < lines.length && lines[next].box.top < one.box.bottom - 1; next++) {
      const other = lines[next], both = inside(one.box, other.box);
      if (other.text !== one.text || other.element !== one.element)
        if (both.right - both.left > 1.5 && both.bottom - both.top > 1.5)
          say(`${words(one.text)} (${name(one.element)}) lies on ${words(other.text)} (${name(other.element)})`);
    }
  });
  for (const picture of document.querySelectorAll('img, canvas, video')) {
    if (!visible(picture)) continue;
    const frame = picture.getBoundingClientRect();
    if (frame.width < 40 || frame.height < 40) continue;  // an icon
    let box = frame;
    const wide = picture.naturalWidth || picture.videoWidth;
    const high = picture.naturalHeight || picture.videoHeight;
    if (wide && high && ['contain', 'scale-down'].includes(getComputedStyle(picture).objectFit)) {
      const scale = Math.min(frame.width / wide, frame.height / high);
      const [x, y] = [(frame.width - wide * scale) / 2, (frame.height - high * scale) / 2];
      box = {left: frame.left + x, right: frame.right - x, top: frame.top + y, bottom: frame.bottom - y};
    }
    box = clipped(picture, box);
    for (const one of lines) {
      const both = inside(one.box, box);
      if (both.right - both.left > 3 && both.bottom - both.top > 3)
        say(`${words(one.text)} (${name(one.element)}) lies on a picture (${name(picture)})`);
    }
  }

  // ---- contrast and size ----
  const judge = (element, text, colour, size) => {
    const where = `${words(text)} (${name(element)})`;
    if (size < smallest - 0.05) say(`${where} is ${size.toFixed(1)} pixels high, less than ${smallest}`);
    if (element.closest(':disabled, [aria-disabled=true]')) return;
    let layers = behind(element);
    if (!layers) return say(`${where} lies on a background picture`);
    if (element instanceof SVGElement) layers = drawn(element, layers);
    const alpha = opacity(element);
    const worst = Math.min(...layers.map(below => ratio(over(rgba(colour), below, alpha), below)));
    if (worst < least) say(`${where} has a contrast of ${worst.toFixed(2)}, less than ${least}`);
  };
  for (const {element, text} of texts) {
    const style = getComputedStyle(element);
    let size = parseFloat(style.fontSize), colour = style.color;
    if (element instanceof SVGElement) {
      const matrix = element.getScreenCTM();
      size *= Math.hypot(matrix.a, matrix.b);
      colour = style.fill;
    }
    judge(element, text, colour, size);
  }
  for (const field of document.querySelectorAll('input, textarea')) {
    if (!visible(field) || empty(clipped(field, field.getBoundingClientRect()))) continue;
    if (['checkbox', 'radio', 'range', 'file', 'color', 'hidden'].includes(field.type)) continue;
    const style = getComputedStyle(field, field.value ? null : '::placeholder');
    const shown = field.value || field.placeholder;
    if (shown) judge(field, shown, style.color, parseFloat(style.fontSize));
  }
  return found;
}"""


def problems(page: Any, contrast: float = CONTRAST, smallest: float = SMALLEST) -> list[str]:
    """What is wrong with the look of an open page of playwright, at most 30 lines; an empty list if nothing is.

    Each line names the text and its element. `smallest` is in pixels of the screen, so a figure that is scaled down
    counts with the size at which it is shown.
    """
    found: list[str] = page.evaluate(MEASURE, [contrast, smallest])
    return found
