// Tiles of the slide and its probability map, and Leaflet's maps that show them, one for each pane. Tiles are scripts
// that hold pictures as base64: a page that is opened from disk may not read the pixels of other files, but may read those.
"use strict";

window.lesionmapViewer = {};
(app => {
  const MOST_KEPT = 200; // tiles
  const TYPES = { slide: "jpeg", probability: "png" };
  const kept = new Map(); // promises of pictures by name, the one asked for last at the end
  const waiting = new Map();
  window.lesionmapTile = (name, base64) => waiting.get(name)?.(base64);

  const fetched = (folder, name) => new Promise((resolve, reject) => {
    const script = document.createElement("script");
    const fail = () => {
      kept.delete(name);
      reject(new Error(name));
    };
    waiting.set(name, base64 => {
      const image = new Image();
      image.onload = () => resolve(image);
      image.onerror = fail;
      image.src = `data:image/${TYPES[name.split("/")[0]]};base64,${base64}`;
    });
    script.onload = script.onerror = ({ type }) => {
      waiting.delete(name);
      script.remove();
      if (type === "error") fail();
    };
    script.src = `${folder}/${name}.js`;
    document.head.append(script);
  });
  const namesOf = (kind, runs) => {
    const names = new Set();
    for (const [zoom, row, first, last] of runs) {
      for (let column = first; column <= last; column++) names.add(`${kind}/${zoom}/${column}_${row}`);
    }
    return names;
  };

  // ---- where things are: zoom `native` has one pixel for each level-0 pixel

  app.at = (x, y) => L.latLng(-y, x);
  app.xy = ({ lng, lat }) => ({ x: lng, y: -lat });
  app.open = (view, folder) => {
    const names = new Set([...namesOf("slide", view.picture.tiles), ...namesOf("probability", view.probability.tiles)]);
    app.view = view;
    app.finest = Math.max(view.native, view.probability.zoom) + 2;
    app.still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    app.tile = name => { // null if there is none
      if (!names.has(name)) return Promise.resolve(null);
      const found = kept.get(name) ?? fetched(folder, name);
      kept.delete(name);
      kept.set(name, found);
      if (kept.size > MOST_KEPT) kept.delete(kept.keys().next().value);
      return found;
    };
  };

  app.createMap = (id, options) => {
    const perUnit = 2 ** -app.view.native;
    const map = L.map(id, {
      crs: L.extend({}, L.CRS.Simple, { transformation: L.transformation(perUnit, 0, -perUnit, 0) }),
      minZoom: 0,
      maxZoom: app.finest,
      zoomSnap: 0.5,
      zoomDelta: 0.5,
      attributionControl: false,
      fadeAnimation: false,
      zoomAnimation: !app.still,
      inertia: !app.still,
      ...options,
    });
    const container = map.getContainer();
    container.style.background = app.view.background;
    const fit = () => {
      // Moved to whole pixels of the screen: between two of them browsers interpolate, also what is to be exact.
      container.style.left = container.style.top = "0";
      const { left, top } = container.getBoundingClientRect();
      const beyond = [left + scrollX, top + scrollY].map(n => Math.round(n * devicePixelRatio) / devicePixelRatio - n);
      [container.style.left, container.style.top] = beyond.map(length => `${length}px`);
      map.invalidateSize();
    };
    new ResizeObserver(fit).observe(container);
    new ResizeObserver(fit).observe(document.body);
    map.on("zoom", () => container.classList.toggle("between", !Number.isInteger(map.getZoom())));
    return map;
  };

  const Tiles = L.GridLayer.extend({
    createTile({ x, y, z }, done) {
      const canvas = document.createElement("canvas");
      canvas.width = canvas.height = app.view.tile_px;
      this.options.draw(canvas, x, y, z).then(() => done(null, canvas), error => done(error, canvas));
      return canvas;
    },
  });
  const addTiles = (map, draw, options) => {
    const layer = new Tiles({
      tileSize: app.view.tile_px,
      bounds: L.latLngBounds(app.at(0, 0), app.at(...app.view.size)),
      maxZoom: app.finest,
      updateWhenZooming: false,
      draw,
      ...options,
    });
    layer.on("tileloadstart", ({ tile }) => tile.style.setProperty("--side", `${layer.getTileSize().x}px`)); // viewer.css
    return layer.addTo(map);
  };

  // What is drawn on every map, anew at each call of the function that is returned; `shapes` gives layers for a map.
  const sketches = [];
  app.maps = [];
  app.addMap = map => {
    app.maps.push(map);
    sketches.forEach(redraw => redraw());
  };
  app.sketch = shapes => {
    const groups = new Map();
    const redraw = () => app.maps.forEach(map => {
      if (!groups.has(map)) groups.set(map, L.layerGroup().addTo(map));
      groups.get(map).clearLayers();
      shapes(map).forEach(shape => groups.get(map).addLayer(shape));
    });
    sketches.push(redraw);
    return redraw;
  };

  // `change` may alter the pixels of each tile. Returns its layers.
  app.addSlide = (map, change = null) => {
    const draw = async (canvas, x, y, z) => {
      canvas.dataset.tile = `slide/${z}/${x}_${y}`;
      const image = await app.tile(canvas.dataset.tile);
      if (!image) return;
      const pen = canvas.getContext("2d", { willReadFrequently: Boolean(change) });
      pen.drawImage(image, 0, 0);
      if (change) {
        const pixels = pen.getImageData(0, 0, canvas.width, canvas.height);
        change(pixels.data);
        pen.putImageData(pixels, 0, 0);
      }
    };
    const { base } = app.view.picture;
    return [
      addTiles(map, draw, { maxNativeZoom: base }),
      addTiles(map, draw, { minZoom: base + 1, maxNativeZoom: app.view.native, zIndex: 2 }),
    ];
  };

  // Beyond its own finest zoom a map is enlarged here, in tiles of the screen's size: the browser would filter
  // enlarged pictures whole, however little of them is seen. Its colours are those of an SVG filter. Returns its layers.
  app.addProbability = (map, filter) => {
    const { tile_px: side, probability } = app.view;
    const draw = async (canvas, x, y, z) => {
      canvas.style.filter = `url(#${filter})`;
      const beyond = Math.max(0, z - probability.zoom);
      const image = await app.tile(`probability/${z - beyond}/${x >> beyond}_${y >> beyond}`);
      if (!image) return;
      const part = side / 2 ** beyond;
      const corner = [x, y].map(n => (n % 2 ** beyond) * part);
      const pen = canvas.getContext("2d");
      pen.imageSmoothingEnabled = false;
      pen.drawImage(image, ...corner, part, part, 0, 0, side, side);
    };
    const pane = map.getPane("probability") ?? map.createPane("probability");
    pane.style.zIndex = 300;
    pane.style.pointerEvents = "none";
    return [addTiles(map, draw, { pane: "probability" })];
  };

  // Probability × 255 of the map at a point; 0 where there is no tile.
  const pen = L.DomUtil.create("canvas").getContext("2d", { willReadFrequently: true });
  app.levelAt = async ({ x, y }) => {
    const { native, tile_px: side, probability: { zoom } } = app.view;
    const [column, row] = [x, y].map(n => Math.floor(n * 2 ** (zoom - native)));
    const image = await app.tile(`probability/${zoom}/${Math.floor(column / side)}_${Math.floor(row / side)}`);
    if (!image) return 0;
    pen.drawImage(image, -(column % side), -(row % side));
    return pen.getImageData(0, 0, 1, 1).data[0];
  };
})(window.lesionmapViewer);
