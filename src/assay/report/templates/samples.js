// Samples that pass every filter, a page of them at a time. Of many classes a part of the name is enough.
const passes = (tile, control) => {
  const filter = control.dataset.filter;
  if (filter === "text") return tile.dataset.tip.toLowerCase().includes(control.value.trim().toLowerCase());
  if (control.type !== "search") return tile.dataset[filter] === control.value;
  const name = filter === "label" ? tile.querySelector("bdi") : tile.querySelector(".fate bdi");
  return tile.dataset[filter] !== "" && name.textContent.toLowerCase().includes(control.value.trim().toLowerCase());
};
for (const box of document.querySelectorAll(".samples")) {
  const tiles = [...box.querySelectorAll("li[data-fate]")];
  const controls = [...box.querySelectorAll("[data-filter]")];
  const more = box.querySelector("[data-more]");
  if (!more) continue;
  const PAGE = innerWidth < 700 ? 24 : 60; // a telephone shows three in a row
  const PRINTED = 40;
  let most = PAGE;
  const draw = () => {
    const wanted = controls.filter((control) => control.value && (control.type !== "radio" || control.checked));
    const passing = new Set(tiles.filter((tile) => wanted.every((control) => passes(tile, control))));
    let shown = 0;
    for (const tile of tiles) tile.hidden = !passing.has(tile) || shown++ >= most;
    const left = passing.size - Math.min(most, passing.size);
    more.hidden = left === 0;
    more.textContent = `Show ${Math.min(PAGE, left)} more`;
    const of = passing.size === tiles.length ? "" : ` of ${tiles.length}`;
    const all = `${passing.size}${of} ${tiles.length === 1 ? "sample" : "samples"}`;
    box.querySelector("[data-shown]").textContent = passing.size === 0 ? "No sample is like that." : left ? `${all}, the first ${most} shown` : all;
  };
  box.querySelector(".filters").hidden = false;
  for (const event of ["change", "input"]) box.addEventListener(event, () => { most = PAGE; draw(); });
  more.addEventListener("click", () => { most += PAGE; draw(); });
  box.querySelector("[data-reset]").addEventListener("click", () => {
    for (const control of controls) if (control.type === "radio") control.checked = control.value === ""; else control.value = "";
    most = PAGE;
    draw();
  });
  let before = most;
  addEventListener("beforeprint", () => { before = most; most = PRINTED; draw(); });
  addEventListener("afterprint", () => { most = before; draw(); });
  draw();
}
