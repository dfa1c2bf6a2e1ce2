"use strict";
/* Without this, pictures of every number of repeats stand below each other. */
for (const slider of document.querySelectorAll(".slider")) {
  const repeats = slider.dataset.repeats.split(" ").map(Number);
  const input = slider.querySelector("input"), output = slider.querySelector("output");
  const versions = [...slider.parentElement.querySelectorAll(".all .version")];
  const only = new Set(versions.filter((v) => v.parentElement.querySelectorAll(".version").length === 1));
  const show = () => {
    const k = repeats[input.value];
    output.textContent = k === 1 ? "single trials" : "means of " + k;
    for (const version of versions) version.hidden = !only.has(version) && Number(version.dataset.k) !== k;
  };
  slider.hidden = false;
  slider.parentElement.classList.add("sliding");
  input.addEventListener("input", show);
  show();
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => { d.open = true; }));
