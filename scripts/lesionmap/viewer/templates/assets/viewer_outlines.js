// Outlines, which of them are shown, and their legend. Texts of files are only ever set as textContent.
"use strict";

(app => {
  const STYLES = { // told apart by colour, and without it by dash and width
    predicted: { color: "#000000", weight: 2.5 },
    true: { color: "#000000", weight: 2.5 },
    false: { color: "#d55e00", weight: 4, dashArray: "10 4" },
    unjudged: { color: "#4d4d4d", weight: 2, dashArray: "3 3" },
    found: { color: "#0072b2", weight: 2.5, dashArray: "9 5" },
    missed: { color: "#56b4e9", weight: 5, dashArray: "3 6" },
    lesion: { color: "#0072b2", weight: 2.5, dashArray: "1 5" },
    vessel: { color: "#8c510a", weight: 2.5, dashArray: "2 5" },
    fat: { color: "#009e73", weight: 2.5, dashArray: "9 4 2 4" },
    ignore: { color: "#4d4d4d", weight: 2.5, dashArray: "14 4 2 4 2 4" },
  };
  const element = id => document.getElementById(id);
  const toggles = new Map(); // checkbox by name, in the order of the page
  const groups = []; // of outlines, each with its layer on every map

  app.outlined = rings => rings.map(ring => {
    const points = [];
    for (let n = 0; n < ring.length; n += 2) points.push(app.at(ring[n], ring[n + 1]));
    return points;
  });
  const weight = (map, style) => style.weight * (map.getZoom() < app.view.picture.base ? 0.5 : 1);
  const drawn = (map, { outlines, style }, renderer) => L.layerGroup(outlines.map(({ rings }) => (
    L.polygon(app.outlined(rings), { ...style, weight: weight(map, style), fill: false, interactive: false, renderer })
  )));
  app.drawOutlines = map => {
    const renderer = L.canvas({ padding: 0.3 });
    for (const group of groups) {
      const { style, layers } = group;
      const layer = drawn(map, group, renderer);
      layers.set(map, layer);
      if (group.on) layer.addTo(map);
      map.on("zoomend", () => layer.eachLayer(outline => {
        if (outline.options.weight !== weight(map, style)) outline.setStyle({ weight: weight(map, style) });
      }));
    }
  };

  const sample = ({ color, weight: width, dashArray = "" }) => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
    const attributes = { x1: 0, x2: 34, y1: 6, y2: 6, stroke: color, "stroke-width": width, "stroke-dasharray": dashArray };
    for (const [key, value] of Object.entries(attributes)) line.setAttribute(key, value);
    svg.setAttribute("width", 34);
    svg.setAttribute("height", 12);
    svg.setAttribute("aria-hidden", "true");
    svg.append(line);
    return svg;
  };
  app.addToggle = (name, text, show, ...pictured) => {
    const label = document.createElement("label");
    const box = document.createElement("input");
    Object.assign(box, { type: "checkbox", id: `show-${name}`, checked: true });
    box.addEventListener("change", () => {
      show(box.checked);
      app.tellBare();
      app.changed();
    });
    const words = document.createElement("span");
    words.textContent = text;
    label.append(box, ...pictured, words);
    element("shown").append(label);
    toggles.set(name, { box, show, text, style: STYLES[name] });
    show(true);
  };
  const addOutlines = (name, text, outlines) => {
    const group = { style: STYLES[name], outlines, layers: new Map(), on: true };
    groups.push(group);
    app.addToggle(name, text, on => {
      group.on = on;
      group.layers.forEach((layer, map) => (on ? layer.addTo(map) : layer.remove()));
    }, sample(group.style));
  };

  app.hidden = () => [...toggles].filter(([, { box }]) => !box.checked).map(([name]) => name);
  app.shown = () => [...toggles.values()].filter(({ box }) => box.checked);
  app.hide = names => {
    for (const [name, { box, show }] of toggles) {
      if (box.checked === names.includes(name)) show(box.checked = !box.checked);
    }
    app.tellBare();
  };
  // With all hidden, the mark of the selected lesion is, too.
  app.tellBare = () => document.querySelector(".panes").classList.toggle("bare", app.hidden().length === toggles.size);
  let before = [];
  app.hideAll = () => { // or show again what was shown before
    const all = [...toggles.keys()];
    const hidden = app.hidden();
    if (hidden.length < all.length) before = hidden;
    app.hide(hidden.length < all.length ? all : before.length < all.length ? before : []);
    app.changed();
  };

  // ---- lesions: counted as the metrics count them, several outlines may be one annotated lesion

  const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
  const addPredicted = () => {
    const { n, verdicts, outlines } = app.view.predicted;
    const kinds = {
      true: ["predicted lesions, true", ["matched", "merged"]],
      false: ["predicted lesions, false", ["false"]],
      unjudged: ["predicted lesions, not judged", ["not judged"]],
    };
    const count = names => names.reduce((sum, name) => sum + (verdicts[name] ?? 0), 0);
    if (!app.view.annotated_lesions.length && !Object.keys(verdicts).length) {
      addOutlines("predicted", `predicted lesions (${n})`, outlines);
      return;
    }
    for (const [name, [text, names]] of Object.entries(kinds)) {
      if (name !== "unjudged" || count(names)) {
        addOutlines(name, `${text}: ${count(names)}`, outlines.filter(({ verdict }) => names.includes(verdict)));
      }
    }
  };
  const addAnnotatedLesions = (outlines, told) => {
    for (const [name, text, found] of [["found", "found", true], ["missed", "missed", false], ["lesion", "not judged", null]]) {
      const those = app.view.annotated_lesions.filter(lesion => lesion.found === found);
      if (found !== null || those.length) {
        const n = those.reduce((sum, lesion) => sum + lesion.outlines, 0);
        const size = `${those.length}${n === those.length ? "" : ` (${plural(n, "outline")})`}`;
        addOutlines(name, `annotated lesions ${text}${told}: ${size}`, outlines.filter(outline => outline.found === found));
      }
    }
  };
  app.listOutlines = () => {
    addPredicted();
    for (const { class: name, names, n, area_mm2: mm2, outlines } of app.view.annotated) {
      const others = names.filter(other => other.toLowerCase() !== name).slice(0, 5).join(", ");
      const told = others && ` – ${others}`;
      if (name === "lesion" && app.view.annotated_lesions.length) {
        addAnnotatedLesions(outlines, told);
      } else {
        const [kind, size] = name === "ignore" ? ["not judged", `${n}, ${mm2.toFixed(3)} mm²`] : [`annotated ${name}`, n];
        addOutlines(name, `${kind}${told} (${size})`, outlines);
      }
    }
  };
})(window.lesionmapViewer);
