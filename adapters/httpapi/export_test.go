package httpapi

import (
	"net/http"

	"github.com/gorilla/mux"
)

// DecodeConnect is for fuzzing.
var DecodeConnect = decodeConnect

// Routes lists "METHOD /path" of every route.
func Routes() ([]string, error) {
	var all []string
	err := (&server{}).routes().Walk(func(r *mux.Route, _ *mux.Router, _ []*mux.Route) error {
		path, err := r.GetPathTemplate()
		if err != nil {
			return err
		}
		methods, err := r.GetMethods()
		if err != nil {
			return err
		}
		for _, m := range methods {
			if m != http.MethodHead {
				all = append(all, m+" "+path)
			}
		}
		return nil
	})
	return all, err
}
