"use strict";
(() => {
  // Text to take along: a command, a table of numbers.
  const put = async (text) => {
    try { await navigator.clipboard.writeText(text); return true; } catch { /* where the browser does not allow it */ }
    const field = document.createElement("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  };
  const remember = (choice) => { try { localStorage.setItem("assay-theme", choice); } catch { /* no storage */ } };
  const recall = () => { try { return localStorage.getItem("assay-theme"); } catch { return null; } };
  const say = (id, text) => {
    const field = document.querySelector(`#${id} textarea, #${id} input`);
    field.value = text;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  };

  // The client of Gradio warns that it does not implement what it calls at the end of every upload.
  const warn = console.warn;
  console.warn = (...said) => { if (said[0] !== "Method not implemented.") warn(...said); };

  addEventListener("click", async (event) => {
    const button = event.target.closest?.("button[data-copy], button[data-sample], button[data-start], button[data-colours]");
    if (!button) return;
    if (button.dataset.sample !== undefined) {
      document.querySelectorAll("[data-sample][aria-pressed]").forEach((other) => other.removeAttribute("aria-pressed"));
      button.setAttribute("aria-pressed", "true");
      say("sample", button.dataset.sample);
    } else if (button.dataset.start !== undefined) {
      say("start", button.dataset.start);
    } else if (button.dataset.colours !== undefined) {
      remember(document.body.classList.toggle("dark") ? "dark" : "light");
    } else {
      const face = button.textContent;
      button.textContent = (await put(button.dataset.copy)) ? "Copied" : "Not copied";
      button.focus();
      setTimeout(() => { button.textContent = face; }, 2000);
    }
  });
  addEventListener("DOMContentLoaded", () => {
    const choice = recall();
    if (choice !== null) document.body.classList.toggle("dark", choice === "dark");
  });
})();
