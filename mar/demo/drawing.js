// What both drawings share: cells of a grid over a picture, coloured by when they are generated.
const { palette, now, given, ink, paper, unknown } = props.colours;

const colourOf = (step, steps) =>
  step === null ? unknown : palette[Math.round((step / Math.max(1, steps - 1)) * (palette.length - 1))];

function fit(canvas, rows, columns) {
  const side = Math.max(2, Math.floor(640 / Math.max(rows, columns)));
  canvas.width = side * columns;
  canvas.height = side * rows;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  return { context, side, columns };
}

function place(sheet, cell) {
  return [(cell % sheet.columns) * sheet.side, Math.floor(cell / sheet.columns) * sheet.side];
}

function fill(sheet, cell, colour) {
  const { context, side } = sheet, [x, y] = place(sheet, cell), line = side >= 8 ? 1 : 0; // where there is room
  context.fillStyle = ink;
  context.fillRect(x, y, side, side);
  context.fillStyle = colour;
  context.fillRect(x + line, y + line, side - 2 * line, side - 2 * line);
}

function frame(sheet, cell, colour) {
  const { context, side } = sheet, width = Math.max(1, side / 20);
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.strokeRect(...place(sheet, cell).map((x) => x + width / 2), side - width, side - width);
}

function loaded(address) {
  return new Promise((resolve) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.src = address;
  });
}
