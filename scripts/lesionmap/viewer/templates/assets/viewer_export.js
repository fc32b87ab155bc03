// The current view as a picture: what the panes show, and beneath them slide, scale and legend.
"use strict";

(app => {
  const LINE_PX = 22;
  const GAP_PX = 6; // between two panes
  const element = id => document.getElementById(id);

  // The colours of the map: the tables of its SVG filter, since not every browser lets a canvas use the filter.
  const coloured = (pixels, least) => {
    const tables = ["R", "G", "B"].map(channel => document.querySelector(`#probability-filter feFunc${channel}[type=discrete]`)
      .getAttribute("tableValues").split(" ").map(part => Math.round(part * 255)));
    for (let n = 0; n < pixels.length; n += 4) {
      const level = pixels[n];
      pixels[n + 3] = level >= least && pixels[n + 3] ? 255 : 0;
      for (let channel = 0; channel < 3; channel++) pixels[n + channel] = tables[channel][level];
    }
  };
  const placed = (map, tile) => {
    const [box, around] = [tile, map.getContainer()].map(each => each.getBoundingClientRect());
    const { clientLeft, clientTop } = map.getContainer();
    return [box.left - around.left - clientLeft, box.top - around.top - clientTop, box.width, box.height];
  };
  const drawProbability = (pen, map, least) => {
    const pane = map.getPane("probability");
    if (!pane || pane.style.display === "none") return;
    pen.globalAlpha = pane.style.opacity || 1;
    pen.imageSmoothingEnabled = false;
    for (const tile of pane.querySelectorAll("canvas")) {
      const copy = document.createElement("canvas");
      Object.assign(copy, { width: tile.width, height: tile.height });
      const other = copy.getContext("2d");
      other.drawImage(tile, 0, 0);
      const pixels = other.getImageData(0, 0, copy.width, copy.height);
      coloured(pixels.data, least);
      other.putImageData(pixels, 0, 0);
      pen.drawImage(copy, ...placed(map, tile));
    }
    pen.imageSmoothingEnabled = true;
    pen.globalAlpha = 1;
  };
  const drawShapes = (pen, map) => {
    if (getComputedStyle(map.getPane("overlayPane")).display === "none") return;
    for (const canvas of map.getPane("overlayPane").querySelectorAll("canvas")) {
      pen.drawImage(canvas, ...placed(map, canvas).map(Math.round)); // as browsers do; between two pixels lines would blur
    }
    for (const path of map.getPane("overlayPane").querySelectorAll("path")) {
      const svg = path.ownerSVGElement;
      const [left, top] = placed(map, svg);
      const [x, y] = svg.getAttribute("viewBox").split(" ").map(Number);
      pen.save();
      pen.translate(left - x, top - y);
      pen.strokeStyle = path.getAttribute("stroke");
      pen.lineWidth = path.getAttribute("stroke-width");
      pen.stroke(new Path2D(path.getAttribute("d")));
      pen.restore();
    }
  };
  const drawMap = (pen, map, left, least) => {
    const { x: width, y: height } = map.getSize();
    pen.save();
    pen.translate(left, 0);
    pen.beginPath();
    pen.rect(0, 0, width, height);
    pen.clip();
    pen.fillStyle = app.view.background;
    pen.fillRect(0, 0, width, height);
    for (const tile of map.getPane("tilePane").querySelectorAll("canvas")) pen.drawImage(tile, ...placed(map, tile));
    drawProbability(pen, map, least);
    drawShapes(pen, map);
    pen.restore();
  };

  const drawLegend = (pen, map, top, least) => {
    const line = n => top + LINE_PX * (n + 0.7);
    pen.fillStyle = "#000000";
    const from = element("threshold-text").textContent.split(":")[0];
    const other = app.second() ? `; on the right: ${app.secondName()}` : "";
    pen.fillText(`${app.view.slide}; ${app.magnification(map)}; probability from ${from}${other}`, 8, line(0));
    const bar = map.getContainer().querySelector(".leaflet-control-scale-line");
    const width = parseFloat(bar.style.width);
    pen.fillRect(8, line(1) - 5, width, 4);
    pen.fillText(bar.textContent, 16 + width, line(1));
    const colours = getComputedStyle(element("threshold")).getPropertyValue("--stops").split(", ");
    const gradient = pen.createLinearGradient(360, 0, 560, 0);
    colours.forEach((colour, n) => gradient.addColorStop(n / (colours.length - 1), colour));
    pen.fillText("0", 345, line(1));
    pen.fillText("1 probability", 568, line(1));
    pen.fillStyle = gradient;
    pen.fillRect(360, line(1) - 11, 200, 12);
    pen.fillStyle = "#000000";
    pen.fillRect(360 + (200 * least) / 255 - 1, line(1) - 14, 2, 18);
    app.shown().filter(({ style }) => style).forEach(({ style, text }, n) => {
      pen.strokeStyle = style.color;
      pen.lineWidth = style.weight;
      pen.setLineDash((style.dashArray ?? "").split(" ").filter(Boolean).map(Number));
      pen.beginPath();
      pen.moveTo(8, line(2 + n) - 4);
      pen.lineTo(48, line(2 + n) - 4);
      pen.stroke();
      pen.fillText(text, 58, line(2 + n));
    });
  };

  app.picture = () => {
    const [first, second] = app.maps;
    const { x: width, y: height } = first.getSize();
    const right = width + GAP_PX; // where the second pane begins
    const least = Number(element("threshold").value);
    const canvas = document.createElement("canvas");
    const lines = 2.5 + app.shown().filter(({ style }) => style).length;
    Object.assign(canvas, {
      width: Math.max(app.second() ? right + second.getSize().x : width, 680), height: height + LINE_PX * lines,
    });
    const pen = canvas.getContext("2d");
    pen.fillStyle = "#ffffff";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    drawMap(pen, first, 0, least);
    pen.font = "14px system-ui, sans-serif";
    drawLegend(pen, first, height, least);
    if (app.second()) drawMap(pen, second, right, 1);
    return canvas;
  };
  app.savePicture = () => app.picture().toBlob(blob => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    const { x, y } = app.xy(app.maps[0].getCenter());
    link.download = `${app.view.slide}_${Math.round(x)}_${Math.round(y)}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }, "image/png");
})(window.lesionmapViewer);
