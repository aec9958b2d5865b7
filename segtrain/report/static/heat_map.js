// Heat maps: sticky names around a canvas of cells, which a range input enlarges.
document.querySelectorAll(".heat").forEach((figure) => {
  const { names, counts, row, column } = JSON.parse(figure.querySelector(".heat-data").textContent);
  const view = figure.querySelector(".heat-view");
  const said = figure.querySelector(".heat-said");
  const zoom = figure.querySelector(".heat-zoom");
  const [corner, top, left, cells] = view.querySelectorAll("canvas");
  const marker = document.createElement("i");
  marker.className = "heat-marker";
  view.append(marker);
  const K = names.length;
  const sums = counts.map((line) => line.reduce((a, b) => a + b, 0));
  const share = (i, j) => (sums[i] ? counts[i][j] / sums[i] : null);
  const FONT = 11;
  let cell = 0, chosen = null;
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const rgb = (name) => {
    const hex = colour(name).slice(1);
    return [0, 2, 4].map((k) => parseInt(hex.slice(k, k + 2), 16));
  };
  const sheet = (canvas, width, height) => {
    const scale = Math.min(window.devicePixelRatio || 1, 8000 / Math.max(width, height));
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    pen.font = `${FONT}px system-ui, "DejaVu Sans", sans-serif`;
    pen.textBaseline = "middle";
    return pen;
  };
  const measure = () => {
    const pen = cells.getContext("2d");
    pen.font = `${FONT}px system-ui, "DejaVu Sans", sans-serif`;
    const longest = Math.max(...names.map((name) => pen.measureText(name).width));
    return Math.min(longest + 10, Math.max(60, figure.clientWidth * 0.28), 190);
  };
  const shorten = (pen, name, width) => {
    let text = name;
    while (text.length > 2 && pen.measureText(text).width > width) text = text.slice(0, -2) + "…";
    return text;
  };
  const draw = () => {
    const room = measure(), side = cell * K;
    const labelled = cell >= FONT;
    const margin = labelled ? room : 24;
    const stops = ["--heat0", "--heat1", "--heat2"].map(rgb);
    const ink = colour("--ink"), muted = colour("--muted");
    const mix = (value) => {
      const t = Math.sqrt(value) * 2, low = t < 1 ? 0 : 1, part = t - low;
      return stops[low].map((v, k) => Math.round(v + (stops[low + 1][k] - v) * part));
    };
    const pen = sheet(cells, side, side);
    for (let i = 0; i < K; i++) {
      for (let j = 0; j < K; j++) {
        const value = share(i, j);
        const paint = value === null ? null : mix(value);
        pen.fillStyle = paint ? `rgb(${paint})` : colour("--soft");
        pen.fillRect(j * cell, i * cell, cell, cell);
        if (paint && cell >= 22 && value >= 0.005) {
          const light = paint[0] * 0.299 + paint[1] * 0.587 + paint[2] * 0.114;
          pen.fillStyle = light > 140 ? "#000" : "#fff";
          pen.textAlign = "center";
          pen.fillText(Math.round(100 * value), (j + 0.5) * cell, (i + 0.5) * cell + 1);
        }
      }
    }
    if (cell >= 7) {
      pen.strokeStyle = colour("--line");
      pen.lineWidth = 0.5;
      pen.beginPath();
      for (let k = 0; k <= K; k++) {
        pen.moveTo(k * cell, 0); pen.lineTo(k * cell, side);
        pen.moveTo(0, k * cell); pen.lineTo(side, k * cell);
      }
      pen.stroke();
    }
    const above = sheet(top, side, margin), beside = sheet(left, margin, side);
    sheet(corner, margin, margin);
    above.fillStyle = beside.fillStyle = labelled ? ink : muted;
    if (labelled) {
      beside.textAlign = "right";
      names.forEach((name, k) => {
        const text = shorten(beside, name, room - 8);
        beside.fillText(text, margin - 5, (k + 0.5) * cell + 1);
        above.save();
        above.translate((k + 0.5) * cell, margin - 5);
        above.rotate(-Math.PI / 2);
        above.fillText(text, 0, 0);
        above.restore();
      });
    } else {
      above.textAlign = beside.textAlign = "center";
      above.fillText(`${column} →`, Math.min(side / 2, 150), 13);
      beside.translate(13, Math.min(side / 2, 150));
      beside.rotate(-Math.PI / 2);
      beside.fillText(`← ${row}`, 0, 0);
    }
    mark();
  };
  const mark = () => {
    if (!chosen) return;
    const [i, j] = chosen;
    marker.style.display = "block";
    marker.style.left = `${left.offsetWidth + j * cell}px`;
    marker.style.top = `${top.offsetHeight + i * cell}px`;
    marker.style.width = marker.style.height = `${cell}px`;
  };
  const choose = (i, j) => {
    if (chosen && chosen[0] === i && chosen[1] === j) return;
    chosen = [i, j];
    const value = share(i, j);
    const what = `${row} ${names[i]} → ${column} ${names[j]}`;
    said.textContent = value === null
      ? `${what}: no ${names[i]} in the truth`
      : `${what}: ${(100 * value).toFixed(2)} % (${counts[i][j].toLocaleString("en")} of ${sums[i].toLocaleString("en")} pixels)`;
    mark();
  };
  const point = (event) => {
    const box = cells.getBoundingClientRect();
    const j = Math.floor((event.clientX - box.left) / cell);
    const i = Math.floor((event.clientY - box.top) / cell);
    if (i >= 0 && j >= 0 && i < K && j < K) choose(i, j);
  };
  cells.addEventListener("pointermove", point);
  cells.addEventListener("pointerdown", point);
  view.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const [i, j] = chosen ? [chosen[0] + step[0], chosen[1] + step[1]] : [0, 0];
    choose(Math.max(0, Math.min(K - 1, i)), Math.max(0, Math.min(K - 1, j)));
    const margin = top.clientHeight, x = chosen[1] * cell, y = chosen[0] * cell;
    if (x < view.scrollLeft) view.scrollLeft = x;
    if (y < view.scrollTop) view.scrollTop = y;
    if (x + cell > view.scrollLeft + view.clientWidth - margin) view.scrollLeft = x + cell + margin - view.clientWidth;
    if (y + cell > view.scrollTop + view.clientHeight - margin) view.scrollTop = y + cell + margin - view.clientHeight;
  });
  const setZoom = () => {
    const width = figure.clientWidth - 4;
    const fitting = Math.floor((width - measure()) / K);
    const smallest = fitting >= FONT ? Math.min(fitting, 34) : Math.max(2, Math.floor((width - 24) / K));
    zoom.min = Math.min(smallest, 34);
    zoom.max = Math.max(34, zoom.min);
    zoom.value = zoom.min;
    cell = Number(zoom.value);
    draw();
  };
  zoom.addEventListener("input", () => {
    cell = Number(zoom.value);
    draw();
  });
  let width = 0;
  new ResizeObserver(() => {
    if (figure.clientWidth !== width) {
      width = figure.clientWidth;
      setZoom();
    }
  }).observe(figure);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
});
