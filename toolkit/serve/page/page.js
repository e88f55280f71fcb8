"use strict";
// One request for a picture, with all instances down to LEAST; threshold, classes and hovering work on its answer.

const LEAST = 0.05;
// Pixels of the canvas, and at least of the drawn picture that is taken away: lines and letters need them.
const LONG = 1600, LONG_FILE = 640;

const get = (id) => document.getElementById(id);
const canvas = get("canvas");
const state = {
  language: navigator.language.startsWith("zh") ? "zh" : "en",
  threshold: 0.5, off: new Set(), lit: -1, turn: 0, instances: [], answered: false,
};

// ---- drawing

const above = () => state.instances.filter((instance) => instance.score >= state.threshold);
const visible = () => above().filter((instance) => !state.off.has(instance.categoryName));
/** The best comes last, for it is painted over the others; the lit one over all. */
const fromWorst = (instances, lit = -1) =>
  [...instances].sort((a, b) => (a.number === lit) - (b.number === lit) || a.score - b.score);

function sized(long) {
  const { width, height } = state.picture;
  const scale = long / Math.max(width, height);
  return [Math.max(1, Math.round(scale * width)), Math.max(1, Math.round(scale * height))];
}

function paint(target, lit) {
  const context = target.getContext("2d");
  const scale = target.width / state.picture.width;
  // So that letters are as large on every screen.
  const unit = Math.max(1, target.width / (canvas.clientWidth || target.width));
  context.clearRect(0, 0, target.width, target.height);
  context.drawImage(state.picture, 0, 0, target.width, target.height);
  const shown = fromWorst(visible(), lit);
  const one = shown.some((instance) => instance.number === lit);
  for (const { number, layer, bitmap } of shown) {
    if (!get("masks").checked && number !== lit) continue;
    context.globalAlpha = number === lit ? 0.75 : one ? 0.2 : 0.45;
    context.drawImage(layer, scale * bitmap.x, scale * bitmap.y, scale * layer.width, scale * layer.height);
  }
  context.globalAlpha = 1;
  const named = shown.filter(({ number }) => (one ? number === lit : get("labels").checked));
  context.lineWidth = 1.5 * unit;
  for (const { number, bbox } of named) {
    const [x1, y1, x2, y2] = bbox.map((side) => scale * side);
    context.strokeStyle = colour(number);
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
  }
  for (const instance of named) label(context, instance, scale, unit);
}

function label(context, { number, bbox, categoryName, score }, scale, unit) {
  const { width, height } = context.canvas;
  context.font = `${12 * unit}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const room = 6 * unit, tall = 17 * unit;
  const text = [`${categoryName} ${score.toFixed(2)}`, score.toFixed(2)].find(
    (text) => context.measureText(text).width + room <= width);
  if (!text) return;
  const wide = context.measureText(text).width + room;
  const left = Math.max(0, Math.min(scale * bbox[0], width - wide));
  const top = Math.max(0, Math.min(scale * bbox[1], height) - tall);
  context.fillStyle = colour(number);
  context.fillRect(left, top, wide, tall);
  context.fillStyle = inkOn(number);
  context.fillText(text, left + room / 2, top + tall / 2);
}

function draw() {
  if (state.picture) paint(canvas, state.lit);
}

/** All that threshold and classes change. */
function show() {
  const shown = visible();
  if (!shown.some((instance) => instance.number === state.lit)) state.lit = -1;
  draw();
  list(shown);
  for (const count of get("names").querySelectorAll("b")) {
    count.textContent = above().filter((instance) => instance.categoryName === count.dataset.name).length;
  }
  if (state.answered) say("found", shown.length, state.instances.length, state.milliseconds);
}

function list(shown) {
  get("instances").replaceChildren(...shown.map((instance) => {
    const row = document.createElement("li"), button = document.createElement("button");
    const patch = document.createElement("i"), score = document.createElement("b");
    patch.style.background = colour(instance.number);
    score.textContent = instance.score.toFixed(2);
    button.type = "button";
    button.dataset.number = instance.number;
    button.setAttribute("aria-current", instance.number === state.lit);
    button.append(patch, instance.categoryName, score);
    row.append(button);
    return row;
  }));
}

function light(number, { follow = false } = {}) {
  if (number === state.lit) return;
  state.lit = number;
  draw();
  for (const row of get("instances").querySelectorAll("button")) {
    const lit = Number(row.dataset.number) === number;
    row.setAttribute("aria-current", lit);
    if (lit && follow) reveal(row);
  }
}

/** Scrolls the list alone: on a narrow screen the canvas must stay in sight. */
function reveal(row) {
  const list = get("instances"), inner = row.getBoundingClientRect(), outer = list.getBoundingClientRect();
  if (inner.top < outer.top) list.scrollTop -= outer.top - inner.top;
  if (inner.bottom > outer.bottom) list.scrollTop += inner.bottom - outer.bottom;
}

function under(event) {
  const x = Math.floor((event.offsetX / canvas.clientWidth) * state.picture.width);
  const y = Math.floor((event.offsetY / canvas.clientHeight) * state.picture.height);
  const hit = visible().filter((instance) => bitAt(instance.bitmap, x, y));
  // Of several, the smallest is hardest to point at.
  hit.sort((a, b) => a.area - b.area);
  return hit.length ? hit[0].number : -1;
}

function classes() {
  const names = [...new Set(state.instances.map((instance) => instance.categoryName))].sort();
  get("names").replaceChildren(...names.map((name) => {
    const label = document.createElement("label"), box = document.createElement("input");
    const count = document.createElement("b");
    label.className = "inline";
    box.type = "checkbox";
    box.checked = true;
    box.addEventListener("change", () => {
      if (box.checked) state.off.delete(name); else state.off.add(name);
      show();
    });
    count.dataset.name = name;
    label.append(box, name, count);
    return label;
  }));
  get("classes").hidden = !names.length;
}

// ---- asking the service

function tell(kind, key, values) {
  const text = TEXTS[state.language][key];
  state.said = [kind, key, values];
  get("status").className = kind;
  get("status").textContent = typeof text === "function" ? text(...values) : text;
}

const say = (key, ...values) => tell("", key, values);
const complain = (key, ...values) => tell("error", key, values);

const base64 = (blob) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result.split(",")[1] ?? "");
  reader.onerror = reject;
  reader.readAsDataURL(blob);
});

/** The picture and nothing of the one before it; null if there is none to show. */
function lay(picture) {
  Object.assign(state, { picture, instances: [], answered: false, lit: -1 });
  state.off.clear();
  canvas.hidden = !picture;
  get("drop").classList.toggle("full", Boolean(picture));
  get("downloads").hidden = true;
  if (picture) [canvas.width, canvas.height] = sized(LONG);
  // A strip that stands upright would be too narrow for labels if all of it were in sight.
  canvas.style.maxHeight = picture && picture.height > 4 * picture.width ? "none" : "";
  classes();
  show();
}

async function look(blob, name, turn = ++state.turn) {
  let picture = null;
  try {
    picture = await createImageBitmap(blob);
  } catch { /* It is said below. */ }
  if (turn !== state.turn) return;
  Object.assign(state, { blob, name });
  lay(picture);
  if (!picture) {
    complain("notShown");
    return;
  }
  say("working");
  const start = performance.now();
  const answer = await ask(blob);
  if (turn !== state.turn) return;
  if (answer.problem) {
    complain(...answer.problem);
    if (answer.problem[0] === "unauthorized") {
      get("access").open = true;
      get("token").focus();
    }
    return;
  }
  state.milliseconds = Math.round(performance.now() - start);
  state.instances = answer.instances.map((instance, number) => {
    const bitmap = bitmapOf(instance);
    const made = { ...instance, number, bitmap, area: bitmap.bits.reduce((sum, bit) => sum + bit, 0) };
    return { ...made, layer: layerOf(made) };
  });
  state.answered = true;
  get("downloads").hidden = false;
  classes();
  show();
}

/** `instances`, or a `problem` to complain of. */
async function ask(blob) {
  const headers = new Headers({ "Content-Type": "application/json" });
  try {
    if (get("token").value) headers.set("Authorization", `Bearer ${get("token").value}`);
  } catch {
    return { problem: ["badToken"] };
  }
  let response;
  try {
    const body = JSON.stringify({ image: await base64(blob), threshold: LEAST, visualize: false });
    response = await fetch("instance-segmentation", { method: "POST", headers, body });
  } catch {
    return { problem: ["unreachable"] };
  }
  if (response.status === 401) return { problem: ["unauthorized"] };
  // A proxy's errors are pages.
  const answer = await response.json().catch(() => null);
  if (answer?.result?.instances) return answer.result;
  return { problem: answer?.errorMsg ? ["refused", answer.errorMsg] : ["status", response.status] };
}

async function sample() {
  const turn = ++state.turn;
  let problem;
  try {
    const response = await fetch("sample");
    if (response.ok) {
      const blob = await response.blob();
      await look(blob, `sample.${blob.type.split("/")[1]}`, turn);
      return;
    }
    problem = response.status === 404 ? ["noSample"] : ["status", response.status];
  } catch {
    problem = ["unreachable"];
  }
  if (turn === state.turn) complain(...problem);
}

// ---- files to take away

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function blank(width, height) {
  return Object.assign(document.createElement("canvas"), { width, height });
}

const text = (tree) => new Blob([JSON.stringify(tree)], { type: "application/json" });
const stem = () => (state.name ?? "picture").replace(/\.[^.]*$/, "");

const DOWNLOADS = {
  json: () => save(text({ instances: visible().map(({ bbox, categoryId, categoryName, score, mask }) =>
    ({ bbox, categoryId, categoryName, score, mask })) }), `${stem()}.json`),
  coco: () => {
    const { width, height } = state.picture;
    const names = new Map(visible().map((i) => [i.categoryId, i.categoryName]));
    save(text({
      images: [{ id: 1, file_name: state.name, width, height }],
      categories: [...names].map(([id, name]) => ({ id: id + 1, name })),
      annotations: visible().map((i, number) => ({
        id: number + 1, image_id: 1, category_id: i.categoryId + 1, score: i.score, iscrowd: 0, area: i.area,
        bbox: [i.bbox[0], i.bbox[1], i.bbox[2] - i.bbox[0], i.bbox[3] - i.bbox[1]],
        segmentation: fullRuns(i.bitmap, width, height),
      })),
    }), `${stem()}_coco.json`);
  },
  masks: () => {
    const target = blank(state.picture.width, state.picture.height), context = target.getContext("2d");
    for (const { layer, bitmap } of fromWorst(visible())) context.drawImage(layer, bitmap.x, bitmap.y);
    target.toBlob((blob) => save(blob, `${stem()}_masks.png`));
  },
  picture: () => {
    const target = blank(...sized(Math.max(LONG_FILE, state.picture.width, state.picture.height)));
    paint(target, -1);
    target.toBlob((blob) => save(blob, `${stem()}_res.png`));
  },
};

// ---- language and events

function speak() {
  const texts = TEXTS[state.language];
  document.documentElement.lang = state.language;
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = texts[element.dataset.text];
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", texts[element.dataset.label]);
  }
  get("language").textContent = texts.other;
  get("language").lang = state.language === "en" ? "zh" : "en";
  if (state.said) tell(...state.said);
}

get("language").addEventListener("click", () => {
  state.language = state.language === "en" ? "zh" : "en";
  speak();
});
get("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) look(file, file.name);
  event.target.value = "";
});
get("sample").addEventListener("click", sample);
get("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  if (state.blob) look(state.blob, state.name);
});
get("threshold").addEventListener("input", (event) => {
  state.threshold = Number(event.target.value);
  get("shown").textContent = state.threshold.toFixed(2);
  show();
});
for (const id of ["masks", "labels"]) get(id).addEventListener("change", draw);
addEventListener("resize", draw);

for (const kind of ["pointerdown", "pointermove"]) {
  canvas.addEventListener(kind, (event) => light(under(event), { follow: true }));
}
canvas.addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  const numbers = visible().map((instance) => instance.number);
  if (!step || !numbers.length) return;
  event.preventDefault();
  const at = numbers.indexOf(state.lit);
  const next = at < 0 ? (step > 0 ? 0 : numbers.length - 1) : (at + step + numbers.length) % numbers.length;
  light(numbers[next], { follow: true });
});
canvas.addEventListener("blur", () => light(-1));
for (const kind of ["pointerover", "focusin"]) {
  get("instances").addEventListener(kind, (event) => {
    const button = event.target.closest("button");
    if (button) light(Number(button.dataset.number));
  });
}
get("instances").addEventListener("focusout", () => light(-1));
for (const element of [canvas, get("instances")]) {
  // A finger leaves as soon as it is lifted.
  element.addEventListener("pointerleave", (event) => event.pointerType === "touch" || light(-1));
}

get("downloads").addEventListener("click", (event) => DOWNLOADS[event.target.dataset.download]?.());
addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
  if (file) look(file, file.name);
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    get("drop").classList.toggle("over", kind === "dragover");
    const file = kind === "drop" && event.dataTransfer.files[0];
    if (file) look(file, file.name);
  });
}

speak();
fetch("model").then((response) => response.json()).then((model) => {
  get("model").textContent = model.model;
  get("sample").hidden = !model.sample;
  const least = typeof model.threshold === "number" ? model.threshold : Math.min(...Object.values(model.threshold));
  state.threshold = Math.max(LEAST, least);
  get("threshold").value = state.threshold;
  get("shown").textContent = state.threshold.toFixed(2);
  show();
}).catch(() => complain("unreachable"));
