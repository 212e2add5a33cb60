// A field above a long table leaves the rows that have its text in one of their names.
for (const box of document.querySelectorAll("[data-search]")) {
  const rows = [...box.nextElementSibling.querySelectorAll("tbody tr")];
  const texts = rows.map((row) => [...row.cells].filter((cell) => !cell.classList.contains("number")).map((cell) => cell.textContent).join("\n").toLowerCase());
  const field = box.querySelector("input");
  box.hidden = false;
  field.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase();
    let found = 0;
    rows.forEach((row, i) => { row.hidden = !texts[i].includes(wanted); found += !row.hidden; });
    box.querySelector("[data-found]").textContent = wanted ? `${found} of ${rows.length}` : "";
  });
}
