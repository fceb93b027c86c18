"use strict";
const at = (id) => document.getElementById(id);
const frames = film.frames, seek = at("seek"), stage = at("stage"), sizes = at("sizes");
const known = new Map(); // frame: where its bits went
let now = -1, asked = 0, turns = 0, split = 0.5, playing = null; // now: the frame shown; asked: the one to be shown

const bytes = (n) => n.toLocaleString("en") + " bytes";
const keys = frames.map((f, i) => (f.kind === "key" ? i : -1)).filter((i) => i >= 0);

function told(i) {
  const f = frames[i], b = known.get(i);
  let text = `frame ${i}: ${f.kind}, ${bytes(f.bytes)}`;
  if (b) text += ` (${bytes(Math.round(b.side / 8))} of side information, ${bytes(Math.round(b.latents / 8))} of latents)`;
  const key = Math.max(...keys.filter((k) => k <= i), -1);
  if (key >= 0) {
    const next = keys.find((k) => k > i) ?? frames.length;
    const chain = frames.slice(key, next);
    if (chain.length > 1) text += `; chain of frames ${key} to ${next - 1}: ${bytes(chain.reduce((s, c) => s + c.bytes, 0))}`;
  }
  return text;
}

function load(image, address) {
  return new Promise((done, failed) => {
    image.onload = () => done();
    image.onerror = () => failed(new Error(address));
    image.src = address;
  });
}

async function show(i) {
  i = Math.min(Math.max(i, 0), frames.length - 1);
  const turn = ++turns, comparing = at("comparing").checked, inside = film.pictures?.[i];
  seek.value = asked = i;
  at("time").value = frames[i].seconds === null ? `frame ${i}` : `${frames[i].seconds.toFixed(2)} s, ${i + 1} of ${frames.length}`;
  let problem = inside?.problem ?? "";
  try {
    if (problem) throw new Error(problem);
    await load(at("ours"), inside ? inside.ours : `${i}.png`);
    if (!known.has(i)) known.set(i, inside ? inside.bits : await (await fetch(`${i}.json`)).json());
  } catch {
    if (!problem) problem = await fetch(`${i}.png`).then((answer) => answer.text(), () => "the server has gone");
  }
  let source = false;
  if (comparing && !problem && (!inside || inside.source)) {
    source = await load(at("source"), inside ? inside.source : `source/${i}.png`).then(() => true, () => false);
  }
  if (turn !== turns) return;
  now = i;
  at("ours").hidden = problem !== "";
  at("problem").hidden = problem === "" && (source || !comparing);
  at("problem").textContent = problem || "the source has no frame at this time";
  at("source").hidden = at("split").hidden = !source;
  at("told").textContent = told(i);
  divide(split);
  draw();
}

function divide(where) {
  split = Math.min(Math.max(where, 0), 1);
  at("source").style.clipPath = `inset(0 0 0 ${100 * split}%)`;
  at("split").style.left = `${100 * split}%`;
}

function draw() {
  const ratio = window.devicePixelRatio || 1, width = sizes.clientWidth, height = sizes.clientHeight;
  sizes.width = width * ratio;
  sizes.height = height * ratio;
  const c = sizes.getContext("2d"), style = getComputedStyle(document.documentElement);
  c.scale(ratio, ratio);
  const most = Math.max(...frames.map((f) => f.bytes), 1), step = width / frames.length;
  frames.forEach((f, i) => {
    const tall = Math.max(1, (f.bytes / most) * (height - 6));
    c.fillStyle = style.getPropertyValue(f.kind === "key" ? "--key" : f.kind === "damaged" ? "--bad" : "--rest");
    c.globalAlpha = i === now ? 1 : 0.55;
    c.fillRect(i * step, height - tall, Math.max(step - (step > 3 ? 1 : 0), 0.5), tall);
    if (i === now) c.fillRect(i * step, 0, Math.max(step, 2), 3);
  });
}

function pause() {
  clearTimeout(playing);
  playing = null;
  at("play").textContent = "▶";
}

async function play() {
  at("play").textContent = "⏸";
  const start = asked >= frames.length - 1 ? 0 : asked;
  const next = async (i) => {
    const began = performance.now();
    await show(i);
    if (playing === null || i >= frames.length - 1) return pause();
    const apart = 1000 * ((frames[i + 1].seconds ?? 0) - (frames[i].seconds ?? 0));
    playing = setTimeout(() => next(i + 1), Math.max(apart - (performance.now() - began), 0));
  };
  playing = 0;
  await next(start);
}

const toggle = () => (playing === null ? play() : pause());
const go = (i) => { pause(); return show(i); };
const earlier = () => go(keys.filter((k) => k < asked).pop() ?? 0);
const later = () => go(keys.find((k) => k > asked) ?? frames.length - 1);

at("name").textContent = document.title = film.name;
at("about").textContent = `${film.width}x${film.height}, ${frames.length} frames, ${bytes(film.bytes)}, model ${film.model}` +
  (film.problems.length ? `; ${film.problems.length} problems: ${film.problems[0]}` : "");
at("compare").hidden = !film.source;
stage.style.aspectRatio = `${film.width} / ${film.height}`;
stage.style.maxWidth = `calc(70vh * ${film.width / film.height})`;
seek.max = Math.max(frames.length - 1, 0);
seek.addEventListener("input", () => go(Number(seek.value)));
at("play").addEventListener("click", toggle);
at("back").addEventListener("click", earlier);
at("forth").addEventListener("click", later);
at("comparing").addEventListener("change", () => go(asked));
sizes.addEventListener("click", (e) => go(Math.floor((e.offsetX / sizes.clientWidth) * frames.length)));
const drag = (e) => {
  const box = stage.getBoundingClientRect();
  divide((e.clientX - box.left) / box.width);
};
stage.addEventListener("pointerdown", (e) => { stage.setPointerCapture(e.pointerId); drag(e); });
stage.addEventListener("pointermove", (e) => { if (e.buttons) drag(e); });
addEventListener("resize", draw);
addEventListener("keydown", (e) => {
  if (e.target === seek && e.key.startsWith("Arrow")) return;
  const act = { " ": toggle, ArrowLeft: () => go(asked - 1), ArrowRight: () => go(asked + 1), Home: () => go(0), End: () => go(frames.length - 1), PageUp: earlier, PageDown: later, c: () => film.source && at("comparing").click() }[e.key];
  if (!act || e.ctrlKey || e.metaKey || e.altKey) return;
  e.preventDefault();
  act();
});
if (frames.length) show(0);
else at("told").textContent = "the file holds no frames";
