package postgres

import (
	"strings"

	"plane/system/port"
)

// channel is the notification channel that hints go over.
const channel = "plane"

// maxPayload is the size of a notification's payload; PostgreSQL refuses 8,000
// bytes and more.
const maxPayload = 7900

// resync stands for any hint.
var resync = port.Hint{Topic: port.ResyncTopic}

// pack writes hints as payloads: a line for each, its topic and its subject
// with a space between. One that fits in no payload is replaced by resync.
func pack(hints []port.Hint) []string {
	var payloads []string
	var b strings.Builder
	for _, h := range hints {
		if len(h.Topic)+len(h.Subject)+2 > maxPayload || strings.ContainsAny(h.Subject, "\n\x00") {
			h = resync
		}
		line := string(h.Topic) + " " + h.Subject + "\n"
		if b.Len()+len(line) > maxPayload {
			payloads = append(payloads, b.String())
			b.Reset()
		}
		b.WriteString(line)
	}
	if b.Len() > 0 {
		payloads = append(payloads, b.String())
	}
	return payloads
}

// unpack is the reverse of pack. What it does not understand counts as resync.
func unpack(payload string) []port.Hint {
	var hints []port.Hint
	for line := range strings.Lines(payload) {
		topic, subject, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if !ok || topic == "" {
			return []port.Hint{resync}
		}
		hints = append(hints, port.Hint{Topic: port.Topic(topic), Subject: subject})
	}
	return hints
}
