package whiteboard

import (
	"hash/fnv"
	"strings"
	"unicode"
)

const (
	peopleColours = 10
	maxName       = 32 // characters
)

var (
	adjectives = [...]string{
		"Amber", "Brave", "Calm", "Clever", "Cosy", "Curious", "Daring", "Gentle",
		"Happy", "Jolly", "Kind", "Lively", "Lucky", "Mellow", "Merry", "Nimble",
		"Patient", "Playful", "Quick", "Quiet", "Sunny", "Swift", "Warm", "Witty",
	}
	animals = [...]string{
		"Badger", "Beaver", "Crane", "Dolphin", "Falcon", "Finch", "Fox", "Gecko",
		"Hare", "Heron", "Ibex", "Jay", "Koala", "Lark", "Lynx", "Marten",
		"Newt", "Ocelot", "Otter", "Owl", "Panda", "Puffin", "Raven", "Robin",
		"Seal", "Sparrow", "Stork", "Swan", "Tapir", "Turtle", "Wren", "Yak",
	}
)

func number(owner string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(owner))
	return int(h.Sum32() >> 1)
}

// friendlyName makes the same name of the same number each time.
func friendlyName(n int) string {
	return adjectives[n%len(adjectives)] + " " + animals[n/len(adjectives)%len(animals)]
}

// freeName is the owner's name, or the next that nobody here has.
func (h *hub) freeName(owner string) string {
	taken := make(map[string]bool, len(h.peers))
	for _, p := range h.peers {
		taken[p.Name] = p.owner != owner
	}
	n := number(owner)
	for taken[friendlyName(n)] {
		n += len(adjectives) + 1
	}
	return friendlyName(n)
}

// freeColour is the owner's colour, or the next that nobody here has, or the
// owner's after all.
func (h *hub) freeColour(owner string) int {
	taken := make(map[int]bool, len(h.peers))
	for _, p := range h.peers {
		if p.owner != owner {
			taken[p.Colour] = true
		}
	}
	first := number(owner) % peopleColours
	for i := range peopleColours {
		if c := (first + i) % peopleColours; !taken[c] {
			return c
		}
	}
	return first
}

// cleanName makes a verified user's name fit to be shown to others. It is ""
// where nothing is left of it.
func cleanName(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > maxName {
		s = string(r[:maxName-1]) + "…"
	}
	return s
}
