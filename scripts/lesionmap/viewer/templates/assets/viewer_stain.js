// The slide in the colours that the network sees: the stain normalisation of lesionmap.stain.table, for each pixel.
"use strict";

(app => {
  const FLOOR = 1e-6; // of an optical density

  // Concentrations h ≥ 0 are the minimum of ½‖OD − h·W‖² + λ(h₀ + h₁).
  app.normaliser = ({ basis: [w0, w1], target: [t0, t1], white_point: white, sparsity }) => {
    const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
    const [g00, g01, g11] = [dot(w0, w0), dot(w0, w1), dot(w1, w1)];
    const determinant = g00 * g11 - g01 * g01;
    const [red, green, blue] = white.map(part => Float64Array.from({ length: 256 }, (_, value) => (
      Math.max(-Math.log(Math.max(value, 1) / part), FLOOR)
    )));
    const glass = white.map(part => Math.ceil((part * 250) / 255));
    return pixels => {
      for (let n = 0; n < pixels.length; n += 4) {
        const [r, g, b] = [red[pixels[n]], green[pixels[n + 1]], blue[pixels[n + 2]]];
        const along0 = r * w0[0] + g * w0[1] + b * w0[2] - sparsity;
        const along1 = r * w1[0] + g * w1[1] + b * w1[2] - sparsity;
        let h0 = (along0 * g11 - along1 * g01) / determinant;
        let h1 = (along1 * g00 - along0 * g01) / determinant;
        if (h0 < 0 || h1 < 0) {
          const first = along0 > 0 && along1 * g00 <= along0 * g01;
          h0 = first ? along0 / g00 : 0;
          h1 = first ? 0 : Math.max(along1, 0) / g11;
        }
        const least = pixels[n] >= glass[0] && pixels[n + 1] >= glass[1] && pixels[n + 2] >= glass[2] ? 250 : 0;
        for (let channel = 0; channel < 3; channel++) {
          const value = Math.floor(255 * Math.exp(-h0 * t0[channel] - h1 * t1[channel]) + 0.5);
          pixels[n + channel] = Math.max(least, value);
        }
      }
    };
  };
})(window.lesionmapViewer);
