package apiclient

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
)

// events reads server-sent events and calls each with the data of every one,
// and idle, unless it is nil, for each comment.
func events(r io.Reader, each func(data []byte) error, idle func() error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	var data [][]byte
	for lines.Scan() {
		line := bytes.TrimSuffix(lines.Bytes(), []byte("\r"))
		if len(line) == 0 {
			if data != nil {
				if err := each(bytes.Join(data, []byte("\n"))); err != nil {
					return err
				}
			}
			data = nil
			continue
		}
		switch field, value, _ := bytes.Cut(line, []byte(":")); {
		case string(field) == "data":
			data = append(data, bytes.Clone(bytes.TrimPrefix(value, []byte(" "))))
		case len(field) == 0 && idle != nil:
			if err := idle(); err != nil {
				return err
			}
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("the stream was cut: %w", err)
	}
	return nil
}
