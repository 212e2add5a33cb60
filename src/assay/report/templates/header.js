"use strict";
// The colours, and the contents.
(() => {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const choices = ["auto", "light", "dark"];
  const recall = () => { try { return localStorage.getItem("assay-theme"); } catch { return null; } };
  const remember = (choice) => { try { localStorage.setItem("assay-theme", choice); } catch { /* a page from a file may have no storage */ } };
  const apply = (choice) => {
    if (choice === "auto") root.removeAttribute("data-theme"); else root.dataset.theme = choice;
    button.querySelector("span").textContent = choice;
    button.setAttribute("aria-label", `Colours: ${choice}`);
  };
  let choice = choices.includes(recall()) ? recall() : "auto";
  apply(choice);
  button.hidden = false;
  button.addEventListener("click", () => {
    choice = choices[(choices.indexOf(choice) + 1) % choices.length];
    apply(choice);
    remember(choice);
  });

  // The contents name the section that is being read.
  const links = new Map([...document.querySelectorAll(".contents a")].map((link) => [link.hash.slice(1), link]));
  const seen = new Set();
  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) seen.add(entry.target.id); else seen.delete(entry.target.id);
    const now = [...links.keys()].find((id) => seen.has(id));
    for (const [id, link] of links) if (id === now) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current");
  }, { rootMargin: "-12% 0px -70% 0px" });
  for (const id of links.keys()) { const section = document.getElementById(id); if (section) watch.observe(section); }
  const contents = document.getElementById("contents");
  contents?.addEventListener("click", (event) => { if (event.target.closest("a") && contents.matches(":popover-open")) contents.hidePopover(); });
})();
