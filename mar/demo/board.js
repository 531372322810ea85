// The board: an order is painted over the grid, pixels are given or drawn. Sends {painted, given, drawn, tool} after a stroke.
const canvas = element.querySelector("canvas"), inkInput = element.querySelector(".ink");
const said = element.querySelector(".said"), link = element.querySelector(".link");
let state = copy(props.value), picture = null, tool = "order", stroke = null, seen = 0, restored = 0, cursor = 0;

function copy(value) {
  return JSON.parse(JSON.stringify(value));
}

function draw() {
  const { rows, columns, height, width, step, steps, painted } = props.scene;
  const sheet = fit(canvas, rows, columns), { context, side } = sheet;
  if (picture) context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  const [w, h] = [canvas.width / width, canvas.height / height];
  for (const [pixel, r, g, b] of state.drawn) {
    context.fillStyle = `rgb(${r} ${g} ${b})`;
    context.fillRect((pixel % width) * w, Math.floor(pixel / width) * h, w, h);
  }
  const kept = new Set(state.given), first = new Map(state.painted.map((cell, k) => [cell, k]));
  const live = stroke?.tool === "order"; // the order so far, before the server has answered
  context.font = `${Math.round(side * 0.3)}px ui-monospace, monospace`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (let cell = 0; cell < rows * columns; cell++) {
    if (kept.has(cell)) {
      frame(sheet, cell, given);
      continue;
    }
    const at = live ? (first.get(cell) ?? null) : step && step[cell];
    const of = live ? rows * columns : steps;
    fill(sheet, cell, colourOf(at < 0 ? null : at, of));
    if (at === null || at < 0 || side < 26) continue;
    context.fillStyle = at / of > 0.6 ? ink : paper;
    const [x, y] = place(sheet, cell);
    context.fillText(at + 1, x + side / 2, y + side / 2);
    if (painted && !live && first.has(cell)) frame(sheet, cell, paper);
  }
  if (document.activeElement === canvas) frame(sheet, cursor, now);
}

function touch(x, y) {
  const { rows, columns, height, width } = props.scene;
  if (x < 0 || y < 0 || x >= 1 || y >= 1) return;
  const cell = Math.floor(y * rows) * columns + Math.floor(x * columns);
  const without = (list) => list.filter((other) => other !== cell);
  const cellOf = (pixel) =>
    Math.floor((Math.floor(pixel / width) * rows) / height) * columns + Math.floor(((pixel % width) * columns) / width);
  if (stroke.tool === "order" && !state.painted.includes(cell)) state.painted.push(cell);
  if (stroke.tool === "give" && !state.given.includes(cell)) state.given.push(cell);
  if (stroke.tool === "erase") {
    state.painted = without(state.painted);
    state.given = without(state.given);
    state.drawn = state.drawn.filter(([pixel]) => cellOf(pixel) !== cell);
  }
  if (stroke.tool === "draw") {
    const brush = Math.max(1, Math.round(Math.max(height, width) / 28));
    const colour = inkOf();
    for (let dy = 0; dy < brush; dy++)
      for (let dx = 0; dx < brush; dx++) {
        const [px, py] = [Math.floor(x * width) + dx, Math.floor(y * height) + dy];
        if (px >= width || py >= height) continue;
        const pixel = py * width + px;
        state.drawn = [...state.drawn.filter(([other]) => other !== pixel), [pixel, ...colour]];
        if (!state.given.includes(cellOf(pixel))) state.given.push(cellOf(pixel));
      }
  }
}

function inkOf() {
  if (inkInput.type === "range") return Array(3).fill(Math.round((255 * inkInput.value) / inkInput.max));
  return [1, 3, 5].map((k) => parseInt(inkInput.value.slice(k, k + 2), 16));
}

function follow(event) {
  // every cell on the way, however fast the pointer goes
  const box = canvas.getBoundingClientRect();
  const to = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  const from = stroke.at ?? to;
  const pieces = Math.ceil(4 * Math.max(props.scene.rows, props.scene.columns) *
    Math.max(Math.abs(to[0] - from[0]), Math.abs(to[1] - from[1]))) || 1;
  for (let k = 1; k <= pieces; k++) touch(...[0, 1].map((d) => from[d] + ((to[d] - from[d]) * k) / pieces));
  stroke.at = to;
  draw();
}

function send() {
  props.value = { ...copy(state), tool: stroke?.tool };
  trigger("input");
}

function begin() {
  const unanswered = stroke?.over; // the plan becomes a painted one with the server's answer
  stroke = { tool, at: null };
  if (tool === "order" && !props.scene.painted && !unanswered) state.painted = []; // another plan was chosen: paint anew
}

function end() {
  if (!stroke) return;
  send();
  stroke = stroke.tool === "order" ? { ...stroke, over: true } : null; // an order stays as painted until the answer is there
}

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  begin();
  follow(event);
});
canvas.addEventListener("pointermove", (event) => stroke && follow(event));
for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, end);

// Keys: arrows move the cursor, Space or Enter uses the tool on its cell.
canvas.addEventListener("keydown", (event) => {
  const { rows, columns, step } = props.scene, row = Math.floor(cursor / columns), column = cursor % columns;
  const to = { ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1], ArrowUp: [row - 1, column], ArrowDown: [row + 1, column] };
  const at = to[event.key], use = event.key === " " || event.key === "Enter";
  if (!at && !use) return;
  event.preventDefault();
  if (at && at[0] >= 0 && at[0] < rows && at[1] >= 0 && at[1] < columns) cursor = at[0] * columns + at[1];
  if (use) {
    begin();
    touch(((cursor % columns) + 0.5) / columns, (Math.floor(cursor / columns) + 0.5) / rows);
    end();
  }
  const known = state.given.includes(cursor) ? "given" : state.painted.includes(cursor)
    ? `painted ${state.painted.indexOf(cursor) + 1}` : step?.[cursor] >= 0 ? `step ${step[cursor] + 1}` : "";
  said.textContent = `row ${Math.floor(cursor / columns) + 1}, column ${(cursor % columns) + 1}${known && ": " + known}`;
  draw();
});
for (const change of ["focus", "blur"]) canvas.addEventListener(change, draw);

link.addEventListener("click", async (event) => {
  event.preventDefault();
  await navigator.clipboard?.writeText(link.href).catch(() => {});
  history.replaceState(null, "", link.href); // the address bar holds it too
  said.textContent = "The link is copied, and in the address bar.";
});

for (const button of element.querySelectorAll("[data-tool]"))
  button.addEventListener("click", () => {
    tool = button.dataset.tool;
    for (const other of element.querySelectorAll("[data-tool]"))
      other.setAttribute("aria-pressed", other === button);
    element.querySelector(".ink-label").hidden = tool !== "draw";
  });
element.querySelector("[data-clear]").addEventListener("click", () => {
  [state, stroke] = [{ painted: [], given: [], drawn: [] }, null];
  draw();
  send();
});

async function show() {
  if (stroke?.over) stroke = null;
  const { fresh, rows, columns } = props.scene;
  link.href = location.origin + location.pathname + props.scene.link;
  if ((props.scene.restore ?? 0) > restored) {
    [restored, state] = [props.scene.restore, copy(props.scene.board)]; // of a link
    send();
  } else if (!stroke && String(props.scene.answered) !== String([state.painted, state.given])) send(); // an overtaken answer
  picture = await loaded(props.scene.picture);
  if (fresh > seen) {
    seen = fresh; // another picture: what was drawn goes, and where nothing is given, its upper half is
    state.drawn = [];
    if (!state.given.length) state.given = [...Array(Math.floor(rows / 2) * columns).keys()];
    send();
  }
  draw();
}
watch("scene", show);
show();
