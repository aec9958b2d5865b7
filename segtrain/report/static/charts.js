// Lines: the values at the nearest step, under the pointer and with the arrow keys.
document.querySelectorAll(".plot.lines").forEach((plot) => {
  const data = JSON.parse(plot.parentElement.querySelector(".chart-data").textContent);
  const longest = data.reduce((a, b) => (b.at.length > a.at.length ? b : a));
  const cursor = document.createElement("div");
  const reading = document.createElement("div");
  cursor.className = "cursor";
  reading.className = "reading";
  plot.append(cursor, reading);
  let chosen = -1;
  const nearest = (at, left) => {
    let best = 0;
    at.forEach((value, index) => {
      if (Math.abs(value - left) < Math.abs(at[best] - left)) best = index;
    });
    return best;
  };
  const show = (index) => {
    chosen = Math.max(0, Math.min(longest.at.length - 1, index));
    const left = longest.at[chosen];
    const line = (text) => {
      const element = document.createElement("div");
      element.textContent = text;
      return element;
    };
    const title = line(longest.x[chosen]);
    title.style.fontWeight = 600;
    const values = data.map((series) => {
      const place = nearest(series.at, left);
      const here = series.x[place] === longest.x[chosen] ? "" : ` (at ${series.x[place]})`;
      return line((data.length > 1 ? `${series.name}: ` : "") + series.y[place] + here);
    });
    reading.replaceChildren(title, ...values);
    cursor.style.display = reading.style.display = "block";
    cursor.style.left = `${left}%`;
    const width = plot.clientWidth;
    const wanted = (left / 100) * width + 10;
    const fits = wanted + reading.offsetWidth <= width + 12;
    reading.style.left = `${fits ? wanted : Math.max(0, wanted - 20 - reading.offsetWidth)}px`;
  };
  const hide = () => {
    cursor.style.display = reading.style.display = "none";
  };
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    show(nearest(longest.at, (100 * (event.clientX - box.left)) / box.width));
  });
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    show(chosen + step);
  });
});

// Scatters: each label at the first of four places where it covers nothing, else under the pointer.
const placeLabels = (plot) => {
  const frame = plot.getBoundingClientRect();
  const marks = [...plot.querySelectorAll(".mark")];
  const taken = marks.map((mark) => {
    const box = mark.getBoundingClientRect();
    return { l: box.left - 7, r: box.left + 7, t: box.top - 7, b: box.top + 7, mark };
  });
  marks.forEach((mark) => {
    const label = mark.querySelector("b");
    const w = label.offsetWidth, h = label.offsetHeight;
    const at = mark.getBoundingClientRect();
    const places = [[10, -h / 2], [-10 - w, -h / 2], [-w / 2, -h - 8], [-w / 2, 8],
                    [7, -h - 3], [7, 3], [-7 - w, -h - 3], [-7 - w, 3]];
    const free = places.find(([x, y]) => {
      const box = { l: at.left + x, r: at.left + x + w, t: at.top + y, b: at.top + y + h };
      if (box.l < frame.left || box.r > frame.right + 14) return false;
      if (box.t < frame.top - 12 || box.b > frame.bottom) return false;
      if (taken.some((o) => o.mark !== mark && box.l < o.r && o.l < box.r && box.t < o.b && o.t < box.b)) return false;
      taken.push({ ...box, mark: null });
      return true;
    });
    const [x, y] = free || (at.left + 10 + w > frame.right ? places[1] : places[0]);
    label.style.left = `${x}px`;
    label.style.top = `${y}px`;
    label.classList.toggle("hidden", !free);
  });
};
document.querySelectorAll(".plot.scatter").forEach((plot) => {
  new ResizeObserver(() => placeLabels(plot)).observe(plot);
});
