// The player: the generation step by step, what is unknown in the colour of its step, and the NLL so far.
const canvas = element.querySelector("canvas"), slider = element.querySelector("input");
const button = element.querySelector("button"), chart = element.querySelector("svg");
const [WIDTH, HEIGHT, SECONDS] = [400, 110, 5];
let frames = [], timer = null;

const movie = () => props.value;
const last = () => movie().shown.length;
const doneAt = (position) => (position === 0 ? 0 : movie().shown[position - 1] + 1);

function draw() {
  const { rows, columns, step, steps } = movie(), position = Number(slider.value);
  const done = doneAt(position), before = doneAt(Math.max(0, position - 1));
  const sheet = fit(canvas, rows, columns);
  sheet.context.drawImage(frames[Math.max(0, position - 1)], 0, 0, canvas.width, canvas.height);
  step.forEach((at, cell) => {
    if (at < 0) frame(sheet, cell, given);
    else if (at >= done) fill(sheet, cell, colourOf(at, steps));
    else if (at >= before && position < last()) frame(sheet, cell, now);
  });
  say(done);
  mark(done);
}

function say(done) {
  const { step, steps, tokens, nats, bits, label } = movie();
  const so_far = (values) => (done ? values[done - 1] : 0);
  const number = (value, unit, digits) => `<span><b>${value.toFixed(digits)}</b> ${unit}</span>`;
  element.querySelector(".steps").textContent =
    `step ${done} of ${steps}, ${done ? tokens[done - 1] : 0} of ${tokens[steps - 1]} tokens`;
  element.querySelector(".nll").innerHTML = !nats ? "" :
    number(so_far(nats), "nats", 2) + (bits && done ? number(so_far(bits), "bits/dim", 3) : "");
  const known = [step.some((at) => at < 0) && "given pixels", label !== null && `class ${label}`].filter(Boolean);
  element.querySelector(".of").textContent = !nats ? "" :
    `−log p(tokens so far${known.length ? ` | ${known.join(", ")}` : ""})`;
}

function mark(done) {
  const { steps, nats } = movie();
  chart.toggleAttribute("hidden", !nats);
  if (!nats) return;
  const values = [0, ...nats], [low, high] = [Math.min(...values), Math.max(...values, 1e-9)];
  const x = (k) => 4 + ((WIDTH - 8) * k) / steps, y = (v) => 18 + ((HEIGHT - 36) * (high - v)) / (high - low);
  const line = (until) => values.slice(0, until + 1).map((v, k) => `${x(k).toFixed(1)},${y(v).toFixed(1)}`).join(" ");
  chart.innerHTML =
    `<polyline class="whole" points="${line(steps)}"/><polyline class="so-far" points="${line(done)}"/>` +
    `<circle cx="${x(done)}" cy="${y(values[done])}" r="4"/>` +
    `<text x="4" y="12">nats so far, ${nats[steps - 1].toFixed(1)} in all</text>` +
    `<text x="4" y="${HEIGHT - 3}">AR step 0</text>` +
    `<text x="${WIDTH - 4}" y="${HEIGHT - 3}" text-anchor="end">${steps}</text>`;
}

function stop() {
  clearInterval(timer);
  timer = null;
  button.textContent = "▶ play";
}

function play() {
  if (Number(slider.value) >= last()) slider.value = 0;
  button.textContent = "❚❚ pause";
  timer = setInterval(() => {
    slider.value = Number(slider.value) + 1;
    draw();
    if (Number(slider.value) >= last()) stop();
  }, (1000 * SECONDS) / Math.max(10, last()));
  draw();
}

async function show() {
  stop();
  const here = movie();
  element.querySelector(".empty").hidden = Boolean(here);
  element.querySelector(".film").hidden = !here;
  if (!here) return;
  frames = await Promise.all(here.frames.map(loaded));
  if (here !== movie()) return; // another one has come since
  element.querySelector(".notes").textContent = here.notes.join("; ");
  slider.max = last();
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  slider.value = still ? last() : 0;
  still ? draw() : play();
  element.scrollIntoView({ block: "nearest", behavior: still ? "auto" : "smooth" }); // on a narrow screen it is below
}

slider.addEventListener("input", () => {
  stop();
  draw();
});
button.addEventListener("click", () => (timer ? stop() : play()));
watch("value", show);
show();
