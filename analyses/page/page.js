"use strict";
(() => {
  const read = (id) => { const found = document.getElementById(id); return found ? JSON.parse(found.textContent) : null; };
  const views = read("views") || {};
  const steps = read("step-values");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const shade = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Tables: a click on a heading sorts by it, another turns the order round.
  for (const table of document.querySelectorAll("table.sortable")) {
    table.tHead.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      const heading = button.parentElement;
      const place = [...heading.parentElement.children].indexOf(heading);
      const up = heading.getAttribute("aria-sort") !== "ascending";
      for (const other of heading.parentElement.children) other.setAttribute("aria-sort", "none");
      heading.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = (row) => row.children[place].dataset.value;
      const order = (a, b) => {
        const [x, y] = [value(a), value(b)], [p, q] = [Number(x), Number(y)];
        if (x === "" || y === "") return (x === "") - (y === "");
        const found = x !== "" && y !== "" && !Number.isNaN(p) && !Number.isNaN(q) ? p - q : x.localeCompare(y);
        return up ? found : -found;
      };
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort(order));
    });
  }

  if (!Object.keys(views).length || typeof DecompressionStream === "undefined") {
    document.body.dataset.ready = "true";
    return;
  }

  const colours = (layout) => {
    const found = structuredClone(layout);
    const ink = shade("--ink"), grid = shade("--grid");
    Object.assign(found, { paper_bgcolor: shade("--paper"), plot_bgcolor: shade("--paper"), font: { color: ink, family: "system-ui, sans-serif", size: 12 } });
    found.legend = { orientation: "h", yref: "container", yanchor: "bottom", y: 0.01, xanchor: "left", x: 0, itemclick: false, itemdoubleclick: false };
    found.hoverlabel = { bgcolor: shade("--card"), font: { color: ink }, bordercolor: shade("--line") };
    for (const key of Object.keys(found)) {
      if (/^[xy]axis\d*$/.test(key)) Object.assign(found[key], { gridcolor: grid, linecolor: shade("--soft"), showline: true, ticks: "outside", tickcolor: shade("--soft") });
    }
    return found;
  };

  const shown = [];
  const hidden = new Set();
  const visible = (trace) => !(trace.legendgroup && hidden.has(trace.legendgroup));

  const draw = (view) => {
    const data = view.data.map((trace) => ({ ...trace, visible: visible(trace) }));
    const layout = colours(view.layout);
    if (view.step !== undefined && view.stepped) {
      for (const suffix of view.stepped) {
        layout.shapes = [...(layout.shapes || []), { type: "line", xref: "x" + suffix, yref: "y" + suffix + " domain", x0: view.step, x1: view.step, y0: 0, y1: 1, line: { color: shade("--soft"), width: 1, dash: "dot" } }];
      }
    }
    return window.Plotly.react(view.plot, data, layout, { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] });
  };
  const drawAll = () => Promise.all(shown.map(draw));

  // What a figure says at one step: every named line, at its nearest place.
  const readOff = (view) => {
    if (!view.stepped || view.step === undefined) return;
    const rows = [];
    for (const trace of view.data) {
      if (!trace.name || trace.type !== "scatter" || !trace.x || trace.fill || !visible(trace)) continue;
      if (!view.stepped.includes(trace.xaxis.slice(1))) continue;
      let best = -1;
      trace.x.forEach((x, i) => { if (x !== null && trace.y[i] !== null && (best < 0 || Math.abs(x - view.step) < Math.abs(trace.x[best] - view.step))) best = i; });
      if (best < 0) continue;
      const title = view.layout["yaxis" + trace.yaxis.slice(1)].title.text;
      const told = trace.customdata ? trace.customdata[best].replace(/^[^:]*: /, "") : Number(trace.y[best].toPrecision(3));
      rows.push([trace.name, title, told]);
    }
    view.readout.replaceChildren();
    for (const row of rows) {
      const line = view.readout.insertRow();
      for (const text of row) line.insertCell().innerHTML = text;
    }
    view.readout.hidden = rows.length === 0;
  };

  const library = async () => {
    const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent.trim()), (c) => c.charCodeAt(0));
    const text = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
    const script = document.createElement("script");
    script.textContent = text;
    document.head.append(script);
  };

  const start = async () => {
    await library();
    for (const figure of document.querySelectorAll("figure[data-view]")) {
      const view = views[figure.dataset.view];
      if (!view) continue;
      view.plot = figure.querySelector(".plot");
      view.readout = figure.querySelector(".readout");
      view.plot.hidden = false;
      figure.querySelector("img").style.display = "none";
      shown.push(view);
    }
    await drawAll();
    const controls = document.getElementById("controls");
    if (controls) controls.hidden = false;
    for (const box of document.querySelectorAll("#series input")) {
      const colour = (t) => (t.line && t.line.color) || (t.marker && t.marker.color);
      const own = shown.flatMap((v) => v.data).filter((t) => t.legendgroup === box.value && colour(t));
      const owner = own.find((t) => t.name) || own[0];
      const swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.background = owner ? colour(owner) : "none";
      box.after(swatch);
      box.addEventListener("change", () => { hidden[box.checked ? "delete" : "add"](box.value); drawAll(); shown.forEach(readOff); });
    }
    const slider = document.getElementById("step");
    if (slider && steps) {
      const move = () => {
        const step = steps[Number(slider.value)];
        document.getElementById("step-value").textContent = Number(step.toPrecision(4));
        slider.setAttribute("aria-valuetext", String(step));
        for (const view of shown) { view.step = step; readOff(view); }
        return drawAll();
      };
      slider.addEventListener("input", move);
      await move();
    }
    dark.addEventListener("change", drawAll);
    document.body.dataset.ready = "true";
  };
  start().catch((error) => { document.body.dataset.failed = String(error); console.error(error); });
})();
