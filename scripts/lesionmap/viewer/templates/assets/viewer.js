// The viewer of a slide's page: glue between the other scripts, the slide's view.js and the page's controls.
// Coordinates are level-0 pixels of the slide file, y down.
"use strict";

(app => {
  const view = window.lesionmapView;
  const study = document.querySelector(".study");
  const element = id => document.getElementById(id);
  const viewer = element("viewer");
  if (!window.L || !view || !viewer) return; // the page keeps its picture of the whole slide
  study.classList.add("active");
  viewer.hidden = false;
  app.open(view, viewer.dataset.view);

  const { probability, picture, detail } = view;
  const leaveRoom = () => { // so that controls and map fit on the screen together
    const above = document.querySelector(".panes").getBoundingClientRect().top + scrollY;
    viewer.style.setProperty("--above", `${Math.min(above, innerHeight * 0.6)}px`);
  };
  const MAX_U8 = 255;
  const map = app.createMap("viewer-map");
  app.addSlide(map);
  app.addProbability(map, "probability-filter");
  app.addMap(map);
  const pane = map.getPane("probability");

  // ---- sliders

  const threshold = element("threshold");
  const opacity = element("opacity");
  const reset = element("threshold-reset");
  const pixelsFrom = new Array(MAX_U8 + 2).fill(0); // of the map, from each probability on
  for (let u8 = MAX_U8; u8 >= 0; u8--) pixelsFrom[u8] = pixelsFrom[u8 + 1] + probability.counts[u8];

  const showProbability = () => {
    const u8 = Number(threshold.value);
    const table = Array.from({ length: MAX_U8 + 1 }, (_, n) => Number(n >= u8));
    element("probability-mask").setAttribute("tableValues", table.join(" "));
    const from = u8 === probability.first_positive ? probability.threshold : (u8 / MAX_U8).toFixed(3);
    element("threshold-text").textContent = `${from}: ${(pixelsFrom[u8] * probability.pixel_mm2).toFixed(3)} mm²`;
    threshold.style.setProperty("--from", `${(100 * u8) / MAX_U8}%`);
    reset.disabled = u8 === probability.first_positive;
    element("opacity-text").textContent = `${opacity.value} %`;
    pane.style.opacity = opacity.value / 100;
  };
  threshold.value = probability.first_positive;
  for (const slider of [threshold, opacity]) slider.addEventListener("input", showProbability);
  for (const slider of [threshold, opacity]) slider.addEventListener("change", () => app.changed());
  reset.addEventListener("click", () => {
    threshold.value = probability.first_positive;
    showProbability();
    app.changed();
    threshold.focus();
  });

  // ---- the link to what is seen

  let ready = false;
  app.changed = () => {
    if (!ready) return;
    const { x, y } = app.xy(map.getCenter());
    const told = {
      x: x.toFixed(1), y: y.toFixed(1), zoom: map.getZoom(),
      threshold: (threshold.value / MAX_U8).toFixed(3), opacity: opacity.value / 100,
    };
    if (app.selected) told.selected = app.selected;
    if (app.hidden().length) told.hidden = app.hidden().join(" ");
    if (app.second()) told.second = app.second();
    history.replaceState(null, "", `#${new URLSearchParams(told)}`);
  };
  const home = () => {
    const [left, top, right, bottom] = view.home;
    map.fitBounds(L.latLngBounds(app.at(left, top), app.at(right, bottom)), { animate: false });
  };
  const followPlace = asked => {
    const number = key => (asked.get(key) ? Number(asked.get(key)) : NaN);
    const within = (value, least, most) => Math.min(most, Math.max(least, value));
    const [x, y, zoom, from, seen] = ["x", "y", "zoom", "threshold", "opacity"].map(number);
    if (from >= 0) threshold.value = within(Math.round(from * MAX_U8), 1, MAX_U8);
    if (seen >= 0) opacity.value = within(Math.round(seen * 100), 0, 100);
    showProbability();
    if ([x, y, zoom].every(Number.isFinite)) map.setView(app.at(x, y), within(zoom, 0, app.finest), { animate: false });
    return Number.isFinite(x + y + zoom);
  };
  const followRest = asked => {
    app.hide((asked.get("hidden") ?? "").split(" "));
    app.select(asked.get("selected") ?? "", { move: false });
    const second = asked.get("second") ?? "";
    if (second !== app.second()) app.showSecond(second);
  };

  // ---- to begin with: what takes room on the page, then the place, then what is drawn there, once

  const asked = () => new URLSearchParams(location.hash.slice(1));
  app.addToggle("probability", "probability", on => { pane.style.display = on ? "" : "none"; });
  app.listOutlines();
  app.startSelection(map);
  L.DomEvent.disableClickPropagation(element("view-buttons"));
  new (L.Control.extend({ onAdd: () => element("view-buttons") }))({ position: "topright" }).addTo(map);
  leaveRoom();
  const placed = followPlace(asked());
  if (!placed) home();
  app.drawOutlines(map);
  app.addTools(map);
  if (placed) followRest(asked());
  ready = true;
  window.addEventListener("resize", leaveRoom);
  map.on("moveend", app.changed);
  window.addEventListener("hashchange", () => {
    ready = false; // what the address says is not to be overwritten half-way
    if (followPlace(asked())) followRest(asked());
    ready = true;
  });
  element("home").addEventListener("click", home);
  const full = element("full-screen");
  full.hidden = !document.fullscreenEnabled;
  full.addEventListener("click", () => (document.fullscreenElement ? document.exitFullscreen() : study.requestFullscreen()));
  element("save-picture").addEventListener("click", () => app.savePicture());
  element("hide-all").addEventListener("click", app.hideAll);
  const help = () => element("keys").toggleAttribute("open");

  const KEYS = {
    n: () => app.nextError(1),
    p: () => app.nextError(-1),
    h: app.hideAll,
    m: () => app.measure(!app.measuring),
    s: app.nextSecond,
    "?": help,
    Escape: () => app.measure(false),
  };
  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, textarea, input:not([type=range], [type=checkbox])")) return;
    if (Object.hasOwn(KEYS, event.key)) KEYS[event.key]();
  });

  const notes = [];
  const coarse = `${(view.mpp * 2 ** (view.native - picture.base)).toPrecision(2)} µm/px`;
  if (picture.base < view.native && detail.mode === "none") notes.push(`Shown down to ${coarse}.`);
  if (picture.base < view.native && detail.mode === "lesions") {
    notes.push(`Shown down to ${coarse}, and in full resolution around lesions and in the negative samples.`);
    if (detail.without) {
      notes.push(`${detail.without} of ${detail.lesions} lesions are beyond the limit of what is shown so and lack it in part or wholly.`);
    }
  }
  if (picture.damaged) notes.push(`Parts of ${picture.damaged} tiles cannot be read and are left empty.`);
  for (const { n, outlines } of [view.predicted, ...view.annotated]) {
    if (n > outlines.length) notes.push(`Of ${n} outlines the ${outlines.length} largest are drawn.`);
  }
  element("viewer-notes").textContent = notes.join(" ");
})(window.lesionmapViewer);
