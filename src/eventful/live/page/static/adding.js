// Adds cameras.
import { ask } from "./api.js";

const form = document.getElementById("add");
const note = document.getElementById("add-note");

export function allowed(schemes) {
  document.getElementById("adding").hidden = schemes.length === 0;
  form.elements.source.placeholder = schemes.map((scheme) => `${scheme}://…`).join(" or ");
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { name, source } = form.elements;
  try {
    await ask("POST", "/api/cameras", { name: name.value.trim(), source: source.value.trim() });
    note.textContent = `${name.value.trim()} was added`;
    form.reset();
  } catch (error) {
    note.textContent = error.type ? error.message : "the server does not answer";
  }
});
