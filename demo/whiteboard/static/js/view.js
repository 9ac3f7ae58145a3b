// Draws a board. Finished strokes stay on one canvas; those that still grow
// are on a second one above it, which is cheap to draw again.

import { scale } from './model.js';

const pens = [3, 7, 16]; // pixels at the first scale
const dotsApart = 26;

export class View {
  k = 1; x = 0; y = 0; // screen = world * k + (x, y)
  #all = true;
  #asked = false;

  constructor(board, stage, canvas, live) {
    this.board = board;
    this.stage = stage;
    this.canvas = canvas;
    this.live = live;
    this.moved = () => {};
    new ResizeObserver(() => this.#resize()).observe(stage);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { this.#theme(); this.redraw(); });
    this.#theme();
    this.#resize();
  }

  // toWorld and toScreen translate between pixels on the page and the wire.
  toWorld(px, py) {
    return [Math.round((px - this.x) / this.k * scale), Math.round((py - this.y) / this.k * scale)];
  }
  toScreen(wx, wy) { return [wx / scale * this.k + this.x, wy / scale * this.k + this.y]; }

  pan(dx, dy) { this.x += dx; this.y += dy; this.redraw(); }

  zoom(px, py, by) {
    const k = Math.min(6, Math.max(0.08, this.k * by));
    this.x = px - (px - this.x) * k / this.k;
    this.y = py - (py - this.y) * k / this.k;
    this.k = k;
    this.redraw();
  }

  // fit shows all there is, and never larger than life.
  fit() {
    const box = this.board.extent();
    const { width, height } = this.stage.getBoundingClientRect();
    this.k = 1;
    let cx = 0, cy = 0;
    if (box) {
      const w = (box.right - box.left) / scale + 80, h = (box.bottom - box.top) / scale + 80;
      this.k = Math.max(0.08, Math.min(1, width / w, (height - 150) / h));
      cx = (box.left + box.right) / 2 / scale;
      cy = (box.top + box.bottom) / 2 / scale;
    }
    this.x = width / 2 - cx * this.k;
    this.y = height / 2 - cy * this.k;
    this.redraw();
  }

  // redraw draws everything anew, soon; refresh only what still grows.
  redraw() { this.#all = true; this.refresh(); }
  refresh() {
    if (this.#asked) return;
    this.#asked = true;
    requestAnimationFrame(() => { this.#asked = false; this.#draw(); });
  }

  // settle adds one finished stroke to what is there.
  settle(s) {
    if (!this.#all) this.#stroke(this.#context(this.canvas), s);
    this.refresh();
  }

  penWidth(i) { return pens[i]; }

  #draw() {
    if (this.#all) {
      this.#all = false;
      this.#backdrop();
      const c = this.#context(this.canvas, true);
      const [left, top] = this.toWorld(0, 0);
      const [right, bottom] = this.toWorld(this.canvas.clientWidth, this.canvas.clientHeight);
      const margin = pens.at(-1) * scale;
      for (const s of this.board.settled()) {
        const b = s.box;
        if (b.right + margin < left || b.left - margin > right || b.bottom + margin < top || b.top - margin > bottom) continue;
        this.#stroke(c, s);
      }
      this.moved();
    }
    const c = this.#context(this.live, true);
    for (const s of this.board.moving()) this.#stroke(c, s);
  }

  #stroke(c, s) {
    s.path ??= curve(s.points);
    c.strokeStyle = this.inks[s.colour];
    c.lineWidth = pens[s.width];
    c.stroke(s.path);
  }

  #context(canvas, wipe) {
    const c = canvas.getContext('2d');
    if (wipe) {
      c.setTransform(1, 0, 0, 1, 0, 0);
      c.clearRect(0, 0, canvas.width, canvas.height);
    }
    const r = this.ratio;
    c.setTransform(this.k * r, 0, 0, this.k * r, this.x * r, this.y * r);
    c.lineCap = c.lineJoin = 'round';
    return c;
  }

  #backdrop() {
    let apart = dotsApart * this.k;
    while (apart < 18) apart *= 2;
    while (apart > 60) apart /= 2;
    this.stage.style.backgroundSize = `${apart}px ${apart}px`;
    this.stage.style.backgroundPosition = `${this.x - apart / 2}px ${this.y - apart / 2}px`;
  }

  #resize() {
    const { width, height } = this.stage.getBoundingClientRect();
    const first = this.width === undefined;
    this.ratio = Math.min(3, window.devicePixelRatio || 1);
    // The middle of the board stays in the middle of the window.
    this.x += (width - (this.width ?? 0)) / 2;
    this.y += (height - (this.height ?? 0)) / 2;
    this.width = width;
    this.height = height;
    for (const canvas of [this.canvas, this.live]) {
      canvas.width = Math.max(1, Math.round(width * this.ratio));
      canvas.height = Math.max(1, Math.round(height * this.ratio));
    }
    this.#all = true;
    if (first) this.refresh(); else this.#draw(); // a resized canvas is empty: do not let it flash
  }

  #theme() {
    const style = getComputedStyle(document.documentElement);
    this.inks = Array.from({ length: 8 }, (_, i) => style.getPropertyValue('--ink-' + i).trim());
  }
}

// curve goes through the middles between the points, so that it has no
// corners.
function curve(points) {
  const path = new Path2D();
  const at = (i) => points[i] / scale;
  path.moveTo(at(0), at(1));
  for (let i = 2; i + 3 < points.length; i += 2) {
    path.quadraticCurveTo(at(i), at(i + 1), (at(i) + at(i + 2)) / 2, (at(i + 1) + at(i + 3)) / 2);
  }
  path.lineTo(at(points.length - 2), at(points.length - 1)); // a lone point makes a dot
  return path;
}
