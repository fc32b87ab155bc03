// The viewer of a slide's page: glue between Leaflet, the slide's view.js and the page's controls.
// Coordinates are level-0 pixels of the slide file, y down. Texts of files are only ever set as textContent.
"use strict";

(() => {
  const view = window.lesionmapView;
  const study = document.querySelector(".study");
  const element = id => document.getElementById(id);
  const viewer = element("viewer");
  if (!window.L || !view || !viewer) return; // the page keeps its picture of the whole slide
  study.classList.add("active");
  viewer.hidden = false;

  const { probability, picture, detail } = view;
  const folder = viewer.dataset.view;
  const NOTHING = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7";
  const MAX_U8 = 255;
  const STYLES = { // told apart by colour, and without it by dash
    predicted: { color: "#000000" },
    lesion: { color: "#0072b2", dashArray: "9 5" },
    vessel: { color: "#d55e00", dashArray: "2 5" },
    fat: { color: "#009e73", dashArray: "9 4 2 4" },
    ignore: { color: "#4d4d4d", dashArray: "14 4 2 4 2 4" },
  };

  // ---- the map: zoom `native` has one pixel for each level-0 pixel

  const at = (x, y) => L.latLng(-y, x);
  const perUnit = 2 ** -view.native;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const finest = Math.max(view.native, probability.zoom) + 2;
  const map = L.map("viewer-map", {
    crs: L.extend({}, L.CRS.Simple, { transformation: L.transformation(perUnit, 0, -perUnit, 0) }),
    minZoom: 0,
    maxZoom: finest,
    zoomSnap: 0.5,
    zoomDelta: 0.5,
    attributionControl: false,
    fadeAnimation: false,
    zoomAnimation: !still,
    inertia: !still,
  });
  const container = map.getContainer();
  container.style.background = view.background;
  const fit = () => {
    // Moved to whole pixels of the screen: between two of them browsers interpolate, also what is to be exact.
    container.style.left = container.style.top = "0";
    const { left, top } = container.getBoundingClientRect();
    const beyond = [left + scrollX, top + scrollY].map(at => Math.round(at * devicePixelRatio) / devicePixelRatio - at);
    [container.style.left, container.style.top] = beyond.map(length => `${length}px`);
    map.invalidateSize();
  };
  new ResizeObserver(fit).observe(container);
  new ResizeObserver(fit).observe(document.body);

  // ---- tiles

  const namesOf = runs => {
    const names = new Set();
    for (const [zoom, row, first, last] of runs) {
      for (let column = first; column <= last; column++) names.add(`${zoom}/${column}_${row}`);
    }
    return names;
  };
  const pictures = namesOf(picture.tiles);
  const maps = namesOf(probability.tiles);
  const grid = {
    tileSize: view.tile_px,
    bounds: L.latLngBounds(at(0, 0), at(...view.size)),
    maxZoom: finest,
    updateWhenZooming: false,
  };

  const SlideTiles = L.TileLayer.extend({
    getTileUrl({ x, y, z }) {
      const name = `${z}/${x}_${y}`;
      return pictures.has(name) ? `${folder}/slide/${name}.jpg` : NOTHING;
    },
  });
  const add = layer => layer
    .on("tileloadstart", ({ tile }) => tile.style.setProperty("--side", `${layer.getTileSize().x}px`)) // see viewer.css
    .addTo(map);
  add(new SlideTiles("", { ...grid, maxNativeZoom: picture.base }));
  add(new SlideTiles("", { ...grid, minZoom: picture.base + 1, maxNativeZoom: view.native, zIndex: 2 }));

  // Beyond its own finest zoom a map is enlarged here, in tiles of the screen's size: the browser would filter
  // enlarged pictures whole, however little of them is seen.
  const ProbabilityTiles = L.GridLayer.extend({
    createTile({ x, y, z }, done) {
      const canvas = document.createElement("canvas");
      canvas.width = canvas.height = view.tile_px;
      canvas.style.filter = "url(#probability-filter)";
      const beyond = Math.max(0, z - probability.zoom);
      const name = `${z - beyond}/${x >> beyond}_${y >> beyond}`;
      if (!maps.has(name)) {
        setTimeout(done, 0, null, canvas);
        return canvas;
      }
      const image = new Image();
      image.onload = () => {
        const part = view.tile_px / 2 ** beyond;
        const corner = [x, y].map(n => (n % 2 ** beyond) * part);
        const pen = canvas.getContext("2d");
        pen.imageSmoothingEnabled = false;
        pen.drawImage(image, ...corner, part, part, 0, 0, view.tile_px, view.tile_px);
        done(null, canvas);
      };
      image.onerror = () => done(new Error(name), canvas);
      image.src = `${folder}/probability/${name}.png`;
      return canvas;
    },
  });
  const pane = map.createPane("probability");
  pane.style.zIndex = 300;
  pane.style.pointerEvents = "none";
  add(new ProbabilityTiles({ ...grid, pane: "probability" }));
  map.on("zoom", () => container.classList.toggle("between", !Number.isInteger(map.getZoom())));

  // ---- sliders

  const threshold = element("threshold");
  const opacity = element("opacity");
  const reset = element("threshold-reset");
  const mm2From = new Array(MAX_U8 + 2).fill(0); // of the map, from each probability on
  for (let u8 = MAX_U8; u8 >= 0; u8--) {
    mm2From[u8] = mm2From[u8 + 1] + probability.counts[u8] * probability.pixel_mm2;
  }

  const showProbability = () => {
    const u8 = Number(threshold.value);
    const table = Array.from({ length: MAX_U8 + 1 }, (_, n) => Number(n >= u8));
    element("probability-mask").setAttribute("tableValues", table.join(" "));
    const from = u8 === probability.first_positive ? probability.threshold : (u8 / MAX_U8).toFixed(3);
    element("threshold-text").textContent = `${from}: ${mm2From[u8].toFixed(3)} mm²`;
    threshold.style.setProperty("--from", `${(100 * u8) / MAX_U8}%`);
    reset.disabled = u8 === probability.first_positive;
    element("opacity-text").textContent = `${opacity.value} %`;
    pane.style.opacity = opacity.value / 100;
  };
  threshold.value = probability.first_positive;
  for (const slider of [threshold, opacity]) slider.addEventListener("input", showProbability);
  for (const slider of [threshold, opacity]) slider.addEventListener("change", () => writeLink());
  reset.addEventListener("click", () => {
    threshold.value = probability.first_positive;
    showProbability();
    writeLink();
    threshold.focus();
  });

  // ---- outlines, and what is shown

  const outlined = rings => rings.map(ring => {
    const points = [];
    for (let n = 0; n < ring.length; n += 2) points.push(at(ring[n], ring[n + 1]));
    return points;
  });
  const pen = L.canvas({ padding: 0.3 });
  const weight = () => (map.getZoom() < picture.base ? 1.25 : 2.5);
  const drawn = (outlines, style) => L.layerGroup(
    outlines.map(({ rings }) => L.polygon(outlined(rings), {
      ...style, weight: weight(), fill: false, interactive: false, renderer: pen,
    })),
  );

  const sample = ({ color, dashArray = "" }) => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
    const attributes = { x1: 0, x2: 34, y1: 6, y2: 6, stroke: color, "stroke-width": 2.5, "stroke-dasharray": dashArray };
    for (const [key, value] of Object.entries(attributes)) line.setAttribute(key, value);
    svg.setAttribute("width", 34);
    svg.setAttribute("height", 12);
    svg.setAttribute("aria-hidden", "true");
    svg.append(line);
    return svg;
  };
  const addToggle = (id, text, show, ...pictured) => {
    const label = document.createElement("label");
    const box = document.createElement("input");
    Object.assign(box, { type: "checkbox", id, checked: true });
    box.addEventListener("change", () => show(box.checked));
    const words = document.createElement("span");
    words.textContent = text;
    label.append(box, ...pictured, words);
    element("shown").append(label);
    show(true);
  };
  const addOutlines = (id, text, outlines, style) => {
    const layer = drawn(outlines, style);
    addToggle(id, text, on => (on ? layer.addTo(map) : layer.remove()), sample(style));
    map.on("zoomend", () => layer.eachLayer(outline => {
      if (outline.options.weight !== weight()) outline.setStyle({ weight: weight() });
    }));
  };

  // ---- lesions

  const lesions = new Map(view.predicted.outlines.map(lesion => [lesion.name, lesion]));
  const mark = L.layerGroup();

  const goTo = row => {
    document.querySelectorAll("tr[aria-current]").forEach(other => other.removeAttribute("aria-current"));
    row.setAttribute("aria-current", "true");
    const lesion = lesions.get(row.dataset.lesion); // none if too much is outlined
    let zoom = view.native;
    mark.clearLayers();
    if (lesion) {
      const shape = outlined(lesion.rings);
      for (const look of [{ color: "#ffffff", weight: 9 }, { color: "#e69f00", weight: 5 }]) {
        mark.addLayer(L.polygon(shape, { ...look, fill: false, interactive: false }));
      }
      zoom = Math.min(zoom, map.getBoundsZoom(L.polygon(shape).getBounds().pad(0.4)));
    }
    map.setView(at(row.dataset.x, row.dataset.y), zoom, still ? { animate: false } : {});
    viewer.scrollIntoView({ block: "nearest" });
  };
  for (const row of document.querySelectorAll("tr[data-lesion]")) {
    const button = document.createElement("button");
    const name = row.querySelector("th");
    button.type = "button";
    button.textContent = name.textContent;
    button.addEventListener("click", () => goTo(row));
    name.replaceChildren(button);
  }

  // ---- where the view is: link, scale bar, coordinates

  const centre = () => ({ x: map.getCenter().lng, y: -map.getCenter().lat });

  const writeLink = () => {
    const { x, y } = centre();
    const told = {
      x: x.toFixed(1), y: y.toFixed(1), zoom: map.getZoom(),
      threshold: (threshold.value / MAX_U8).toFixed(3), opacity: opacity.value / 100,
    };
    history.replaceState(null, "", `#${new URLSearchParams(told)}`);
  };
  const home = () => {
    const [left, top, right, bottom] = view.home;
    map.fitBounds(L.latLngBounds(at(left, top), at(right, bottom)), { animate: false });
  };
  const followLink = () => {
    const asked = new URLSearchParams(location.hash.slice(1));
    const number = key => (asked.get(key) ? Number(asked.get(key)) : NaN);
    const within = (value, least, most) => Math.min(most, Math.max(least, value));
    const [x, y, zoom, from, seen] = ["x", "y", "zoom", "threshold", "opacity"].map(number);
    if (from >= 0) threshold.value = within(Math.round(from * MAX_U8), 1, MAX_U8);
    if (seen >= 0) opacity.value = within(Math.round(seen * 100), 0, 100);
    showProbability();
    if ([x, y, zoom].every(Number.isFinite)) map.setView(at(x, y), within(zoom, 0, finest), { animate: false });
    return Number.isFinite(x + y + zoom);
  };

  const Scale = L.Control.Scale.extend({
    _updateMetric(pixels) { // Leaflet measures in units of the map, which are level-0 pixels
      const most = pixels * view.mpp;
      const length = this._getRoundNum(most);
      this._updateScale(this._mScale, length < 1000 ? `${length} µm` : `${length / 1000} mm`, length / most);
    },
  });
  const Place = L.Control.extend({
    onAdd() {
      const box = L.DomUtil.create("div", "place");
      const tell = (what, { x, y }) => {
        const [px, um] = [1, view.mpp].map(unit => [x, y].map(n => Math.floor(n * unit)).join(", "));
        box.textContent = `${what} ${px} px; ${um} µm`;
      };
      const tellCentre = () => tell("Centre:", centre());
      map.on("mousemove", ({ latlng }) => tell("x, y:", { x: latlng.lng, y: -latlng.lat }));
      map.on("mouseout move", tellCentre);
      tellCentre();
      return box;
    },
  });

  // ---- to begin with

  if (!followLink()) home();
  addToggle("show-probability", "probability", on => { pane.style.display = on ? "" : "none"; });
  addOutlines("show-predicted", `predicted lesions (${view.predicted.n})`, view.predicted.outlines, STYLES.predicted);
  for (const { class: name, names, n, area_mm2: mm2, outlines } of view.annotated) {
    const told = names.filter(other => other.toLowerCase() !== name).slice(0, 5).join(", ");
    const [kind, size] = name === "ignore" ? ["not judged", `${n}, ${mm2.toFixed(3)} mm²`] : [`annotated ${name}`, n];
    addOutlines(`show-${name}`, `${kind}${told && ` – ${told}`} (${size})`, outlines, STYLES[name]);
  }
  mark.addTo(map);
  new Scale({ imperial: false, maxWidth: 160 }).addTo(map);
  new Place({ position: "bottomright" }).addTo(map);
  L.DomEvent.disableClickPropagation(element("view-buttons"));
  new (L.Control.extend({ onAdd: () => element("view-buttons") }))({ position: "topright" }).addTo(map);
  map.on("moveend", writeLink);
  window.addEventListener("hashchange", followLink);
  element("home").addEventListener("click", home);
  const full = element("full-screen");
  full.hidden = !document.fullscreenEnabled;
  full.addEventListener("click", () => (document.fullscreenElement ? document.exitFullscreen() : study.requestFullscreen()));

  const notes = [];
  const coarse = `${(view.mpp * 2 ** (view.native - picture.base)).toPrecision(2)} µm/px`;
  if (picture.base < view.native && detail.mode === "none") notes.push(`Shown down to ${coarse}.`);
  if (picture.base < view.native && detail.mode === "lesions") {
    notes.push(`Shown down to ${coarse}, and in full resolution around lesions.`);
    if (detail.without) {
      notes.push(`${detail.without} of ${detail.lesions} lesions are beyond the limit of what is shown so and lack it in part or wholly.`);
    }
  }
  if (picture.damaged) notes.push(`Parts of ${picture.damaged} tiles cannot be read and are left empty.`);
  for (const { n, outlines } of [view.predicted, ...view.annotated]) {
    if (n > outlines.length) notes.push(`Of ${n} outlines the ${outlines.length} largest are drawn.`);
  }
  element("viewer-notes").textContent = notes.join(" ");
})();
