package whiteboard

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDecodeSaysWhatIsWrong(t *testing.T) {
	for in, want := range map[string]string{
		``:                                   "message: EOF",
		`null`:                               `type: "" is none of ours`,
		`{"type":"hello"}`:                   `type: "hello" is none of ours`,
		`{"type":"undo"} 1`:                  "message: something follows it",
		`{"type":"undo","all":true}`:         `message: json: unknown field "all"`,
		`{"type":"cursor","x":1.5,"y":0}`:    "message: json: cannot unmarshal number 1.5 into Go struct field message.x of type int",
		`{"type":"cursor","x":200001,"y":0}`: "x: 200001 is not from -200000 to 200000",
		`{"type":"end"}`:                     "stroke: 0 is not from 1 to 2147483648",
		`{"type":"extend","stroke":1}`:       "points: there are none",
		`{"type":"extend","stroke":1,"points":[1,2,3]}`:                               "points: the last has no y",
		`{"type":"extend","stroke":1,"points":[1,-200001]}`:                           "points: -200001 is not from -200000 to 200000",
		`{"type":"begin","stroke":1,"points":[1,2],"colour":8,"width":0}`:             "colour: 8 is not from 0 to 7",
		`{"type":"begin","stroke":1,"points":[1,2],"colour":0,"width":-1}`:            "width: -1 is not from 0 to 2",
		`{"type":"extend","stroke":1,"points":[0` + strings.Repeat(",0", 2049) + `]}`: "points: 1025 are more than 1024",
		`{"type":"undo"}` + strings.Repeat(" ", maxMessage):                           "message: 65551 bytes are more than 65536",
	} {
		_, err := decode([]byte(in))
		require.EqualError(t, err, want, "%.60s", in)
	}
}

// FuzzDecode throws bytes at a board with little room: nothing may panic, what
// is decoded keeps within its bounds, and so does the board.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"type":"begin","stroke":1,"colour":3,"width":1,"points":[1,2]}`,
		`{"type":"extend","stroke":1,"points":[3,4,5,6]}`,
		`{"type":"end","stroke":1}`,
		`{"type":"cursor","x":-7,"y":9}`,
		`{"type":"away"}`, `{"type":"undo"}`, `{"type":"clear"}`, `{}`, `[`, `{"type":"begin","points":[1e9,2]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		h := newHub(limits{peers: 2, strokes: 3, points: 6, strokePoints: 4, open: 2, queue: 8})
		a, _, _, err := h.join("a", "")
		require.NoError(t, err)
		m, err := decode(data)
		if err != nil {
			require.Zero(t, m)
			return
		}
		require.NoError(t, m.check())
		for range 4 {
			_ = h.handle(a, m)
			m.Stroke++
		}
		points := 0
		for _, s := range h.strokes {
			points += len(s.points) / 2
		}
		require.Equal(t, points, h.points)
		require.LessOrEqual(t, len(h.strokes), 3)
		require.LessOrEqual(t, points, 6)
	})
}
