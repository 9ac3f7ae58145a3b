package whiteboard

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Coordinates are whole tenths of a CSS pixel at the page's first scale, from
// the middle of the board.
const (
	maxMessage    = 64 << 10 // bytes in one message from a browser
	maxCoordinate = 200_000
	maxBatch      = 1024 // points in one message
	colours       = 8    // in the page's palette
	widths        = 3
)

// The kinds of message that a browser sends.
const (
	kindBegin  = "begin"  // a stroke starts
	kindExtend = "extend" // it goes on
	kindEnd    = "end"    // the pen is lifted
	kindCursor = "cursor" // the pointer is here
	kindAway   = "away"   // the pointer has left the board
	kindUndo   = "undo"   // take back my last stroke
	kindClear  = "clear"  // wipe the board, for everyone
)

// message is what a browser sends. The browser numbers its strokes itself,
// upwards, so that it can draw them before the hub has heard of them.
type message struct {
	Type   string `json:"type"`
	Stroke int    `json:"stroke"`
	Colour int    `json:"colour"`
	Width  int    `json:"width"`
	Points []int  `json:"points"` // x, y, x, y, …
	X      int    `json:"x"`
	Y      int    `json:"y"`
}

// decode reads one message, and accepts nothing that a page of ours would not
// send. The error names the field.
func decode(data []byte) (message, error) {
	var m message
	if len(data) > maxMessage {
		return m, fmt.Errorf("message: %d bytes are more than %d", len(data), maxMessage)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return message{}, fmt.Errorf("message: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return message{}, errors.New("message: something follows it")
	}
	if err := m.check(); err != nil {
		return message{}, err
	}
	return m, nil
}

func (m message) check() error {
	switch m.Type {
	case kindBegin:
		return errors.Join(m.checkStroke(), m.checkPoints(),
			within("colour", m.Colour, 0, colours-1), within("width", m.Width, 0, widths-1))
	case kindExtend:
		return errors.Join(m.checkStroke(), m.checkPoints())
	case kindEnd:
		return m.checkStroke()
	case kindCursor:
		return errors.Join(within("x", m.X, -maxCoordinate, maxCoordinate),
			within("y", m.Y, -maxCoordinate, maxCoordinate))
	case kindAway, kindUndo, kindClear:
		return nil
	default:
		return fmt.Errorf("type: %.20q is none of ours", m.Type)
	}
}

func (m message) checkStroke() error {
	return within("stroke", m.Stroke, 1, 1<<31)
}

func (m message) checkPoints() error {
	switch n := len(m.Points); {
	case n == 0:
		return errors.New("points: there are none")
	case n%2 != 0:
		return errors.New("points: the last has no y")
	case n > 2*maxBatch:
		return fmt.Errorf("points: %d are more than %d", n/2, maxBatch)
	}
	for _, v := range m.Points {
		if err := within("points", v, -maxCoordinate, maxCoordinate); err != nil {
			return err
		}
	}
	return nil
}

func within(field string, v, least, most int) error {
	if v < least || v > most {
		return fmt.Errorf("%s: %d is not from %d to %d", field, v, least, most)
	}
	return nil
}

// What the hub sends. Every event carries its own type.
type (
	// hello is the first message on a socket. The board follows in strokes,
	// and then ready.
	hello struct {
		Type         string   `json:"type"`
		Peer         int      `json:"peer"`
		Key          string   `json:"key"`
		Backend      string   `json:"backend"`
		FencingToken string   `json:"fencing_token"`
		Peers        []person `json:"peers"`
	}
	person struct {
		Peer     int    `json:"peer"`
		Name     string `json:"name"`
		Colour   int    `json:"colour"` // index into the page's colours for people
		Verified bool   `json:"verified,omitempty"`
		Cursor   []int  `json:"cursor,omitempty"`
	}
	joined struct {
		Type string `json:"type"`
		person
	}
	strokeEvent struct {
		Type string `json:"type"`
		strokeView
	}
	strokesEvent struct {
		Type    string       `json:"type"`
		Strokes []strokeView `json:"strokes"`
	}
	// strokeView is a stroke as others see it. Peer and Stroke together name
	// it; Seq is its place in the one order of the board.
	strokeView struct {
		Peer   int   `json:"peer"`
		Stroke int   `json:"stroke"`
		Seq    int   `json:"seq"`
		Colour int   `json:"colour"`
		Width  int   `json:"width"`
		Points []int `json:"points"`
		Open   bool  `json:"open,omitempty"`
	}
	pointsEvent struct {
		Type   string `json:"type"`
		Peer   int    `json:"peer"`
		Stroke int    `json:"stroke"`
		Points []int  `json:"points"`
	}
	// aboutStroke is end, remove and full; about is leave, away, clear and
	// ready.
	aboutStroke struct {
		Type   string `json:"type"`
		Peer   int    `json:"peer"`
		Stroke int    `json:"stroke"`
	}
	about struct {
		Type string `json:"type"`
		Peer int    `json:"peer"`
	}
	cursorEvent struct {
		Type string `json:"type"`
		Peer int    `json:"peer"`
		X    int    `json:"x"`
		Y    int    `json:"y"`
	}
)

func encode(event any) []byte {
	data, err := json.Marshal(event)
	if err != nil {
		panic(err) // plain structs of numbers and strings
	}
	return data
}
