// The current page is in view in the sidebar, and each block of code has a button that copies it.
document.querySelector(".sidebar-tree .current-page")?.scrollIntoView({block: "center"});
// The theme's captions are headings of no level, which screen readers cannot place.
for (const caption of document.querySelectorAll("p.caption[role=heading]")) caption.setAttribute("aria-level", "2");
for (const block of document.querySelectorAll("article div.highlight")) {
  const button = document.createElement("button");
  button.className = "copy";
  button.textContent = "copy";
  button.addEventListener("click", async () => {
    const lines = block.querySelector("pre").textContent.trimEnd();
    try {
      await navigator.clipboard.writeText(lines);
      button.textContent = "copied";
    } catch {
      button.textContent = "select it and press Ctrl-C"; // the browser allows no more, as in files
    }
  });
  block.append(button);
}
