"use strict";
const at = (id) => document.getElementById(id);
let about, found, stem, waiting, isLoading, isStale;

const percent = (share) => (share < 0.001 ? "<0.1" : (100 * share).toFixed(1)) + " %";
const duration = (seconds) => seconds < 1 ? `${Math.round(1000 * seconds)} ms` : `${seconds.toFixed(1)} s`;

function make(tag, content, settings = {}) {
  const element = Object.assign(document.createElement(tag), settings);
  element.append(...[content].flat());
  return element;
}

function tell(text, isError = false) {
  at("status").textContent = text;
  at("status").classList.toggle("error", isError);
}

async function predict(file, address = `predict?name=${encodeURIComponent(file.name)}`) {
  waiting?.abort();  // the picture before is no longer wanted
  const own = waiting = new AbortController();
  at("result").hidden = true;
  if (file.size > about.largest) {
    tell(`${file.name}: larger than ${about.largest / 2 ** 20} MB; segtrain predict takes any size`, true);
    return;
  }
  tell(`${file.name}: the network looks at it ...`);
  try {
    const answer = await fetch(address, { method: "POST", body: file, signal: own.signal });
    if (!answer.ok) throw new Error(`the server answers ${answer.status} ${answer.statusText}`);
    const last = await lastLine(answer, (line) => {
      if (line.frame) tell(`${file.name}: frame ${line.frame}${line.frames ? ` of ${line.frames}` : ""}`);
    });
    if (last.error) return tell(last.error, true);
    [found, stem] = [last, file.name.replace(/\.[^.]*$/, "")];
    show();
  } catch (error) {
    if (!own.signal.aborted) tell(`${file.name}: no answer (${error.message}); does the command still run?`, true);
  }
}

async function lastLine(answer, each) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", last = { error: "the server ended before its answer" };
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    const lines = (rest + part.value).split("\n");
    rest = lines.pop();
    for (const line of lines) each(last = JSON.parse(line));
  }
  return last.frame ? { error: "the server ended before its answer" } : last;
}

function show() {
  const isVideo = !found.classes, speed = `${duration(found.seconds)} on ${about.device}`;
  tell(`${stem}: ${found.width} x ${found.height} pixels, ${speed}`
    + (isVideo ? `, ${found.frames} frames (${(found.frames / found.seconds).toFixed(1)} a second)` : ""));
  at("view").hidden = isVideo;
  at("video").hidden = !isVideo;
  for (const id of ["opacity", "score"]) at(id).parentElement.hidden = isVideo;
  at("classes").hidden = isVideo || !found.classes.length;
  at("instances").hidden = at("least").hidden = isVideo || !found.instances.length;
  at("result").hidden = false;
  if (isVideo) {
    at("video").src = `${found.key}/video`;
    links([["Video", "video", ".webm"]]);
    return;
  }
  at("picture").src = `${found.key}/picture`;
  at("switches").replaceChildren(...found.classes.map(toggle));
  at("rows").replaceChildren(...found.instances.map((one, index) => make("tr", [
    make("td", `${index + 1}`), make("td", one.name), make("td", one.score.toFixed(2), { className: "number" }),
    make("td", `${one.area}`, { className: "number" })])));
  update();
}

function toggle(entry) {
  const box = make("input", [], { type: "checkbox", value: entry.id, checked: entry.name !== "background" });
  const swatch = make("span", [], { className: "swatch" });
  swatch.style.background = `rgb(${entry.colour})`;
  return make("li", make("label", [box, swatch, make("span", entry.name), make("span", percent(entry.share))]));
}

function update() {
  const [opacity, score] = [at("opacity").value, at("score").value];
  const names = [...at("switches").querySelectorAll(":checked")];
  const asked = `classes=${names.map((box) => box.value)}&min_score=${score}`;
  at("opacity-shown").textContent = `${Math.round(100 * opacity)} %`;
  at("score-shown").textContent = score;
  at("layer").style.opacity = opacity;
  found.instances.forEach((one, index) => at("rows").rows[index].classList.toggle("out", one.score < score));
  const overlay = [["Overlay", `overlay?${asked}&opacity=${opacity}`, "_overlay.png"],
    ["Cut-out", `cutout?${asked}`, "_cutout.png"], ["JSON", "json", ".json"]];
  const maps = { semantic: [["Label map", "labels", ".png"]], panoptic: [["Segment map", "labels", "_panoptic.png"]] };
  links([...(maps[about.task] ?? []), ...overlay]);
  const wanted = new URL(`${found.key}/layer?${asked}`, location).href;
  if (isLoading) { isStale = true; return; }  // the slider is faster than the server
  if (at("layer").src === wanted) return;
  isLoading = true;
  at("layer").src = wanted;
}

function links(entries) {
  at("downloads").replaceChildren(...entries.map(([title, address, ending]) =>
    make("li", make("a", title, { href: `${found.key}/${address}`, download: stem + ending }))));
}

for (const kind of ["load", "error"]) at("layer").addEventListener(kind, () => {
  isLoading = false;
  if (isStale) { isStale = false; update(); }
});
for (const id of ["opacity", "score", "switches"]) at(id).addEventListener("input", update);
for (const id of ["all", "none"]) at(id).addEventListener("click", () => {
  for (const box of at("switches").querySelectorAll("input")) box.checked = id === "all";
  update();
});
at("file").addEventListener("change", () => at("file").files[0] && predict(at("file").files[0]));
at("example").addEventListener("click", () => predict(new File([], "example"), "example"));
document.addEventListener("paste", (event) => event.clipboardData.files[0] && predict(event.clipboardData.files[0]));
for (const kind of ["dragover", "dragleave", "drop"]) document.addEventListener(kind, (event) => {
  event.preventDefault();
  at("drop").classList.toggle("over", kind === "dragover");
  if (kind === "drop" && event.dataTransfer.files[0]) predict(event.dataTransfer.files[0]);
});
fetch("about").then((answer) => answer.json()).then((answer) => {
  about = answer;
  document.title = `${about.name} | segtrain demo`;
  at("name").textContent = about.name;
  at("about").textContent = `${about.task} network on ${about.device}`;
  at("example").hidden = !about.has_examples;
  at("score").value = about.min_score;
});
