"use strict";
(() => {
  const all = (selector) => Array.from(document.querySelectorAll(selector));
  const controls = all("[data-control]");
  const asked = () => new URLSearchParams(location.hash.slice(1));

  function show() {
    const value = Object.fromEntries(controls.map((each) => [each.dataset.control, each.value]));
    for (const view of all(".view")) {
      const other = "test" in view.dataset && view.dataset.test !== value.test;
      view.hidden = other || view.dataset.student !== value.student;
    }
    const words = (value.search || "").toLocaleLowerCase().split(/\s+/).filter(Boolean);
    let found = 0, total = 0;
    for (const view of all(".view")) {
      for (const sentence of view.querySelectorAll(".sentence")) {
        const text = sentence.textContent.toLocaleLowerCase();
        const kind = !value.kind || value.kind === "all" || sentence.dataset.kind === value.kind;
        sentence.hidden = !(kind && words.every((word) => text.includes(word)));
        if (!view.hidden) {
          total += 1;
          found += sentence.hidden ? 0 : 1;
        }
      }
    }
    for (const each of all(".found")) each.textContent = `${found} of ${total} sentences`;
    const compared = (value.compare || "").toLocaleLowerCase();
    for (const row of all("#significance tbody tr")) {
      row.hidden = !row.textContent.toLocaleLowerCase().includes(compared);
    }
    if (value.compare) for (const each of all("details#significance")) each.open = true;
  }

  function obey() {
    const given = asked();
    for (const each of controls) {
      const value = given.get(each.dataset.control);
      if (value === null) continue;
      if (each.tagName !== "SELECT" || Array.from(each.options).some((option) => option.value === value)) {
        each.value = value;
      }
    }
    show();
  }

  function changed() {
    const state = asked();
    for (const each of controls) {
      if (each.value && each.value !== each.dataset.first) state.set(each.dataset.control, each.value);
      else state.delete(each.dataset.control);
    }
    const text = state.toString();
    history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
    show();
  }

  for (const each of controls) {
    each.dataset.first = each.value;
    each.addEventListener("input", changed);
  }
  for (const each of all(".controls")) each.hidden = false;
  addEventListener("hashchange", obey);
  addEventListener("beforeprint", () => all("details").forEach((each) => { each.open = true; }));
  obey();
})();
