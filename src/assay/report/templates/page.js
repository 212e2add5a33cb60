(() => {
  // What a link points at may be folded away; not every browser opens it by itself.
  const reveal = () => {
    let id = "";
    try { id = decodeURIComponent(location.hash.slice(1)); } catch { return; }
    const target = id && document.getElementById(id);
    if (!target) return;
    const folds = [...target.closest(".evidence")?.querySelectorAll(":scope > details:not([open])") ?? []];
    for (let node = target; node; node = node.parentElement) if (node.tagName === "DETAILS" && !node.open && !folds.includes(node)) folds.push(node);
    folds.forEach((fold) => { fold.open = true; });
    if (folds.length) target.scrollIntoView();
    if (target.tabIndex === -1 && target.hasAttribute("tabindex")) target.focus({ preventScroll: true });
  };
  addEventListener("hashchange", reveal);
  addEventListener("click", (event) => { if (event.target.closest("a[href^='#']")?.hash === location.hash) reveal(); });
  reveal();

  // Paper has no folds.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll(".verdicts details:not([open]), [data-printed]:not([open])")];
    opened.forEach((fold) => { fold.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((fold) => { fold.open = false; }));
})();
