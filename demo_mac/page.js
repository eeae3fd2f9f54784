// What gradio cannot do: play segments and move the playheads, bring the answer into view, copy, and close old messages.
() => {
  const playing = (figure) => figure.closest(".sounding").querySelector("audio");
  const figureOf = (audio) => audio.closest(".sounding").querySelector(".recording");

  // Playheads stand where the sound is, and the segment that is heard is marked.
  const follow = (audio) => {
    const figure = figureOf(audio), now = audio.currentTime;
    figure.style.setProperty("--at", Math.min(now / figure.dataset.seconds, 1));
    for (const part of figure.querySelectorAll("[data-start]")) {
      const here = now > 0 && now >= part.dataset.start && now < part.dataset.end;
      here ? part.setAttribute("aria-current", "true") : part.removeAttribute("aria-current");
    }
    if (audio.dataset.until && now >= audio.dataset.until) audio.pause();
  };
  const frame = (audio) => {
    if (!audio.isConnected) return;
    follow(audio);
    if (!audio.paused) requestAnimationFrame(() => frame(audio));
  };
  const hear = (audio, start, until) => {
    audio.currentTime = start;
    until ? (audio.dataset.until = until) : delete audio.dataset.until;
    audio.play();
  };
  document.addEventListener("play", (event) => frame(event.target), true);
  document.addEventListener("pause", (event) => delete event.target.dataset.until, true);
  for (const moved of ["seeked", "timeupdate"])
    document.addEventListener(moved, (event) => event.target.closest?.(".sounding") && follow(event.target), true);

  // Browsers lend no clipboard to pages at http:// of other machines; there the words are selected, and copied as by hand.
  const copyWords = async (words) => {
    try {
      await navigator.clipboard.writeText(words.innerText);
      return true;
    } catch {
      getSelection().selectAllChildren(words);
      return document.execCommand("copy");
    }
  };

  document.addEventListener("click", (event) => {
    const part = event.target.closest(".recording [data-start]"), plot = event.target.closest(".recording .plot");
    const copy = event.target.closest(".copy");
    if (part) hear(playing(part), part.dataset.start, part.dataset.end);
    else if (plot) {
      const { left, width } = plot.getBoundingClientRect();
      hear(playing(plot), ((event.clientX - left) / width) * plot.closest(".recording").dataset.seconds);
    }
    if (copy)
      copyWords(copy.parentElement.querySelector(".said")).then((done) => {
        copy.textContent = done ? "Copied" : "Selected";
        setTimeout(() => { copy.textContent = "Copy"; }, 2000);
      });
  });

  // An answer that is not in view, or that has no room there to grow, comes to the top of the screen.
  window.bringIntoView = (id) => {
    const answer = document.getElementById(id), { top, bottom } = answer.getBoundingClientRect();
    const behavior = matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
    if (top < 0 || bottom > 0.8 * innerHeight) answer.scrollIntoView({ behavior, block: "start" });
  };

  // Messages of gradio's own go with the next action.
  const forget = (event) => {
    if (!event.target.closest(".toast-wrap"))
      document.querySelectorAll(".toast-close").forEach((button) => button.click());
  };
  document.addEventListener("click", forget, true);
  document.addEventListener("change", forget, true);

  // The upload button is named by the words on it; gradio's label for it differs from them.
  const rename = () =>
    document.querySelectorAll(".upload-container[aria-label]").forEach((box) => box.removeAttribute("aria-label"));
  new MutationObserver(rename).observe(document.body, { childList: true, subtree: true });
  rename();
}
