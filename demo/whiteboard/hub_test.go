package whiteboard

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// table plays the hub with people called by a letter and takes down what each
// is told.
type table struct {
	t     *testing.T
	hub   *hub
	peers map[string]*peer
}

func newTable(t *testing.T, l limits) *table {
	t.Helper()
	return &table{t: t, hub: newHub(l), peers: make(map[string]*peer)}
}

// sit takes a place for who, whose owner is the first letter of who, so that
// "a2" is a's second tab.
func (tb *table) sit(who string) []strokeView {
	tb.t.Helper()
	p, _, strokes, err := tb.hub.join(who[:1], strings.ToUpper(who))
	require.NoError(tb.t, err)
	tb.peers[who] = p
	return strokes
}

func (tb *table) say(who, text string) error {
	tb.t.Helper()
	m, err := decode([]byte(text))
	require.NoError(tb.t, err)
	return tb.hub.handle(tb.peers[who], m)
}

// heard gives what who was told since the last time, a line for each message.
func (tb *table) heard(who string) string {
	tb.t.Helper()
	var lines []string
	for {
		select {
		case data := <-tb.peers[who].out:
			var m struct {
				Type                      string
				Peer, Stroke, Seq, Colour int
				X, Y                      int
				Name                      string
				Points                    []int
			}
			require.NoError(tb.t, json.Unmarshal(data, &m))
			line := fmt.Sprintf("%s %d", m.Type, m.Peer)
			switch m.Type {
			case "join":
				line += " " + m.Name
			case "cursor":
				line += fmt.Sprintf(" %d,%d", m.X, m.Y)
			case "begin":
				line += fmt.Sprintf("-%d seq %d colour %d %v", m.Stroke, m.Seq, m.Colour, m.Points)
			case "extend":
				line += fmt.Sprintf("-%d %v", m.Stroke, m.Points)
			case "end", "remove", "full":
				line += fmt.Sprintf("-%d", m.Stroke)
			}
			lines = append(lines, line)
		default:
			return strings.Join(lines, "; ")
		}
	}
}

var roomy = limits{peers: 4, strokes: 10, points: 100, strokePoints: 20, open: 2, queue: 64}

func TestHub(t *testing.T) {
	type line struct{ who, text string }
	begin := func(n int) string {
		return fmt.Sprintf(`{"type":"begin","stroke":%d,"colour":3,"width":1,"points":[1,2]}`, n)
	}
	end := func(n int) string { return fmt.Sprintf(`{"type":"end","stroke":%d}`, n) }
	extend := func(n int) string { return fmt.Sprintf(`{"type":"extend","stroke":%d,"points":[3,4,5,6]}`, n) }

	for _, c := range []struct {
		name   string
		limits func(*limits)
		said   []line
		fails  string            // the last line's error
		heard  map[string]string // of a, b and a2, a's second tab
	}{
		{
			name: "a stroke goes to everyone, its author too",
			said: []line{{"a", begin(1)}, {"a", extend(1)}, {"a", end(1)}},
			heard: map[string]string{
				"a": "begin 1-1 seq 1 colour 3 [1 2]; extend 1-1 [3 4 5 6]; end 1-1",
				"b": "begin 1-1 seq 1 colour 3 [1 2]; extend 1-1 [3 4 5 6]; end 1-1",
			},
		},
		{
			name: "two at once have one order",
			said: []line{{"b", begin(1)}, {"a", begin(1)}, {"b", end(1)}, {"a", end(1)}},
			heard: map[string]string{
				"a": "begin 2-1 seq 1 colour 3 [1 2]; begin 1-1 seq 2 colour 3 [1 2]; end 2-1; end 1-1",
				"b": "begin 2-1 seq 1 colour 3 [1 2]; begin 1-1 seq 2 colour 3 [1 2]; end 2-1; end 1-1",
			},
		},
		{
			name:  "a cursor goes to the others only",
			said:  []line{{"a", `{"type":"cursor","x":-7,"y":9}`}, {"a", `{"type":"away"}`}},
			heard: map[string]string{"a": "", "b": "cursor 1 -7,9; away 1"},
		},
		{
			name: "undo takes one's own, the newest first, whichever tab drew it",
			said: []line{
				{"a", begin(1)}, {"a", end(1)}, {"a2", begin(1)}, {"a2", end(1)}, {"b", begin(1)}, {"b", end(1)},
				{"a", `{"type":"undo"}`}, {"a", `{"type":"undo"}`}, {"a", `{"type":"undo"}`},
			},
			heard: map[string]string{"b": "begin 1-1 seq 1 colour 3 [1 2]; end 1-1; begin 3-1 seq 2 colour 3 [1 2]; " +
				"end 3-1; begin 2-1 seq 3 colour 3 [1 2]; end 2-1; remove 3-1; remove 1-1"},
		},
		{
			name:  "clear wipes what is being drawn as well, and its rest is ignored",
			said:  []line{{"a", begin(1)}, {"b", `{"type":"clear"}`}, {"a", extend(1)}, {"a", end(1)}},
			heard: map[string]string{"a": "begin 1-1 seq 1 colour 3 [1 2]; clear 2"},
		},
		{
			name:  "a stroke undone while it is drawn is gone",
			said:  []line{{"a", begin(1)}, {"a2", `{"type":"undo"}`}, {"a", extend(1)}, {"a", end(1)}},
			heard: map[string]string{"b": "begin 1-1 seq 1 colour 3 [1 2]; remove 1-1"},
		},
		{
			name:   "a full board says so to the author",
			limits: func(l *limits) { l.strokes = 1 },
			said:   []line{{"a", begin(1)}, {"a", end(1)}, {"a", begin(2)}, {"a", extend(2)}, {"a", end(2)}},
			heard: map[string]string{
				"a": "begin 1-1 seq 1 colour 3 [1 2]; end 1-1; full 1-2",
				"b": "begin 1-1 seq 1 colour 3 [1 2]; end 1-1",
			},
		},
		{
			name:   "a board that fills in the middle of a stroke ends it there",
			limits: func(l *limits) { l.points = 4 },
			said:   []line{{"a", begin(1)}, {"a", extend(1)}, {"a", extend(1)}, {"a", end(1)}},
			heard: map[string]string{
				"a": "begin 1-1 seq 1 colour 3 [1 2]; extend 1-1 [3 4 5 6]; full 1-1; end 1-1",
				"b": "begin 1-1 seq 1 colour 3 [1 2]; extend 1-1 [3 4 5 6]; end 1-1",
			},
		},
		{
			name:   "clear makes room",
			limits: func(l *limits) { l.strokes = 1 },
			said:   []line{{"a", begin(1)}, {"a", `{"type":"clear"}`}, {"b", begin(1)}},
			heard:  map[string]string{"a": "begin 1-1 seq 1 colour 3 [1 2]; clear 1; begin 2-1 seq 2 colour 3 [1 2]"},
		},
		{
			name:  "a stroke's number is used once",
			said:  []line{{"a", begin(2)}, {"a", end(2)}, {"a", begin(2)}},
			fails: "stroke: 2 is not above 2",
		},
		{
			name:  "nobody draws with more pens than there are fingers",
			said:  []line{{"a", begin(1)}, {"a", begin(2)}, {"a", begin(3)}},
			fails: "stroke: 2 are open already",
		},
		{
			name:   "a stroke has a greatest length",
			limits: func(l *limits) { l.strokePoints = 4 },
			said:   []line{{"a", begin(1)}, {"a", extend(1)}, {"a", extend(1)}},
			fails:  "points: a stroke has no more than 4",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := roomy
			if c.limits != nil {
				c.limits(&l)
			}
			tb := newTable(t, l)
			for _, who := range []string{"a", "b", "a2"} {
				tb.sit(who)
			}
			for who := range tb.peers {
				tb.heard(who)
			}
			for i, said := range c.said {
				err := tb.say(said.who, said.text)
				if c.fails != "" && i == len(c.said)-1 {
					require.EqualError(t, err, c.fails)
					continue
				}
				require.NoError(t, err)
			}
			for who, want := range c.heard {
				require.Equal(t, want, tb.heard(who), "what %s heard", who)
			}
		})
	}
}

func TestHubLateJoinerGetsTheBoardAndThenTheRest(t *testing.T) {
	tb := newTable(t, roomy)
	tb.sit("a")
	require.NoError(t, tb.say("a", `{"type":"begin","stroke":1,"colour":0,"width":0,"points":[1,2]}`))
	require.NoError(t, tb.say("a", `{"type":"extend","stroke":1,"points":[3,4]}`))
	got := tb.sit("b")
	require.NoError(t, tb.say("a", `{"type":"extend","stroke":1,"points":[5,6]}`))
	require.Equal(t, []strokeView{{Peer: 1, Stroke: 1, Seq: 1, Points: []int{1, 2, 3, 4}, Open: true}}, got)
	require.Equal(t, "extend 1-1 [5 6]", tb.heard("b"))
}

func TestHubLeavingEndsStrokesButKeepsThem(t *testing.T) {
	tb := newTable(t, roomy)
	tb.sit("a")
	tb.sit("b")
	require.NoError(t, tb.say("a", `{"type":"begin","stroke":1,"colour":0,"width":0,"points":[1,2]}`))
	tb.hub.leave(tb.peers["a"])
	tb.hub.leave(tb.peers["a"])
	require.Equal(t, "begin 1-1 seq 1 colour 0 [1 2]; end 1-1; leave 1", tb.heard("b"))
	require.ErrorIs(t, tb.say("a", `{"type":"undo"}`), errClosed)
	got := tb.sit("c")
	require.Len(t, got, 1)
	require.False(t, got[0].Open)
}

func TestHubDropsWhoFallsBehindAndNobodyElse(t *testing.T) {
	l := roomy
	l.queue = 4
	tb := newTable(t, l)
	tb.sit("a")
	tb.sit("b")
	tb.sit("c")
	for i := range 5 { // c reads nothing
		require.NoError(t, tb.say("a", fmt.Sprintf(`{"type":"begin","stroke":%d,"colour":0,"width":0,"points":[1,2]}`, i+1)))
		require.NoError(t, tb.say("a", fmt.Sprintf(`{"type":"end","stroke":%d}`, i+1)))
		tb.heard("a")
		if i < 4 {
			require.NotEmpty(t, tb.heard("b"))
		}
	}
	<-tb.peers["c"].gone
	require.Equal(t, errBehind, tb.peers["c"].why)
	for _, who := range []string{"a", "b"} {
		require.Same(t, tb.peers[who], tb.hub.peers[tb.peers[who].Peer])
	}
	require.Equal(t, "begin 1-5 seq 5 colour 0 [1 2]; end 1-5", tb.heard("b"))
}

func TestHubSkipsCursorsForWhoIsBehind(t *testing.T) {
	l := roomy
	l.queue = 8
	tb := newTable(t, l)
	tb.sit("a")
	tb.sit("b")
	for range 100 {
		require.NoError(t, tb.say("a", `{"type":"cursor","x":1,"y":1}`))
	}
	require.Len(t, strings.Split(tb.heard("b"), "; "), 4)
}

func TestHubTurnsPeopleAway(t *testing.T) {
	l := roomy
	l.peers = 1
	tb := newTable(t, l)
	tb.sit("a")
	_, _, _, err := tb.hub.join("b", "")
	require.ErrorIs(t, err, errCrowded)
	tb.hub.close()
	<-tb.peers["a"].gone
	require.Equal(t, errClosed, tb.peers["a"].why)
	_, _, _, err = tb.hub.join("b", "")
	require.ErrorIs(t, err, errClosed)
}

func TestHubGivesEveryoneTheirOwnNameAndColour(t *testing.T) {
	l := roomy
	l.peers = peopleColours
	h := newHub(l)
	names, colours := make(map[string]bool), make(map[int]bool)
	for i := range peopleColours {
		p, people, _, err := h.join(fmt.Sprintf("owner %d", i), "")
		require.NoError(t, err)
		require.Len(t, people, i+1)
		require.False(t, p.Verified)
		names[p.Name], colours[p.Colour] = true, true
	}
	require.Len(t, names, peopleColours)
	require.Len(t, colours, peopleColours)
}

func TestCleanName(t *testing.T) {
	for in, want := range map[string]string{
		"":                       "",
		"ann@example.com":        "ann@example.com",
		"  Ann \t\n Lee ":        "Ann Lee",
		"a\x00\u202eb\xff":       "ab",
		strings.Repeat("é", 40):  strings.Repeat("é", 31) + "…",
		"\u200b\u200d\x1b":       "",
		"<b>Ann</b> & the boys ": "<b>Ann</b> & the boys",
	} {
		require.Equal(t, want, cleanName(in), "%q", in)
	}
}
