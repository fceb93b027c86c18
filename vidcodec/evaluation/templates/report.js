"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const tip = document.getElementById("tip");

  // What is shown as quality, all over the page.
  for (const button of all("[data-choose]")) {
    button.addEventListener("click", () => {
      for (const other of all("[data-choose]")) other.setAttribute("aria-pressed", String(other === button));
      for (const block of all("[data-metric]")) block.hidden = block.dataset.metric !== button.dataset.choose;
    });
  }

  // Codecs can be hidden in all charts.
  for (const box of all("[data-codec]")) {
    box.addEventListener("change", () => {
      for (const series of all(".series")) {
        if (series.dataset.name === box.dataset.codec) series.style.display = box.checked ? "" : "none";
      }
    });
  }

  // The figures of the nearest mark, in any chart.
  for (const chart of all("svg.chart")) {
    const marks = all("[data-told]", chart);
    let on = null;
    const leave = () => {
      if (on) on.classList.remove("on");
      on = null;
      tip.hidden = true;
    };
    const show = (event) => {
      const place = chart.getScreenCTM();
      const x = (event.clientX - place.e) / place.a;
      const y = (event.clientY - place.f) / place.d;
      let best = null;
      let least = 28 * 28;
      for (const mark of marks) {
        if (mark.parentNode.style.display === "none") continue;
        const far = (mark.dataset.x - x) ** 2 + (mark.dataset.y - y) ** 2;
        if (far < least) [best, least] = [mark, far];
      }
      if (best === on) return;
      leave();
      if (!best) return;
      on = best;
      on.classList.add("on");
      tip.textContent = on.dataset.told;
      tip.hidden = false;
      const box = tip.getBoundingClientRect();
      const left = place.a * on.dataset.x + place.e;
      const top = place.d * on.dataset.y + place.f;
      tip.style.left = Math.max(8, Math.min(left + 14, document.documentElement.clientWidth - box.width - 8)) + "px";
      tip.style.top = (top - box.height - 12 < 8 ? top + 14 : top - box.height - 12) + "px";
    };
    chart.addEventListener("pointermove", show);
    chart.addEventListener("pointerdown", show);
    chart.addEventListener("pointerleave", leave);
  }
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

  // Pictures under a slider.
  for (const figure of all(".compare")) {
    const stage = figure.querySelector(".stage");
    if (!stage) continue;
    const range = stage.querySelector("input");
    const menus = all("select", figure);
    let frame = "0";
    const split = () => { stage.style.setProperty("--split", range.value + "%"); };
    const arrange = () => {
      const [left, right] = menus.map((menu) => menu.value);
      for (const image of all("img", stage)) {
        const here = image.dataset.frame === frame;
        const side = image.dataset.side;
        image.className = here && side === left ? "over" : here && side === right ? "under" : "off";
      }
      menus.forEach((menu, number) => {
        stage.querySelectorAll(".badge")[number].textContent = menu.selectedOptions[0].textContent;
      });
      for (const note of all("figcaption [data-frame]", figure)) note.hidden = note.dataset.frame !== frame;
      for (const button of all("button[data-frame]", figure)) {
        button.setAttribute("aria-pressed", String(button.dataset.frame === frame));
      }
    };
    range.addEventListener("input", split);
    for (const menu of menus) {
      menu.addEventListener("change", () => {
        // The same picture on both sides would show nothing: the other side takes what this one had.
        const other = menus.find((m) => m !== menu);
        if (other.value === menu.value) other.value = menu.dataset.before;
        for (const m of menus) m.dataset.before = m.value;
        arrange();
      });
      menu.dataset.before = menu.value;
    }
    for (const button of all("button[data-frame]", figure)) {
      button.addEventListener("click", () => { frame = button.dataset.frame; arrange(); });
    }
    split();
    arrange();
  }
})();
