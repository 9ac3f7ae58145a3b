// The connection to the hub. It comes back by itself, until the link's board
// has ended.

const firstWait = 400, growth = 1.7, mostWait = 8000;

export class Link {
  #socket = null;
  #wait = firstWait;
  #timer = 0;
  #over = false;

  // on: { message(m), state(name, why) }, with the states connecting, live,
  // reconnecting and ended.
  constructor(on) {
    this.on = on;
    addEventListener('online', () => this.#now());
    document.addEventListener('visibilitychange', () => { if (!document.hidden) this.#now(); });
  }

  open() {
    const url = new URL('ws', location.href); // beside this page, wherever that is
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
    url.search = '?me=' + me();
    url.hash = '';
    const socket = this.#socket = new WebSocket(url);
    let ready = false;
    socket.onmessage = (e) => {
      const m = JSON.parse(e.data);
      this.on.message(m);
      if (m.type === 'ready') {
        ready = true;
        this.#wait = firstWait;
        this.on.state('live');
      }
    };
    socket.onclose = async (e) => {
      if (this.#socket !== socket || this.#over) return;
      this.#socket = null;
      if (e.code === 1013) { // try again later
        this.on.state('reconnecting', 'The board has as many people as it takes. Waiting for a place …');
      } else {
        this.on.state('reconnecting', ready ? 'Connection lost. Reconnecting …' : 'Reconnecting …');
      }
      if (await ended()) return this.#end();
      this.#wait = Math.min(mostWait, this.#wait * growth);
      this.#timer = setTimeout(() => this.#again(), this.#wait * (0.7 + 0.6 * Math.random()));
    };
  }

  send(m) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(m));
  }

  #again() {
    this.#timer = 0;
    if (!this.#socket && !this.#over) this.open();
  }

  #now() {
    if (!this.#timer) return;
    clearTimeout(this.#timer);
    this.#again();
  }

  #end() {
    this.#over = true;
    this.on.state('ended');
  }
}

// ended asks whether the link still leads anywhere: the proxy answers 410 when
// its backend has gone, or its token has been revoked.
async function ended() {
  try {
    const answer = await fetch('.', { method: 'HEAD', cache: 'no-store', signal: AbortSignal.timeout?.(5000) });
    return answer.status === 410;
  } catch {
    return false; // no network: nothing is known
  }
}

// me stays the same while the tab is open, so that its strokes are still its
// own after it has come back. Nobody else is told.
function me() {
  const name = 'whiteboard-me';
  try {
    const known = sessionStorage.getItem(name);
    if (known) return known;
  } catch { /* no storage: a new one each time will do */ }
  const made = [...crypto.getRandomValues(new Uint8Array(12))].map((b) => b.toString(16).padStart(2, '0')).join('');
  try { sessionStorage.setItem(name, made); } catch { /* as above */ }
  return made;
}
