// graft watch: fetch the content again and put it in place, so nothing flickers and the page stays where it is.
let tag = null, failures = 0, since = 0;
const words = (s) => s < 90 ? `${Math.round(s)} s` : s < 5400 ? `${Math.round(s / 60)} min` : `${Math.round(s / 3600)} h`;
function lost(text) {
  const news = document.getElementById("news");
  news.hidden = !text;
  news.textContent = text;
}
async function look() {
  if ([...document.querySelectorAll("audio")].some((one) => !one.paused)) { setTimeout(look, 1000); return; } // somebody listens
  try {
    const answer = await fetch("page", { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store" });
    failures = 0;
    if (answer.status === 200) {
      const text = await answer.text(), found = new DOMParser().parseFromString(text, "text/html");
      if (!found.getElementById("live-page")) { location.reload(); return; } // the run is finished: this is its report
      const open = document.getElementById("recipe").open, now = found.getElementById("live-page");
      document.getElementById("live-page").replaceWith(now);
      document.title = found.title;
      document.getElementById("recipe").open = open;
      tag = answer.headers.get("ETag");
      since = Date.now();
    } else if (answer.status === 304) {
      lost("");
    } else {
      lost(await answer.text());
    }
  } catch {
    failures += 1;
    if (failures > 2) lost("graft watch does not answer: it was stopped. The run itself may go on.");
  }
  const age = document.getElementById("age");
  if (age && since) age.textContent = `· news ${words((Date.now() - since) / 1000)} ago`;
  setTimeout(look, document.hidden ? 5000 : failures ? 3000 : 1000);
}
look();
