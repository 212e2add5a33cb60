// The values of marks: under the pointer, under the finger, and by arrow keys from mark to mark.
(() => {
  const tip = document.getElementById("tip");
  const announcement = document.getElementById("announcement");
  const hide = () => { tip.hidden = true; };
  const put = (text, middle, top, bottom) => {
    tip.hidden = false;
    if (tip.textContent !== text) tip.textContent = text;
    const box = tip.getBoundingClientRect();
    const left = Math.min(Math.max(8, middle - box.width / 2), innerWidth - box.width - 8);
    const above = top - box.height - 14;
    tip.style.translate = `${left}px ${above > 8 ? above : bottom + 14}px`;
  };
  const point = (event) => {
    const mark = event.target.closest?.("[data-tip]");
    if (mark) put(mark.dataset.tip, event.clientX, event.clientY, event.clientY); else hide();
  };
  addEventListener("pointermove", point, { passive: true });
  addEventListener("pointerdown", point, { passive: true });
  addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

  const moves = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };
  let walked = null;
  const leave = () => { walked?.classList.remove("walked"); walked = null; };
  const stand = (mark) => {
    leave();
    walked = mark;
    mark.classList.add("walked");
    mark.scrollIntoView({ block: "nearest", inline: "nearest", behavior: "instant" });
    const box = mark.getBoundingClientRect();
    put(mark.dataset.tip, box.left + box.width / 2, box.top, box.bottom);
    announcement.textContent = mark.dataset.tip;
  };
  // A page that moves leaves a tip behind, unless it moved to bring a mark into view.
  addEventListener("scroll", () => {
    if (!walked) return hide();
    const box = walked.getBoundingClientRect();
    put(tip.textContent, box.left + box.width / 2, box.top, box.bottom);
  }, { passive: true });
  for (const walk of document.querySelectorAll("[data-walk]")) {
    walk.addEventListener("keydown", (event) => {
      if (event.key === "Escape") leave();
      if (!(event.key in moves) || event.target !== walk) return;
      const marks = [...walk.querySelectorAll("[data-tip]")].filter((mark) => mark.checkVisibility());
      if (!marks.length) return;
      event.preventDefault();
      const at = marks.indexOf(walked);
      const next = at < 0 && event.key !== "End" ? 0 : at + moves[event.key];
      stand(marks[Math.min(Math.max(0, next), marks.length - 1)]);
    });
    walk.addEventListener("blur", () => { leave(); hide(); });
  }
})();
