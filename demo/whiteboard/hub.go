package whiteboard

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
)

// limits bound what one board takes. defaultLimits keep its drawing under some
// 20 MB.
type limits struct {
	peers        int
	strokes      int
	points       int // of all strokes
	strokePoints int // of one
	open         int // strokes that one browser draws at once
	queue        int // messages that wait for one browser
}

var defaultLimits = limits{
	peers: 64, strokes: 5000, points: 400_000, strokePoints: 4096, open: 10, queue: 512,
}

var (
	errCrowded = errors.New("the board has as many people as it takes")
	errClosed  = errors.New("the board has ended")
	errBehind  = errors.New("the browser does not keep up")
)

// stroke only ever grows: the points that a reader of view has seen are never
// written again, so they can be encoded without the hub's lock.
type stroke struct {
	peer, number, seq int
	owner             string
	colour, width     int
	points            []int
	open              bool
}

func (s *stroke) view() strokeView {
	return strokeView{
		Peer: s.peer, Stroke: s.number, Seq: s.seq, Colour: s.colour, Width: s.width,
		Points: s.points[:len(s.points):len(s.points)], Open: s.open,
	}
}

// peer is one open browser tab. Its owner is the same after it has come back,
// its number is not. What the hub has for it waits in out; when gone closes,
// the hub has let go of it, because of why.
type peer struct {
	person

	owner string
	out   chan []byte
	gone  chan struct{}
	why   error

	last   int // number of its newest stroke
	open   map[int]*stroke
	behind bool // its queue was full
}

// hub keeps the board and puts what everyone does to it into one order. It has
// no goroutine and never waits: what cannot be queued for a peer ends that
// peer. Its methods may be called at once.
type hub struct {
	limits limits

	mu       sync.Mutex
	peers    map[int]*peer
	strokes  []*stroke // by seq
	points   int
	nextPeer int
	nextSeq  int
	closed   bool
}

func newHub(l limits) *hub {
	return &hub{limits: l, peers: make(map[int]*peer)}
}

// join adds a browser and gives the people and the strokes as of that moment:
// everything later comes through the peer's queue, so nothing is lost between
// the two and nothing comes twice.
func (h *hub) join(owner, name string) (*peer, []person, []strokeView, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer h.reap()
	if h.closed {
		return nil, nil, nil, errClosed
	}
	if len(h.peers) >= h.limits.peers {
		return nil, nil, nil, errCrowded
	}
	h.nextPeer++
	p := &peer{
		person: person{Peer: h.nextPeer, Name: name, Verified: name != "", Colour: h.freeColour(owner)},
		owner:  owner,
		out:    make(chan []byte, h.limits.queue),
		gone:   make(chan struct{}),
		open:   make(map[int]*stroke),
	}
	if name == "" {
		p.Name = h.freeName(owner)
	}
	h.tell(joined{Type: "join", person: p.person})
	h.peers[p.Peer] = p

	people := make([]person, 0, len(h.peers))
	for _, other := range h.everyone() {
		people = append(people, other.person)
	}
	views := make([]strokeView, len(h.strokes))
	for i, s := range h.strokes {
		views[i] = s.view()
	}
	return p, people, views, nil
}

// leave takes a browser off the board, and leaves what it has drawn. Calling
// it again is harmless.
func (h *hub) leave(p *peer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drop(p, nil)
	h.reap()
}

// close ends the board for everyone.
func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for _, p := range h.everyone() {
		h.drop(p, errClosed)
	}
}

// handle does what p asks for. An error means that p is not a page of ours.
func (h *hub) handle(p *peer, m message) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer h.reap()
	if h.peers[p.Peer] != p {
		return errClosed
	}
	switch m.Type {
	case kindBegin:
		return h.begin(p, m)
	case kindExtend:
		return h.extend(p, m)
	case kindEnd:
		h.end(p, m.Stroke)
	case kindCursor:
		p.Cursor = []int{m.X, m.Y}
		h.hint(p, cursorEvent{Type: kindCursor, Peer: p.Peer, X: m.X, Y: m.Y})
	case kindAway:
		p.Cursor = nil
		h.tellOthers(p, about{Type: kindAway, Peer: p.Peer})
	case kindUndo:
		h.undo(p)
	case kindClear:
		h.clear(p)
	default:
		return fmt.Errorf("type: %.20q is none of ours", m.Type)
	}
	return nil
}

func (h *hub) begin(p *peer, m message) error {
	if m.Stroke <= p.last {
		return fmt.Errorf("stroke: %d is not above %d", m.Stroke, p.last)
	}
	if len(p.open) >= h.limits.open {
		return fmt.Errorf("stroke: %d are open already", len(p.open))
	}
	p.last = m.Stroke
	if len(h.strokes) >= h.limits.strokes || h.points+len(m.Points)/2 > h.limits.points {
		h.send(p, encode(aboutStroke{Type: "full", Peer: p.Peer, Stroke: m.Stroke}))
		return nil
	}
	h.nextSeq++
	s := &stroke{
		peer: p.Peer, number: m.Stroke, seq: h.nextSeq, owner: p.owner,
		colour: m.Colour, width: m.Width, points: slices.Clone(m.Points), open: true,
	}
	h.strokes = append(h.strokes, s)
	h.points += len(s.points) / 2
	p.open[s.number] = s
	h.tell(strokeEvent{Type: kindBegin, strokeView: s.view()})
	return nil
}

func (h *hub) extend(p *peer, m message) error {
	s := p.open[m.Stroke]
	if s == nil {
		return nil // refused, undone or wiped while this was on its way
	}
	if (len(s.points)+len(m.Points))/2 > h.limits.strokePoints {
		return fmt.Errorf("points: a stroke has no more than %d", h.limits.strokePoints)
	}
	if h.points+len(m.Points)/2 > h.limits.points {
		h.send(p, encode(aboutStroke{Type: "full", Peer: p.Peer, Stroke: m.Stroke}))
		h.end(p, m.Stroke)
		return nil
	}
	s.points = append(s.points, m.Points...)
	h.points += len(m.Points) / 2
	h.tell(pointsEvent{Type: kindExtend, Peer: p.Peer, Stroke: s.number, Points: m.Points})
	return nil
}

func (h *hub) end(p *peer, number int) {
	s := p.open[number]
	if s == nil {
		return
	}
	s.open = false
	delete(p.open, number)
	h.tell(aboutStroke{Type: kindEnd, Peer: p.Peer, Stroke: number})
}

func (h *hub) undo(p *peer) {
	for i := len(h.strokes) - 1; i >= 0; i-- {
		s := h.strokes[i]
		if s.owner != p.owner {
			continue
		}
		h.strokes = slices.Delete(h.strokes, i, i+1)
		h.points -= len(s.points) / 2
		if drawing := h.peers[s.peer]; drawing != nil {
			delete(drawing.open, s.number)
		}
		h.tell(aboutStroke{Type: "remove", Peer: s.peer, Stroke: s.number})
		return
	}
}

func (h *hub) clear(p *peer) {
	h.strokes, h.points = nil, 0
	for _, other := range h.peers {
		clear(other.open)
	}
	h.tell(about{Type: kindClear, Peer: p.Peer})
}

// tell queues an event for everyone, its author included: the author's page
// takes the order of things from what comes back.
func (h *hub) tell(event any) { h.tellOthers(nil, event) }

func (h *hub) tellOthers(author *peer, event any) {
	data := encode(event)
	for _, p := range h.peers {
		if p != author {
			h.send(p, data)
		}
	}
}

// hint is tellOthers for what the next of its kind replaces. It is left out
// for those who are behind.
func (h *hub) hint(author *peer, event any) {
	data := encode(event)
	for _, p := range h.peers {
		if p != author && len(p.out) < cap(p.out)/2 {
			h.send(p, data)
		}
	}
}

func (h *hub) send(p *peer, data []byte) {
	select {
	case p.out <- data:
	default:
		p.behind = true
	}
}

// reap lets go of those who have fallen behind, at the end of every operation:
// never in the middle of one, where the others would hear of it before what
// led to it. Telling them can leave more behind.
func (h *hub) reap() {
	for {
		late := slices.DeleteFunc(h.everyone(), func(p *peer) bool { return !p.behind })
		if len(late) == 0 {
			return
		}
		for _, p := range late {
			h.drop(p, errBehind)
		}
	}
}

func (h *hub) drop(p *peer, why error) {
	if h.peers[p.Peer] != p {
		return
	}
	delete(h.peers, p.Peer)
	p.why = why
	close(p.gone)
	for _, number := range slices.Sorted(maps.Keys(p.open)) {
		h.end(p, number)
	}
	h.tell(about{Type: "leave", Peer: p.Peer})
}

// everyone is who is on the board, those who came first first.
func (h *hub) everyone() []*peer {
	return slices.SortedFunc(maps.Values(h.peers), func(a, b *peer) int { return a.Peer - b.Peer })
}
