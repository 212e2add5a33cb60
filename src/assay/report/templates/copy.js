// Text to take along: a link to a rule, the command that explains it.
(() => {
  const announcement = document.getElementById("announcement");
  const put = async (text) => {
    try { await navigator.clipboard.writeText(text); return true; } catch { /* not every browser lets a file do that */ }
    const field = document.createElement("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  };
  for (const button of document.querySelectorAll("button[data-copy]")) {
    const face = button.querySelector("[data-face]");
    const rest = face.textContent;
    button.hidden = false;
    button.addEventListener("click", async () => {
      const text = button.dataset.copy.startsWith("#") ? new URL(button.dataset.copy, location.href).href : button.dataset.copy;
      const done = await put(text);
      button.focus();
      face.textContent = done ? "copied" : "not copied";
      announcement.textContent = done ? `Copied: ${text}` : "This browser does not let the page copy.";
      setTimeout(() => { face.textContent = rest; }, 2000);
    });
  }
})();
