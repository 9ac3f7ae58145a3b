// Puts the page together: the hub's messages change the board, the board is
// shown, and the tools send to the hub.

import { Board } from './model.js';
import { View } from './view.js';
import { Link } from './link.js';
import { Pen } from './pen.js';
import { People } from './people.js';

const colours = ['Ink', 'Indigo', 'Blue', 'Green', 'Yellow', 'Orange', 'Red', 'Violet'];
const widths = ['Fine', 'Medium', 'Broad'];

const $ = (id) => document.getElementById(id);
const { dataset } = document.body;

const board = new Board();
const view = new View(board, $('stage'), $('board'), $('live'));
const people = new People(board, view, $('people'), $('cursors'));
const link = new Link({ message, state });
const live = () => dataset.state === 'live';
const pen = new Pen($('board'), $('cursors'), { board, view, live, send: (m) => link.send(m) });
let fitted = false;

// The hub's messages.

const take = {
  hello(m) {
    board.reset(m);
    pen.reset();
    for (const [name, value] of [['key', m.key], ['backend', m.backend], ['token', m.fencing_token]]) {
      $('fact-' + name).textContent = value || '–';
    }
    $('key').textContent = m.key || 'whiteboard';
    dataset.backend = m.backend;
    dataset.fencingToken = m.fencing_token;
    people.show();
    view.redraw();
  },
  strokes(m) {
    for (const s of m.strokes) board.put(s);
  },
  ready() {
    if (!fitted && board.strokes.size) view.fit();
    fitted = true;
    view.redraw();
  },
  join(m) {
    board.peers.set(m.peer, m);
    people.show();
    toast(m.name + ' is here');
  },
  leave(m) {
    const gone = board.peers.get(m.peer);
    board.peers.delete(m.peer);
    people.show();
    if (gone) toast(gone.name + ' has left');
  },
  begin(m) {
    board.put({ ...m, open: true });
    const draft = m.peer === board.me && board.drafts.get(m.stroke);
    if (draft) draft.known = true;
    view.refresh();
  },
  extend(m) {
    if (board.extend(m.peer, m.stroke, m.points)) view.refresh();
  },
  end(m) {
    const s = board.strokes.get(Board.key(m.peer, m.stroke));
    if (m.peer === board.me) board.drafts.delete(m.stroke);
    if (!s) return;
    s.open = false;
    view.settle(s);
  },
  remove(m) {
    board.remove(m.peer, m.stroke);
    view.redraw();
  },
  clear(m) {
    board.clear();
    view.redraw();
    toast(m.peer === board.me ? 'You cleared the board' : (board.peers.get(m.peer)?.name ?? 'Someone') + ' cleared the board');
  },
  full(m) {
    board.drafts.delete(m.stroke);
    view.redraw();
    toast('The board is full. Clear it to go on.');
  },
  cursor(m) { setCursor(m.peer, [m.x, m.y]); },
  away(m) { setCursor(m.peer, null); },
};

function setCursor(peer, at) {
  const p = board.peers.get(peer);
  if (!p) return;
  p.cursor = at;
  people.move(peer);
}

function message(m) {
  take[m.type]?.(m); // a newer hub may say more
  dataset.strokes = board.strokes.size;
  dataset.peers = board.peers.size;
  dataset.me = board.me;
}

// What the page says.

function state(name, why) {
  dataset.state = name;
  $('state').textContent = name;
  $('notice').hidden = name !== 'reconnecting';
  $('notice').textContent = why ?? '';
  if (name === 'reconnecting') {
    board.drafts.clear();
    pen.reset();
    view.refresh();
    // What was there stays to be looked at, the people do not.
    for (const p of board.peers.values()) p.cursor = null;
    people.place();
  }
  if (name === 'ended' && !$('ended').open) $('ended').showModal();
}

let toasting = 0;
function toast(text) {
  $('toast').textContent = text;
  $('toast').classList.add('shown');
  clearTimeout(toasting);
  toasting = setTimeout(() => $('toast').classList.remove('shown'), 2600);
}

// The tools.

function choices(field, name, labels, chosen, look, pick) {
  labels.forEach((label, i) => {
    const l = document.createElement('label');
    const input = Object.assign(document.createElement('input'), { type: 'radio', name, value: i, checked: i === chosen });
    const span = document.createElement('span');
    l.title = label;
    input.setAttribute('aria-label', label);
    look(span, i);
    input.addEventListener('change', () => pick(i));
    l.append(input, span);
    field.append(l);
  });
}

function pickColour(i) {
  pen.colour = i;
  $('widths').style.setProperty('--ink', `var(--ink-${i})`);
}

choices($('colours'), 'colour', colours, 1, (span, i) => span.style.setProperty('--ink', `var(--ink-${i})`), pickColour);
choices($('widths'), 'width', widths, 1, (span, i) => {
  span.style.width = span.style.height = Math.min(18, view.penWidth(i) + 2) + 'px';
}, (i) => { pen.width = i; });
pickColour(1);

function undo() {
  pen.finish();
  link.send({ type: 'undo' });
}

let doubt = 0;
function sure(yes) {
  clearTimeout(doubt);
  $('clear').classList.toggle('sure', yes);
  $('clear').setAttribute('aria-label', yes ? 'Clear the board for everyone: press again to do it' : 'Clear the board for everyone');
  if (yes) doubt = setTimeout(() => sure(false), 4000);
}

$('tools').addEventListener('submit', (e) => e.preventDefault());
$('undo').addEventListener('click', undo);
$('fit').addEventListener('click', () => view.fit());
$('clear').addEventListener('click', () => {
  const was = $('clear').classList.contains('sure');
  sure(!was);
  if (!was) return;
  pen.finish();
  link.send({ type: 'clear' });
});
$('reopen').addEventListener('click', () => location.reload());
$('ended').addEventListener('cancel', (e) => e.preventDefault());

$('share').addEventListener('click', async () => {
  try {
    await navigator.clipboard.writeText(location.href);
    toast('Link copied: whoever has it can draw here');
  } catch {
    prompt('The link of this board', location.href); // no clipboard over plain HTTP
  }
});

addEventListener('keydown', (e) => {
  if (!live()) return;
  if ((e.ctrlKey || e.metaKey) && !e.shiftKey && e.key.toLowerCase() === 'z') {
    e.preventDefault();
    undo();
  } else if (!e.ctrlKey && !e.metaKey && !e.altKey && e.key === '0') {
    view.fit();
  }
});

matchMedia('(min-width: 900px)').matches && $('facts').setAttribute('open', '');
link.open();
