// A picture of a gallery or a sample, large: arrows go to the next, Escape closes.
(() => {
  const dialog = document.getElementById("zoom");
  const body = dialog.querySelector("[data-body]");
  const cards = new Map([...document.querySelectorAll("#gallery .card[data-id]")].map((card) => [card.dataset.id, card]));
  const WIDTH = Math.min(innerWidth - 80, 320);
  let items = [];
  let at = 0;

  const magnify = (picture) => {
    const style = getComputedStyle(picture);
    const [width, height] = [parseFloat(style.width), parseFloat(style.height)];
    const factor = Math.max(1, Math.floor(WIDTH / width));
    const large = picture.cloneNode(false);
    const scaled = (text) => text.split(" ").map((part) => (part === "auto" ? part : `${parseFloat(part) * factor}px`)).join(" ");
    large.style.cssText = `width:${width * factor}px;height:${height * factor}px;max-width:none;background-position:${scaled(style.backgroundPosition)};background-size:${scaled(style.backgroundSize)}`;
    large.style.backgroundImage = style.backgroundImage;
    return large;
  };
  const say = (text) => Object.assign(document.createElement("p"), { className: "note", textContent: text });
  const draw = () => {
    const item = items[at];
    const card = item.classList.contains("card") ? item : cards.get(item.dataset.id);
    const picture = item.querySelector(".picture");
    const parts = [];
    if (card) {
      const pictures = card.querySelector(".pictures").cloneNode(true);
      pictures.querySelector(".enlarge")?.remove();
      parts.push(pictures);
    } else if (picture) parts.push(magnify(picture));
    const chances = item.querySelector(".chances").cloneNode(true);
    chances.hidden = false;
    if (chances.children.length) parts.push(chances);
    if (item === card) parts.push(...[...item.querySelectorAll(":scope > p")].map((line) => line.cloneNode(true)));
    else {
      parts.push(say(item.dataset.tip));
      if (!card && item.dataset.fate === "broken") parts.push(say("Attacked pictures are kept of the samples under Adversarial examples."));
    }
    body.replaceChildren(...parts);
    dialog.querySelector("#zoom-title bdi").textContent = (item.querySelector(":scope > p bdi") ?? item).textContent.trim();
    dialog.querySelector("[data-place]").textContent = `${at + 1} of ${items.length}`;
    for (const button of dialog.querySelectorAll("[data-step]")) button.disabled = !items[at + Number(button.dataset.step)];
  };
  const step = (by) => { at = Math.min(Math.max(0, at + by), items.length - 1); draw(); };
  const open = (item) => {
    items = [...item.parentElement.children].filter((other) => !other.hidden);
    at = items.indexOf(item);
    draw();
    document.getElementById("tip").hidden = true;
    dialog.showModal();
  };

  const moves = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };
  dialog.addEventListener("keydown", (event) => { if (event.key in moves) { event.preventDefault(); step(moves[event.key]); } });
  dialog.addEventListener("click", (event) => {
    const by = event.target.closest("[data-step]")?.dataset.step;
    if (by) step(Number(by)); else if (event.target === dialog || event.target.closest("[data-close]")) dialog.close();
  });
  for (const button of document.querySelectorAll(".enlarge")) {
    button.hidden = false;
    button.addEventListener("click", () => open(button.closest("li")));
  }
  for (const tiles of document.querySelectorAll(".tiles-of-samples")) {
    tiles.addEventListener("click", (event) => { const tile = event.target.closest("li"); if (tile) open(tile); });
    tiles.addEventListener("keydown", (event) => {
      const tile = tiles.querySelector("li.walked") ?? tiles.querySelector("li:not([hidden])");
      if (event.key !== "Enter" || !tile) return;
      event.preventDefault(); // else the button that gets the focus is pressed as well
      open(tile);
    });
  }
})();
