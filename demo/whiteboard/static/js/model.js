// The board as the hub tells it, and the strokes of this page that the hub has
// not finished telling back.

export const scale = 10; // units of the wire in one pixel at the first scale

export class Board {
  strokes = new Map(); // "peer-stroke" -> stroke, as the hub has it
  drafts = new Map();  // stroke number -> this page's own stroke, until the hub has all of it
  peers = new Map();
  me = 0;

  static key(peer, stroke) { return peer + '-' + stroke; }

  // reset takes the board over from a new connection.
  reset(hello) {
    this.strokes.clear();
    this.drafts.clear();
    this.me = hello.peer;
    this.peers = new Map(hello.peers.map((p) => [p.peer, p]));
  }

  put(s) {
    const stroke = { ...s, path: null, box: bounds(s.points) };
    this.strokes.set(Board.key(s.peer, s.stroke), stroke);
    return stroke;
  }

  extend(peer, number, points) {
    const s = this.strokes.get(Board.key(peer, number));
    if (!s) return null;
    for (const v of points) s.points.push(v);
    grow(s.box, points);
    s.path = null;
    return s;
  }

  // remove takes a stroke away, and the draft of it if the hub knew that one.
  // A draft that the hub has not heard of comes after the removal.
  remove(peer, number) {
    this.strokes.delete(Board.key(peer, number));
    if (peer === this.me) this.drafts.delete(number);
  }

  clear() {
    this.strokes.clear();
    for (const [number, draft] of this.drafts) {
      if (draft.known) this.drafts.delete(number);
    }
  }

  // settled gives the strokes that will not grow, in their one order.
  settled() {
    return [...this.strokes.values()]
      .filter((s) => !s.open && !this.#drafted(s))
      .sort((a, b) => a.seq - b.seq);
  }

  // moving gives those that are being drawn.
  moving() {
    return [...this.strokes.values()].filter((s) => s.open && !this.#drafted(s)).concat(...this.drafts.values());
  }

  #drafted(s) { return s.peer === this.me && this.drafts.has(s.stroke); }

  extent() {
    const all = emptyBox();
    for (const s of [...this.strokes.values(), ...this.drafts.values()]) {
      grow(all, [s.box.left, s.box.top, s.box.right, s.box.bottom]);
    }
    return all.left <= all.right ? all : null;
  }
}

function emptyBox() { return { left: Infinity, top: Infinity, right: -Infinity, bottom: -Infinity }; }

export function grow(box, points) {
  for (let i = 0; i < points.length; i += 2) {
    box.left = Math.min(box.left, points[i]);
    box.right = Math.max(box.right, points[i]);
    box.top = Math.min(box.top, points[i + 1]);
    box.bottom = Math.max(box.bottom, points[i + 1]);
  }
}

export function bounds(points) {
  const box = emptyBox();
  grow(box, points);
  return box;
}
