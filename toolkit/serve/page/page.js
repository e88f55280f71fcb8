"use strict";
// One request for a picture, with all instances down to LEAST; threshold, classes and hovering work on its answer.

const LEAST = 0.05;
const TEXTS = {
  en: {
    drop: "Drop a picture here, paste one, or", choose: "Choose a picture", sample: "Take a sample",
    threshold: "Least score", masks: "Masks", labels: "Labels", classes: "Classes", download: "Download",
    masksFile: "Masks", pictureFile: "Picture", access: "Access", token: "Token, if the service asks for one",
    api: "Description of the interface", working: "Looking for instances …", other: "中文",
    found: (shown, all, ms) => `${shown} of ${all} instances; ${ms} ms`,
    notPicture: "This is not a picture.", unreachable: "The service cannot be reached.",
  },
  zh: {
    drop: "将图片拖到此处、粘贴，或", choose: "选择图片", sample: "使用示例",
    threshold: "最低分数", masks: "掩码", labels: "标签", classes: "类别", download: "下载",
    masksFile: "掩码", pictureFile: "图片", access: "访问", token: "令牌（如服务要求）",
    api: "接口说明", working: "正在查找实例……", other: "English",
    found: (shown, all, ms) => `显示 ${shown} 个，共 ${all} 个实例；${ms} 毫秒`,
    notPicture: "这不是图片。", unreachable: "无法连接服务。",
  },
};

const get = (id) => document.getElementById(id);
const canvas = get("canvas");
const state = { language: navigator.language.startsWith("zh") ? "zh" : "en", threshold: 0.5, off: new Set(), lit: -1 };

// ---- COCO's compressed run lengths: columns, zeros first; six bits a character, differences from the fourth on

function decodeRuns(text) {
  const runs = [];
  for (let at = 0; at < text.length;) {
    let value = 0, shift = 0, code;
    do {
      code = text.charCodeAt(at++) - 48;
      value |= (code & 31) << shift;
      shift += 5;
    } while (code & 32);
    if (code & 16 && shift < 32) value |= -1 << shift;
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
  }
  return runs;
}

function bitmapOf(mask) {
  const [height, width] = mask.size;
  const bits = new Uint8Array(height * width);
  let at = 0;
  decodeRuns(mask.rleResult).forEach((run, number) => {
    if (number % 2) {
      for (let i = at; i < at + run; i++) bits[(i % height) * width + Math.floor(i / height)] = 1;
    }
    at += run;
  });
  return { bits, height, width };
}

const hue = (number) => (number * 137.5) % 360;
const colour = (instance, alpha) => `hsla(${hue(instance.number)}, 80%, 50%, ${alpha})`;

function layerOf(instance) {
  const { bits, height, width } = instance.bitmap;
  const layer = document.createElement("canvas");
  layer.width = Math.max(width, 1);
  layer.height = Math.max(height, 1);
  const context = layer.getContext("2d");
  context.fillStyle = colour(instance, 1);
  context.fillRect(0, 0, width, height);
  const image = context.getImageData(0, 0, layer.width, layer.height);
  for (let i = 0; i < bits.length; i++) image.data[4 * i + 3] = bits[i] ? 255 : 0;
  context.putImageData(image, 0, 0);
  return layer;
}

// ---- drawing

const visible = () => state.instances.filter((i) => i.score >= state.threshold && !state.off.has(i.categoryName));
// PaddleX rounds halves to even, as Python does.
function rounded(x) {
  const low = Math.floor(x);
  return x - low === 0.5 ? low + (low % 2) : Math.round(x);
}

function draw() {
  if (!state.picture) return;
  const context = canvas.getContext("2d");
  context.drawImage(state.picture, 0, 0);
  const unit = Math.max(canvas.width, canvas.height) / 640;
  context.lineWidth = 1.5 * unit;
  context.font = `${13 * unit}px system-ui, sans-serif`;
  context.textBaseline = "top";
  const shown = visible();
  for (const instance of shown) {
    const lit = instance.number === state.lit;
    const [x1, y1, x2, y2] = instance.bbox;
    if (get("masks").checked || lit) {
      context.globalAlpha = lit ? 0.75 : state.lit >= 0 ? 0.2 : 0.45;
      context.drawImage(instance.layer, rounded(x1), rounded(y1));
      context.globalAlpha = 1;
    }
    if (!get("labels").checked && !lit) continue;
    context.strokeStyle = colour(instance, 1);
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
    const label = `${instance.categoryName} ${instance.score.toFixed(2)}`;
    const width = context.measureText(label).width + 6 * unit;
    const left = Math.min(x1, canvas.width - width), top = Math.max(0, y1 - 17 * unit);
    context.fillStyle = colour(instance, 0.9);
    context.fillRect(left, top, width, 17 * unit);
    context.fillStyle = "#fff";
    context.fillText(label, left + 3 * unit, top + 2 * unit);
  }
  list(shown);
  say("found", shown.length, state.instances.length, state.milliseconds);
}

function list(shown) {
  const rows = shown.map((instance) => {
    const row = document.createElement("li"), button = document.createElement("button");
    const patch = document.createElement("i"), score = document.createElement("b");
    patch.style.background = colour(instance, 1);
    score.textContent = instance.score.toFixed(2);
    button.type = "button";
    button.dataset.number = instance.number;
    button.classList.toggle("lit", instance.number === state.lit);
    button.append(patch, instance.categoryName, score);
    row.append(button);
    return row;
  });
  const focused = document.activeElement?.dataset?.number;
  get("instances").replaceChildren(...rows);
  if (focused !== undefined) get("instances").querySelector(`[data-number="${focused}"]`)?.focus();
}

function light(number) {
  if (number === state.lit) return;
  state.lit = number;
  draw();
}

function under(event) {
  const box = canvas.getBoundingClientRect();
  const x = Math.floor(((event.clientX - box.left) / box.width) * canvas.width);
  const y = Math.floor(((event.clientY - box.top) / box.height) * canvas.height);
  const hit = visible().filter((instance) => {
    const { bits, height, width } = instance.bitmap;
    const column = x - rounded(instance.bbox[0]), row = y - rounded(instance.bbox[1]);
    return column >= 0 && row >= 0 && column < width && row < height && bits[row * width + column];
  });
  // Of several, the smallest is hardest to point at.
  hit.sort((a, b) => a.area - b.area);
  return hit.length ? hit[0].number : -1;
}

function classes() {
  const names = [...new Set(state.instances.map((instance) => instance.categoryName))].sort();
  const boxes = names.map((name) => {
    const label = document.createElement("label"), box = document.createElement("input");
    label.className = "inline";
    box.type = "checkbox";
    box.checked = !state.off.has(name);
    box.addEventListener("change", () => {
      if (box.checked) state.off.delete(name); else state.off.add(name);
      draw();
    });
    label.append(box, name);
    return label;
  });
  get("classes").replaceChildren(get("classes").querySelector("legend"), ...boxes);
  get("classes").hidden = !names.length;
}

// ---- asking the service

function say(key, ...values) {
  const text = TEXTS[state.language][key];
  state.said = [key, ...values];
  get("status").className = "";
  get("status").textContent = typeof text === "function" ? text(...values) : text ?? "";
}

function complain(message) {
  state.said = null;
  get("status").className = "error";
  get("status").textContent = message;
}

const base64 = (blob) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result.split(",")[1] ?? "");
  reader.onerror = reject;
  reader.readAsDataURL(blob);
});

async function look(blob, name) {
  const turn = (state.turn = (state.turn ?? 0) + 1);
  let picture;
  try {
    picture = await createImageBitmap(blob);
  } catch {
    complain(TEXTS[state.language].notPicture);
    return;
  }
  Object.assign(state, { picture, name, instances: [], lit: -1, milliseconds: 0 });
  state.off.clear();
  canvas.width = picture.width;
  canvas.height = picture.height;
  const scale = Math.min(640 / picture.width, 480 / picture.height);
  canvas.style.width = scale > 1 ? `${Math.round(scale * picture.width)}px` : "";
  canvas.hidden = false;
  get("drop").classList.add("full");
  get("downloads").hidden = true;
  draw();
  say("working");
  const headers = { "Content-Type": "application/json" };
  if (get("token").value) headers.Authorization = `Bearer ${get("token").value}`;
  const start = performance.now();
  let answer;
  try {
    const body = JSON.stringify({ image: await base64(blob), threshold: LEAST, visualize: false });
    answer = await (await fetch("instance-segmentation", { method: "POST", headers, body })).json();
  } catch {
    complain(TEXTS[state.language].unreachable);
    return;
  }
  if (turn !== state.turn) return;
  if (answer.errorCode) {
    complain(answer.errorMsg);
    return;
  }
  state.answer = answer.result;
  state.milliseconds = Math.round(performance.now() - start);
  state.instances = answer.result.instances.map((instance, number) => {
    const bitmap = bitmapOf(instance.mask);
    const made = { ...instance, number, bitmap, area: bitmap.bits.reduce((sum, bit) => sum + bit, 0) };
    return { ...made, layer: layerOf(made) };
  });
  get("downloads").hidden = false;
  classes();
  draw();
}

async function sample() {
  try {
    const response = await fetch("sample");
    if (!response.ok) throw new Error();
    await look(await response.blob(), "sample.jpg");
  } catch {
    complain(TEXTS[state.language].unreachable);
  }
}

// ---- files to take away

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** Run lengths of a mask laid into a bitmap of the picture's size, not compressed. */
function fullRuns(instance) {
  const { bits, height, width } = instance.bitmap;
  const x = rounded(instance.bbox[0]), y = rounded(instance.bbox[1]);
  const counts = [];
  let value = 0, run = 0;
  for (let column = 0; column < canvas.width; column++) {
    for (let row = 0; row < canvas.height; row++) {
      const inside = column >= x && column < x + width && row >= y && row < y + height;
      const bit = inside ? bits[(row - y) * width + column - x] : 0;
      if (bit === value) run++;
      else { counts.push(run); value = bit; run = 1; }
    }
  }
  counts.push(run);
  return { size: [canvas.height, canvas.width], counts };
}

const DOWNLOADS = {
  json: () => save(text({ instances: visible().map(({ bbox, categoryId, categoryName, score, mask }) =>
    ({ bbox, categoryId, categoryName, score, mask })) }), `${stem()}.json`),
  coco: () => save(text({
    images: [{ id: 1, file_name: state.name, width: canvas.width, height: canvas.height }],
    categories: [...new Map(visible().map((i) => [i.categoryId, i.categoryName]))].map(([id, name]) => ({ id: id + 1, name })),
    annotations: visible().map((i, number) => ({
      id: number + 1, image_id: 1, category_id: i.categoryId + 1, score: i.score, iscrowd: 0, area: i.area,
      bbox: [i.bbox[0], i.bbox[1], i.bbox[2] - i.bbox[0], i.bbox[3] - i.bbox[1]], segmentation: fullRuns(i),
    })),
  }), `${stem()}_coco.json`),
  masks: () => {
    const layer = document.createElement("canvas");
    layer.width = canvas.width;
    layer.height = canvas.height;
    const context = layer.getContext("2d");
    for (const instance of visible()) context.drawImage(instance.layer, rounded(instance.bbox[0]), rounded(instance.bbox[1]));
    layer.toBlob((blob) => save(blob, `${stem()}_masks.png`));
  },
  picture: () => canvas.toBlob((blob) => save(blob, `${stem()}_res.png`)),
};
const text = (tree) => new Blob([JSON.stringify(tree)], { type: "application/json" });
const stem = () => (state.name ?? "picture").replace(/\.[^.]*$/, "");

// ---- language and events

function speak() {
  const texts = TEXTS[state.language];
  document.documentElement.lang = state.language;
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = texts[element.dataset.text];
  get("language").textContent = texts.other;
  get("language").lang = state.language === "en" ? "zh" : "en";
  if (state.said) say(...state.said);
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
get("threshold").addEventListener("input", (event) => {
  state.threshold = Number(event.target.value);
  get("shown").textContent = state.threshold.toFixed(2);
  draw();
});
for (const id of ["masks", "labels"]) get(id).addEventListener("change", draw);
canvas.addEventListener("pointermove", (event) => light(under(event)));
canvas.addEventListener("pointerleave", () => light(-1));
canvas.addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  const numbers = visible().map((instance) => instance.number);
  if (!step || !numbers.length) return;
  event.preventDefault();
  const at = numbers.indexOf(state.lit);
  light(numbers[at < 0 ? (step > 0 ? 0 : numbers.length - 1) : (at + step + numbers.length) % numbers.length]);
});
get("instances").addEventListener("pointerover", (event) => {
  const button = event.target.closest("button");
  if (button) light(Number(button.dataset.number));
});
get("instances").addEventListener("pointerleave", () => light(-1));
get("instances").addEventListener("focusin", (event) => light(Number(event.target.closest("button").dataset.number)));
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
  const least = typeof model.threshold === "number" ? model.threshold : Math.min(...Object.values(model.threshold));
  state.threshold = Math.max(LEAST, least);
  get("threshold").value = state.threshold;
  get("shown").textContent = state.threshold.toFixed(2);
}).catch(() => complain(TEXTS[state.language].unreachable));
