// The run writes this file again and again, so the page loads it again. The browser keeps the place; open parts are kept here.
const page = document.getElementById("live-page"), age = document.getElementById("age"), news = document.getElementById("news");
const updated = +page.dataset.updated, quiet = Math.max(120, 5 * +page.dataset.longest);
const words = (s) => s < 90 ? `${Math.round(s)} s` : s < 5400 ? `${Math.round(s / 60)} min` : s < 172800 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86400)} days`;
const key = "graft " + location.pathname;
try {
  const kept = JSON.parse(sessionStorage.getItem(key) || "null");
  if (kept) { document.getElementById("recipe").open = kept.open; scrollTo(0, kept.y); }
} catch { /* a browser may refuse storage to files */ }
function again() {
  if ([...document.querySelectorAll("audio")].some((one) => !one.paused)) { setTimeout(again, 1000); return; } // somebody listens
  try { sessionStorage.setItem(key, JSON.stringify({ open: document.getElementById("recipe").open, y: scrollY })); } catch { /* as above */ }
  location.reload();
}
function tick() {
  const seconds = Math.max(0, Date.now() / 1000 - updated);
  age.textContent = `· updated ${words(seconds)} ago`;
  if (seconds > quiet) {
    news.hidden = false;
    news.textContent = `The run has not written this page for ${words(seconds)} (the last time: ${new Date(updated * 1000).toLocaleString()}). Perhaps a step or an evaluation takes long. Or the run has stopped: somebody killed it, memory ran out, or the machine was switched off. The same graft train command goes on from the last checkpoint.`;
  }
}
tick();
setInterval(tick, 1000);
// The older the page is, the less often it loads again, at least once a minute. A hidden page waits until somebody looks.
const wait = Math.min(60, Math.max(3, (Date.now() / 1000 - updated) / 4)) * 1000;
setTimeout(() => document.hidden ? document.addEventListener("visibilitychange", again, { once: true }) : again(), wait);
