"use strict";
(() => {
  const json = (id) => JSON.parse(document.getElementById(id).textContent);
  const darkForLight = json("data-dark");
  const charts = json("data-charts");
  const isDark = matchMedia("(prefers-color-scheme: dark)");
  const isNarrow = matchMedia("(max-width: 700px)");

  // Charts

  const tinted = (value) => {
    if (typeof value === "string") return isDark.matches && darkForLight[value] ? darkForLight[value] : value;
    if (Array.isArray(value)) return value.map(tinted);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, own]) => [key, tinted(own)]));
    }
    return value;
  };

  const merged = (base, own) => {
    const result = { ...base };
    for (const [key, value] of Object.entries(own || {})) {
      const both = value && result[key] && typeof value === "object" && !Array.isArray(value);
      result[key] = both ? merged(result[key], value) : value;
    }
    return result;
  };

  const changed = (layout, patch) => {
    const result = structuredClone(layout);
    for (const [path, value] of Object.entries(patch || {})) {
      const keys = path.split(".");
      const last = keys.pop();
      let place = result;
      for (const key of keys) place = place[key] ??= {};
      if (value === null) delete place[last];
      else place[last] = value;
    }
    return result;
  };

  const surroundings = () => {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    const axis = {
      gridcolor: color("--line"), linecolor: color("--line"), zeroline: false, tickcolor: color("--line"),
      automargin: true, title: { font: { size: 13, color: color("--soft") } },
    };
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: color("--text"), family: style.getPropertyValue("--sans"), size: isNarrow.matches ? 11 : 13 },
      margin: isNarrow.matches ? { l: 44, r: 8, t: 10, b: 44 } : { l: 60, r: 20, t: 14, b: 50 },
      xaxis: axis, yaxis: axis, legend: { bgcolor: "rgba(0,0,0,0)", itemwidth: 30 },
      hoverlabel: { bgcolor: color("--card"), bordercolor: color("--soft"), font: { color: color("--text") } },
    };
  };

  const drawn = new Set();
  const chosen = charts.map((chart) => chart.choices.map(() => 0));

  const draw = (number) => {
    const place = document.getElementById(`chart-${number}`);
    const { plot, choices } = charts[number];
    const traces = tinted(plot.data).map((trace) => ({
      ...trace,
      visible: chosen[number].every((own, k) => trace.meta[k] === -1 || trace.meta[k] === own),
    }));
    let layout = choices.reduce((held, options, k) => changed(held, options[chosen[number][k]]), plot.layout);
    layout = merged(surroundings(), tinted(layout));
    let above = 0;
    if (isNarrow.matches) {
      // Beside the chart, names would leave no room for it; below it they push it up as far as they need.
      layout.legend = { ...layout.legend, orientation: "h", x: 0, xanchor: "left", y: -0.22, yanchor: "top" };
      if (layout.yaxis.type === "category" && traces.every((trace) => trace.type === "scatter")) {
        // Names of methods beside the chart would leave no room for it: each stands above its own line.
        layout.yaxis = { ...layout.yaxis, ticklabelposition: "inside top", ticklabelshift: 4, tickfont: { size: 10 } };
        layout.margin = { ...layout.margin, l: 8 };
        // Else the axis would grow until no name meets a point.
        const shown = traces.filter((trace) => trace.visible);
        above = 10 * Math.max(...shown.map(({ y }) => y.length));
        const ends = shown.flatMap(({ x, error_x: error }) =>
          x.flatMap((value, k) => [value - error.arrayminus[k], value + error.array[k]]));
        layout.xaxis = { ...layout.xaxis, range: [Math.min(...ends), Math.max(...ends)], autorange: false };
      }
      // A matrix of many names is looked at piece by piece.
      const wide = traces.some((trace) => trace.type === "heatmap" && trace.x.length > 12);
      place.style.width = wide ? "760px" : "";
      place.parentElement.style.overflowX = wide ? "auto" : "";
      for (const trace of traces) {
        if (trace.type === "heatmap") trace.showscale = false;
        if (trace.type === "scatter" && trace.text) trace.mode = "markers";
      }
    }
    const asked = Number(place.dataset.height);
    const names = traces.filter((trace) => trace.visible && trace.showlegend !== false && trace.name).length;
    const below = isNarrow.matches && names > 1 ? 20 * names : 0;
    layout.height = asked + Math.min(below, 260) + above;
    place.style.height = `${layout.height}px`;
    const settings = { responsive: true, displaylogo: false, displayModeBar: false, scrollZoom: false };
    Plotly.react(place, traces, layout, settings);
    drawn.add(number);
  };

  const isNear = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      isNear.unobserve(target);
      draw(Number(target.id.slice("chart-".length)));
    }
  }, { rootMargin: "500px" });
  document.querySelectorAll(".plot").forEach((place) => isNear.observe(place));
  for (const setting of [isDark, isNarrow]) setting.addEventListener("change", () => drawn.forEach(draw));
  addEventListener("beforeprint", () => charts.forEach((_, number) => draw(number)));

  document.querySelectorAll("select[data-chart]").forEach((select) => {
    select.addEventListener("change", () => {
      chosen[select.dataset.chart][select.dataset.choice] = Number(select.value);
      draw(Number(select.dataset.chart));
    });
  });

  // Tables

  const sort = (button) => {
    const head = button.closest("th");
    const numeric = button.dataset.kind !== "text";
    const first = numeric && button.dataset.kind !== "rank" ? "descending" : "ascending";
    const other = first === "descending" ? "ascending" : "descending";
    const direction = head.getAttribute("aria-sort") === first ? other : first;
    for (const th of head.parentElement.children) th.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", direction);
    const body = head.closest("table").tBodies[0];
    const sign = direction === "ascending" ? 1 : -1;
    const value = (row) => row.cells[head.cellIndex].dataset.order;
    const compared = (one, two) => (numeric ? Number(one) - Number(two) : one.localeCompare(two, "en", { numeric: true }));
    const rows = [...body.rows].sort((one, two) => {
      const [a, b] = [value(one), value(two)];
      if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
      return sign * compared(a, b);
    });
    body.append(...rows);
  };
  document.querySelectorAll(".sortable thead button").forEach((button) => {
    button.addEventListener("click", () => sort(button));
  });

  const filter = (board) => {
    const tool = (kind) => document.querySelector(`[data-filter="${kind}"][data-board="${board}"]`);
    const words = tool("words").value.toLowerCase().split(/\s+/).filter(Boolean);
    const regime = tool("regime")?.value ?? "";
    const withoutTwins = tool("twins")?.checked ?? false;
    const rows = [...document.getElementById(`table-${board}`).tBodies[0].rows];
    for (const row of rows) {
      const fits = words.every((word) => row.dataset.words.includes(word)) && (!regime || row.dataset.regime === regime);
      row.hidden = !fits || (withoutTwins && "twin" in row.dataset);
    }
    const left = rows.filter((row) => !row.hidden).length;
    document.getElementById(`count-${board}`).textContent =
      left === rows.length ? `${left} methods` : `${left} of ${rows.length} methods`;
  };
  document.querySelectorAll("[data-filter]").forEach((tool) => {
    tool.addEventListener("input", () => filter(tool.dataset.board));
  });

  // The records behind a row

  const { shared, records } = json("data-records");
  const dialog = document.getElementById("records");
  const made = (tag, text, ...children) => {
    const element = document.createElement(tag);
    if (text !== null) element.textContent = text;
    element.append(...children);
    return element;
  };
  const whole = (places) => Object.fromEntries(Object.entries(places).map(([name, place]) => [name, shared[place]]));

  const show = (row, task) => {
    const every = row.dataset.records.split(" ").map((id) => [id, records[id]]);
    const ofTask = every.filter(([, record]) => record.task === task);
    const behind = ofTask.length ? ofTask : every;
    const title = row.closest("table").dataset.title;
    document.getElementById("records-title").textContent = row.querySelector(".open").textContent;
    document.getElementById("records-note").textContent =
      `${title}${ofTask.length ? `, ${task}` : ""}: ${behind.length} ${behind.length === 1 ? "record" : "records"}, ${row.dataset.regime}.`;
    const lines = behind.map(([id, record]) => {
      const link = made("a", id);
      link.href = record.link;
      const score = made("td", record.score.toFixed(4));
      score.className = "score";
      const name = made("th", record.task);
      name.scope = "row";
      const file = record.link ? made("td", null, link) : made("td", id);
      return made("tr", null, name, made("td", record.seed ?? "none"), score, made("td", record.metric), file);
    });
    dialog.querySelector("tbody").replaceChildren(...lines);
    const specs = behind.map(([id, record]) => {
      const held = { spec_id: id, created: record.created, spec: whole(record.spec), measured: whole(record.measured) };
      const seed = record.seed === null ? "" : `, seed ${record.seed}`;
      const details = made("details", null, made("summary", `${record.task}${seed}: ${id}`));
      details.addEventListener("toggle", () => {
        if (details.children.length > 1) return;
        const text = made("pre", JSON.stringify(held, null, 1));
        text.tabIndex = 0;
        details.append(text);
      });
      return details;
    });
    document.getElementById("records-specs").replaceChildren(...specs);
    dialog.showModal();
    dialog.scrollTop = 0;
  };
  document.querySelectorAll(".leaderboard tbody").forEach((body) => {
    body.addEventListener("click", (event) => {
      const row = event.target.closest("tr");
      const cell = event.target.closest("td[data-task]");
      if (cell || event.target.closest(".open")) show(row, cell?.dataset.task);
    });
  });
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());

  const openTarget = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target instanceof HTMLDetailsElement) target.open = true;
    if (target) target.scrollIntoView();
  };
  addEventListener("hashchange", openTarget);
  document.querySelectorAll('nav a[href^="#board"]').forEach((link) => {
    link.addEventListener("click", () => { document.getElementById(link.hash.slice(1)).open = true; });
  });
  openTarget();
})();
