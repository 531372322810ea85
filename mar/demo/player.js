// The player: one or two generations step by step, while they are drawn and afterwards. Unknown cells have the colour of
// their step or of their entropy; the NLL so far of all is on one axis.
const slider = element.querySelector('input[type="range"]'), button = element.querySelector(".controls button");
const chart = element.querySelector("svg"), shade = element.querySelector(".shade input");
const boards = element.querySelector(".boards"), still = matchMedia("(prefers-reduced-motion: reduce)");
const [WIDTH, HEIGHT, SECONDS, MOST] = [400, 120, 4, 128], INKS = [now, "#2563eb"];
let shown = null, images = new Map(), timer = null;

const films = () => props.value.films;
const length = () => Math.max(...films().map((film) => film.steps));
const last = (list) => list[list.length - 1];
const reach = () => Math.min(...films().map((film) => (film.done ? length() : last(film.after))));

function paint(film, board, position) {
  const { rows, columns, step, steps, after } = film, sheet = fit(board.querySelector("canvas"), rows, columns);
  let k = 0;
  while (k + 1 < after.length && after[k + 1] <= position) k++;
  const done = after[k], before = after[Math.max(0, k - 1)];
  const image = images.get(film.frames[k]);
  if (image) sheet.context.drawImage(image, 0, 0, sheet.side * columns, sheet.side * rows);
  const levels = shade.checked && film.entropy.length ? atob(film.entropy[k]) : null;
  step.forEach((at, cell) => {
    if (at !== null && at < 0) frame(sheet, cell, given);
    else if (at === null || at >= done)
      fill(sheet, cell, levels ? entropyColour(levels.charCodeAt(cell) / 255) : colourOf(at, steps));
    else if (at >= before && done < steps) frame(sheet, cell, now);
  });
  const so_far = (values) => (done && values ? values[done - 1] : 0);
  const nll = film.nats ? ` · <b>${so_far(film.nats).toFixed(2)}</b> nats` : "";
  const bits = film.bits && done ? ` · <b>${so_far(film.bits).toFixed(3)}</b> bits/dim` : "";
  const tokens = film.done && last(film.tokens) !== steps ? `, ${so_far(film.tokens)} of ${last(film.tokens)} tokens` : "";
  board.querySelector(".nll").innerHTML = `step ${done} of ${steps}${tokens}${nll}${bits}`;
}

function entropyColour(share) {
  const mix = (a, b) => Math.round(a + (b - a) * share);
  return `rgb(${mix(233, 88)} ${mix(235, 28)} ${mix(240, 135)})`;
}

function draw() {
  const position = Number(slider.value);
  films().forEach((film, k) => paint(film, boards.children[k], position));
  mark(position);
  const entropies = films().some((film) => film.entropy.length);
  element.querySelector(".shade").hidden = !entropies;
}

function mark(position) {
  const scored = films().filter((film) => film.nats);
  chart.toggleAttribute("hidden", !scored.length);
  if (!scored.length) return;
  const all = scored.flatMap((film) => [0, ...film.nats]), [low, high] = [Math.min(...all), Math.max(...all, 1e-9)];
  const x = (k) => 4 + ((WIDTH - 8) * k) / length(), y = (v) => 24 + ((HEIGHT - 44) * (high - v)) / (high - low);
  const line = (values) => values.map((v, k) => `${x(k).toFixed(1)},${y(v).toFixed(1)}`).join(" ");
  const two = films().length > 1, name = (film) => film.plan.replace(/[<&]/g, "");
  const lines = films().map((film, k) => {
    if (!film.nats) return "";
    const values = [0, ...film.nats], done = Math.min(position, film.nats.length);
    const text = `${two ? name(film) + " " : ""}${film.done ? last(values).toFixed(1) : "…"} nats`;
    return `<polyline class="whole" points="${line(values)}"/><polyline stroke="${INKS[k]}" points="${line(values.slice(0, done + 1))}"/>` +
      `<circle cx="${x(done)}" cy="${y(values[done])}" r="4" fill="${INKS[k]}"/>` +
      `<text x="${4 + k * 200}" y="12" class="film-${k}">${text}</text>`;
  });
  chart.innerHTML = lines.join("") + `<text x="4" y="${HEIGHT - 3}">AR step 0</text>` +
    `<text x="${WIDTH - 4}" y="${HEIGHT - 3}" text-anchor="end">${length()}</text>`;
}

function stop() {
  clearInterval(timer);
  timer = null;
  button.textContent = "▶ play";
}

function play() {
  if (Number(slider.value) >= length()) slider.value = 0;
  clearInterval(timer);
  button.textContent = "❚❚ pause";
  const stride = Math.max(1, Math.ceil(length() / MOST)), pause = (1000 * SECONDS * stride) / Math.max(16, length());
  timer = setInterval(() => {
    const next = Math.min(reach(), Number(slider.value) + stride); // never ahead of the model
    if (next === Number(slider.value) && next < length()) return;
    slider.value = next;
    draw();
    if (next >= length()) stop();
  }, pause);
  draw();
}

function stale() {
  const old = Boolean(props.value && props.current && props.current !== props.value.key);
  element.querySelector(".stale").hidden = !old;
  element.querySelector(".film").classList.toggle("old", old);
}

async function show() {
  const here = props.value;
  element.querySelector(".empty").hidden = Boolean(here);
  element.querySelector(".film").hidden = !here;
  if (!here) return;
  for (const film of here.films) for (const uri of film.frames) if (!images.has(uri)) images.set(uri, await loaded(uri));
  if (here !== props.value) return; // more has come since
  const begins = shown?.id !== here.id;
  const ends = here.films.every((film) => film.done);
  shown = here;
  if (begins) {
    images = new Map([...images].filter(([uri]) => here.films.some((film) => film.frames.includes(uri))));
    boards.innerHTML = here.films.map((_, k) => `<div><p class="plan film-${k}"></p><canvas role="img"></canvas><p class="nll"></p></div>`).join("");
    here.films.forEach((film, k) => {
      boards.children[k].querySelector(".plan").textContent = film.plan;
      boards.children[k].querySelector("canvas").setAttribute("aria-label", `the generation along ${film.plan}`);
    });
    slider.value = 0;
  }
  const { label, step, notes, nats } = here.films[0];
  const known = [step.some((at) => at !== null && at < 0) && "given pixels", label !== null && `class ${label}`].filter(Boolean);
  element.querySelector(".of").textContent = nats ? `NLL: −log p(tokens so far${known.length ? ` | ${known.join(", ")}` : ""})` : "";
  element.querySelector(".notes").textContent = notes.join("; ");
  slider.max = length();
  if (still.matches) {
    if (ends || begins) slider.value = reach();
    draw();
  } else if (begins) {
    play();
    if (element.getBoundingClientRect().top > innerHeight * 0.8) element.scrollIntoView({ block: "nearest" }); // a narrow screen
  } else draw();
  stale();
}

slider.addEventListener("input", () => {
  stop();
  draw();
});
shade.addEventListener("change", () => films() && draw());
button.addEventListener("click", () => (timer ? stop() : play()));
watch("value", show);
watch("current", stale);
show();
