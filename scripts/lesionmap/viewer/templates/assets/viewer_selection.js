// Selecting lesions: in the lists, on the map, and from error to error.
"use strict";

(app => {
  const NEAR_PX = 6; // of an edge
  const element = id => document.getElementById(id);
  const escaped = text => CSS.escape(text);
  app.selected = ""; // name of a predicted lesion, "annotated 2", or "negative 1"

  app.startSelection = map => {
    const { view } = app;
    const shapes = new Map(); // outlines by name of what is selected
    const parts = () => (shapes.get(app.selected) ?? []).map(app.outlined);
    const mark = app.sketch(() => (parts().length ? [{ color: "#ffffff", weight: 9 }, { color: "#e69f00", weight: 5 }] : []).map(
      look => L.polygon(parts(), { ...look, fill: false, interactive: false }),
    ));
    const add = (name, rings) => shapes.set(name, [...(shapes.get(name) ?? []), rings]);
    for (const { name, rings } of view.predicted.outlines) add(name, rings);
    for (const { class: name, outlines } of view.annotated) {
      if (name === "lesion") outlines.forEach(({ lesion, rings }) => lesion && add(`annotated ${lesion}`, rings));
    }
    view.negatives.forEach(([left, top, right, bottom], n) => {
      add(`negative ${n + 1}`, [[left, top, right, top, right, bottom, left, bottom]]);
    });

    const rowOf = name => document.querySelector(`[data-lesion="${escaped(name)}"]`);
    const errors = [
      ...view.predicted.false.map(({ name, area_mm2, centre }) => ({ name, area_mm2, centre, text: `false lesion, ${name}` })),
      ...view.annotated_lesions.filter(({ found }) => found === false).map(({ lesion, area_mm2, centroid_xy_lv0 }) => ({
        name: `annotated ${lesion}`, area_mm2, centre: centroid_xy_lv0, text: `missed lesion, annotated lesion ${lesion}`,
      })),
    ].sort((a, b) => b.area_mm2 - a.area_mm2);
    const status = element("error-status");
    const tellError = () => {
      const n = errors.findIndex(({ name }) => name === app.selected);
      status.textContent = n < 0 ? `${errors.length} ${errors.length === 1 ? "error" : "errors"}`
        : `error ${n + 1} of ${errors.length}: ${errors[n].text}`;
      return n;
    };

    // `centre` is where a lesion of which no outline is drawn lies.
    app.select = (name, { move = true, centre = null } = {}) => {
      app.selected = name;
      document.querySelectorAll("[data-lesion][aria-current]").forEach(other => other.removeAttribute("aria-current"));
      mark();
      const row = name && rowOf(name);
      if (row) {
        row.setAttribute("aria-current", "true");
        const scroll = row.closest(".scroll");
        if (scroll) scroll.scrollTop += row.getBoundingClientRect().top - scroll.getBoundingClientRect().top - scroll.clientHeight / 2;
      }
      tellError();
      if (!move || !name) return app.changed();
      let zoom = view.native;
      let at = centre ?? (row?.dataset.x && [row.dataset.x, row.dataset.y].map(Number));
      if (parts().length) {
        const bounds = L.polygon(parts()).getBounds();
        zoom = Math.min(zoom, map.getBoundsZoom(bounds.pad(0.4)));
        at ??= Object.values(app.xy(bounds.getCenter()));
      }
      if (at) map.setView(app.at(...at), zoom, app.still ? { animate: false } : {});
      element("viewer-map").scrollIntoView({ block: "nearest" });
      return app.changed();
    };
    app.nextError = step => {
      if (!errors.length) return;
      const n = tellError();
      const { name, centre } = errors[n < 0 ? (step > 0 ? 0 : errors.length - 1) : (n + step + errors.length) % errors.length];
      app.select(name, { centre });
    };
    element("errors").hidden = !view.annotated_lesions.length && !Object.keys(view.predicted.verdicts).length;
    for (const [id, step] of [["next-error", 1], ["previous-error", -1]]) {
      element(id).disabled = !errors.length;
      element(id).addEventListener("click", () => app.nextError(step));
    }
    tellError();

    // ---- lists

    const listNegatives = () => {
      element("negatives").hidden = !view.negatives.length;
      view.negatives.forEach(([left, top, right, bottom], n) => {
        const item = document.createElement("li");
        const button = document.createElement("button");
        item.dataset.lesion = `negative ${n + 1}`;
        button.textContent = `${Math.round((left + right) / 2)}, ${Math.round((top + bottom) / 2)}`;
        item.append(button);
        element("negative-list").append(item);
      });
    };
    listNegatives();
    for (const row of document.querySelectorAll("tr[data-lesion]")) {
      const button = document.createElement("button");
      const name = row.querySelector("th");
      button.textContent = name.textContent;
      name.replaceChildren(button);
    }
    for (const item of document.querySelectorAll("[data-lesion]")) {
      item.querySelector("button").type = "button";
      item.addEventListener("click", () => app.select(item.dataset.lesion));
    }

    // ---- on the map

    const contains = (ring, { x, y }) => {
      let inside = false;
      for (let n = 0, last = ring.length - 2; n < ring.length; last = n, n += 2) {
        const [x0, y0, x1, y1] = [ring[n], ring[n + 1], ring[last], ring[last + 1]];
        if ((y0 > y) !== (y1 > y) && x < ((x1 - x0) * (y - y0)) / (y1 - y0) + x0) inside = !inside;
      }
      return inside;
    };
    const isNear = (ring, { x, y }, most) => {
      const point = L.point(x, y);
      for (let n = 0, last = ring.length - 2; n < ring.length; last = n, n += 2) {
        const ends = [L.point(ring[n], ring[n + 1]), L.point(ring[last], ring[last + 1])];
        if (L.LineUtil.pointToSegmentDistance(point, ...ends) <= most) return true;
      }
      return false;
    };
    const boxes = new Map();
    const boxOf = rings => {
      if (!boxes.has(rings)) {
        const [x, y] = [0, 1].map(axis => rings[0].filter((_, n) => n % 2 === axis));
        const [left, top, right, bottom] = [[Math.min, x], [Math.min, y], [Math.max, x], [Math.max, y]].map(([of, values]) => (
          values.reduce((a, b) => of(a, b))
        ));
        boxes.set(rings, { left, top, right, bottom, size: (right - left) * (bottom - top) });
      }
      return boxes.get(rings);
    };
    app.lesionAt = (point, zoom) => {
      const margin = NEAR_PX * 2 ** (view.native - zoom);
      let best = { name: "", size: Infinity };
      for (const [name, parts] of shapes) {
        for (const rings of name.startsWith("negative") ? [] : parts) {
          const { left, top, right, bottom, size } = boxOf(rings);
          const within = point.x > left - margin && point.x < right + margin && point.y > top - margin && point.y < bottom + margin;
          if (within && size < best.size
            && (rings.reduce((odd, ring) => odd !== contains(ring, point), false) || rings.some(ring => isNear(ring, point, margin)))) {
            best = { name, size };
          }
        }
      }
      return best.name;
    };
  };
})(window.lesionmapViewer);
