// Readouts, the ruler, the scale, the small map of the whole slide and the second pane.
"use strict";

(app => {
  const OVERVIEW_PX = 130;
  const element = id => document.getElementById(id);
  const length = um => (um < 1000 ? `${um.toPrecision(um < 100 ? 3 : 4)} µm` : `${(um / 1000).toPrecision(4)} mm`);
  app.umPerPx = map => app.view.mpp * 2 ** (app.view.native - map.getZoom());
  app.magnification = map => {
    const umPerPx = app.umPerPx(map);
    return `${Number((10 / umPerPx).toPrecision(2))}×, ${Number(umPerPx.toPrecision(3))} µm/px`;
  };

  const Scale = L.Control.Scale.extend({
    _updateMetric(pixels) { // Leaflet measures in units of the map, which are level-0 pixels
      const most = pixels * app.view.mpp;
      const um = this._getRoundNum(most);
      this._updateScale(this._mScale, um < 1000 ? `${um} µm` : `${um / 1000} mm`, um / most);
    },
  });
  const addPlace = map => { // returns what adds another map, whose cursor is told, too
    const box = L.DomUtil.create("div", "readout");
    const [zoom, place, level] = ["zoom", "place", "level"].map(name => L.DomUtil.create("div", name, box));
    const tell = (what, { x, y }) => {
      const [px, um] = [1, app.view.mpp].map(unit => [x, y].map(n => Math.floor(n * unit)).join(", "));
      place.textContent = `${what} ${px} px; ${um} µm`;
    };
    let asked = 0;
    let pointed = null; // where the cursor is, and on which map; it is shown on the other
    const cursor = app.sketch(other => (pointed && other !== pointed.map ? [["#ffffff", 5], ["#000000", 2]] : []).map(
      ([color, weight]) => L.circleMarker(pointed.latlng, { radius: 8, color, weight, fill: false, interactive: false }),
    ));
    const tellCentre = () => {
      pointed = null;
      cursor();
      tell("Centre:", app.xy(map.getCenter()));
      zoom.textContent = app.magnification(map);
      level.textContent = "probability –"; // a line that came and went would move what is above it
      asked++;
    };
    const follow = each => {
      each.on("mousemove", ({ latlng }) => {
        const number = ++asked;
        const point = app.xy(latlng);
        pointed = { map: each, latlng };
        cursor();
        tell("x, y:", point);
        app.levelAt(point).then(u8 => {
          if (number === asked) level.textContent = `probability ${(u8 / 255).toFixed(3)}`;
        }, () => {});
      });
      each.on("mouseout move", tellCentre);
    };
    follow(map);
    tellCentre();
    new (L.Control.extend({ onAdd: () => box }))({ position: "bottomright" }).addTo(map);
    return follow;
  };

  // ---- ruler

  const addRuler = () => {
    const button = element("ruler");
    let points = [];
    app.measuring = false;
    const drawLine = app.sketch(() => [["#ffffff", 6], ["#000000", 2.5]].flatMap(([color, weight]) => [
      ...(points.length === 2 ? [L.polyline(points, { color, weight, interactive: false })] : []),
      ...points.map(point => L.circleMarker(point, { radius: weight, color, weight: 2, interactive: false })),
    ]));
    const draw = () => {
      drawLine();
      const [a, b] = points.map(app.xy);
      element("ruler-text").textContent = b ? length(Math.hypot(a.x - b.x, a.y - b.y) * app.view.mpp)
        : app.measuring ? `click ${points.length ? "the second point" : "two points"}` : "";
    };
    app.measure = on => {
      app.measuring = on;
      points = [];
      button.setAttribute("aria-pressed", on);
      document.querySelector(".panes").classList.toggle("measuring", on);
      draw();
    };
    app.measureTo = latlng => {
      points = points.length === 2 ? [latlng] : [...points, latlng];
      draw();
    };
    button.addEventListener("click", () => app.measure(!app.measuring));
  };
  const startClicks = map => map.on("click", ({ latlng }) => {
    if (app.measuring) return app.measureTo(latlng);
    const name = app.lesionAt(app.xy(latlng), map.getZoom());
    if (name) app.select(name, { move: false });
  });

  // ---- the whole slide in a corner

  const addOverview = async map => {
    const { size, native } = app.view;
    const image = await app.tile("slide/0/0_0");
    if (!image) return;
    const scale = OVERVIEW_PX / Math.max(...size);
    const [width, height] = size.map(n => Math.max(1, Math.round(n * scale)));
    const box = L.DomUtil.create("div", "overview");
    const canvas = L.DomUtil.create("canvas", "", box);
    const seen = L.DomUtil.create("div", "seen", box);
    Object.assign(canvas, { width, height });
    const [right, bottom] = size.map(n => n * 2 ** -native);
    canvas.getContext("2d").drawImage(image, 0, 0, right, bottom, 0, 0, width, height);
    canvas.setAttribute("aria-hidden", "true");
    const follow = () => {
      const bounds = map.getBounds();
      const [first, last] = [bounds.getNorthWest(), bounds.getSouthEast()].map(app.xy);
      const within = (n, most) => Math.min(most, Math.max(0, n * scale));
      const [left, top] = [within(first.x, width), within(first.y, height)];
      const [wide, high] = [within(last.x, width) - left, within(last.y, height) - top];
      Object.assign(seen.style, { left: `${left}px`, top: `${top}px`, width: `${wide}px`, height: `${high}px` });
    };
    L.DomEvent.disableClickPropagation(box);
    L.DomEvent.disableScrollPropagation(box);
    const go = ({ clientX, clientY }) => {
      const { left, top } = canvas.getBoundingClientRect();
      map.panTo(app.at((clientX - left) / scale, (clientY - top) / scale), { animate: false });
    };
    box.addEventListener("pointerdown", event => {
      box.setPointerCapture(event.pointerId);
      go(event);
    });
    box.addEventListener("pointermove", event => {
      if (box.hasPointerCapture(event.pointerId)) go(event);
    });
    map.on("move zoom resize", follow);
    new (L.Control.extend({ onAdd: () => box }))({ position: "bottomright" }).addTo(map);
    follow();
  };

  // ---- a second pane: the same place without the tint, stain-normalised, or as the map alone

  const SECOND = {
    scanned: map => app.addSlide(map),
    normalised: map => app.addSlide(map, app.normaliser(app.view.stain)),
    map: map => app.addProbability(map, "map-filter"),
  };
  const addSecondPane = (map, tellPlace) => {
    const buttons = [...element("second-pane").querySelectorAll("button")];
    const pane = element("other-pane");
    let second = null;
    let shown = ""; // a key of SECOND
    let layers = [];
    let following = false;
    const follow = (from, to) => from.on("move zoomend", () => {
      if (following || pane.hidden) return;
      following = true;
      to.setView(from.getCenter(), from.getZoom(), { animate: false });
      following = false;
    });
    const create = () => {
      second = app.createMap("other-map", { zoomControl: false, zoomAnimation: false });
      second.setView(map.getCenter(), map.getZoom(), { animate: false });
      app.drawOutlines(second);
      app.addMap(second);
      tellPlace(second);
      startClicks(second);
      follow(map, second);
      follow(second, map);
    };
    app.second = () => shown;
    app.secondName = () => buttons.find(({ value }) => value === shown).textContent;
    app.showSecond = kind => {
      const place = map.getCenter();
      following = true; // a new size is no move to be followed
      shown = Object.hasOwn(SECOND, kind) ? kind : "";
      pane.hidden = !shown;
      for (const button of buttons) button.setAttribute("aria-pressed", button.value === shown);
      map.invalidateSize({ pan: false });
      map.setView(place, map.getZoom(), { reset: true });
      layers.forEach(layer => layer.remove());
      layers = [];
      if (shown) {
        if (!second) create();
        second.invalidateSize({ pan: false });
        second.setView(place, map.getZoom(), { reset: true });
        layers = SECOND[shown](second);
      }
      following = false;
    };
    app.nextSecond = () => {
      const kinds = ["", ...Object.keys(SECOND)];
      app.showSecond(kinds[(kinds.indexOf(shown) + 1) % kinds.length]);
      app.changed();
    };
    for (const button of buttons) {
      button.addEventListener("click", () => {
        app.showSecond(button.value === shown ? "" : button.value);
        app.changed();
      });
    }
  };

  app.addTools = map => {
    addOverview(map);
    new Scale({ imperial: false, maxWidth: 160 }).addTo(map);
    const tellPlace = addPlace(map);
    addRuler();
    startClicks(map);
    addSecondPane(map, tellPlace);
  };
})(window.lesionmapViewer);
