package route

import (
	"strings"

	"plane/system/name"
)

// Path is the target of a request, taken apart. The parts are kept as they came
// over the wire: nothing is unescaped, cleaned or joined anew.
type Path struct {
	Token    string // the first segment; empty for "/"
	Original string // the path as it came, without the query
	Rest     string // what the backend gets to see: begins with a slash
	Query    string // after the question mark
	HasQuery bool   // a question mark is there, even if nothing follows it
}

// ParsePath takes the target of a request line apart: /{token}/rest?query, or the
// same after http://host. It reports false for a target that has no path, such
// as * or host:port.
func ParsePath(target string) (Path, bool) {
	if i := strings.IndexByte(target, '#'); i >= 0 {
		target = target[:i] // no client may send a fragment; it is not part of the path
	}
	if !strings.HasPrefix(target, "/") {
		_, after, ok := strings.Cut(target, "://")
		if !ok || strings.ContainsAny(target[:len(target)-len(after)-len("://")], "/?") {
			return Path{}, false
		}
		i := strings.IndexAny(after, "/?")
		switch {
		case i < 0:
			target = "/"
		case after[i] == '?':
			target = "/" + after[i:]
		default:
			target = after[i:]
		}
	}
	var p Path
	p.Original, p.Query, p.HasQuery = strings.Cut(target, "?")
	token, rest, slash := strings.Cut(p.Original[1:], "/")
	p.Token, p.Rest = token, "/"+rest
	if strings.HasPrefix(token, name.StaticPrefix) {
		p.Rest = p.Original
		if !slash {
			p.Rest += "/"
		}
	}
	return p, true
}
