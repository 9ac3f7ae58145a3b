package apiclient

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
)

// events reads server-sent events and calls each with the data of every one.
func events(r io.Reader, each func(data []byte) error) error {
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
		if field, value, _ := bytes.Cut(line, []byte(":")); string(field) == "data" {
			data = append(data, bytes.Clone(bytes.TrimPrefix(value, []byte(" "))))
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("status stream was cut: %w", err)
	}
	return nil
}
