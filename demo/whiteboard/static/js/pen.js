// Turns pointers and keys into strokes of this page, and into moves of the
// view: one finger, a pen or the main button draws; two fingers, the wheel,
// the middle button or the space bar with the pointer move the board.

import { bounds, grow } from './model.js';

const sendEvery = 30;      // ms
const perMessage = 500;    // points; the hub takes 1024
const perStroke = 3000;    // points; the hub takes 4096
const least = 0.8;         // pixels between two points
const farthest = 200_000;  // the hub's edge of the board

export class Pen {
  colour = 0;
  width = 1;
  #next = 1;
  #draft = null;
  #timer = 0;
  #pointers = new Map();
  #drawing = 0; // pointer id
  #pinch = null;
  #grab = false;
  #keys = null; // where the keyboard's pen is, on the screen
  #cursorSent = 0;

  // to: { board, view, send(m), live() }
  constructor(canvas, cursors, to) {
    this.canvas = canvas;
    Object.assign(this, to);
    const on = (name, f, o) => canvas.addEventListener(name, f, o);
    on('pointerdown', (e) => this.#down(e));
    on('pointermove', (e) => this.#move(e));
    on('pointerup', (e) => this.#up(e));
    on('pointercancel', (e) => this.#up(e));
    on('pointerleave', (e) => { if (!this.#pointers.has(e.pointerId)) this.send({ type: 'away' }); });
    on('contextmenu', (e) => e.preventDefault());
    on('wheel', (e) => this.#wheel(e), { passive: false });
    on('keydown', (e) => this.#key(e));
    on('blur', () => this.#putAway());
    addEventListener('blur', () => this.#setGrab(false));
    addEventListener('keyup', (e) => { if (e.code === 'Space') this.#setGrab(false); });
    this.crosshair = document.createElement('div');
    this.crosshair.id = 'pen';
    this.crosshair.hidden = true;
    cursors.append(this.crosshair);
  }

  // reset forgets what was being drawn: the connection it was sent on is gone.
  reset() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#draft = null;
    this.#drawing = 0;
    this.#next = 1;
    this.crosshair.classList.remove('down');
  }

  // finish ends the stroke that is being drawn, if there is one.
  finish() {
    if (!this.#draft) return;
    this.#flush();
    this.send({ type: 'end', stroke: this.#draft.stroke });
    this.#draft = null;
    this.#drawing = 0;
    this.crosshair.classList.remove('down');
  }

  #start(px, py) {
    const points = this.#world(px, py);
    const draft = this.#draft = {
      peer: this.board.me, stroke: this.#next++, colour: this.colour, width: this.width,
      points: [...points], box: bounds(points), path: null, sent: 2, known: false, last: [px, py],
    };
    this.board.drafts.set(draft.stroke, draft);
    this.send({ type: 'begin', stroke: draft.stroke, colour: draft.colour, width: draft.width, points });
    this.view.refresh();
  }

  #add(px, py) {
    const d = this.#draft;
    if (!d) return;
    if (!this.board.drafts.has(d.stroke)) { // wiped, undone or refused
      this.#draft = null;
      this.#drawing = 0;
      return;
    }
    if (Math.hypot(px - d.last[0], py - d.last[1]) < least) return;
    d.last = [px, py];
    const point = this.#world(px, py);
    d.points.push(...point);
    grow(d.box, point);
    d.path = null;
    this.view.refresh();
    if (d.points.length >= 2 * perStroke) {
      const drawing = this.#drawing;
      this.finish();
      this.#start(px, py);
      this.#drawing = drawing;
      return;
    }
    // A timer and not an animation frame: those stop where nobody looks.
    this.#timer ||= setTimeout(() => this.#flush(), sendEvery);
  }

  #flush() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    const d = this.#draft;
    if (!d) return;
    while (d.sent < d.points.length) {
      const points = d.points.slice(d.sent, d.sent + 2 * perMessage);
      d.sent += points.length;
      this.send({ type: 'extend', stroke: d.stroke, points });
    }
  }

  #world(px, py) { return this.view.toWorld(px, py).map((v) => Math.max(-farthest, Math.min(farthest, v))); }

  #cursor(px, py) {
    const now = performance.now();
    if (now - this.#cursorSent < sendEvery) return;
    this.#cursorSent = now;
    const [x, y] = this.#world(px, py);
    this.send({ type: 'cursor', x, y });
  }

  #down(e) {
    this.#putAway();
    this.canvas.setPointerCapture(e.pointerId);
    this.#pointers.set(e.pointerId, [e.clientX, e.clientY]);
    if (e.pointerType === 'touch' && this.#pointers.size === 2) {
      // The first finger was not there to draw.
      const d = this.#draft;
      this.finish();
      if (d && d.points.length < 12) this.send({ type: 'undo' });
      this.#pinch = this.#spread();
      return;
    }
    if (e.button === 1 || this.#grab) {
      this.canvas.classList.add('panning');
      return;
    }
    if (e.button !== 0 || this.#pinch || this.#drawing || !this.live()) return;
    this.#start(e.clientX, e.clientY);
    this.#drawing = e.pointerId;
  }

  #move(e) {
    const before = this.#pointers.get(e.pointerId);
    if (before) this.#pointers.set(e.pointerId, [e.clientX, e.clientY]);
    if (this.#pinch) return this.#pinched();
    if (before && this.canvas.classList.contains('panning')) {
      return this.view.pan(e.clientX - before[0], e.clientY - before[1]);
    }
    if (e.pointerId === this.#drawing) {
      const between = e.getCoalescedEvents?.() ?? [];
      for (const c of between.length ? between : [e]) this.#add(c.clientX, c.clientY);
    }
    if (e.pointerType !== 'touch' || before) this.#cursor(e.clientX, e.clientY);
  }

  #up(e) {
    this.#pointers.delete(e.pointerId);
    if (this.#pointers.size < 2) this.#pinch = null;
    if (!this.#pointers.size) this.canvas.classList.remove('panning');
    if (e.pointerId === this.#drawing) this.finish();
    if (e.pointerType === 'touch') this.send({ type: 'away' });
  }

  #spread() {
    const [[ax, ay], [bx, by]] = [...this.#pointers.values()];
    return { x: (ax + bx) / 2, y: (ay + by) / 2, apart: Math.max(1, Math.hypot(ax - bx, ay - by)) };
  }

  #pinched() {
    const now = this.#spread();
    this.view.pan(now.x - this.#pinch.x, now.y - this.#pinch.y);
    this.view.zoom(now.x, now.y, now.apart / this.#pinch.apart);
    this.#pinch = now;
  }

  #wheel(e) {
    e.preventDefault();
    const unit = e.deltaMode === 1 ? 18 : 1;
    if (e.ctrlKey || e.metaKey) {
      this.view.zoom(e.clientX, e.clientY, Math.exp(-e.deltaY * unit * 0.008));
    } else {
      this.view.pan(-e.deltaX * unit, -e.deltaY * unit);
    }
  }

  #setGrab(on) {
    this.#grab = on;
    this.canvas.classList.toggle('pan', on);
  }

  // The keyboard draws once an arrow key has brought its pen out. Before that
  // the space bar is for moving the board.
  #key(e) {
    const step = e.shiftKey ? 2 : 12;
    const by = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[e.key];
    if (by) {
      e.preventDefault();
      const { clientWidth: w, clientHeight: h } = this.canvas;
      const [x, y] = this.#keys ?? [w / 2, h / 2];
      this.#keys = [Math.max(0, Math.min(w, x + by[0])), Math.max(0, Math.min(h, y + by[1]))];
      this.crosshair.hidden = false;
      this.crosshair.style.transform = `translate(${this.#keys[0]}px, ${this.#keys[1]}px)`;
      this.#add(...this.#keys);
      this.#cursor(...this.#keys);
    } else if (e.key === ' ' || e.key === 'Enter') {
      e.preventDefault();
      if (!this.#keys) return this.#setGrab(e.key === ' ');
      if (e.repeat || !this.live()) return;
      if (this.#draft) return this.finish();
      this.#start(...this.#keys);
      this.crosshair.classList.add('down');
    } else if (e.key === 'Escape') {
      this.#putAway();
    }
  }

  #putAway() {
    if (!this.#keys) return;
    this.finish();
    this.#keys = null;
    this.crosshair.hidden = true;
    this.send({ type: 'away' });
  }
}
