// Examples: a stage that shows any two panels of an image, with a slider between them.
(() => {
  const element = (tag, kind, text) => {
    const made = document.createElement(tag);
    if (kind) made.className = kind;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const naming = document.querySelector(".class-names");
  const names = naming ? JSON.parse(naming.textContent) : [];
  const called = (id) => names[id] ?? "void";

  document.querySelectorAll(".example").forEach((card) => {
    const figures = [...card.querySelectorAll(".panels figure")];
    const panels = Object.fromEntries(figures.map((f) => [f.dataset.panel, f.querySelector("img")]));
    const all = Object.keys(panels);
    const title = card.querySelector("h4").textContent;
    const stage = element("div", "stage");
    const under = element("img"), over = element("img"), edge = element("i", "edge");
    const tags = [element("span", "tag left"), element("span", "tag right")];
    under.draggable = over.draggable = false;
    under.alt = over.alt = "";
    const [width, height] = ["width", "height"].map((side) => panels[all[0]].getAttribute(side));
    stage.style.aspectRatio = `${width} / ${height}`;
    stage.append(under, over, edge, ...tags);

    const range = element("input", "split");
    range.type = "range";
    range.min = 0;
    range.max = 100;
    range.value = 50;
    const pickers = ["left", "right"].map((side) => {
      const picker = element("select");
      picker.setAttribute("aria-label", `${title}: ${side} of the slider`);
      all.forEach((name) => picker.append(element("option", "", name)));
      return picker;
    });
    pickers[0].value = all[1];
    pickers[1].value = all[2];
    const tools = element("div", "compare");
    tools.append(pickers[0], range, pickers[1]);
    const said = element("p", "said", "");
    said.innerHTML = "&nbsp;";
    const strip = card.querySelector(".panels");
    card.insertBefore(stage, strip);
    card.insertBefore(tools, strip);
    if (card.dataset.labels) card.insertBefore(said, strip);

    const show = () => {
      const [left, right] = pickers.map((picker) => picker.value);
      under.src = panels[left].src;
      over.src = panels[right].src;
      const at = Number(range.value);
      over.style.clipPath = `inset(0 0 0 ${at}%)`;
      edge.style.left = `${at}%`;
      tags[0].textContent = left;
      tags[1].textContent = right;
      tags[0].style.opacity = at > 12 ? 1 : 0;
      tags[1].style.opacity = at < 88 ? 1 : 0;
      range.setAttribute("aria-label", `${title}: ${left} on the left, ${right} on the right`);
      range.setAttribute("aria-valuetext", `${at} % ${left}`);
      figures.forEach((f) => f.querySelector("button").setAttribute(
        "aria-pressed", f.dataset.panel === left || f.dataset.panel === right));
    };
    figures.forEach((figure) => {
      const button = element("button");
      button.type = "button";
      button.title = `show ${figure.dataset.panel} on the right`;
      button.append(...figure.childNodes);
      figure.append(button);
      button.addEventListener("click", () => {
        pickers[1].value = figure.dataset.panel;
        if (Number(range.value) > 60) range.value = 50;
        show();
      });
    });
    [range, ...pickers].forEach((control) => control.addEventListener("input", show));
    const drag = (event) => {
      const box = stage.getBoundingClientRect();
      range.value = Math.round((100 * (event.clientX - box.left)) / box.width);
      show();
    };
    stage.addEventListener("pointerdown", (event) => {
      stage.setPointerCapture(event.pointerId);
      drag(event);
    });
    stage.addEventListener("pointermove", (event) => {
      if (event.buttons) drag(event);
    });

    let layers = null;
    const read = async () => {
      layers = "loading";
      const image = new Image();
      image.src = card.dataset.labels;
      await image.decode();
      const sheet = document.createElement("canvas");
      sheet.width = image.width;
      sheet.height = image.height;
      const pen = sheet.getContext("2d", { willReadFrequently: true });
      pen.drawImage(image, 0, 0);
      layers = pen.getImageData(0, 0, image.width, image.height);
    };
    stage.addEventListener("pointermove", (event) => {
      if (!card.dataset.labels) return;
      if (layers === null) read();
      if (!layers || layers === "loading") return;
      const box = stage.getBoundingClientRect();
      const x = Math.floor(((event.clientX - box.left) / box.width) * layers.width);
      const y = Math.floor(((event.clientY - box.top) / box.height) * layers.height);
      if (x < 0 || y < 0 || x >= layers.width || y >= layers.height) return;
      const place = 4 * (y * layers.width + x);
      const [truth, found] = [layers.data[place], layers.data[place + 1]].map(called);
      said.textContent = truth === found ? truth : `truth ${truth} · prediction ${found}`;
    });
    stage.addEventListener("pointerleave", () => { said.innerHTML = "&nbsp;"; });
    show();
  });
})();
