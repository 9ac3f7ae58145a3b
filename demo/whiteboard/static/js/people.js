// Who is there: the row of faces, and everyone's cursor on the board.

const faces = 5;
const arrow = '<svg viewBox="0 0 20 20"><path d="M3 2.5 17 9l-6.2 1.9L8 17z"/></svg>';

export class People {
  #cursors = new Map();

  constructor(board, view, list, layer) {
    Object.assign(this, { board, view, list, layer });
    view.moved = () => this.place(true);
  }

  // show makes the row of faces and the cursors what the board says.
  show() {
    const { peers, me } = this.board;
    const others = [...peers.values()].filter((p) => p.peer !== me);
    const row = [peers.get(me), ...others].filter(Boolean);
    const items = row.slice(0, row.length > faces ? faces - 1 : faces).map((p) => face(p, p.peer === me));
    if (row.length > items.length) items.push(rest(row.slice(items.length)));
    this.list.replaceChildren(...items);
    for (const [peer, cursor] of this.#cursors) {
      if (!peers.has(peer)) {
        cursor.remove();
        this.#cursors.delete(peer);
      }
    }
    for (const p of others) this.move(p.peer);
  }

  // move puts one person's cursor where the board has it, or hides it.
  move(peer, still) {
    const p = this.board.peers.get(peer);
    if (!p || peer === this.board.me) return;
    let cursor = this.#cursors.get(peer);
    if (!p.cursor) {
      cursor?.classList.add('gone');
      return;
    }
    if (!cursor) {
      cursor = document.createElement('div');
      cursor.className = 'cursor still gone';
      cursor.dataset.peer = peer;
      cursor.style.setProperty('--who', `var(--who-${p.colour})`);
      cursor.innerHTML = arrow;
      const name = document.createElement('span');
      name.textContent = p.name;
      cursor.append(name);
      this.#cursors.set(peer, cursor);
      this.layer.append(cursor);
    }
    // It glides to where it goes, but not from where it was long ago.
    cursor.classList.toggle('still', Boolean(still) || cursor.classList.contains('gone'));
    cursor.classList.remove('gone');
    const [x, y] = this.view.toScreen(...p.cursor);
    cursor.style.transform = `translate(${x - 3}px, ${y - 2}px)`;
  }

  place(still) {
    for (const peer of this.#cursors.keys()) this.move(peer, still);
  }
}

function face(p, mine) {
  const li = document.createElement('li');
  const words = p.name.split(' ');
  const first = (s) => [...(s ?? '')][0] ?? '';
  li.textContent = (first(words[0]) + first(words[1])).toUpperCase();
  li.title = p.name + (mine ? ' (you)' : '');
  li.setAttribute('aria-label', li.title);
  li.style.setProperty('--who', `var(--who-${p.colour})`);
  li.dataset.peer = p.peer;
  if (mine) li.className = 'me';
  return li;
}

function rest(people) {
  const li = document.createElement('li');
  li.className = 'more';
  li.textContent = '+' + people.length;
  li.title = people.map((p) => p.name).join(', ');
  li.setAttribute('aria-label', 'and ' + li.title);
  return li;
}
